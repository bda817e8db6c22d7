#!/usr/bin/env bash
# Bad inputs, sections G and I, given to quern-quantize: one line for each row with what is done, the exit code and the words. The
# models are made here (gen_tiny), nothing outside the repository is read.
#   BUILD=build bash tests/test_quantize_bad.sh
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
root=$PWD
build=$root/${BUILD:-build}
shared_quantize=$build/quern-quantize
case $build in *asan*)
    skip_all quantize_bad "takes away /proc, threads and stack, which the sanitizers need; test_fault_quantize runs there" ;;
esac
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/qbad.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir" && chmod 755 . || exit 1
ln -s "$shared_quantize" quantize
quantize=$shared_quantize

tell() {    # PASSED? ID WHAT GOT WORDS
    if [ "$1" = 1 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); printf 'FAIL '; fi
    printf '%-4s %-58s %-4s %s\n' "$2" "$3" "$4" "$(printf '%s' "$5" | sed "s|$dir/||g" | cut -c1-140)"
}
skip() { skipped=$((skipped + 1)); printf 'SKIPPED %-4s %s\n' "$1" "$2"; }
left() { ls -A | grep -E '^\.|quern-[0-9]'; }
# ID WHAT CODE WORDS COMMAND...: that exit code and those words; unless the code is 0 no file "out" and nothing hidden beside it.
row() {
    local id=$1 what=$2 code=$3 words=$4 got good=0
    shift 4
    rm -f out
    if declare -F "$1" >/dev/null; then "$@" >said 2>&1 </dev/null; else timeout 60 "$@" >said 2>&1 </dev/null; fi
    got=$?
    if [ $got -eq "$code" ] && { [ -z "$words" ] || grep -qF -- "$words" said; } && [ -z "$(left)" ] &&
            { [ "$code" -eq 0 ] || [ ! -e out ]; }; then
        good=1
    fi
    tell $good "$id" "$what" $got "$(grep -F -m1 -- "$words" said || head -c 300 said) $(left | head -2)"
    for stale in $(left); do rm -rf "$stale"; done
}
is() {      # ID WHAT CONDITION...: something else that must hold
    local id=$1 what=$2; shift 2
    if "$@"; then tell 1 "$id" "$what" - ""; else tell 0 "$id" "$what" no "$*"; fi
}

make_inputs() {
    "$build/tests/gen_tiny" model m.gguf llama &&
        "$build/tests/gen_tiny" model other.gguf gemma3 && "$build/tests/gen_tiny" imatrix m.gguf poor.gguf &&
        "$build/tests/gen_tiny" imatrix "$root/models/tiny-books-q8_0.gguf" other.imatrix &&
        "$build/tests/gen_tiny" folder m.gguf hf || return 1
    head -c 3000 "$root/models/calibration.txt" >fit.txt
    head -c 1500 "$root/models/heldout.txt" >held.txt
    cp m.gguf m2.gguf
    begin=${EPOCHREALTIME/[.,]/}
    "$quantize" m2.gguf undisturbed $measured --save-recipe recipe.json --threads 2 >/dev/null 2>&1 &&
        took=$((${EPOCHREALTIME/[.,]/} - begin)) && "$quantize" m.gguf plain --plain --type Q4_0 &&
        "$quantize" m.gguf whole $planned >/dev/null 2>&1
}
texts="--calibration fit.txt --heldout held.txt"
measured="--bpw 6 --no-search --no-feedback $texts"
planned="--recipe recipe.json --no-feedback $texts"
if ! make_inputs; then
    fail "the inputs cannot be made"
    finish
