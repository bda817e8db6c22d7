#!/usr/bin/env bash
# Measure every instruction set that this machine can run, on the same files, and print a Markdown table of tokens per second.
#
#   bench/rungs.sh [options] MODEL.gguf...
#
#   --quern PATH     quern's binary           (build/quern)
#   --threads N      threads                  (4)
#   --prompt N       tokens to prefill        (128)
#   --gen N          tokens to decode         (32)
#   --reps N         repetitions; the median is printed   (3)
# The reference is the specification, in doubles; it gets an eighth of the prompt and the tokens, and one repetition.
# A rung whose speed on a file is that of the one above it has no kernels of its own for that file's types.
set -eu
quern=build/quern threads=4 prompt=128 gen=32 reps=3
while [ $# -gt 0 ]; do
    case $1 in
        --quern|--threads|--prompt|--gen|--reps)
            [ $# -ge 2 ] || { echo "rungs.sh: $1 wants a value" >&2; exit 2; }
            printf -v "${1#--}" %s "$2"; shift 2 ;;
        --help|-h) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        -*) echo "rungs.sh: unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
done
[ $# -ge 1 ] || { echo "rungs.sh: which model?" >&2; exit 2; }

# The median of one test of one rung.
speed() {      # JSON-LINES TEST
    sed -n "/\"test\":\"$2\"/{s/.*\"tps_median\":\([0-9.]*\).*/\1/;p;}" <<<"$1"
}

echo '| file | rung | prefill '"$prompt"', t/s | decode, t/s |'
echo '|---|---|---|---|'
for model in "$@"; do
    for rung in ref avx2 avx_vnni avx512 avx512_bf16 amx neon dotprod i8mm; do
        case $rung in
            amx|neon|dotprod|i8mm) silicon='never timed on silicon' ;;
            avx_vnni) silicon='never timed on a CPU without AVX-512' ;;
            *) silicon='not on this machine' ;;
        esac
        if ! QUERN_CPU=$rung "$quern" --cpu >/dev/null 2>&1; then
            echo "| ${model##*/} | $rung | $silicon | $silicon |"
            continue
        fi
        p=$prompt n=$gen r=$reps
        [ $rung != ref ] || { p=$(((prompt + 7) / 8)); n=$(((gen + 7) / 8)); r=1; }
        rows=$(QUERN_CPU=$rung "$quern" bench "$model" -p "$p" -n "$n" -r "$r" -t "$threads" --json 2>/dev/null)
        echo "| ${model##*/} | $rung | $(speed "$rows" prefill) | $(speed "$rows" decode) |"
    done
done
