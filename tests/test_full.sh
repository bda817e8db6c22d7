#!/usr/bin/env bash
# A full disk, a real one (bad-inputs G7): a tmpfs of 1 MiB in a mount namespace of its own. Where that is not allowed: SKIPPED;
# test_faults.c lets every single write fail with ENOSPC in any case.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
copy=$PWD/${BUILD:-build}/tests/gen_copy
model=$PWD/models/tiny-books-q8_0.gguf
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/full.XXXXXX")
trap 'rm -rf "$dir"' EXIT
if ! unshare -m sh -c "mount -t tmpfs -o size=1m tmpfs '$dir'" 2>/dev/null; then
    skip_all test_full 'mounting a tmpfs is not allowed here'
fi
# Within the namespace: the target exists, is an older file, and stays it. The words are those of the check before the data.
unshare -m bash -c '
    mount -t tmpfs -o size=1m tmpfs "$1" && cd "$1" && echo old >target && cp target was
    "$2" --force "$3" target 2>error
    echo "code $?" >>error
    cmp -s target was && echo "kept" >>error
    [ -z "$(ls -A | grep quern-)" ] && echo "clean" >>error
    cat error
' _ "$dir" "$copy" "$model" >"$dir.out"
for words in "code 6" "kept" "clean" "are free"; do
    check "no '$words' in: $(cat "$dir.out")" grep -q "$words" "$dir.out"
done
rm -f "$dir.out"
finish
