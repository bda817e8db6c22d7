#!/usr/bin/env bash
# quern-quantize from the command line: what it refuses and how, the same bytes for any number of threads, nothing left after a
# kill.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
root=$PWD
build=$root/${BUILD:-build}
quantize=$build/quern-quantize
shared=${QUERN_SHARED:-$root/../shared}
model=$shared/models/tiny-books/tiny-books-BF16.gguf
matrix=$shared/models/tiny-books/peers/tiny-books.imatrix.gguf
if [ ! -r "$model" ]; then
    skip_all quantize "../shared is not here"
fi
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/quantize.XXXXXX")
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir" || exit 1

refused() { # NAME CODE WORDS ARGS...: that exit code, those words on stderr, no file "out"
    local name=$1 code=$2 words=$3; shift 3
    "$quantize" "$@" >stdout 2>stderr; local got=$?
    if [ $got -eq "$code" ] && grep -qF -- "$words" stderr && [ ! -e out ] && ! ls -A | grep -q '^\.out'; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "FAIL $name: exit $got, $(head -c 300 stderr)"
    fi
}

for type in Q4_K_M Q2_K IQ4_XS; do
    "$quantize" "$model" one.$type --plain --type $type --imatrix "$matrix" --threads 1
    "$quantize" "$model" four.$type --plain --type $type --imatrix "$matrix" --threads 4
    check "$type: 1 and 4 threads" cmp -s one.$type four.$type
done
"$quantize" "$model" plain4 --plain --type Q4_K_M
"$quantize" "$model" plain --plain --type q4_k_m; check "lower case and --plain" test -s plain
check "nothing on stdout" test -z "$("$quantize" "$model" again --plain --type Q4_0 2>/dev/null)"

# The tensors' bytes are those of the peer's file of the same name.
for type in Q4_K_M Q3_K_M Q2_K IQ4_XS; do
    "$quantize" "$model" mine --plain --type $type --imatrix "$matrix" --force
    "$build/quern" show --tensors "$shared/models/tiny-books/peers/tiny-books-$type.gguf" >peer.txt
    "$build/quern" show --tensors mine >mine.txt
    types() {
        grep -E 'weight' "$1" |
            awk '{for (i = 2; i <= NF; i++) if ($i ~ /^(I?Q[0-9]|B?F[0-9]+$)/) { print $1, $i; break }}' | sort
    }
    check "$type: llama.cpp's types" test -n "$(types mine.txt)" -a "$(types mine.txt)" = "$(types peer.txt)"
done

"$quantize" "$model" --plain --type Q4_K_M --dry-run >plan
check "dry run: 56 tensors, the sum, the time" test "$(wc -l <plan)" = 58
check "a dry run tells the time" \
    grep -qE "^time: about [0-9]+ s: plan 0 s, .* rounding [0-9.]+ s, error feedback 0 s, receipt 0 s$" plan
"$quantize" "$model" --plain --type Q4_K_M --type 'blk\.0\.attn_v=Q8_0' --type-override 'ffn_up=IQ4_XS' --dry-run >plan
check "rules" test "$(grep -c 'Q8_0 .*rule' plan) $(grep -c 'IQ4_XS .*rule' plan)" = "1 6"
"$quantize" "$shared/models/babyllama361/babyllama361-F32.gguf" --plain --type Q4_K_M --dry-run >plan
check "rows of 128 fall back" grep -q "Q5_0 .*rows do not divide into Q4_K" plan

refused "no mix" 2 "--type" "$model" out
refused "unknown mix" 2 "did you mean 'Q4_K_" "$model" out --plain --type Q4_K_N
refused "... and the mixes are listed" 2 "IQ3_XXS, IQ3_XS" "$model" out --plain --type WRONG
refused "unknown type of a rule, and the types" 2 "'WRONG' (F32, F16, Q4_0" "$model" out --plain --type Q4_0 --type 'attn=WRONG'
refused "two mixes" 2 "two mixes" "$model" out --plain --type Q4_0 --type Q8_0
refused "bad expression" 2 "bad regular expression" "$model" out --plain --type Q4_0 --type '(=Q8_0'
refused "no output" 2 "output" "$model" --type Q4_0
refused "no input" 6 "missing.gguf" missing.gguf out --plain --type Q4_0
refused "no importances for a type that needs them" 2 "--imatrix" "$model" out --plain --type IQ2_XXS
refused "the importances of another model" 3 "another model" "$shared/models/babyllama361/babyllama361-F32.gguf" out \
    --plain --type Q4_0 --imatrix "$matrix"
