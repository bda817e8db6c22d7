# lib.sh - what the test scripts share: counting, and the closing line that suite.sh adds up. To be sourced; a script ends in
# `finish`.
passed=0 failed=0 skipped=0

ok()   { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL $1"; }
skip() { skipped=$((skipped + 1)); echo "SKIPPED $1: $2"; }       # NAME WHY

# NAME COMMAND...: the command must succeed. A single word is evaluated: for pipes, lists and redirections.
check() {
    if if [ $# -eq 2 ]; then eval "$2"; else "${@:2}"; fi; then ok; else fail "$1"; fi
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ]
    exit
}
skip_all() { skip "$@"; finish; }                                  # NAME WHY: nothing of this script can run here

# COMMAND... writes ./target over what is there; ./old is such an older file, ./new what the command makes. Killed ($KILLS times) at
# random times within one and a half of what it takes, it must leave old, new or, where there was no file, none.
kill_writer() {
    local broken=0 whole=0 kept=0 absent=0 temps=0 begin span had pid delay i
    cp old target
    begin=${EPOCHREALTIME/[.,]/}
    for i in 1 2 3; do "$@"; done
    span=$(((${EPOCHREALTIME/[.,]/} - begin) / 2))
    RANDOM=${SEED:-1}
    for ((i = 0; i < KILLS; i++)); do
        rm -f target
        had=$((i % 2))
        if [ $had = 1 ]; then cp old target; fi
        "$@" 2>/dev/null &
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
    echo "$KILLS kills: $absent without a file, $kept with the old one, $whole with the new one, $broken broken;" \
        "$temps left a temporary file"
    check 'no broken file under the final name' [ $broken -eq 0 ]
    check 'some kills came while the file was written' [ $((absent + kept)) -gt 0 -a $temps -gt 0 ]
    check 'the next run ends well' "$@"
    check 'and writes the file' cmp -s target new
    check 'and removes what was left' '! ls -A | grep -q "quern-[0-9]"'
}
