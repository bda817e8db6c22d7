#!/usr/bin/env bash
# Measure quern and other engines alternately on the same file and print medians, spread and ratios.
#
#   bench/compare.sh [options] MODEL.gguf [NAME=BINARY[,FLAG...]]...
#
# BINARY is another engine's llama-bench (prefill, decode), llama-batched-bench (several sequences) or llama-sweep-bench (depth),
# told apart by its file name; flags after commas are passed on. Every round measures each engine once, quern first in odd
# rounds and last in even ones, so that a machine whose speed drifts treats them alike.
#   --quern PATH     quern's binary                    (build/quern)
#   --rounds N       rounds                            (5)
#   --threads LIST   thread counts                     (4)
#   --prompt LIST    prompt lengths for prefill, '-' none   (512)
#   --gen N          tokens for decode, '-' none       (64)
#   --batch LIST     sequences at once, '-' none       (-)
#   --depth LIST     tokens already in the cache       (0)
#   --out FILE       every sample as CSV               (standard output has the table only)
# Columns of the CSV: round,engine,test,n,batch,depth,threads,tokens_per_second. Speeds of several sequences are of all together.
set -eu
quern=build/quern rounds=5 threads=4 prompt=512 gen=64 batch=- depth=0 out=
while [ $# -gt 0 ]; do
    case $1 in
        --quern|--rounds|--threads|--prompt|--gen|--batch|--depth|--out)
            [ $# -ge 2 ] || { echo "compare.sh: $1 wants a value" >&2; exit 2; }
            printf -v "${1#--}" %s "$2"; shift 2 ;;
        --help|-h) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        -*) echo "compare.sh: unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