fi
q4="--plain --type Q4_0"
folder=$(cat hf/* | cksum)

# G: the operating system. A run in the background is disturbed as soon as its journal stands.
disturbed() {   # COMMAND...: run over m2.gguf with the plan measured anew, and when it works do COMMAND
    rm -f out
    "$quantize" m2.gguf out $measured --threads 2 >said 2>&1 </dev/null &
    local pid=$!
    for ((i = 0; i < 200; i++)); do [ -s .out.quern-journal ] && break; sleep 0.02; done
    sleep 0.3
    "$@" $pid
    wait $pid
}
shrink() { truncate -s 4096 m2.gguf; }
disturbed shrink; code=$?
tell $([ $code -eq 6 ] && [ ! -e out ] && grep -q "changed while in use" said && echo 1) \
    G1 "the input shrinks while it is read" $code "$(tail -1 said)"
rm -f .out.*
cp m.gguf m2.gguf; cp other.gguf m3.gguf
replace() { mv m3.gguf m2.gguf; }
disturbed replace; code=$?
tell $([ $code -eq 0 ] && cmp -s out undisturbed && echo 1) G2 "the input is replaced by rename: the same bytes" $code ""
skip G3 "an input modified in place is not looked for: there is no --paranoid"
skip G4 "EIO under mmap arrives as G1's SIGBUS; a disk that gives it cannot be had here"
row G5 "input is missing" 6 "No such file" "$quantize" absent.gguf out $q4
mkdir empty; mkfifo pipe; ln -s loop2 loop1; ln -s loop1 loop2
row G5 "input is a folder without a checkpoint" 3 "config.json" "$quantize" empty out $q4
row G5 "input is a pipe" 6 "pipe" "$quantize" pipe out $q4
row G5 "input is /dev/zero" 6 "/dev/zero" "$quantize" /dev/zero out $q4
row G5 "input is a symbolic link to itself" 6 "oo many" "$quantize" loop1 out $q4
skip G6 "split files: their reader is quern's, tests/test_gguf.c has them"
namespace() { unshare -m true 2>/dev/null && unshare -m mount -t tmpfs tmpfs "$dir/empty" 2>/dev/null; }
if namespace; then
    full() { unshare -m bash -c 'mount -t tmpfs -o size=64k tmpfs empty && echo old >empty/out && "$@"; c=$?
        [ "$(cat empty/out)" = old ] && [ "$(ls -A empty)" = out ] || c=99; exit $c' _ "$@"; }
    row G7 "disk full" 6 "free" full "$quantize" m.gguf empty/out $q4 --force
    row G7 "disk full, with a measured plan" 6 "" full "$quantize" m.gguf empty/out $planned --force
    readonly_folder() { unshare -m bash -c 'mount --bind empty empty && mount -o remount,ro,bind empty && "$@"' _ "$@"; }
    row G10 "folder of the output is read-only" 6 "Read-only" readonly_folder "$quantize" m.gguf empty/out $q4
    bare() { unshare -m bash -c 'mount -t tmpfs tmpfs /sys && mount -t tmpfs tmpfs /proc && "$@"' _ "$@"; }
    row G27 "no /proc and /sys" 0 "" bare "$quantize" m.gguf out $q4
    is G27 "the same bytes" cmp -s out plain
else
    for id in G7 G10 G27; do skip $id "no right to mount here (full disk, read-only folder, no /proc)"; done
fi
skip G8 "ENOSPC and EIO at every single call: tests/test_fault_quantize.c"
row G9 "limit of file size (SIGXFSZ)" 6 "" bash -c "ulimit -f 40; exec '$quantize' m.gguf out $q4"
row G9 "limit of file size, with a measured plan" 6 "" bash -c "ulimit -f 40; exec '$quantize' m.gguf out $planned"
row G10 "folder of the output is missing" 6 "nowhere" "$quantize" m.gguf nowhere/out $planned
row G10 "output is a folder" 6 "empty" "$quantize" m.gguf empty $q4 --force
ln m.gguf hard; ln -s m.gguf soft
for same in m.gguf ./m.gguf empty/../m.gguf hard soft "$dir/m.gguf"; do
    row G11 "output = input as ${same##*/qbad*/}" 2 "" "$quantize" m.gguf "$same" $q4 --force
done
row G11 "output is a weight file of the input's folder" 2 "is a file of the input folder" \
    "$quantize" hf hf/model.safetensors $q4 --force
row G11 "output is the configuration of the input's folder" 2 "is a file of the input folder" \
    "$quantize" hf hf/config.json $q4 --force
row G11 "the recipe is" 2 "is a file of the input folder" "$quantize" hf out --bpw 6 $texts --save-recipe hf/config.json --force
row G11 "the imprint is" 2 "is a file of the input folder" "$quantize" imprint hf fit.txt -o hf/config.json --force
is G11 "the folder is what it was" test "$(cat hf/* | cksum)" = "$folder"
row G12 "output exists" 2 "--force" "$quantize" m.gguf plain $planned
row G12 "... and --force replaces it" 0 "" "$quantize" m.gguf plain $q4 --force

