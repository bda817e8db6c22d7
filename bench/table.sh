#!/usr/bin/env bash
# Compare quern with other engines on one synthetic file after the other, and write one table of all.
#
#   bench/table.sh [options] SCRATCH OUT SHAPE:TYPE... -- [NAME=BINARY[,FLAG...]]...
#
# SCRATCH is a folder with room for the largest file; each is made by quern, measured by bench/compare.sh, and deleted. OUT.csv
# gets the samples (compare.sh's columns behind the model's), OUT.md the table, written anew after each model. A model whose
# samples are in OUT.csv already is not measured again, so that an interrupted run goes on where it was: delete its lines to
# have it measured once more.
#   --quern, --rounds, --threads, --prompt, --gen, --batch, --depth, --kv     as for compare.sh
#   --keep           leave the files in SCRATCH (and use those that are there)
#   --estimate       only say how long it would take
#   --quiet-by CMD   put CMD before each comparison, for example a lock that others respect
#   --note TEXT      a line for the head of the table: the machine, what else ran
# How long it will take is said first and again after each model, from rates of one core (see seconds_of); the table says what each
# model took. Short and still fair: --rounds 5 --threads 1,2,4 --prompt 128 --gen 16, about half a minute per round of a 1b model.
set -eu
here=$(dirname "$0")
quern=build/quern keep= quiet_by= note= caches= options=() estimate= rounds=5 threads=4 prompt=512 gen=64
while [ $# -gt 0 ]; do
    case $1 in
        --keep) keep=1; shift ;;
        --estimate) estimate=1; shift ;;
        --quern|--rounds|--threads|--prompt|--gen|--batch|--depth|--kv|--quiet-by|--note)
            [ $# -ge 2 ] || { echo "table.sh: $1 wants a value" >&2; exit 2; }
            case $1 in
                --quern) quern=$2; options+=("$1" "$2") ;;
                --quiet-by) quiet_by=$2 ;;
                --note) note=$2 ;;
                --rounds|--threads|--prompt|--gen) printf -v "${1#--}" %s "$2"; options+=("$1" "$2") ;;
                *) options+=("$1" "$2") ;;
            esac
            shift 2 ;;
        --help|-h) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        --) break ;;
        -*) echo "table.sh: unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
done
[ $# -ge 3 ] && [ "$1" != -- ] || { echo "table.sh: SCRATCH OUT SHAPE:TYPE... -- NAME=BINARY..." >&2; exit 2; }
scratch=$1 out=$2 models=()
shift 2
while [ $# -gt 0 ] && [ "$1" != -- ]; do models+=("$1"); shift; done
[ $# -eq 0 ] || shift

# Medians of every model, test and engine; a table per test and number of threads, before them one of all ratios.
write_table() {
    {
        echo "# quern and other engines on synthetic models"
        echo
        printf '%s, %s logical CPUs, %s.' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -1)" "$(nproc)" \
            "$(date -u +%Y-%m-%d)"
        [ -z "$note" ] || printf ' %s' "$note"
        printf '\nRandom weights written by `quern bench --synthetic SHAPE:TYPE --save`; `bench/table.sh %s`:\n' "${options[*]:-}"
        echo 'medians of tokens/s over alternating rounds [least-most], and what quern did divided by what the other did.'
        [ -z "$caches" ] || echo "$caches"
        awk -F, -f "$here/table.awk" "$out.csv"
    } >"$out.md.part"
    mv "$out.md.part" "$out.md"
}

is_done() { [ -e "$out.csv" ] && cut -d, -f1 "$out.csv" | grep -qxF "$1"; }

# Seconds that a model will take, from what one core of a server of 2023 does: 300 Gop/s in quern, 110 in others and 50 of those
# with codebooks; 12 GB/s of weights, 40 at most. Prefill runs twice, once to warm up unless the flags say no, decode only in
# quern; 2 s to start.
seconds_of() {
    awk -v spec="$1" -v peers="$2" -v cold="$cold" -v rounds="$rounds" -v threads="$threads" -v prompt="$prompt" \
        -v gen="$gen" 'BEGIN {
        shape = spec; sub(/:.*/, "", shape); type = substr(spec, length(shape) + 2)
        match(shape, /[0-9.]+[bB]?$/); weights = substr(shape, RSTART) + 0
        weights = weights ? weights : 0.001
        bits = type ~ /^(bf16|f16)$/ ? 16 : type ~ /8/ ? 8.5 : type ~ /6/ ? 6.6 : type ~ /5/ ? 5.6 : type ~ /4/ ? 4.6 : 3
        n = split(threads, t, ","); prompts = split(prompt, p, ",")
        for (e = 0; e <= peers; e++) {
            rate = e == 0 ? 300 : type ~ /^iq[123]/ ? 50 : 110
            sum += 2
            for (i = 1; i <= n; i++) {
                for (j = 1; j <= prompts; j++) sum += (e && cold ? 1 : 2) * p[j] * 2 * weights / (rate * t[i])
                sum += (e ? 1 : 2) * gen * weights * bits / 8 / (t[i] > 3 ? 40 : 12 * t[i])
            }
        }
        printf "%d", rounds * sum + 1 }'
}

# What is still to be done, a model that is measured now left out.
seconds_left() { # PEERS EXCEPT
    local sum=0 spec
    for spec in "${models[@]}"; do
        if [ "$spec" = "$2" ] || is_done "$spec"; then continue; fi
        sum=$((sum + $(seconds_of "$spec" "$1")))
    done
    echo "$sum"
}

cold=0
if [[ "$*" = *,--no-warmup* || "$*" = *,-w,0* ]]; then cold=1; fi
left=$(seconds_left $# '')
echo "table.sh: about $(((left + 59) / 60)) minutes" >&2
[ -z "$estimate" ] || exit 0

said=0 took=0
for spec in "${models[@]}"; do
    if is_done "$spec"; then continue; fi
    file=$scratch/${spec//:/-}.gguf part=$scratch/${spec//:/-}.csv begin=$SECONDS
    if [ ! -e "$file" ] && ! "$quern" bench --synthetic "$spec" --save "$file" >/dev/null; then
        echo "table.sh: $spec cannot be made" >&2
        continue
    fi
    $quiet_by bash "$here/compare.sh" "${options[@]}" --out "$part" "$file" "$@" >"$part.md"
    caches=$(grep '^Caches' "$part.md" || true)
    # All samples of a model at once: what stands in OUT.csv is complete.
    [ -e "$out.csv" ] || echo "model,$(head -1 "$part"),seconds" >"$out.csv"
    sed -n "2,\$s/^\(.*\)\$/$spec,\1,$((SECONDS - begin))/p" "$part" >>"$out.csv"
    rm -f "$part" "$part.md"
    [ -n "$keep" ] || rm -f "$file"
    write_table
    said=$((said + $(seconds_of "$spec" $#))) took=$((took + SECONDS - begin))
    minutes=$((($(seconds_left $# "$spec") * took / said + 59) / 60))
    echo "table.sh: $spec took $((SECONDS - begin)) s; about $minutes minutes left" >&2
done
write_table
