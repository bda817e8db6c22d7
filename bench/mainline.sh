#!/usr/bin/env bash
# Whether llama.cpp runs what quern-quantize writes, and finds the same in it: perplexities of the same files in both engines.
#
#   bench/mainline.sh [options] QUANTIZE QUERN SOURCE.gguf TEXT DIR PERPLEXITY
#
# QUANTIZE and QUERN are this repository's programs, PERPLEXITY is a llama-perplexity built elsewhere. From SOURCE, which should be
# F32, F16 or BF16, one file is made in DIR for every mix of llama.cpp (--plain), for tensor types that no mix gives to a dense
# model, and for some of quern's own plans. Each runs over the first chunks of TEXT in both engines by the same rule: the second
# half of each chunk is scored. A table in Markdown goes to standard output.
#   --types LIST       mixes                                     (all that quern-quantize knows; '' for none)
#   --others LIST      tensor types for all weights at once      (MXFP4)
#   --adaptive LIST    plans at the bytes of these mixes         (IQ2_M,IQ3_XXS,Q3_K_M,Q4_K_M,Q6_K)
#   --tuned LIST       the same with --tune                      (Q4_K_M)
#   --imatrix FILE     importances for the mixes
#   --context N        tokens per chunk                          (256)
#   --chunks N                                                   (16)
#   --threads N                                                  (2)
#   --allow PERCENT    by how much the perplexities may differ   (0.5)
# Exit codes: 0; 1 when a file differs by more, or one of the engines refuses it; 2 for a wrong call.
# For example, with ../shared beside the repository:
#   bench/mainline.sh build/quern-quantize build/quern ../shared/models/tiny-books/tiny-books-BF16.gguf \
#       ../shared/text/books-heldout.txt /tmp/mainline ~/llama.cpp/build/bin/llama-perplexity
set -eu
types=Q4_0,Q4_1,Q5_0,Q5_1,Q8_0,Q2_K,Q2_K_S,Q3_K_S,Q3_K_M,Q3_K_L,Q4_K_S,Q4_K_M,Q5_K_S,Q5_K_M,Q6_K,IQ1_S,IQ1_M,IQ2_XXS,IQ2_XS,IQ2_S
types+=,IQ2_M,IQ3_XXS,IQ3_XS,IQ3_S,IQ3_M,IQ4_NL,IQ4_XS,TQ1_0,TQ2_0,MXFP4_MOE,F16,BF16,F32
others=MXFP4 adaptive=IQ2_M,IQ3_XXS,Q3_K_M,Q4_K_M,Q6_K tuned=Q4_K_M imatrix= context=256 chunks=16 threads=2 allow=0.5
while [ $# -gt 0 ]; do
    case $1 in
        --types) types=$2 ;;     --others) others=$2 ;;   --adaptive) adaptive=$2 ;; --tuned) tuned=$2 ;; --imatrix) imatrix=$2 ;;
        --context) context=$2 ;; --chunks) chunks=$2 ;;   --threads) threads=$2 ;;   --allow) allow=$2 ;;
        -h|--help) sed -n '2,/^set/p' "$0" | grep '^#' | sed 's/^# \{0,1\}//'; exit 0 ;;
        -*) echo "$0: unknown option $1 (--help)" >&2; exit 2 ;;
        *) break ;;
    esac
    [ $# -ge 2 ] || { echo "$0: $1 wants a value" >&2; exit 2; }
    shift 2
done
if [ $# -ne 6 ]; then
    echo "usage: $0 [options] QUANTIZE QUERN SOURCE.gguf TEXT DIR PERPLEXITY (--help)" >&2
    exit 2
fi
quantize=$1 quern=$2 source=$3 text=$4 dir=$5 perplexity=$6
mkdir -p "$dir"
failed=0

# KIND NAME: $dir/KIND-NAME.gguf, new.
make() {
    local how=()
    case $1 in
        plain)    how=(--plain --type "$2" ${imatrix:+--imatrix "$imatrix"}) ;;
        other)    how=(--plain --type F16 --type ".*=$2") ;;
        adaptive) how=(--type "$2" --no-search) ;;
        tuned)    how=(--type "$2" --no-search --tune) ;;
    esac
    "$quantize" "$source" "$dir/$1-$2.gguf" --force "${how[@]}" --threads "$threads" >"$dir/$1-$2.plan" 2>&1
}

row() {       # KIND NAME LABEL: make the file, run both, one row of the table
    local file=$dir/$1-$2.gguf ours theirs types
    if ! make "$1" "$2"; then
        echo "| $3 | | | not made: $(tail -1 "$dir/$1-$2.plan" | sed 's/^quern-quantize: //') | | |"
        failed=1
        return
    fi
    # F16, as the other's cache is.
    ours=$("$quern" eval "$file" --text "$text" -c "$context" --chunks "$chunks" -t "$threads" --kv f16 --json \
               2>"$dir/$1-$2.quern" |
           sed -n 's/^{"perplexity":\([-0-9.e+]*\).*/\1/p') || true
    # llama-perplexity writes through a thread of its own and sometimes ends, with status 0, before the last line is out: ask again.
    theirs=
    for try in 1 2 3 4 5; do
        theirs=$("$perplexity" -m "$file" -f "$text" -c "$context" -b "$context" --chunks "$chunks" -t "$threads" 2>&1 |
                 tee "$dir/$1-$2.llama" | sed -n 's/.*Final estimate: PPL = \([-0-9.e+]*\).*/\1/p') || true
        [ -z "$theirs" ] || break
    done
    types=$("$quern" show "$file" | awk '$3 ~ /^tensors?$/ && $1 != "F32" { printf "%s%s", n++ ? " " : "", $1 }')
    awk -v label="$3" -v types="$types" -v bytes="$(stat -Lc %s "$file")" -v a="$ours" -v b="$theirs" -v allow="$allow" 'BEGIN {
        known = a > 0 && b > 0
        percent = known ? 100 * (a / b - 1) : 0
        good = known && percent <= allow && percent >= -allow
        printf "| %s | %s | %d | %s | %s | %s%s |\n", label, types, bytes, a == "" ? "refused" : sprintf("%.4f", a),
               b == "" ? "refused" : sprintf("%.4f", b), known ? sprintf("%+.3f", percent) : "", good ? "" : " **"
        exit !good
    }' || failed=1
    rm -f "$file"
}

echo "| file | types beside F32 | bytes | quern | llama.cpp | difference, % |"
echo "|---|---|---|---|---|---|"
for name in ${types//,/ };    do row plain "$name" "$name"; done
for name in ${others//,/ };   do row other "$name" "all weights $name"; done
for name in ${adaptive//,/ }; do row adaptive "$name" "quern's plan, bytes of $name"; done
for name in ${tuned//,/ };    do row tuned "$name" "quern's plan, tuned, bytes of $name"; done
exit $failed