done
[ $# -ge 1 ] || { echo "compare.sh: which model?" >&2; exit 2; }
model=$1; shift
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
each() { [ "$1" = - ] || tr ',' '\n' <<<"$1"; }

# quern's JSON lines -> CSV rows.
run_quern() {      # ROUND THREADS
    local flags=()
    [ "$prompt" = - ] || flags+=(--prompt "$prompt")
    [ "$gen" = - ] || flags+=(--gen "$gen")
    [ "$batch" = - ] || flags+=(--batch "$batch")
    "$quern" bench "$model" --json --reps 1 --threads "$2" --depth "$depth" "${flags[@]}" 2>/dev/null |
    awk -v round="$1" -v threads="$2" '
        function field(name,   s) { s = $0
            if (!match(s, "\"" name "\":[ ]*\"?[^,\"}]*")) return ""
            s = substr(s, RSTART, RLENGTH); sub(/^[^:]*:[ ]*"?/, "", s); return s }
        /"tps_median"/ { print round ",quern," field("test") "," field("n") "," field("batch") "," field("depth") "," threads "," field("tps_median") }'
}

# llama-bench's JSON: one object per test, a field per line or all in one.
run_bench() {      # ROUND THREADS NAME BINARY FLAGS...
    local round=$1 t=$2 name=$3 binary=$4 d
    shift 4
    for d in $(each "$depth"); do
        local flags=(-p 0 -n 0)
        [ "$prompt" = - ] || flags[1]=$prompt
        [ "$gen" = - ] || flags[3]=$gen
        [ "$d" = 0 ] || flags+=(-d "$d")
        "$binary" -m "$model" "${flags[@]}" -t "$t" -r 1 -o json "$@" 2>/dev/null | tr ',' '\n' |
        awk -v round="$round" -v name="$name" -v threads="$t" -v depth="$d" '
            /"n_prompt"/ { sub(/.*:[ ]*/, ""); p = $0 + 0 }
            /"n_gen"/    { sub(/.*:[ ]*/, ""); g = $0 + 0 }
            /"avg_ts"/   { sub(/.*:[ ]*/, "")
                           if (p) print round "," name ",prefill," p ",1," depth "," threads "," $0 + 0
                           else   print round "," name ",decode," g ",1," depth "," threads "," $0 + 0 }'
    done
}

# llama-batched-bench's table: | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | ...
run_batched() {    # ROUND THREADS NAME BINARY FLAGS...
    local round=$1 t=$2 name=$3 binary=$4
    shift 4
    [ "$batch" = - ] && return
    "$binary" -m "$model" -c 4096 -b 2048 -npp 16 -ntg "$gen" -npl "$batch" -t "$t" "$@" 2>&1 |
    awk -F'|' -v round="$round" -v name="$name" -v threads="$t" -v gen="$gen" '
        $2 + 0 > 0 && NF > 9 { print round "," name ",decode," gen "," $4 + 0 ",0," threads "," $9 + 0 }'
}

# llama-sweep-bench's table: | PP | TG | N_KV | T_PP | S_PP | T_TG | S_TG |, one row per multiple of the prompt length.
run_sweep() {      # ROUND THREADS NAME BINARY FLAGS...
    local round=$1 t=$2 name=$3 binary=$4 most p
    shift 4
    most=$(each "$depth" | sort -n | tail -1) p=${prompt%%,*}
    "$binary" -m "$model" -c $((most + p + p)) -ub "$p" -t "$t" "$@" 2>&1 |
    awk -F'|' -v round="$round" -v name="$name" -v threads="$t" -v depths=",$depth," '
        $2 + 0 > 0 && index(depths, "," $4 + 0 ",") {
            print round "," name ",prefill," $2 + 0 ",1," $4 + 0 "," threads "," $6 + 0
            print round "," name ",decode," $3 + 0 ",1," $4 + 0 "," threads "," $8 + 0 }'
}

run_peer() {       # ROUND THREADS NAME=BINARY[,FLAG...]
    local name=${3%%=*} call=${3#*=} parts
    IFS=, read -ra parts <<<"$call"
    case $(basename "${parts[0]}") in
        *batched-bench*) run_batched "$1" "$2" "$name" "${parts[@]}" ;;
        *sweep-bench*)   run_sweep "$1" "$2" "$name" "${parts[@]}" ;;
        *)               run_bench "$1" "$2" "$name" "${parts[@]}" ;;
    esac
}

for ((round = 1; round <= rounds; round++)); do
    for t in $(each "$threads"); do
        [ $((round % 2)) = 0 ] || run_quern "$round" "$t" >>"$samples"
        for peer in "$@"; do run_peer "$round" "$t" "$peer" >>"$samples"; done
        [ $((round % 2)) = 1 ] || run_quern "$round" "$t" >>"$samples"
    done
done
if [ -n "$out" ]; then
    { echo round,engine,test,n,batch,depth,threads,tokens_per_second; cat "$samples"; } >"$out"
fi

# The table: a row per test, a column group per engine (median, lowest-highest), then quern / engine.
sort -t, -k3,3 -k4,4n -k5,5n -k6,6n -k7,7n -k2,2 -k8,8g "$samples" | awk -F, '
    { test = $3 "," $4 "," $5 "," $6 "," $7; key = test SUBSEP $2
      if (!(test in seen)) { seen[test] = 1; tests[++n] = test }
      if (!($2 in known)) { known[$2] = 1; if ($2 != "quern") engines[++m] = $2 }
      value[key, ++count[key]] = $8 }
    function median(key,   c) { c = count[key]
        return c % 2 ? value[key, (c + 1) / 2] : (value[key, c / 2] + value[key, c / 2 + 1]) / 2 }
    function show(v) { return v < 100 ? sprintf("%.1f", v) : sprintf("%.0f", v) }
    function cell(key) { return key in count ? show(median(key)) " [" show(value[key, 1]) "-" show(value[key, count[key]]) "]" : "-" }
    END {
        printf "| test | n | batch | depth | threads | quern |"
        for (e = 1; e <= m; e++) printf " %s | ratio |", engines[e]
        printf "\n|---|---|---|---|---|---|"
        for (e = 1; e <= m; e++) printf "---|---|"
        printf "\n"
        for (i = 1; i <= n; i++) {
            split(tests[i], f, ",")
            ours = tests[i] SUBSEP "quern"
            printf "| %s | %s | %s | %s | %s | %s |", f[1], f[2], f[3], f[4], f[5], cell(ours)
            for (e = 1; e <= m; e++) { key = tests[i] SUBSEP engines[e]
                printf " %s | %s |", cell(key), key in count && ours in count ? sprintf("%.2f", median(ours) / median(key)) : "-" }
            printf "\n"
        }
    }'
