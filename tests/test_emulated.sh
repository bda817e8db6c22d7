#!/usr/bin/env bash
# The rungs of machines that are not at hand, under qemu's user-mode emulation: it proves results, never speed.
#   Arm: a static cross build under a Cortex-A72 (neon), a Neoverse N1 (dotprod) and qemu's "max" (i8mm)
#   x86: this very build under a Nehalem, which has none of our levels (a stray AVX instruction ends there), and a Haswell (avx2)
# Runs with the release build only. Results of the models are checked where ../shared/vectors is there.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}
trap 'rm -f "$log"' EXIT
log=$(mktemp)

# LABEL COMMAND...: one program, one result; what it prints is shown when it fails
run() {
    local label=$1 status
    shift
    timeout 600 "$@" >"$log" 2>&1 </dev/null
    status=$?
    if [ $status -eq 0 ]; then
        ok
    else
        tail -20 "$log"
        fail "$label (status $status)"
    fi
}

# QEMU CPU FOLDER RUNG: the checks whose results can depend on the instruction set; the reference and the selftest once per family
programs() {
    local on="$1 -cpu $2"
    run "$2 check_formats" $on "$3/tests/check_formats"
    run "$2 test_cpu" $on "$3/tests/test_cpu"
    if [ "$4" = all ]; then
        run "$2 check_kernels" $on "$3/tests/check_kernels"
    else
        run "$2 check_kernels $4" $on "$3/tests/check_kernels" --rung "$4"
        if ! grep -q "^$4: [1-9][0-9]* slots" "$log"; then
            echo "FAIL $2: $4 compared nothing"
            failed=$((failed + 1))
        fi
    fi
    if [ -x "$3/tests/test_archs" ]; then
        run "$2 test_archs" env QUERN_EMULATED=1 $on "$3/tests/test_archs"
    fi
}

case $build in *asan* | *clang* | *arm*) finish ;; esac

machine=$(uname -m)
if [ "$machine" = x86_64 ] && command -v qemu-x86_64 >/dev/null; then
    programs qemu-x86_64 Nehalem "$build" all
    programs qemu-x86_64 Haswell "$build" avx2
else
    skip "old x86 machines" "no qemu-x86_64 (Debian package qemu-user)"
fi

if ! command -v qemu-aarch64 >/dev/null; then
    skip "Arm machines" "no qemu-aarch64 (Debian package qemu-user)"
elif ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    skip "Arm machines" "no aarch64-linux-gnu-gcc (Debian package gcc-aarch64-linux-gnu)"
else
    run "cross build" make CC=aarch64-linux-gnu-gcc LDFLAGS=-static BUILD=build-arm programs \
        build-arm/tests/check_formats build-arm/tests/check_kernels build-arm/tests/test_cpu build-arm/tests/test_archs
    programs qemu-aarch64 cortex-a72 build-arm all
    programs qemu-aarch64 neoverse-n1 build-arm dotprod
    programs qemu-aarch64 max build-arm i8mm
fi
finish
