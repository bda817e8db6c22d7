#!/usr/bin/env bash
# G24: a memory limit of a control group below the plan. A real group, made by whoever owns the tree of groups: systemd (a scope of
# the user's own or, for root, of the system) or the person who hands over a folder. Nothing is made beneath the group that somebody
# else's service put this process into: the tree has one writer, and a group left behind would keep that service from ending its
# own.
#   QUERN_TEST_CGROUP=/sys/fs/cgroup/mine bash tests/test_cgroup.sh      a writable group with the memory controller, v1 or v2
# tests/test_pool.c shows the same code many other trees.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
quern=${BUILD:-build}/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/cgroup.XXXXXX")
limit=$((512 << 20))
group=''

leave() {
    [ -z "$group" ] || rmdir "$group"
    rm -rf "$dir"
}
trap leave EXIT

# ---- who can limit a command? ----
own() {
    ( echo "$BASHPID" >"$group/cgroup.procs" && exec "$@" )      # this child alone: the group is empty when it ends
}
scope() { systemd-run $manager --scope --quiet -p MemoryMax=$limit "$@"; }

manager=''
if [ -n "${QUERN_TEST_CGROUP:-}" ]; then
    group=$QUERN_TEST_CGROUP/quern-test.$$
    if ! mkdir "$group" 2>/dev/null; then
        group=''
        skip_all 'G24 control group' "no group can be made in $QUERN_TEST_CGROUP"
    fi
    file=$group/memory.max; [ -e "$file" ] || file=$group/memory.limit_in_bytes
    if ! echo $limit >"$file" 2>/dev/null; then
        skip_all 'G24 control group' 'the group has no memory controller'
    fi
    limited=own
else
    limited=scope
    [ "$(id -u)" -eq 0 ] || manager=--user
    if ! command -v systemd-run >/dev/null ||
       ! timeout 10 systemd-run $manager --scope --quiet true >/dev/null 2>&1 </dev/null; then
        skip_all 'G24 control group' 'no systemd to make one, and QUERN_TEST_CGROUP names none'
    fi
fi

# NAME EXPECTED-CODE WORDS COMMAND...
row() {
    local name=$1 code=$2 words=$3 got
    shift 3
    $limited "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    if [ $got -eq "$code" ] && grep -q -- "$words" "$dir/err" && ! grep -qE 'Sanitizer|runtime error' "$dir/err"; then
        ok
    else
        fail "$name: exit $got, expected $code: $(tail -1 "$dir/err")"
    fi
}

# 400,000 tokens of cache are 1.1 GiB for the model inside the program: more than the group has; the words say whose limit it is.
row 'G24 plan within the limit' 0 '^memory: ' "$quern" run -p a -n 2 -c 512
row 'G24 plan above the limit' 5 'are more than this process may have: 512.00 MiB' "$quern" run -p a -n 2 -c 400000
check 'G24: no words came out' [ ! -s "$dir/out" ]
finish
