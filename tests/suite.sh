#!/usr/bin/env bash
# Run every test program and script of one build folder; add up what they say.
#   BUILD=build bash tests/suite.sh
# A program is tests/test_*.c or check_*.c, a script tests/test_*.sh (it finds the programs in $BUILD). Each closes with the
# line "N passed, N failed, N skipped"; one that does not (a crash, say) counts as a failure of its own.
set -u
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build}
passed=0 failed=0 skipped=0
export QUERN_TMP=$(mktemp -d)
chmod 711 "$QUERN_TMP"      # tests that run a program as another user let it in by name
trap 'rm -rf "$QUERN_TMP"' EXIT

count() {   # NAME OUTPUT STATUS
    local last
    last=$(printf '%s\n' "$2" | grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' | tail -1)
    printf '%s\n' "$2" | grep -vE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' | grep . | sed "s|^|  $1: |"
    if [ -z "$last" ]; then
        echo "FAIL $1 ended without a result (status $3)"
        failed=$((failed + 1))
        return
    fi
    printf '%-28s %s\n' "$1" "$last"
    set -- $last "$3"
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
    if [ "$7" -ne 0 ] && [ "$3" -eq 0 ]; then failed=$((failed + 1)); fi
}

for source in tests/test_*.c tests/check_*.c tests/test_*.sh; do
    [ -e "$source" ] || continue
    name=$(basename "${source%.*}")
    case $source in
        *.c)  [ -z "${ONLY:-}" ] || [[ $name == $ONLY ]] || continue
              output=$(timeout 1200 "$BUILD/tests/$name" 2>&1 </dev/null) ;;
        *.sh) [ -z "${ONLY:-}" ] || [[ $name == $ONLY ]] || continue
              output=$(timeout 1200 bash "$source" 2>&1 </dev/null) ;;
    esac
    count "$name" "$output" $?
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
