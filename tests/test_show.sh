#!/usr/bin/env bash
# quern show: what it prints of a file whose content is known, as text and as JSON, and that nothing in it reaches a terminal raw.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
quern=${BUILD:-build}/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/show.XXXXXX")
trap 'rm -rf "$dir"' EXIT
has() {     # NAME PATTERN FILE: a line of FILE is matched by the extended pattern
    if grep -qE -- "$2" "$3"; then ok; else
        fail "$1: no line like: $2"
        head -c 2000 "$3"
    fi
}

u64() { printf '\\%03o\\0\\0\\0\\0\\0\\0\\0' "$1"; }
string() { u64 ${#1}; printf '%s' "$1"; }

# Six keys, among them a text with ESC and invalid UTF-8, and an array of eight; one tensor of two Q8_0 blocks; 7 bytes too many.
printf "GGUF\3\0\0\0$(u64 1)$(u64 6)" >"$dir/f.gguf"
printf "$(string general.architecture)\10\0\0\0$(string lla)" >>"$dir/f.gguf"
printf "$(string lla.context_length)\4\0\0\0\0\020\0\0" >>"$dir/f.gguf"
printf "$(string x.evil)\10\0\0\0$(u64 8)a\033[31m\377\n" >>"$dir/f.gguf"
printf "$(string x.eight)\11\0\0\0\0\0\0\0$(u64 8)\1\2\3\4\5\6\7\10" >>"$dir/f.gguf"
printf "$(string x.minus)\5\0\0\0\376\377\377\377" >>"$dir/f.gguf"
printf "$(string x.float)\6\0\0\0\315\314\314\075" >>"$dir/f.gguf"
printf "$(string t)\2\0\0\0$(u64 32)$(u64 2)\10\0\0\0$(u64 0)" >>"$dir/f.gguf"
size=$(stat -c %s "$dir/f.gguf")
head -c $(((32 - size % 32) % 32 + 68 + 28 + 7)) /dev/zero >>"$dir/f.gguf"

"$quern" show --tensors "$dir/f.gguf" >"$dir/text" 2>"$dir/err"
check "exit code" [ $? -eq 0 ]
has architecture '^architecture +lla$' "$dir/text"
has name '^name +\(not given\)$' "$dir/text"
has parameters '^parameters +64$' "$dir/text"
has context '^context +4,096 tokens$' "$dir/text"
has types '^  Q8_0 +1 tensors +64 values +68 bytes +100.0 %$' "$dir/text"
has bits '1 tensors, 68 bytes, 8.50 bits per value' "$dir/text"
has escape '^  x.evil  string = "a\\x1B\[31m\\xFF\\x0A"$' "$dir/text"
has array '^  x.eight  u8\[8\] = 1, 2, 3, 4, 5, 6, \.\.\.$' "$dir/text"
has minus '^  x.minus  i32 = -2$' "$dir/text"
has float '^  x.float  f32 = 0.1$' "$dir/text"
has plan '^memory +no plan: .*lla' "$dir/text"
has tensor '^  t  Q8_0 \[32, 2\]  68 bytes at [0-9]+$' "$dir/text"
has trailing '7 bytes after the last tensor' "$dir/err"
! LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f\x7f-\xff]' "$dir/text"
check "no control characters" [ $? -eq 0 ]

"$quern" show --full "$dir/f.gguf" >"$dir/text" 2>/dev/null
has "full array" '^  x.eight  u8\[8\] = 1, 2, 3, 4, 5, 6, 7, 8$' "$dir/text"

"$quern" show --json --tensors "$dir/f.gguf" >"$dir/json" 2>/dev/null
check "exit code of --json" [ $? -eq 0 ]
has "JSON head" '"architecture": "lla", "name": null, "version": 3, "alignment": 32' "$dir/json"
has "JSON sizes" '"trailing_bytes": 7, "gap_bytes": 0, "parameters": 64, "weight_bytes": 68, "context": 4096' "$dir/json"
has "JSON escape" '"key": "x.evil", "type": "string", "value": "a\\u001b\[31m.*\\n"' "$dir/json"
has "JSON array" '"elements": "u8", "count": 8, "shortened": true, "value": \[1, 2, 3, 4, 5, 6\]' "$dir/json"
has "JSON tensor" '"name": "t", "type": "Q8_0", "shape": \[32, 2\], "bytes": 68' "$dir/json"

"$quern" show models/tiny-books-q8_0.gguf >"$dir/text" 2>"$dir/err"
check "exit code of the embedded model" [ $? -eq 0 ]
has "plan of the embedded model" '^memory +weights 5.[0-9]+ MiB, cache [0-9.]+ [KM]iB \(512 tokens, [fi]16\), scratch ' "$dir/text"
QUERN_CPU=ref "$quern" show models/tiny-books-q8_0.gguf >"$dir/text" 2>"$dir/err"
has "the reference's cache" '^memory .*cache [0-9.]+ [KM]iB \(512 tokens, f16\), ' "$dir/text"
QUERN_CPU=ref "$quern" show --json models/tiny-books-q8_0.gguf >"$dir/json" 2>"$dir/err"
has "the cache in JSON, as --kv takes it" '"plan": \{.*, "context": 512, "kv": "f16"\}' "$dir/json"

"$quern" show "$dir/absent.gguf" >"$dir/text" 2>"$dir/err"
[ $? -eq 6 ]
check "exit code of a missing file" [ $? -eq 0 ]
has "missing file" 'No such file or directory' "$dir/err"
finish