refused "a model as importances" 3 "importance matrix" "$model" out --plain --type Q4_0 --imatrix "$model"
refused "rounded already (I1)" 2 "--requantize" plain out --plain --type Q2_K
refused "too little memory" 5 "limit" "$model" out --plain --type Q4_0 --mem-limit 1K
refused "directory of the output is missing (G10)" 6 "nowhere" "$model" nowhere/out --plain --type Q4_0
cp "$model" model.gguf; ln model.gguf hard; ln -s model.gguf soft
sum=$(cksum <model.gguf)
refused "output is the input (G11)" 2 "" model.gguf ./model.gguf --plain --type Q4_0 --force
refused "output is the input, hard link" 2 "" model.gguf hard --plain --type Q4_0 --force
refused "output is the input, symbolic link" 2 "" model.gguf soft --plain --type Q4_0 --force
check "the input is untouched" test "$(cksum <model.gguf)" = "$sum"
refused "output exists (G12)" 2 "" "$model" plain --plain --type Q4_0
"$quantize" "$model" plain --plain --type Q4_0 --force; check "--force replaces it" test $? -eq 0
"$quantize" plain twice --plain --type Q2_K --requantize; check "--requantize" test $? -eq 0

# A NaN in a weight: row 5, column 17 of the first matrix with 256 columns.
cp "$model" nan.gguf; chmod u+w nan.gguf
offset=$("$build/quern" show --tensors --json "$model" 2>/dev/null | tr '{' '\n' | grep '"token_embd.weight"' |
    sed -n 's/.*"offset": *\([0-9]*\).*/\1/p')
if [ -n "$offset" ]; then
    printf '\300\177' | dd of=nan.gguf bs=1 seek=$((offset + 2 * (5 * 256 + 17))) conv=notrunc 2>/dev/null
    refused "a value that is not finite" 3 "row 5, column 17" nan.gguf out --plain --type Q4_0
else
    skip "a value that is not finite" "show does not tell the offset"
fi

# A full disk (G7, G9): RLIMIT_FSIZE stands for it.
(ulimit -f 1000; "$quantize" "$model" out --plain --type Q4_K_M 2>stderr); code=$?
check "file size limit: exit 6, no file" test $code -eq 6 -a ! -e out -a -z "$(ls -A | grep '^\.out')"

# Free space is looked at before the work, hidden files counted: a file system of 4 MB, where mounting is allowed.
mkdir tiny
small_disk() { unshare -rm sh -c 'mount -t tmpfs -o size=4000k none tiny 2>/dev/null || exit 99; "$@"' sh "$@"; }
if small_disk true 2>/dev/null; then
    small_disk "$quantize" "$model" tiny/out --plain --type Q4_K_M 2>stderr; check "room for the file alone" test $? -eq 0
    begin=$(date +%s)
    small_disk "$quantize" "$model" tiny/out --type Q4_K_M 2>stderr; code=$?
    check "no room for the hidden files: exit 6" test $code -eq 6 -a $(($(date +%s) - begin)) -lt 5
    check "... needed and free are told" grep -qE "the hidden ones beside it take about [0-9]{7,} bytes, [0-9]{7} are free" stderr
else
    skip "free space" "no file system may be mounted here"
fi

# kill -9 (G13): no file or the whole one; the next run gives the same bytes as one that was never disturbed.
"$quantize" "$model" whole --plain --type IQ4_XS --imatrix "$matrix"
broken=0
RANDOM=7
for ((i = 0; i < ${KILLS:-12}; i++)); do
    rm -f target
    "$quantize" "$model" target --plain --type IQ4_XS --imatrix "$matrix" 2>/dev/null &
    pid=$!
    sleep 0.$(printf '%03d' $((RANDOM % 200)))
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    if [ -e target ] && ! cmp -s target whole; then broken=$((broken + 1)); fi
done 2>/dev/null
check "kill -9: $broken broken files" test $broken -eq 0
"$quantize" "$model" target --plain --type IQ4_XS --imatrix "$matrix" --force 2>/dev/null
check "after the kills the same bytes" cmp -s target whole
check "no temporary file stays" test -z "$(ls -A | grep quern-)"

# Planning runs the model hundreds of times: minutes under the sanitizers, where test_plan covers the same code.
case $build in *asan*)
    skip "adaptive quantization from the command line" "takes minutes under the sanitizers; test_plan runs its code there"
    finish ;;
esac