# kill -9 at any time: no file or the whole one, and the run after it ends with the same bytes.
RANDOM=3 kills=0 wrong=0
for ((i = 0; i < ${KILLS:-4}; i++)); do
    "$quantize" m.gguf out $planned --threads $((1 + i % 4)) >/dev/null 2>&1 & pid=$!
    sleep 0.$(printf '%03d' $((RANDOM % 500)))
    kill -9 $pid 2>/dev/null && kills=$((kills + 1)); wait $pid 2>/dev/null
    [ ! -e out ] || { cmp -s out whole || wrong=$((wrong + 1)); rm -f out; }
done 2>/dev/null
rm -f out; "$quantize" m.gguf out $planned >said 2>&1
cmp -s out whole || wrong=$((wrong + 1))
tell $([ $wrong -eq 0 ] && [ -z "$(left)" ] && echo 1) \
    G13 "kill -9 at random times, $kills kills: whole file or none" - "$wrong wrong $(left | head -2)"
if strace -o trace -f -e trace=fsync,rename,renameat,renameat2,linkat "$quantize" m.gguf traced $q4 2>/dev/null; then
    order=$(grep -oE 'fsync|rename|linkat' trace | uniq | head -3 | tr '\n' ' ')
    is G14 "the file is synced before it gets its name, then the folder: $order" \
        test -n "$(grep -E '^fsync (rename|linkat) fsync' <<<"$order")"
else skip G14 "no strace here"; fi
interrupt() { kill -INT $1; }
cp m.gguf m2.gguf; disturbed interrupt; code=$?
tell $([ $code -eq 130 ] && [ ! -e out ] && [ -e .out.quern-journal ] && grep -q "goes on from here" said && echo 1) G15 \
    "SIGINT: 130, no file, a journal to go on from" $code "$(tail -1 said)"
"$quantize" m2.gguf out $measured --threads 3 >said 2>&1
tell $(grep -q "going on" said && cmp -s out undisturbed && echo 1) \
    G15 "... and the run after it gives the same bytes" - "$(head -1 said)"
"$quantize" m.gguf $q4 --dry-run 2>said | head -1 >/dev/null; code=${PIPESTATUS[0]}
tell $([ $code -eq 141 -o $code -eq 0 ] && [ ! -s said ] && echo 1) G17 "--dry-run | head -1: quiet" $code ""
row G18 "stdout is full" 6 "No space" bash -c "'$quantize' m.gguf $q4 --dry-run >/dev/full"
row G19 "stdin, stdout, stderr are closed" 0 "" bash -c "'$quantize' m.gguf out $q4 <&- >&- 2>&-"
is G19 "the same bytes" cmp -s out plain
skip G20 "malloc fails at every call: tests/test_fault_quantize.c"
skip G21 "mmap fails: read instead, tests/test_faults.c"
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then      # root has no limit of processes and reads everything
    nobody() { cp "$quantize" own; chmod 755 own; chmod 777 .; setpriv --reuid=64999 --regid=64999 --clear-groups "$@"; local c=$?
        rm -f own; chmod 755 .; return $c; }
    chmod 600 m2.gguf; chmod 644 m.gguf
    as_nobody() { nobody bash -c 'exec ./own "$@"' _ "$@"; }
    row G5 "input may not be read" 6 "ermission denied" as_nobody m2.gguf out $q4
    row G10 "folder of the output may not be written" 6 "ermission denied" as_nobody m.gguf empty/out $q4
    few() { nobody bash -c 'ulimit -u 1; exec ./own "$@"' _ "$@"; }
    row G22 "no thread can be made" 0 "" few m.gguf out $q4 --threads 4
    is G22 "the same bytes" cmp -s out plain
else for id in G5 G10 G22; do skip $id "rights and limits of processes: only root can become another here"; done; fi
row G23 "one processor allowed" 0 "" taskset -c 0 "$quantize" m.gguf out $q4
is G23 "the same bytes" cmp -s out plain
row G24 "memory below the plan (--mem-limit)" 5 "limit" "$quantize" m.gguf out $q4 --mem-limit 1K
row G25 "a processor without vectors (QUERN_CPU=ref)" 0 "" env QUERN_CPU=ref "$quantize" m.gguf out $q4
is G25 "the same bytes" cmp -s out plain
row G26 "no environment" 0 "" env -i "$quantize" m.gguf out $q4
row G26 "decimal commas, HOME cannot be written" 0 "" \
    env LC_ALL=de_DE.UTF-8 HOME=/nonexistent TZ=Asia/Kathmandu "$quantize" m.gguf out $q4
