#!/usr/bin/env bash
# A mixture of experts through the whole adaptive path: own importances, a measured plan, error feedback expert by expert; experts
# that saw too few tokens are named; the same bytes for any number of threads and after kills.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
root=$PWD
build=$root/${BUILD:-build}
quantize=$build/quern-quantize
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/experts.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

"$build/tests/gen_tiny" starved model.gguf || exit 1
"$build/tests/gen_tiny" text calibration 14000 5 && "$build/tests/gen_tiny" text heldout 3000 105 || exit 1
texts=(--calibration calibration --heldout heldout)

"$quantize" model.gguf one.gguf --type Q4_K_M --no-search "${texts[@]}" --save-recipe recipe --threads 1 >out 2>report
check "all stages succeed" test -s one.gguf
check "no stage is left out" test -z "$(grep -F 'no error feedback' report)"
check "error feedback in every matrix" grep -q '^error feedback: 21 tensors$' report
check "experts that saw too few are named" grep -qE \
    '^  blk\.1\.ffn_down_exps\.weight: [1-4] of 6 without, experts [0-9, to]+: fewer tokens seen' report
check "those of the other layer saw enough" test -z "$(grep -F 'blk.0.' report)"
"$build/quern" show one.gguf >shown
check "and in the receipt" grep -qE 'fallback_tensors.*blk\.1\.ffn_gate_exps\.weight \(experts [0-9]' shown
check "the file runs" "$build/quern" eval one.gguf -f heldout >/dev/null 2>&1

"$quantize" model.gguf four.gguf --recipe recipe "${texts[@]}" --threads 4 >out 2>&1
check "1 and 4 threads" cmp -s one.gguf four.gguf

# Killed ever later and taken up again.
for seconds in 0.1 0.2 0.4 0.8 1.6; do
    "$quantize" model.gguf again.gguf --type Q4_K_M --no-search "${texts[@]}" --threads 2 >out 2>&1 & pid=$!
    sleep $seconds
    kill -KILL $pid
    wait $pid
done 2>/dev/null
[ -e again.gguf ] || "$quantize" model.gguf again.gguf --type Q4_K_M --no-search "${texts[@]}" --threads 2 >out 2>&1
check "the same bytes after kills" cmp -s one.gguf again.gguf

finish
