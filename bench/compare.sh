#!/usr/bin/env bash
# Measure quern and other engines alternately on the same file and print medians, spread and ratios.
#
#   bench/compare.sh [options] MODEL.gguf [NAME=BINARY[,FLAG...]]...
#
# BINARY is another engine's llama-bench (prefill, decode), llama-batched-bench (several sequences) or llama-sweep-bench (depth),
# told apart by its file name; flags after commas are passed on. Every round measures each engine once, quern first in odd
# rounds and last in even ones, so that a machine whose speed drifts treats them alike; a llama-bench and quern are started once
# for all thread counts. An engine that gives nothing (a type that it does not know) is named on standard error, is not asked
# again and has no figures in the table.
#   --quern PATH     quern's binary                    (build/quern)
#   --rounds N       rounds                            (5)
#   --threads LIST   thread counts                     (4)
#   --prompt LIST    prompt lengths for prefill, '-' none   (512)
#   --gen N          tokens for decode, '-' none       (64)
#   --batch LIST     sequences at once, '-' none       (-)
#   --depth LIST     tokens already in the cache       (0)
#   --kv TYPE        quern's cache                     (auto; other engines' by flags after commas, F16 without)
#   --out FILE       every sample as CSV               (standard output has the table only)
# Columns of the CSV: round,engine,test,n,batch,depth,threads,tokens_per_second,share_of_roof. Speeds of several sequences are of
# all together; the last column is quern's own. A llama-bench without -d measures decode at a depth by -gp and no prefill there.
set -eu
quern=build/quern rounds=5 threads=4 prompt=512 gen=64 batch=- depth=0 kv=auto out=
while [ $# -gt 0 ]; do
    case $1 in
        --quern|--rounds|--threads|--prompt|--gen|--batch|--depth|--kv|--out)
            [ $# -ge 2 ] || { echo "compare.sh: $1 wants a value" >&2; exit 2; }
            printf -v "${1#--}" %s "$2"; shift 2 ;;
        --help|-h) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        -*) echo "compare.sh: unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
