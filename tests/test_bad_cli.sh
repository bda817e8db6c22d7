#!/usr/bin/env bash
# Bad inputs, sections A and B, given to the program: exit code, one line on stderr with the file and the words, nothing on stdout
# after a refusal, at most 2 s (a file of 10^6 tensors: 5 s). Verbs that the program does not have are SKIPPED by name.
#   BUILD=build bash tests/test_bad_cli.sh
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}
quern=$build/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/bad.XXXXXX")
trap 'rm -rf "$dir"' EXIT

wrong() { echo "FAIL $verb $id ($what): $1"; good=0; }

# A row given to a verb; $5 is the code that is expected, "ok" for any of 0, 3, 4 where the small file is accepted by the reader
# but is no whole model.
give() {    # VERB ID FILE WORDS EXPECTED WHAT
    local verb=$1 id=$2 file=$3 words=$4 expected=$5 what=$6 good=1 code lines limit=5
    local begin=${EPOCHREALTIME/[.,]/}
    case $verb in
        run) timeout 20 "$quern" run "$file" -p x -n 1 >"$dir/out" 2>"$dir/err" </dev/null ;;
        *)   timeout 20 "$quern" "$verb" "$file" >"$dir/out" 2>"$dir/err" </dev/null ;;
    esac
    code=$?
    local took=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000000))
    lines=$(wc -l <"$dir/err")
    if [ "$expected" = ok ]; then
        case $code in 0|3|4) ;; *) wrong "exit code $code: $(head -c 300 "$dir/err")" ;; esac
    elif [ "$code" -ne "$expected" ]; then
        wrong "exit code $code, expected $expected: $(head -c 300 "$dir/err")"
    elif [ "$expected" -ne 0 ]; then
        [ "$lines" -eq 1 ] || wrong "$lines lines on stderr"
        grep -qF -- "$words" "$dir/err" || wrong "no '$words' in: $(head -c 300 "$dir/err")"
        grep -qF -- "$file" "$dir/err" || wrong "the file is not named in: $(head -c 300 "$dir/err")"
        [ ! -s "$dir/out" ] || wrong "something on stdout"
    fi
    LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f\x7f]' "$dir/err" && wrong "control characters on stderr"
    [ "$verb" = run ] || ! LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f\x7f]' "$dir/out" || wrong "control characters on stdout"
    [ "$took" -le "$limit" ] || wrong "took $took s"
    if [ $good = 1 ]; then ok; else failed=$((failed + 1)); fi
    codes=$codes\ $code
}

"$build/tests/gen_bad" "$dir" >"$dir/list" || { fail gen_bad; finish; }
echo 'row   exit codes of: show verify run'
while IFS=$'\t' read -r id file code words what; do
    codes=
    for verb in show verify run; do
        expected=$code
        # What the reader accepts: show shows it; for run it is no model, verify says so.
        if [ "$code" = 0 ] && [ "$verb" != show ]; then expected=ok; fi
        give "$verb" "$id" "$file" "$words" "$expected" "$what"
    done
    printf '%-5s %-36s %s\n' "$id" "$what" "$codes"
done <"$dir/list"
finish
