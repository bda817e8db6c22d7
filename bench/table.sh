#!/usr/bin/env bash
# Compare quern with other engines on one synthetic file after the other, and write one table of all.
#
#   bench/table.sh [options] SCRATCH OUT SHAPE:TYPE... -- [NAME=BINARY[,FLAG...]]...
#
# SCRATCH is a folder with room for the largest file; each is made by quern, measured by bench/compare.sh, and deleted. OUT.csv
# gets the samples (compare.sh's columns behind the model's), OUT.md the table, written anew after each model. A model whose
# samples are in OUT.csv already is not measured again, so that an interrupted run goes on where it was: delete its lines to
# have it measured once more.
#   --quern, --rounds, --threads, --prompt, --gen, --batch, --depth     as for compare.sh
#   --keep           leave the files in SCRATCH (and use those that are there)
#   --quiet-by CMD   put CMD before each comparison, for example a lock that others respect
#   --note TEXT      a line for the head of the table: the machine, what else ran
# How long it takes: per model and round about 3 x (prompt / prefill rate + gen / decode rate) per engine and thread count; the
# table says what each model took.
set -eu
here=$(dirname "$0")
quern=build/quern keep= quiet_by= note= options=()
while [ $# -gt 0 ]; do
    case $1 in
        --keep) keep=1; shift ;;
        --quern|--rounds|--threads|--prompt|--gen|--batch|--depth|--quiet-by|--note)
            [ $# -ge 2 ] || { echo "table.sh: $1 wants a value" >&2; exit 2; }
            case $1 in
                --quern) quern=$2; options+=("$1" "$2") ;;
                --quiet-by) quiet_by=$2 ;;
                --note) note=$2 ;;
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
        awk -F, -f "$here/table.awk" "$out.csv"
    } >"$out.md.part"
    mv "$out.md.part" "$out.md"
}

for spec in "${models[@]}"; do
    if [ -e "$out.csv" ] && cut -d, -f1 "$out.csv" | grep -qxF "$spec"; then continue; fi
    file=$scratch/${spec//:/-}.gguf part=$scratch/${spec//:/-}.csv begin=$SECONDS
    if [ ! -e "$file" ] && ! "$quern" bench --synthetic "$spec" --save "$file" >/dev/null; then
        echo "table.sh: $spec cannot be made" >&2
        continue
    fi
    $quiet_by bash "$here/compare.sh" "${options[@]}" --out "$part" "$file" "$@" >/dev/null
    # All samples of a model at once: what stands in OUT.csv is complete.
    [ -e "$out.csv" ] || echo "model,$(head -1 "$part"),seconds" >"$out.csv"
    sed -n "2,\$s/^\(.*\)\$/$spec,\1,$((SECONDS - begin))/p" "$part" >>"$out.csv"
    rm -f "$part"
    [ -n "$keep" ] || rm -f "$file"
    write_table
    echo "table.sh: $spec took $((SECONDS - begin)) s" >&2
done
write_table