done
[ $# -ge 1 ] || { echo "compare.sh: which model? --help tells more" >&2; exit 2; }
model=$1; shift
command -v "$quern" >/dev/null || { echo "compare.sh: there is no program '$quern': make, or --quern PATH" >&2; exit 2; }
for peer in "$@"; do
    binary=${peer#*=} binary=${binary%%,*}
    [[ $peer = ?*=* ]] && [ -x "$binary" ] || { echo "compare.sh: '$peer' is not NAME=BINARY of a program" >&2; exit 2; }
done
# The second: what quern's rows say of their caches; the third: why it has no rows.
samples=$(mktemp) caches=$(mktemp) errors=$(mktemp)
trap 'rm -f "$samples" "$caches" "$errors"' EXIT
each() { [ "$1" = - ] || tr ',' '\n' <<<"$1"; }

# quern's JSON lines -> CSV rows.
run_quern() {      # ROUND
    local flags=(--prompt "${prompt/#-/0}" --gen "${gen/#-/0}")
    [ "$batch" = - ] || flags+=(--batch "$batch")
    "$quern" bench "$model" --json --reps 1 --kv "$kv" --threads "$threads" --depth "$depth" "${flags[@]}" 2>"$errors" |
    awk -v round="$1" -v caches="$caches" '
        function field(name,   s) { s = $0
            if (!match(s, "\"" name "\":[ ]*\"?[^,\"}]*")) return ""
            s = substr(s, RSTART, RLENGTH); sub(/^[^:]*:[ ]*"?/, "", s); return s }
        /"tps_median"/ { print round ",quern," field("test") "," field("n") "," field("batch") "," field("depth") "," \
            field("threads") "," field("tps_median") "," field("share_of_roof")
            print field("kv") >> caches }'
}

# llama-bench's JSON: one object per test, a field per line or all in one. A test of both kinds is a decode behind its prompt.
run_bench() {      # ROUND NAME BINARY FLAGS...
    local round=$1 name=$2 binary=$3 d flags
    shift 3
    for d in $(each "$depth"); do
        flags=(-p 0 -n 0)
        [ "$prompt" = - ] || flags[1]=$prompt
        [ "$gen" = - ] || flags[3]=$gen
        if [ "$d" != 0 ]; then
            if "$binary" --help 2>&1 | grep -q -- --n-depth; then flags+=(-d "$d")
            elif [ "$gen" = - ]; then continue
            else flags=(-p 0 -n 0 -gp "$d,$gen"); fi
        fi
        "$binary" -m "$model" "${flags[@]}" -t "$threads" -r 1 -o json "$@" 2>/dev/null | tr ',' '\n' |
        awk -v round="$round" -v name="$name" -v depth="$d" '
            /"n_threads"/ { sub(/.*:[ ]*/, ""); t = $0 + 0 }
            /"n_prompt"/  { sub(/.*:[ ]*/, ""); p = $0 + 0 }
            /"n_gen"/     { sub(/.*:[ ]*/, ""); g = $0 + 0 }
            /"avg_ts"/    { sub(/.*:[ ]*/, "")
                            if (g) print round "," name ",decode," g ",1," depth "," t "," $0 + 0 ","
                            else   print round "," name ",prefill," p ",1," depth "," t "," $0 + 0 "," }'
    done
}

# llama-batched-bench's table: | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | ... on standard output or standard error. It wants
# a prompt: at depth 0 a short one.
run_batched() {    # ROUND THREADS NAME BINARY FLAGS...
    local round=$1 t=$2 name=$3 binary=$4 d most
    shift 4
    { [ "$batch" = - ] || [ "$gen" = - ]; } && return
    most=$(each "$batch" | sort -n | tail -1)
    for d in $(each "$depth"); do
        local pp=$d
        [ "$d" != 0 ] || pp=16
        "$binary" -m "$model" -c $(((pp + gen) * most + 256)) -b 2048 -npp "$pp" -ntg "$gen" -npl "$batch" -t "$t" "$@" 2>&1 |
        awk -F'|' -v round="$round" -v name="$name" -v threads="$t" -v gen="$gen" -v depth="$d" '
            $2 + 0 > 0 && NF > 9 { print round "," name ",decode," gen "," $4 + 0 "," depth "," threads "," $9 + 0 "," }'
    done
}

# llama-sweep-bench's table: | PP | TG | N_KV | T_PP | S_PP | T_TG | S_TG |, one row per multiple of the prompt length.
run_sweep() {      # ROUND THREADS NAME BINARY FLAGS...
    local round=$1 t=$2 name=$3 binary=$4 most p
    shift 4
    [ "$prompt" = - ] && return
    most=$(each "$depth" | sort -n | tail -1) p=${prompt%%,*}
    "$binary" -m "$model" -c $((most + p + p)) -ub "$p" -t "$t" "$@" 2>&1 |
    awk -F'|' -v round="$round" -v name="$name" -v threads="$t" -v depths=",$depth," -v gen="$gen" '
        $2 + 0 > 0 && NF > 7 && index(depths, "," $4 + 0 ",") {
            print round "," name ",prefill," $2 + 0 ",1," $4 + 0 "," threads "," $6 + 0 ","
            if (gen != "-") print round "," name ",decode," gen ",1," $4 + 0 "," threads "," $8 + 0 "," }'
}

run_peer() {       # ROUND NAME=BINARY[,FLAG...]
    local name=${2%%=*} call=${2#*=} parts t
    IFS=, read -ra parts <<<"$call"
    case $(basename "${parts[0]}") in
        *batched-bench*) for t in $(each "$threads"); do run_batched "$1" "$t" "$name" "${parts[@]}"; done ;;
        *sweep-bench*)   for t in $(each "$threads"); do run_sweep "$1" "$t" "$name" "${parts[@]}"; done ;;
        *)               run_bench "$1" "$name" "${parts[@]}" ;;
    esac
}

# Add what a function printed to the samples; say so when it printed nothing.
declare -A silent
keep() {           # WHAT FUNCTION...
    local what=$1 rows
    shift
    [ -z "${silent[$what]:-}" ] || return 0
    rows=$("$@" || true)
    if [ -n "$rows" ]; then echo "$rows" >>"$samples"
    else echo "compare.sh: ${what%%=*} gave nothing (round $round)" >&2; silent[$what]=1; fi
}

for ((round = 1; round <= rounds; round++)); do
    [ $((round % 2)) = 0 ] || keep quern run_quern "$round"
    [ -s "$samples" ] || { tail -1 "$errors" >&2; exit 1; }     # a file that quern cannot run is nothing to compare on
    for peer in "$@"; do keep "$peer" run_peer "$round" "$peer"; done
    [ $((round % 2)) = 1 ] || keep quern run_quern "$round"
done
if [ -n "$out" ]; then
    { echo round,engine,test,n,batch,depth,threads,tokens_per_second,share_of_roof; cat "$samples"; } >"$out"
fi

# The table: a row per test; medians [lowest-highest], quern's share of the roof, and quern divided by each other engine.
sort -t, -k3,3 -k4,4n -k5,5n -k6,6n -k7,7n -k2,2 -k8,8g "$samples" | awk -F, '
    { test = $3 "," $4 "," $5 "," $6 "," $7; key = test SUBSEP $2
      if (!(test in seen)) { seen[test] = 1; tests[++n] = test }
      if (!($2 in known)) { known[$2] = 1; if ($2 != "quern") engines[++m] = $2 }
      value[key, ++count[key]] = $8
      if ($2 == "quern") share[test] = share[test] " " $9 }
    function middle(list,   v, n, i, j, t) {
        n = split(list, v, " ")
        for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2 }
    function median(key,   c) { c = count[key]
        return c % 2 ? value[key, (c + 1) / 2] : (value[key, c / 2] + value[key, c / 2 + 1]) / 2 }
    function show(v) { return v < 100 ? sprintf("%.1f", v) : sprintf("%.0f", v) }
    function cell(key) {
        return key in count ? show(median(key)) " [" show(value[key, 1]) "-" show(value[key, count[key]]) "]" : "-" }
    END {
        printf "| test | n | batch | depth | threads | quern | of roof |"
        for (e = 1; e <= m; e++) printf " %s | ratio |", engines[e]
        printf "\n|---|---|---|---|---|---|---|"
        for (e = 1; e <= m; e++) printf "---|---|"
        printf "\n"
        for (i = 1; i <= n; i++) {
            split(tests[i], f, ",")
            ours = tests[i] SUBSEP "quern"
            printf "| %s | %s | %s | %s | %s | %s | %s |", f[1], f[2], f[3], f[4], f[5], cell(ours),
                tests[i] in share ? sprintf("%.0f %%", 100 * middle(share[tests[i]])) : "-"
            for (e = 1; e <= m; e++) { key = tests[i] SUBSEP engines[e]
                ratio = key in count && ours in count ? sprintf("%.2f", median(ours) / median(key)) : "-"
                printf " %s | %s |", cell(key), ratio }
            printf "\n"
        }
    }'
[ ! -s "$caches" ] ||
    printf '\nCaches of keys and values: quern %s; the others F16 where no flag says otherwise.\n' \
        "$(sort -u "$caches" | paste -sd, -)"
