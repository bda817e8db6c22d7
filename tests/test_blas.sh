#!/usr/bin/env bash
# make BLAS=1: OpenBLAS is linked, the factors are right with it, the same bytes come from any number of threads, and a make without
# takes it out again. Only one object differs, so everything else is copied from the build folder at hand.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
root=$PWD
build=${BUILD:-build}
[ "$build" = build ] || skip_all blas "the compiler's flags of $build are not known here; runs beside build/"
cc=${CC:-cc}
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/blas.XXXXXX")
trap 'rm -rf "$dir"' EXIT
echo '#include <cblas.h>
void openblas_set_num_threads(int);
int main(void) { openblas_set_num_threads(1); return (int)cblas_ddot(0, 0, 1, 0, 1); }' >"$dir/try.c"
"$cc" -o "$dir/try" "$dir/try.c" -lopenblas 2>/dev/null || skip_all blas "no OpenBLAS here (libopenblas-dev)"
linked() { readelf -d "$dir/b/quern-quantize" | grep -q openblas; }
built() { env -u MAKEFLAGS make BUILD="$dir/b" CC="$cc" "$@" >"$dir/made" 2>&1 || { tail -3 "$dir/made"; return 1; }; }

cp -a "$build" "$dir/b" && rm -f "$dir/b/quern-quantize" "$dir/b/tests/test_cholesky"
check "it builds" built BLAS=1 "$dir/b/quern-quantize" "$dir/b/tests/test_cholesky"
check "one object is compiled" test "$(grep -c '  CC ' "$dir/made")" = 1
check "OpenBLAS is linked" linked
check "the factors are right: $("$dir/b/tests/test_cholesky" 2>&1 | tail -1)" "$dir/b/tests/test_cholesky" >/dev/null

# Error feedback on a small model: the moments are factored.
"$build/tests/gen_tiny" model "$dir/m.gguf" llama
head -c 20000 models/calibration.txt >"$dir/fit.txt"
head -c 1500 models/heldout.txt >"$dir/held.txt"
for threads in 1 4; do
    "$dir/b/quern-quantize" "$dir/m.gguf" "$dir/out$threads" --bpw 6 --no-search --calibration "$dir/fit.txt" \
        --heldout "$dir/held.txt" --threads $threads >"$dir/report" 2>&1
done
check "error feedback runs with it" grep -qE '^error feedback: [1-9]' "$dir/report"
check "1 and 4 threads: the same bytes" cmp -s "$dir/out1" "$dir/out4"

check "and without again" built "$dir/b/quern-quantize"
check "OpenBLAS is no longer linked" eval '! linked'
finish
