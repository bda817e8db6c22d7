# quern - `make help` lists the targets.

CC       ?= cc
AR       ?= ar
ifeq ($(origin CC),default)
CC       := cc
endif
BUILD    ?= build
PREFIX   ?= /usr/local
DESTDIR  ?=
WERROR   ?= -Werror
CFLAGS   ?= -O3 -g
LDFLAGS  ?=

# As many jobs as there are cores, unless the user says otherwise; a make under this one shares its jobs.
ifeq ($(filter -j%,$(MAKEFLAGS))$(filter-out 0,$(MAKELEVEL)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

TARGET   := $(shell $(CC) -dumpmachine)
ifneq ($(filter x86_64% amd64% i386% i486% i586% i686%,$(TARGET)),)
ISA      := x86
else ifneq ($(filter aarch64% arm64%,$(TARGET)),)
ISA      := arm
else
ISA      := none
endif

BASE     := -std=c11 -D_GNU_SOURCE -Iinclude -Ikernels -Isrc -pthread -MMD -MP -ffp-contract=off -fno-math-errno \
            -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wwrite-strings $(WERROR)
ifeq ($(ISA),none)
BASE     += -DQUERN_REFERENCE_ONLY
endif
LIBS     := -lm -pthread
# make BLAS=1: OpenBLAS under the matrix products of error feedback. The last bits differ from those of a build without.
TOOLLIBS := $(if $(filter-out 0,$(BLAS)),-lopenblas)
TOOLDEFS := $(if $(filter-out 0,$(BLAS)),-DQUERN_BLAS)

# A file's suffix says which instructions it may use.
X86_avx2       := -mavx2 -mfma -mf16c -mbmi2
# The two instructions of AVX-VNNI are assembly (dots_avxvnni.h). CFLAGS with -DAVXVNNI_EVEX: in the form of AVX-512.
X86_avxvnni    := $(X86_avx2)
X86_avx512     := $(X86_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
X86_avx512bf16 := $(X86_avx512) -mavx512bf16
X86_avx512vbmi := $(X86_avx512) -mavx512vbmi -mgfni
X86_amx        := $(X86_avx512) -mavx512bf16 -mavx512vbmi -mgfni -mamx-tile -mamx-int8 -mamx-bf16
ARM_neon       := -march=armv8-a
ARM_dotprod    := -march=armv8.2-a+fp16+dotprod
ARM_i8mm       := -march=armv8.2-a+fp16+dotprod+i8mm+bf16
isa_of          = $(lastword $(subst _, ,$(basename $(notdir $(1)))))

CMDS     := $(wildcard src/cmd_*.c)
SOURCES  := $(filter-out src/main.c $(CMDS),$(wildcard src/*.c)) $(wildcard kernels/*.c kernels/ref/*.c)
ifneq ($(ISA),none)
SOURCES  += $(wildcard kernels/$(ISA)/*.c)
endif
OBJECTS  := $(SOURCES:%.c=$(BUILD)/%.o)
MAIN     := src/main.c $(CMDS)
MAINOBJ  := $(MAIN:%.c=$(BUILD)/%.o)

# quern-NAME is built from tools/NAME_main.c; the other files there are shared by the tools.
TOOLS    := $(patsubst tools/%_main.c,%,$(wildcard tools/*_main.c))
TOOLSRC  := $(filter-out $(wildcard tools/*_main.c),$(wildcard tools/*.c))
ifneq ($(ISA),x86)
TOOLSRC  := $(filter-out %_avx2.c,$(TOOLSRC))
endif
TOOLLIB  := $(TOOLSRC:%.c=$(BUILD)/%.o)
TESTS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c tests/check_*.c))
TESTMAIN := $(wildcard tests/test_*.c tests/check_*.c tests/gen_*.c tests/fuzz_*.c)
TESTLIB  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(TESTMAIN) tests/fault.c,$(wildcard tests/*.c)))
FUZZERS  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/fuzz_*.c))
# Programs named test_fault* are linked with tests/fault.c, through which these calls then go.
FAULTS   := $(filter $(BUILD)/tests/test_fault%,$(TESTS))
WRAPPED  := malloc calloc realloc aligned_alloc posix_memalign strdup realpath free \
            open read pread write fsync close rename mmap ftruncate fstat
GENS     := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/gen_*.c))

.PHONY: all programs help
all: programs
programs: $(BUILD)/libquern.a $(BUILD)/quern $(TOOLS:%=$(BUILD)/quern-%)

$(BUILD)/libquern.a: $(OBJECTS)
	@rm -f $@
	@echo '  AR  $@'; $(AR) rcs $@ $^

$(BUILD)/quern: $(MAINOBJ) $(BUILD)/libquern.a
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/quern-%: $(BUILD)/tools/%_main.o $(TOOLLIB) $(BUILD)/libquern.a
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TOOLLIBS) $(LIBS)

$(BUILD)/src/cmd_default.o: models/tiny-books-q8_0.gguf

$(BUILD)/kernels/x86/%.o: kernels/x86/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) $(CFLAGS) $(X86_$(call isa_of,$<)) -c -o $@ $<

$(BUILD)/kernels/arm/%.o: kernels/arm/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) $(CFLAGS) $(ARM_$(call isa_of,$<)) -c -o $@ $<

# The one object that asks for BLAS is made anew when the answer is another than last time's.
ifneq ($(TOOLLIBS),$(shell cat $(BUILD)/blas 2>/dev/null))
.PHONY: $(BUILD)/blas
endif
$(BUILD)/blas:
	@mkdir -p $(@D); echo '$(TOOLLIBS)' >$@
$(BUILD)/tools/tiles.o: $(BUILD)/blas

$(BUILD)/tools/%.o: tools/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) -Itools $(TOOLDEFS) $(CFLAGS) $(X86_$(call isa_of,$<)) -c -o $@ $<

$(BUILD)/tests/%.o: tests/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) -Itests -Itools $(CFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TESTLIB) $(TOOLLIB) $(BUILD)/libquern.a
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) $(WRAP) -o $@ $^ $(TOOLLIBS) $(LIBS)

# From an archive, so that a target gets only what it uses of the tools: there are no vector kernels in its build.
$(BUILD)/libtools.a: $(TOOLLIB)
	@rm -f $@
	@echo '  AR  $@'; $(AR) rcs $@ $^

$(FUZZERS): $(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libtools.a $(BUILD)/libquern.a
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TOOLLIBS) $(LIBS)
$(BUILD)/tests/fuzz_tokenizer: $(BUILD)/tests/tiny_vocab.o $(BUILD)/tests/bytes.o

$(FAULTS): $(BUILD)/tests/fault.o
$(FAULTS): WRAP := $(WRAPPED:%=-Wl,--wrap=%)

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# ---- tests ------------------------------------------------------------------------------------------------------

.PHONY: test tests test-release test-asan clean
tests: programs $(TESTS) $(GENS)

# Everything; ends in one line: N passed, N failed, N skipped.
test:
	@bash tests/run.sh

# What this build directory holds, without the other builds.
test-release: tests
	@BUILD=$(BUILD) bash tests/suite.sh

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
asan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan CFLAGS='-O1 -g $(SANITIZE)' LDFLAGS='$(SANITIZE)' tests

# libFuzzer targets, in build-fuzz/tests/fuzz_*; tests/fuzz.sh runs each for a fixed count. They need the reference kernels only
# (the vector kernels take clang minutes with sanitizers), so the others are left out of this build's library.
FUZZFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
.PHONY: asan fuzz fuzzers
fuzz:
	@$(MAKE) --no-print-directory CC=clang ISA=none BUILD=$(BUILD)-fuzz CFLAGS='-O1 -g -fsanitize=fuzzer-no-link $(FUZZFLAGS)' \
	    LDFLAGS='-fsanitize=fuzzer $(FUZZFLAGS)' fuzzers
fuzzers: $(FUZZERS)

# The embedded model, again from its checkpoint; tests/test_convert.c holds the committed file to what this makes.
.PHONY: model
QUERN_SHARED ?= ../shared
model: $(BUILD)/quern-convert
	$< $(QUERN_SHARED)/models/tiny-books/hf models/tiny-books-q8_0.gguf --name tiny-books --type q8_0 --force

# ---- install ----------------------------------------------------------------------------------------------------

VERSION  := $(shell sed -n 's/^\#define QUERN_VERSION "\(.*\)"/\1/p' include/quern.h)
PROGRAMS := quern $(TOOLS:%=quern-%)
HOSTCC   ?= cc
BINDIR   ?= $(PREFIX)/bin
LIBDIR   ?= $(PREFIX)/lib
INCDIR   ?= $(PREFIX)/include
DATADIR  ?= $(PREFIX)/share
DOC      := $(BUILD)/doc

# Manual pages and completions, written by the programs from their option tables. What was built for another machine cannot run
# here: then the same sources are built for this one, in $(BUILD)-host.
.PHONY: docs install uninstall demo
docs: programs
	@mkdir -p $(DOC); from=$(BUILD); \
	if ! $(BUILD)/quern --version >/dev/null 2>&1; then \
	    from=$(BUILD)-host; \
	    $(MAKE) --no-print-directory BUILD=$$from CC=$(HOSTCC) AR=ar LDFLAGS= CFLAGS=-O1 programs || exit 1; \
	fi; \
	for p in $(PROGRAMS); do \
	    for kind in man bash zsh fish; do $$from/$$p --generate $$kind >$(DOC)/$$p.$$kind || exit 1; done; \
	done

$(DOC)/quern.pc: include/quern.h Makefile
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCDIR)' '' 'Name: quern' \
	    'Description: run language models from GGUF files on the CPU' 'Version: $(VERSION)' \
	    'Libs: -L$${libdir} -lquern -lm -pthread' 'Cflags: -I$${includedir}' >$@

install: docs $(DOC)/quern.pc
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(INCDIR)" "$(DESTDIR)$(DATADIR)/man/man1" \
	    "$(DESTDIR)$(DATADIR)/bash-completion/completions" "$(DESTDIR)$(DATADIR)/zsh/site-functions" \
	    "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d" "$(DESTDIR)$(DATADIR)/doc/quern"
	for p in $(PROGRAMS); do \
	    install -m 755 $(BUILD)/$$p "$(DESTDIR)$(BINDIR)/$$p" && \
	    install -m 644 $(DOC)/$$p.man "$(DESTDIR)$(DATADIR)/man/man1/$$p.1" && \
	    install -m 644 $(DOC)/$$p.bash "$(DESTDIR)$(DATADIR)/bash-completion/completions/$$p" && \
	    install -m 644 $(DOC)/$$p.zsh "$(DESTDIR)$(DATADIR)/zsh/site-functions/_$$p" && \
	    install -m 644 $(DOC)/$$p.fish "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/$$p.fish" || exit 1; \
	done
	install -m 644 $(BUILD)/libquern.a "$(DESTDIR)$(LIBDIR)/libquern.a"
	install -m 644 include/quern.h "$(DESTDIR)$(INCDIR)/quern.h"
	install -m 644 $(DOC)/quern.pc "$(DESTDIR)$(LIBDIR)/pkgconfig/quern.pc"
	install -m 644 README.md LICENSE "$(DESTDIR)$(DATADIR)/doc/quern"

uninstall:
	for p in $(PROGRAMS); do \
	    rm -f "$(DESTDIR)$(BINDIR)/$$p" "$(DESTDIR)$(DATADIR)/man/man1/$$p.1" "$(DESTDIR)$(DATADIR)/bash-completion/completions/$$p" \
	        "$(DESTDIR)$(DATADIR)/zsh/site-functions/_$$p" "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/$$p.fish"; \
	done
	rm -f "$(DESTDIR)$(LIBDIR)/libquern.a" "$(DESTDIR)$(INCDIR)/quern.h" "$(DESTDIR)$(LIBDIR)/pkgconfig/quern.pc"
	rm -rf "$(DESTDIR)$(DATADIR)/doc/quern"

# Build, and let the model inside the program write a little.
demo: programs
	@$(BUILD)/quern run -p 'It was a dark and stormy night' -n 80

clean:
	rm -rf build build-*

help:
	@echo 'make                  libquern.a, quern and the tools, in $(BUILD)/'
	@echo 'make demo             the same, then a prompt on the model inside the program'
	@echo 'make install          programs, library, header, manual, completions below $$(DESTDIR)$$(PREFIX) [$(PREFIX)]'
	@echo 'make uninstall        take them away again'
	@echo 'make test             build with warnings as errors and run every test'
	@echo 'make test-release     the tests of this build only'
	@echo 'make asan             the tests, built with AddressSanitizer and UBSan'
	@echo 'make fuzz             the libFuzzer targets (clang), in $(BUILD)-fuzz/tests/'
	@echo 'make model            remake models/tiny-books-q8_0.gguf from its checkpoint in $$QUERN_SHARED'
	@echo 'make BLAS=1           make with OpenBLAS (libopenblas-dev) for the large matrices of quern-quantize'
	@echo 'make ISA=none         the reference kernels alone, as on a machine without vector kernels; with BUILD=build-none'
	@echo 'make docs             manual pages and completions, in $(DOC)/'
	@echo 'make clean            remove build/ and build-*/'
	@echo 'CC, CFLAGS, LDFLAGS, BUILD, PREFIX, DESTDIR are honoured; a cross build: make CC=aarch64-linux-gnu-gcc LDFLAGS=-static'
