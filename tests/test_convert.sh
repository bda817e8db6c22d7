#!/usr/bin/env bash
# quern-convert through the program: exit codes, outputs that cannot or must not be written, kill -9 (bad-inputs G7-G13, G18, F).
#   KILLS=1000 BUILD=build bash tests/test_convert.sh
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/lib.sh"
convert=$root/${BUILD:-build}/quern-convert
case ${BUILD:-} in /*) convert=$BUILD/quern-convert ;; esac
model=$root/models/tiny-books-q8_0.gguf
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/convert.XXXXXX")
cd "$dir" || exit 1
code() { # NAME STATUS PATTERN COMMAND...: exit status, and a sentence on stderr; nothing on stdout, no temporary file left
    local name=$1 status=$2 pattern=$3 found
    shift 3
    "$@" >out.txt 2>err.txt </dev/null
    found=$?
    if [ $found -ne "$status" ]; then fail "$name: status $found, $(head -c 300 err.txt)"
    elif [ -n "$pattern" ] && ! grep -q -- "$pattern" err.txt; then fail "$name: '$(head -c 300 err.txt)'"
    elif [ -s out.txt ]; then fail "$name: something on stdout"
    elif ls -A . sub 2>/dev/null | grep -q quern-[0-9]; then fail "$name: a temporary file stays"
    else ok; fi
}

mkdir sub
cp "$model" in.gguf
code "plain" 0 "" "$convert" in.gguf plain.gguf
if cmp -s in.gguf plain.gguf; then ok; else fail "auto must copy"; fi
code "flags in any order" 0 "" "$convert" --type=f16 in.gguf --force plain.gguf
"$convert" --help >out.txt 2>err.txt && grep -q -- "--vocab-from" out.txt && ok || fail "--help"
"$convert" --version >out.txt 2>err.txt && grep -q "^quern" out.txt && ok || fail "--version"

# Usage: 2.
code "no operands" 2 "" "$convert"
code "one operand" 2 "" "$convert" in.gguf
code "three operands" 2 "" "$convert" in.gguf a b
code "unknown type" 2 "q9_0" "$convert" in.gguf a.gguf --type q9_0
code "unknown option" 2 "did you mean" "$convert" in.gguf a.gguf --typ f16
code "folder's options for a file" 2 "checkpoint's folder" "$convert" in.gguf a.gguf --name x
code "output exists (G12)" 2 "plain.gguf" "$convert" in.gguf plain.gguf
if [ "$(stat -c %s plain.gguf)" -gt 11000000 ]; then ok; else fail "the existing output was touched"; fi

# Output = input, by every way to it (G11).
ln in.gguf hard.gguf
ln -s in.gguf soft.gguf
for same in in.gguf ./in.gguf sub/../in.gguf hard.gguf soft.gguf "$dir/in.gguf"; do
    code "output = input as $same (G11)" 2 "" "$convert" in.gguf "$same" --force --type f16
done
if cmp -s in.gguf "$model"; then ok; else fail "the input was changed"; fi

# Places that cannot be written (G10) and inputs that cannot be read (G5): 6.
code "no such folder (G10)" 6 "nowhere" "$convert" in.gguf nowhere/a.gguf
code "output is a folder (G10)" 6 "sub" "$convert" in.gguf sub --force
if [ "$(id -u)" -ne 0 ]; then
    chmod 500 sub
    code "folder without write permission (G10)" 6 "sub" "$convert" in.gguf sub/a.gguf
    chmod 700 sub
fi
code "input missing (G5)" 6 "absent.gguf" "$convert" absent.gguf a.gguf
mkfifo pipe
code "input is a pipe (G5)" 6 "pipe" timeout 5 "$convert" pipe a.gguf
code "input is /dev/zero (G5)" 6 "zero" timeout 5 "$convert" /dev/zero a.gguf
code "input is no GGUF" 3 "" "$convert" "$root/LICENSE" a.gguf
code "folder without config.json" 3 "config.json" "$convert" sub a.gguf

# Limits and full disks (G7, G9): 6, the old output untouched.
echo old >kept.gguf
code "file size limit (G9)" 6 "" bash -c "ulimit -f 1000; exec '$convert' in.gguf kept.gguf --force --type f32"
if [ "$(cat kept.gguf)" = old ]; then ok; else fail "G9 touched the old output"; fi
if unshare -rm true 2>/dev/null && unshare -rm mount -t tmpfs none /mnt 2>/dev/null; then
    code "disk full (G7)" 6 "" unshare -rm bash -c \
        "mount -t tmpfs -o size=3m none sub && echo old >sub/k.gguf; '$convert' in.gguf sub/k.gguf --force; c=\$?
         [ \"\$(cat sub/k.gguf)\" = old ] || c=99
         ls -A sub | grep -q quern-[0-9] && c=98; exit \$c"
else
    skip "disk full (G7)" "no right to mount a tmpfs"
fi

# stdout is never used; stderr closed or full is no reason to fail (G18, G26).
"$convert" in.gguf quiet.gguf >&- 2>&- <&- && cmp -s in.gguf quiet.gguf && ok || fail "closed standard streams (G26)"
rm -f quiet.gguf

# SIGINT at several moments: 130 and nothing, or 0 and the whole file (G15).
stopped=0 wrong=0
for delay in 0.001 0.002 0.003 0.004 0.006 0.008 0.012 0.016 0.024 0.032 0.05 0.1; do
    rm -f int.gguf
    timeout --preserve-status -s INT $delay "$convert" in.gguf int.gguf --type f32 2>/dev/null
    case $? in
        130) stopped=$((stopped + 1)); [ ! -e int.gguf ] || wrong=$((wrong + 1)) ;;
        0) [ "$(stat -c %s int.gguf 2>/dev/null || echo 0)" -gt 23000000 ] || wrong=$((wrong + 1)) ;;
        *) wrong=$((wrong + 1)) ;;
    esac
done
if [ $stopped -gt 0 ] && [ $wrong -eq 0 ]; then ok; else fail "SIGINT: $stopped stopped, $wrong wrong"; fi
if ls -A | grep -q 'quern-[0-9]'; then fail "SIGINT leaves a temporary file"; else ok; fi

# kill -9 (G13).
KILLS=${KILLS:-40}
"$convert" in.gguf new --type f16
echo old >old
kill_writer "$convert" in.gguf target --force --type f16

cd / && rm -rf "$dir"
finish