# The adaptive way, on a small model: one thread and four, a recipe used again, sizes kept, gates, a folder.
small=$shared/models/babyllama361/babyllama361-F32.gguf
head -c 1100 "$root/models/calibration.txt" >fit.txt
head -c 1100 "$root/models/heldout.txt" >held.txt
texts="--calibration fit.txt --heldout held.txt"
"$quantize" "$small" adaptive1 --bpw 6 $texts --threads 1 --save-recipe recipe.json >report 2>&1
check "adaptive: exit 0" test -s adaptive1
check "adaptive: a report" grep -q "held out: KL" report
check "a text too short for error feedback is said so" grep -q "no error feedback: .* tokens" report
"$quantize" "$small" adaptive4 --bpw 6 $texts --threads 4 >/dev/null 2>&1
check "adaptive: 1 and 4 threads" cmp -s adaptive1 adaptive4
check "adaptive: within the size" test "$(stat -c %s adaptive1)" -le 730000 -a "$(stat -c %s adaptive1)" -gt 600000
"$build/quern" show adaptive1 >shown
check "the receipt is shown" test "$(grep -c 'quern.receipt.' shown)" = 22
"$quantize" "$small" fallen --plain --type Q4_K_M --heldout held.txt --fail-if 'kld>1' >/dev/null 2>&1
"$build/quern" show --full fallen >shown
check "the receipt counts fallbacks" grep -q 'receipt.fallbacks  u32 = 35$' shown
check "... and names them with the reason" \
    grep -q 'fallback_tensors .*"rows do not divide into the blocks: blk.0.attn_q.weight, ' shown
"$quantize" "$small" again1 --recipe recipe.json $texts >/dev/null 2>&1
check "a recipe used again" test "$(tail -c 600000 again1 | cksum)" = "$(tail -c 600000 adaptive1 | cksum)"
"$quantize" "$small" --recipe recipe.json --size 600K $texts --no-search --dry-run >plan 2>&1
check "a recipe for another size" grep -q "predicted" plan
check "... and its time, with feedback" grep -qE "^time: about [1-9][0-9]* s: .* receipt [0-9]+ s$" plan
head -c 24000 "$root/models/calibration.txt" >long.txt
for threads in 1 4; do
    "$quantize" "$small" feedback$threads --recipe recipe.json --calibration long.txt --heldout held.txt --threads $threads \
        >report 2>&1
done
check "error feedback: its count" grep -qE "^error feedback: [1-9][0-9]* tensors" report
# What the plan predicts is the KL of the file as it is written, with feedback: within 40 % on text that was not calibrated with.
head -c 12000 "$root/models/heldout.txt" >held12.txt
"$quantize" "$small" predicted --bpw 5 --no-search --calibration long.txt --heldout held12.txt >report12 2>&1
check "predicted $(sed -n 's/^held out: \(KL.*)\), med.*/\1/p' report12)" \
    awk '/^held out: KL/ { r = $8 / $4; ok = r > 0.6 && r < 1.4 } END { exit !ok }' report12
check "error feedback: 1 and 4 threads" cmp -s feedback1 feedback4
# The receipt's errors are those of the values in the file: feedback gives other ones than the search at the same types.
"$quantize" "$small" searched --recipe recipe.json --calibration long.txt --heldout held.txt --no-feedback >/dev/null 2>&1
key() { "$build/quern" show --full "$1" | sed -n "s/^  quern.receipt.$2  *[a-z0-9]*\(\[[0-9]*\]\)\{0,1\} = //p"; }
errors=$(key searched tensor_errors)
check "errors of what is written" test -n "$errors" -a "$errors" != "$(key feedback1 tensor_errors)"
check "as many with feedback as were told" \
    test "$(key feedback1 feedback)" = "$(sed -n 's/^error feedback: \([0-9]*\) .*/\1/p' report)"
