#!/usr/bin/env bash
# make test: every build that this machine can make and run, each with warnings as errors; one closing line.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0
export MAKEFLAGS="${MAKEFLAGS:--j$(nproc)}"      # the sanitizers' build alone is minutes of one core

add() {     # LABEL COMMAND...: run a suite and add its last line up
    local label=$1 log
    shift
    echo "== $label"
    log=$(mktemp)
    "$@" 2>&1 | tee "$log"
    set -- $(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -1)
    rm -f "$log"
    if [ $# -ne 6 ]; then
        echo "FAIL $label ended without a result"
        failed=$((failed + 1))
    else
        passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
    fi
}

build() {   # LABEL COMMAND...: a build counts as one test
    local label=$1
    shift
    echo "== build: $label"
    if "$@" >/tmp/quern-build.$$ 2>&1; then passed=$((passed + 1)); else
        tail -40 /tmp/quern-build.$$
        failed=$((failed + 1))
        echo "FAIL build: $label"
    fi
    rm -f /tmp/quern-build.$$
}

build release make tests
add release env BUILD=build bash tests/suite.sh
build asan make asan
add asan env BUILD=build-asan bash tests/suite.sh
add fuzz bash tests/fuzz.sh
if [ "$(uname -m)" = x86_64 ]; then      # the tiles of AMX in plain C: proves that they are used rightly, says nothing of speed
    build 'amx, emulated' make BUILD=build-amx CFLAGS='-O2 -g -DAMX_EMULATE' build-amx/tests/check_kernels
    add 'amx, emulated' build-amx/tests/check_kernels --rung amx
    # AVX-VNNI's two instructions in the form of AVX-512 (kernels/x86/dots_avxvnni.h); skipped by name where there is none either
    build 'avx_vnni, EVEX form' make BUILD=build-vnni CFLAGS='-O2 -g -DAVXVNNI_EVEX' build-vnni/tests/check_kernels \
        build-vnni/tests/test_synthetic
    add 'avx_vnni, EVEX form' build-vnni/tests/check_kernels --rung avx2+vnni
    add 'roofs of avx_vnni, EVEX form' build-vnni/tests/test_synthetic
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