is G26 "the same bytes" cmp -s out plain
skip G28 "the clock is not ours to set; progress goes by the monotonic one"
row G29 "64 KiB of stack" 0 "" bash -c "ulimit -s 64; exec '$quantize' m.gguf out $q4 --threads 4"
row G29 "64 KiB of stack, with a measured plan" 0 "" bash -c "ulimit -s 64; exec '$quantize' m.gguf out $planned --threads 4"
skip G16 "for servers"

# I: the quantizer itself.
row I1 "input is rounded already" 2 "--requantize" "$quantize" plain out --plain --type Q8_0
row I1 "... the same, with a measured plan" 2 "--requantize" "$quantize" plain out --bpw 4.6 --no-search $texts
row I1 "... said before importances are gathered" 2 "--requantize" \
    "$quantize" plain out --bpw 4.6 --no-search $texts --mem-limit 100K
row I4 "statistics that are none, said before, too" 3 "no statistics (general.type" \
    "$quantize" m.gguf out --bpw 6 $texts --mem-limit 100K --stats m.gguf
row I1 "... and --requantize does it" 0 "" "$quantize" plain out --plain --type Q8_0 --requantize
row -- "a mix without --type, as llama.cpp takes it" 2 "many: 'Q4_K_M' (quern-quantize MODEL OUT.gguf; a mix is given as --type" \
    "$quantize" m.gguf out Q4_K_M
for type in 'ffn_dwon=Q8_0' 'attn_norm=Q8_0'; do
    row -- "a rule that no tensor follows: $type" 2 "--type '$type': no tensor that is rounded" \
        "$quantize" m.gguf out $q4 --type "$type"
done
row -- "a rule that some follow" 0 "" "$quantize" m.gguf out $q4 --type '^blk\.1\.ffn_down=Q8_0'
for bits in -1 1e30 64.5; do row -- "--bpw $bits" 2 "above 0 to 64 are possible" "$quantize" m.gguf out --bpw=$bits $texts; done
row -- "--plain with a size" 2 "--plain takes a mix: --type" "$quantize" m.gguf out --plain --size 1M
sed 's/"quern_recipe": *1/"quern_recipe": 2/' recipe.json >later.json
row -- "a recipe of a later version" 3 "is no recipe" "$quantize" m.gguf out --recipe later.json $texts
sed 's/"blk.0.attn_q.weight"/"blk.0.attn_q.\\u001b[2Jweight"/' recipe.json >escape.json
row -- "a recipe with a tensor that is not there" 3 "the recipe has no tensor 'blk.0.attn_q.weight'" \
    "$quantize" m.gguf out --recipe escape.json $texts
sed 's/"tensors": *{/&"blk.0.\\u001b[2Jx": "Q8_0", /' recipe.json >escape.json
row -- "... with one too many, shown escaped" 3 "names a tensor 'blk.0.\\x1B[2Jx' that the model lacks" \
    "$quantize" m.gguf out --recipe escape.json $texts
row -- "more threads than there can be, said before a folder is converted" 2 "1 to 1024 are possible" \
    "$quantize" hf out $q4 --threads 4096
row -- "... and for an imprint" 2 "1 to 1024 are possible" "$quantize" imprint hf fit.txt -o out --threads 4096
: >nothing; head -c 100 fit.txt >short; head -c 9000 /dev/zero | tr '\0' % >same
head -c 9000 m.gguf >binary
for text in nothing short same binary; do
    words=tokens; [ $text = nothing ] && words="0 tokens"
    row I2 "calibration: $text" 2 "$words" "$quantize" m.gguf out --bpw 6 --calibration $text --heldout held.txt
    row I2 "held-out text: $text" 2 "$words" \
        "$quantize" m.gguf out --recipe recipe.json --no-feedback --calibration fit.txt --heldout $text
done
# What is read or written last is asked for first: only the refusal is said, nothing of work that went before.
for last in --heldout "--tune --tune-stop" --save-recipe; do
    row I2 "$last: no such file, said before the work" 6 "nowhere/file" "$quantize" m.gguf out --recipe recipe.json $texts --force \
        $last nowhere/file
    is I2 "... and nothing else" test "$(wc -l <said)" = 1