check "without feedback none" test "$(key searched feedback)" = 0
refused "a gate refuses" 7 "kld is" "$small" out --recipe recipe.json $texts --fail-if 'kld>0.000001'
"$quantize" "$small" gated --recipe recipe.json $texts --fail-if 'kld>0.5' >/dev/null 2>&1; check "a gate lets pass" test -s gated
refused "no gate" 2 "no gate such as" "$small" out --bpw 6 --fail-if 'kld'
refused "two sizes" 2 "says how large" "$small" out --bpw 6 --size 1M
refused "a ratio that is none" 2 "no number above 1" "$small" out --ratio small $texts
refused "too small a size" 2 "the smallest types make a file of" "$small" out --size 0.1M $texts
refused "a folder that is none" 6 "nowhere/out: cannot open" "$model" nowhere/out --type Q8_0
: >empty; refused "empty calibration (I2)" 2 "0 tokens" "$small" out --bpw 6 --calibration empty
head -c 3000 /dev/zero | tr '\0' a >same
refused "one token over and over (I2)" 2 "the same" "$small" out --bpw 6 --calibration same
echo '{"quern_recipe": 1, "tensors": {}}' >bad.json
refused "a recipe of another model" 3 "has no tensor" "$small" out --recipe bad.json $texts
echo '[1]' >bad.json; refused "no recipe" 3 "is no recipe" "$small" out --recipe bad.json $texts
# --mem-limit bounds calibration and planning too: refused with the figures, or less text at once.
refused "too little memory for importances" 5 "gathering importances takes at least" "$small" out --bpw 6 $texts --mem-limit 100K
refused "too little memory for moments" 5 "imprint takes at least" "$model" out --type Q4_K_M --imatrix "$matrix" --mem-limit 3M
refused "too little memory for the plan" 5 "planning takes at least" "$model" out --type Q4_K_M --imatrix "$matrix" --mem-limit 3M \
    --no-feedback
# Nor is memory asked for, or time taken, by a run whose inputs do not fit: these are refused before anything is gathered.
less="--mem-limit 100K"
refused "no recipe, before the work" 3 "is no recipe" "$small" out --recipe bad.json $texts $less
echo '{"quern_recipe": 1, "tensors": {}}' >bad.json
refused "a recipe of another model, before the work" 3 "has no tensor" "$small" out --recipe bad.json $texts $less
refused "too small a size, before the work" 2 "the smallest types" "$small" out --size 0.1M $texts $less
refused "another model's importances, before the work" 3 "another model" "$small" out --bpw 6 --imatrix "$matrix" $texts $less
"$quantize" "$small" narrow --bpw 6 $texts --no-search --no-feedback --mem-limit 8M >/dev/null 2>&1
check "a limit that fits one sequence" test -s narrow
# Tuning: lower KL on the text that nothing was chosen by, the same bytes for any number of threads, the same size, told in the
# file.
kld() { "$build/quern" show "$1" | awk '/quern.receipt.kld_mean/ { print $NF }'; }
tune="--recipe recipe.json $texts --no-feedback --tune --tune-tokens 16384"
"$quantize" "$small" plain1 --recipe recipe.json --no-feedback $texts >/dev/null 2>&1
"$quantize" "$small" tuned1 $tune --threads 1 >report 2>&1; check "tuning: exit 0, said" grep -q "tuned: .*best after" report
"$quantize" "$small" tuned4 $tune --threads 4 >/dev/null 2>&1; check "tuning: 1 and 4 threads" cmp -s tuned1 tuned4
check "tuning: lower KL, $(kld plain1) $(kld tuned1)" awk "BEGIN { exit !($(kld tuned1) < $(kld plain1)) }"
"$build/quern" show tuned1 >shown; check "tuning in the receipt" test "$(grep -c 'quern.receipt.tune_' shown)" = 3
shapes() { "$build/quern" show --tensors "$1" | grep -o '[a-z0-9_.]*weight .*bytes'; }
check "tuning keeps types and sizes" test -n "$(shapes tuned1)" -a "$(shapes tuned1)" = "$(shapes plain1)"
"$quantize" "$small" --bpw 6 $texts --no-search --tune --tune-tokens 5000 --dry-run >plan 2>&1
check "a dry run tells of tuning" grep -q "tuning: 5000 tokens, about" plan
refused "tokens without --tune" 2 "not given" "$small" out --bpw 6 --tune-tokens 100
refused "stop text is calibration" 2 "learns from" "$small" out --recipe recipe.json $texts --tune --tune-stop fit.txt
refused "too few tokens" 2 "one step" "$small" out --recipe recipe.json $texts --tune --tune-tokens 10
refused "gradients not known" 4 "--tune: gradients of 'gpt2'" "$shared/vectors/archs/gpt2.gguf" out --plain --type Q8_0 --tune
"$quantize" "$shared/models/tiny-books/hf" folder --plain --type Q4_K_M
"$build/quern" show --tensors folder | grep -o 'blk.*bytes' | sort >folder.txt
"$build/quern" show --tensors plain4 2>/dev/null | grep -o 'blk.*bytes' | sort >file.txt
check "a checkpoint's folder" test -s folder.txt -a -z "$(diff folder.txt file.txt)"
check "no temporary file stays" test -z "$(ls -A | grep quern-)"

finish
