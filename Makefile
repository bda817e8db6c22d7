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

# As many jobs as there are cores, unless the user says otherwise.
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

TARGET   := $(shell $(CC) -dumpmachine)
ifneq ($(filter x86_64% amd64% i%86%,$(TARGET)),)
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

# A file's suffix says which instructions it may use.
X86_avx2       := -mavx2 -mfma -mf16c -mbmi2
X86_avx512     := $(X86_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
X86_avx512bf16 := $(X86_avx512) -mavx512bf16
X86_avx512vbmi := $(X86_avx512) -mavx512vbmi
X86_amx        := $(X86_avx512) -mavx512bf16 -mavx512vbmi -mamx-tile -mamx-int8 -mamx-bf16
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

# tools/quern-NAME is built from tools/NAME.c; the other files there are shared by the tools.
TOOLS    := $(patsubst tools/%_main.c,%,$(wildcard tools/*_main.c))
TOOLLIB  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard tools/*_main.c),$(wildcard tools/*.c)))
TESTS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c tests/check_*.c))
TESTLIB  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard tests/test_*.c tests/check_*.c tests/gen_*.c tests/fuzz_*.c) tests/fault.c, \
            $(wildcard tests/*.c)))
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
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/kernels/x86/%.o: kernels/x86/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) $(CFLAGS) $(X86_$(call isa_of,$<)) -c -o $@ $<

$(BUILD)/kernels/arm/%.o: kernels/arm/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) $(CFLAGS) $(ARM_$(call isa_of,$<)) -c -o $@ $<

$(BUILD)/tools/%.o: tools/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) -Itools $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/%.o: tests/%.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) -Itests -Itools $(CFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D); echo '  CC  $<'; $(CC) $(BASE) $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TESTLIB) $(TOOLLIB) $(BUILD)/libquern.a
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) $(WRAP) -o $@ $^ $(LIBS)

# From an archive, so that a target gets only what it uses of the tools: there are no vector kernels in its build.
$(BUILD)/libtools.a: $(TOOLLIB)
	@rm -f $@
	@echo '  AR  $@'; $(AR) rcs $@ $^

$(FUZZERS): $(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libtools.a $(BUILD)/libquern.a
	@echo '  LD  $@'; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
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

clean:
	rm -rf build build-asan build-clang build-arm build-fuzz

help:
	@echo 'make                  libquern.a, quern and the tools, in $(BUILD)/'
	@echo 'make test             build with warnings as errors and run every test'
	@echo 'make test-release     the tests of this build only'
	@echo 'make asan             the tests, built with AddressSanitizer and UBSan'
	@echo 'make fuzz             the libFuzzer targets (clang), in $(BUILD)-fuzz/tests/'
	@echo 'make model            remake models/tiny-books-q8_0.gguf from its checkpoint in $$QUERN_SHARED'
	@echo 'make clean            remove what was built'