done
recipe_to() {   # WHAT CODE WORDS PATH: refused before the work, and what was there stays
    local had=$(cksum "$4" 2>&1)
    row I2 "--save-recipe: $1" "$2" "--save-recipe: $3" "$quantize" m.gguf out $planned --save-recipe "$4" ${5:-}
    is I2 "... nothing else is said, what was there stays" test "$(wc -l <said)" = 1 -a "$(cksum "$4" 2>&1)" = "$had"
}
ln m.gguf hard.gguf
recipe_to "a folder" 6 "cannot write 'empty': it is there and is not a regular file" empty --force
recipe_to "exists (G12)" 2 "'plain' exists already" plain
recipe_to "is the input (G11)" 2 "'hard.gguf' is an input itself" hard.gguf --force
recipe_to "is the calibration text (G11)" 2 "'fit.txt' is an input itself" fit.txt --force
recipe_to "in a folder that cannot be written" 6 "cannot create '/proc/self/" /proc/self/recipe --force
echo before >old.json
row I2 "--save-recipe: a full disk (G7)" 6 "File too large" bash -c \
    "set -o pipefail; (ulimit -f 0; exec '$quantize' m.gguf --dry-run $planned --save-recipe old.json --force) 2>&1 | cat"
is I2 "... what was there stays" test "$(cat old.json)" = before
row I2 "--save-recipe: where the model goes" 2 "both the model and the recipe" "$quantize" m.gguf out $planned --save-recipe out
into() {    # WHAT FILE COMMAND...: a file that is read is no output, whatever --force says
    local what=$1 file=$2 had=$(cksum <"$2")
    shift 2
    row G11 "output is $what" 2 "'$file' is an input itself" "$@" --force
    is G11 "... which stays what it was" test "$(cksum <"$file")" = "$had"
}
into "the calibration text" fit.txt "$quantize" m.gguf fit.txt --bpw 6 --calibration fit.txt --heldout held.txt
into "the held-out text" held.txt "$quantize" m.gguf held.txt --bpw 6 --calibration fit.txt --heldout held.txt
into "the recipe" recipe.json "$quantize" m.gguf recipe.json $planned
into "the importances" poor.gguf "$quantize" m.gguf poor.gguf $q4 --imatrix poor.gguf
into "the text of an imprint" fit.txt "$quantize" imprint m.gguf fit.txt -o fit.txt
for option in "--save-recipe new.json" "--recipe recipe.json" "--stats fit.txt"; do
    row I2 "${option% *}: nothing is measured" 2 "${option% *} is for plans that are measured" "$quantize" m.gguf out $q4 $option
done
row I2 "held-out text = calibration" 2 "is the calibration text" "$quantize" m.gguf out --recipe recipe.json --no-feedback \
    --calibration fit.txt --heldout fit.txt
"$quantize" imprint m.gguf fit.txt -o m.stats >/dev/null 2>&1
row I3 "no moments for a tensor: falls back, listed" 0 "token_embd.weight: 1 of 1 without: no second moments" \
    "$quantize" m.gguf out --recipe recipe.json $texts --stats m.stats
"$build/tests/gen_edit" m.stats nan.stats fill blk.0.attn.h 0 255 2>said
row I3 "NaN among the moments: falls back, listed" 0 \
    "blk.0.attn_q.weight: 1 of 1 without: second moments are singular or not finite" \
    "$quantize" m.gguf out --recipe recipe.json $texts --stats nan.stats
row I3 "more than a limit fall back" 7 "fallbacks is 4: the gate 'fallbacks>1'" \
    "$quantize" m.gguf out --recipe recipe.json $texts --stats nan.stats --fail-if 'fallbacks>1'
row I3 "... not more" 0 "" "$quantize" m.gguf out --recipe recipe.json $texts --stats m.stats --fail-if 'fallbacks>1'
row I4 "importances of another model" 3 "another model" "$quantize" m.gguf out $q4 --imatrix other.imatrix
"$build/tests/gen_edit" poor.gguf lacks.gguf drop blk.1.ffn_up.weight.in_sum2 drop blk.1.ffn_up.weight.counts 2>said
row I4 "importances lack a tensor" 3 "blk.1.ffn_up.weight" "$quantize" m.gguf out $q4 --imatrix lacks.gguf
row I4 "... and --lax-imatrix goes without" 0 "" "$quantize" m.gguf out $q4 --imatrix lacks.gguf --lax-imatrix
"$build/quern-convert" m.gguf half.gguf --type f16 2>said
sed '/blk.1.ffn_up/s/"type": "[^"]*"/"type": "F16"/' recipe.json >keeps.json
row I4 "... or a recipe that leaves it whole" 0 "" "$quantize" half.gguf out --recipe keeps.json --no-feedback $texts \
    --imatrix lacks.gguf --dry-run
