#!/usr/bin/env bash
# What rounding costs a model: quern-quantize step by step at the bytes of given files, and those files, in one table.
#
#   bench/quantize_table.sh [options] SOURCE.gguf [NAME=FILE.gguf]...
#
# Every FILE (another tool's, say) is measured, and at the bytes of each of the files named by --at quern makes its own:
#   plain        --plain: llama.cpp's mix of --type, our scale search, the importances of --imatrix (left out without them)
#   allocation   types by measured loss, importances by mean squares of inputs, each value rounded by itself
#   feedback     the same types, errors fed back into the values still open
#   planned      types by the loss that is measured with error feedback
#   fisher       the same, importances weighed by squared gradients; this is what the program does when nothing is said
#   tuned        as fisher, with --tune
# Each is measured by `quern eval --against SOURCE` on every --text: KL divergence with its standard error, perplexity, top-1.
#   --bin DIR          where quern and quern-quantize are        (build)
#   --at NAME=TYPE     make files at NAME's bytes; TYPE for plain; may be said several times
#   --steps LIST       of the above, in this order               (plain,allocation,feedback,planned,fisher,tuned)
#   --imatrix FILE     importances for plain
#   --text FILE        a text to measure on; may be said several times
#   --chunks N         of each text, 0: all                      (60)
#   --dir DIR          where made files are put, and found again (quantize-table)
#   --threads N        (4)
#   --out FILE         CSV: name,bytes,text,kl,kl_error,kl_999,top1,perplexity,source_perplexity
# What the plan predicts and what the receipt measures is in $dir/NAME-STEP.log and NAME-STEP.json.
# For example, with ../shared beside the repository:
#   p=../shared/models/tiny-books t=../shared/text
#   bench/quantize_table.sh --at Q4_K_M=Q4_K_M --imatrix $p/peers/tiny-books.imatrix.gguf --text $t/books-heldout.txt \
#       --text $t/wikitext-2-raw-test.txt $p/tiny-books-BF16.gguf Q4_K_M=$p/peers/tiny-books-Q4_K_M.gguf
set -eu
bin=build steps=plain,allocation,feedback,planned,fisher,tuned imatrix= chunks=60 dir=quantize-table threads=4 out=
at=() texts=()
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2 ;;         --at) at+=("$2") ;;      --steps) steps=$2 ;;   --imatrix) imatrix=$2 ;; --text) texts+=("$2") ;;
        --chunks) chunks=$2 ;;   --dir) dir=$2 ;;         --threads) threads=$2 ;; --out) out=$2 ;;
        -h|--help) sed -n '2,/^set/p' "$0" | grep '^#' | sed 's/^# \{0,1\}//'; exit 0 ;;
        -*) echo "$0: unknown option $1 (--help)" >&2; exit 2 ;;
        *) break ;;
    esac
    shift 2
done
if [ $# -lt 1 ] || [ ${#texts[@]} -eq 0 ]; then
    echo "usage: $0 [options] --text FILE SOURCE.gguf [NAME=FILE.gguf]... (--help)" >&2
    exit 2
fi
source=$1; shift
mkdir -p "$dir"
csv=${out:-$dir/table.csv}
echo name,bytes,text,kl,kl_error,kl_999,top1,perplexity,source_perplexity >"$csv"

field() { sed -n "s/.*\"$1\":\([-0-9.e+]*\).*/\1/p"; }

measure() {   # NAME FILE: rows of the CSV and one of the table
    local text json row bytes logs=0 kl error top1 perplexity
    bytes=$(stat -Lc %s "$2") row="| $1 | $bytes |"
    for text in "${texts[@]}"; do
        json=$("$bin/quern" eval "$2" --against "$source" --text "$text" --chunks "$chunks" --threads "$threads" --kv f16 \
               --json 2>/dev/null)
        get() { printf '%s' "$json" | field "$1"; }
        kl=$(get kl_mean) error=$(get kl_error) top1=$(get same_top) perplexity=$(get perplexity)
        echo "$1,$bytes,$(basename "$text" .txt),$kl,$error,$(get kl_999),$top1,$perplexity,$(get base_perplexity)" >>"$csv"
        row+=$(awk "BEGIN { printf \" %.5f ± %.5f, %.2f %%, %.3f |\", $kl, $error, 100 * $top1, $perplexity }")
        logs=$(awk "BEGIN { print $logs + log($kl) }")
    done
    echo "$row $(awk "BEGIN { printf \"%.5f\", exp($logs / ${#texts[@]}) }") |"
}

make() {      # STEP NAME TYPE BYTES: $dir/NAME-STEP.gguf, unless it stands already
    local to=$dir/$2-$1.gguf recipe=$dir/$2-$1.json how=()
    [ -e "$to" ] && return 0
    case $1 in
        plain)      [ -n "$imatrix" ] || return 1
                    how=(--plain --type "$3" --imatrix "$imatrix") ;;
        allocation) how=(--size "$4" --gather diagonal --no-search --no-feedback --save-recipe "$recipe") ;;
        feedback)   how=(--recipe "$dir/$2-allocation.json" --gather diagonal --stats "$dir/moments") ;;
        planned)    how=(--size "$4" --gather diagonal --no-search --stats "$dir/moments" --save-recipe "$recipe") ;;
        fisher)     how=(--size "$4" --no-search --stats "$dir/moments" --save-recipe "$recipe") ;;
        tuned)      how=(--size "$4" --no-search --stats "$dir/moments" --tune)
                    [ ! -e "$dir/$2-fisher.json" ] || how=(--recipe "$dir/$2-fisher.json" --stats "$dir/moments" --tune) ;;
        *)          echo "$0: no step '$1'" >&2; exit 2 ;;
    esac
    [ -e "$dir/moments" ] || "$bin/quern-quantize" imprint "$source" -o "$dir/moments" --threads "$threads" >/dev/null 2>&1
    "$bin/quern-quantize" "$source" "$to" "${how[@]}" --threads "$threads" >"$dir/$2-$1.log" 2>&1 ||
        { echo "$0: $2 $1: $(tail -1 "$dir/$2-$1.log")" >&2; exit 1; }
}

printf '| file | bytes |'; for text in "${texts[@]}"; do printf ' %s: KL, top-1, perplexity |' "$(basename "$text" .txt)"; done
echo ' KL, geometric mean |'
printf '|---|---|'; for text in "${texts[@]}"; do printf -- '---|'; done; echo '---|'
for peer in "$@"; do
    name=${peer%%=*} file=${peer#*=}
    measure "$name" "$file"
    for a in ${at[@]+"${at[@]}"}; do
        [ "${a%%=*}" = "$name" ] || continue
        for step in ${steps//,/ }; do
            make "$step" "$name" "${a#*=}" "$(stat -Lc %s "$file")" && measure "quern, $step" "$dir/$name-$step.gguf"
        done
    done
done
