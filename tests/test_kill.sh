#!/usr/bin/env bash
# kill -9 the writer at random times (bad-inputs G13): under the final name there is the old file, the whole new one or none.
#   KILLS=1000 BUILD=build bash tests/test_kill.sh
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
copy=$PWD/${BUILD:-build}/tests/gen_copy
KILLS=${KILLS:-60}
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
    fail "the copies are not right: $(cat error)"
    finish
fi
rm -f check check2

kill_writer "$copy" --force new target
cd / && rm -rf "$dir"
finish
