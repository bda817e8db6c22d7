#!/usr/bin/env bash
# kill -9 the writer at random times (bad-inputs G13): under the final name there is the old file, the whole new one or none.
#   KILLS=1000 BUILD=build bash tests/test_kill.sh
set -u
cd "$(dirname "$0")/.."
copy=$PWD/${BUILD:-build}/tests/gen_copy
kills=${KILLS:-60}
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/kill.XXXXXX")
cd "$dir" || exit 1

# Two valid files of some megabytes, made of one tensor each: magic, version 3, 1 tensor, 0 keys; name, dims, shape, F32, offset.
make_file() {   # NAME MEGABYTES LETTER
    local values=$(($2 * 262144)) hex
    hex=$(printf '%08x' "$values" | sed 's/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/')
    {
        printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
        printf '\1\0\0\0\0\0\0\0t\1\0\0\0'; printf "$hex"; printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
        printf '\0\0\0\0\0\0\0'                                 # padding: the header has 57 bytes
        head -c $(($2 * 1048576)) /dev/zero | tr '\0' "$3"
    } >"$1"
}
make_file new 8 n
make_file old 1 o
if ! "$copy" new check 2>error || ! cmp -s new check || ! "$copy" old check2 2>>error || ! cmp -s old check2; then
    echo "FAIL the copies are not right: $(cat error)"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
rm -f check check2

# How long a whole copy takes here, in microseconds: kills fall within one and a half of that.
begin=${EPOCHREALTIME/[.,]/}
for i in 1 2 3; do "$copy" --force new timed; done
span=$(((${EPOCHREALTIME/[.,]/} - begin) / 2))
rm -f timed

broken=0 whole=0 kept=0 absent=0 temps=0
RANDOM=${SEED:-1}
for ((i = 0; i < kills; i++)); do
    rm -f target
    had=$((i % 2))
    if [ $had = 1 ]; then cp old target; fi
    "$copy" --force new target 2>/dev/null &
    pid=$!
    delay=$(((RANDOM * 32768 + RANDOM) % span))
    sleep "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    if ls -A | grep -q '^\.target\.quern-'; then temps=$((temps + 1)); fi
    if [ ! -e target ]; then
        if [ $had = 1 ]; then broken=$((broken + 1)); else absent=$((absent + 1)); fi
    elif cmp -s target new; then whole=$((whole + 1))
    elif [ $had = 1 ] && cmp -s target old; then kept=$((kept + 1))
    else broken=$((broken + 1)); fi
done 2>/dev/null
echo "$kills kills: $absent without a file, $kept with the old one, $whole with the new one, $broken broken;" \
    "$temps left a temporary file"

failed=0
if [ $broken -ne 0 ]; then echo "FAIL broken files under the final name"; failed=$((failed + 1)); fi
if [ $((absent + kept)) -eq 0 ] || [ $temps -eq 0 ]; then
    echo "FAIL no kill came while the file was written"; failed=$((failed + 1))
fi
# The next run cleans up.
"$copy" --force new target || failed=$((failed + 1))
if ls -A | grep -q quern-; then echo "FAIL a temporary file stays after the next run"; failed=$((failed + 1)); fi
cd / && rm -rf "$dir"
echo "$((4 - failed)) passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
