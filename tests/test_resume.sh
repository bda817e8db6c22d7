#!/usr/bin/env bash
# quern-quantize taken up again: kill -9 and SIGINT at random times, then the same command until it ends; always the same bytes.
#   KILLS=200 SEARCH=1 bash tests/test_resume.sh      by hand, with the plan's search; a few kills without it in the suite
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
root=$PWD
build=$root/${BUILD:-build}
quantize=$build/quern-quantize
shared=${QUERN_SHARED:-$root/../shared}
small=$shared/models/babyllama361/babyllama361-F32.gguf
if [ ! -r "$small" ]; then
    skip_all resume "../shared is not here"
fi
case $build in *asan*)
    skip_all resume "the runs take minutes under the sanitizers; test_journal runs its code there" ;;
esac
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/resume.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
head -c 16000 "$root/models/calibration.txt" >fit.txt
head -c 1100 "$root/models/heldout.txt" >held.txt
command=("$quantize" "$small" out --bpw 6 --calibration fit.txt --heldout held.txt)
[ -n "${SEARCH:-}" ] || command+=(--no-search)
begin=$(date +%s%N)
"${command[@]}" --threads 2 >/dev/null 2>report; mv out whole
took=$((($(date +%s%N) - begin) / 1000000))
check "a run that nobody disturbs, with error feedback" grep -qE '^error feedback: [1-9]' report

# Kills at random times of 1 to 60 % of a whole run, each time by another number of threads; what stands is gone on with.
RANDOM=${SEED:-11}
kills=0 ends=0 wrong=0 resumed=0 early=0
while [ $kills -lt "${KILLS:-3}" ]; do
    wait_ms=$((took * (1 + RANDOM % 60) / 100))
    "${command[@]}" --threads $((1 + RANDOM % 4)) >/dev/null 2>said &
    pid=$!
    sleep $((wait_ms / 1000)).$(printf '%03d' $((wait_ms % 1000)))
    kill -9 $pid 2>/dev/null && kills=$((kills + 1))
    wait $pid 2>/dev/null
    grep -q "going on" said && resumed=$((resumed + 1))
    [ -e out ] || continue
    ends=$((ends + 1))
    cmp -s out whole || wrong=$((wrong + 1))
    rm -f out
done 2>/dev/null
"${command[@]}" --threads 4 >/dev/null 2>&1
cmp -s out whole || wrong=$((wrong + 1))
check "I6, G13: $kills kills, $resumed resumed, $((ends + 1)) files, $wrong of other bytes" test $wrong -eq 0
check "some were taken up again" test $resumed -gt 0
check "nothing hidden stays" test -z "$(ls -A | grep '^\.')"

# SIGINT keeps what there is and says so; the next run goes on and removes it.
rm -f out
"${command[@]}" >/dev/null 2>said & pid=$!
sleep $((took / 3000)).5; kill -INT $pid 2>/dev/null; wait $pid; code=$?
if [ ! -e out ]; then
    check "G15: SIGINT, exit 130" test $code -eq 130
    check "G15: SIGINT says how to go on" grep -q "goes on from here" said
    check "G15: a journal stays" test -e .out.quern-journal
fi
# ... even when the journal was damaged meanwhile: it is used up to the damage.
size=$(stat -c %s .out.quern-journal 2>/dev/null || echo 0)
[ "$size" -lt 600 ] || printf 'Z' | dd of=.out.quern-journal bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
"${command[@]}" --force >/dev/null 2>said; check "after SIGINT and damage the same bytes" cmp -s out whole

# Another command over the same output does not use what the first left.
rm -f out
"${command[@]}" >/dev/null 2>&1 & pid=$!
sleep $((took / 4000)).3; kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
"$quantize" "$small" other --plain --type Q8_0; "$quantize" "$small" out --plain --type Q8_0 --force 2>said
check "another command begins anew" cmp -s out other
check "another command says nothing of an earlier run" test -z "$(grep 'going on' said)"
# Two runs for one output.
rm -f out
"${command[@]}" >/dev/null 2>&1 & pid=$!
for ((i = 0; i < 100; i++)); do [ -e .out.quern-journal ] && break; sleep 0.05; done
sleep 0.2
"${command[@]}" >/dev/null 2>said; code=$?
check "a second run for the same output is refused" test $code -eq 2 -a -n "$(grep 'another quern-quantize' said)"
kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null

finish