row I4 "... and one that rounds it does not" 3 "blk.1.ffn_up.weight" "$quantize" half.gguf out $planned --imatrix lacks.gguf
"$build/tests/gen_edit" m.gguf unused.gguf u32 llama.block_count 1 2>said
row I4 "tensors that the model does not use need no importances" 0 "" "$quantize" unused.gguf out $measured --dry-run
for part in counts in_sum2; do
    "$build/tests/gen_edit" poor.gguf odd.gguf fill blk.1.ffn_up.weight.$part 0 255 2>said
    row I4 "importances with NaN among the $part" 3 "odd.gguf: entry 'blk.1.ffn_up.weight'" \
        "$quantize" m.gguf out $q4 --imatrix odd.gguf
done
"$build/tests/gen_edit" poor.gguf zero.gguf fill blk.1.ffn_up.weight.counts 0 0 2>said
row I4 "importances without a single token" 3 "blk.1.ffn_up.weight" "$quantize" m.gguf out $q4 --imatrix zero.gguf
row I5 "worse than plain rounding on the held-out text" 7 "worse than plain rounding" \
    "$quantize" m.gguf out $planned --imatrix poor.gguf
row I5 "... and --force writes it" 0 "warning: the result is worse" "$quantize" m.gguf out $planned --imatrix poor.gguf --force
is I5 "... as a file" test -s out
row I5 "not worse: written" 0 "plain rounding to the same types: KL" "$quantize" m.gguf out $planned
is I5 "... and the same bytes as ever" cmp -s out whole
rm -f out; "$quantize" m2.gguf out $measured >/dev/null 2>&1 & pid=$!
sleep $(awk "BEGIN { print $took * 0.9e-6 }"); kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
[ -e out ] && late=" (had ended)" || late=
"$quantize" m2.gguf out $measured --force --threads 3 >said 2>&1
tell $(cmp -s out undisturbed && [ -z "$(left)" ] && echo 1) \
    I6 "killed at 90 %, run again: the same bytes$late" - "$(grep -m1 'going on' said)"
for threads in 1 2 4; do "$quantize" m.gguf t$threads $planned --threads $threads >/dev/null 2>&1; done
is I7 "1, 2 and 4 threads: the same bytes" test -s t1 -a "$(cksum <t1)" = "$(cksum <t2)" -a "$(cksum <t1)" = "$(cksum <t4)"
row I8 "rows of 64 into blocks of 256: the plan says so" 0 "rows do not divide into" \
    "$quantize" m.gguf --plain --type Q4_K_M --dry-run
skip I9 "for pruned files; a rounded one is opened and run for its receipt before it gets its name"
spoil() { rm -rf bad; cp -r hf bad; }
spoil; printf '\377\377\377\377\377\377\377\000' | dd of=bad/model.safetensors bs=1 conv=notrunc 2>/dev/null
row I10 "safetensors: header longer than the file" 3 "model.safetensors" "$quantize" bad out $q4
spoil; sed -i '0,/"F32"/s//"F99"/' bad/model.safetensors
row I10 "safetensors: unknown dtype" 3 "F99" "$quantize" bad out $q4
spoil; rm bad/model.safetensors
echo '{"weight_map": {"model.norm.weight": "../hf/model.safetensors"}}' >bad/model.safetensors.index.json
row I10 "safetensors: the index names a file elsewhere" 3 "../hf" "$quantize" bad out $q4
echo '{"weight_map": {"model.norm.weight": "gone.safetensors"}}' >bad/model.safetensors.index.json
row I10 "safetensors: the index names a file that is not there" 3 "gone" "$quantize" bad out $q4
skip I10 "overlapping offsets and duplicate names: tests/test_convert_bad.c and test_safetensors.c"
is I "the input is untouched" test "$("$build/tests/gen_tiny" model again.gguf llama; cksum <again.gguf)" = "$(cksum <m.gguf)"

finish
