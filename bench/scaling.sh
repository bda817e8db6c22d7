#!/usr/bin/env bash
# How quern's speed changes with the size of the model, the length of the context and the number of threads.
#
#   bench/scaling.sh [options] OUT
#
# Writes OUT.csv (every row of `quern bench`, before it the curve that it belongs to and the model) and, for bench/plot -v
# kind=curves, OUT-size.csv, OUT-depth.csv and OUT-threads.csv. What stands in OUT.csv already is not measured again.
#   --quern PATH     quern's binary                                (build/quern)
#   --type TYPE      weights                                       (q4_k_m)
#   --shapes LIST    model sizes                                   (0.1b,0.3b,0.5b,1b,3b,8b)
#   --shape SHAPE    for depth and threads                         (1b)
#   --depths LIST    tokens in the cache                           (0,512,1024,2048,4096,8192,16384,32768)
#   --threads LIST   numbers of threads                            (1,2,3,4)
#   --prompt N       tokens of a prefill                           (512)
#   --gen N          tokens of a decode test                       (32)
#   --reps N         repetitions                                   (3)
#   --quiet-by CMD   put CMD before each measurement
# What takes longest is filling the cache for the largest depth: at 32,768 tokens of the 1b shape two to five minutes on four cores.
set -eu
quern=build/quern type=q4_k_m shapes=0.1b,0.3b,0.5b,1b,3b,8b shape=1b depths=0,512,1024,2048,4096,8192,16384,32768
threads=1,2,3,4 prompt=512 gen=32 reps=3 quiet_by=
while [ $# -gt 0 ]; do
    case $1 in
        --quern|--type|--shapes|--shape|--depths|--threads|--prompt|--gen|--reps|--quiet-by)
            [ $# -ge 2 ] || { echo "scaling.sh: $1 wants a value" >&2; exit 2; }
            name=${1#--}; printf -v "${name//-/_}" %s "$2"; shift 2 ;;
        --help|-h) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        -*) echo "scaling.sh: unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
done
[ $# -eq 1 ] || { echo "scaling.sh: where to?" >&2; exit 2; }
out=$1
each() { tr ',' '\n' <<<"$1"; }
most=$(each "$threads" | sort -n | tail -1)

# One call of quern: CURVE MODEL FLAGS...
measure() {
    local curve=$1 model=$2:$type rows
    shift 2
    if [ -e "$out.csv" ] && grep -q "^$curve,$model," "$out.csv"; then return; fi
    rows=$($quiet_by "$quern" bench --synthetic "$model" -p "$prompt" -n "$gen" -r "$reps" --format csv "$@" 2>/dev/null || true)
    [ -n "$rows" ] || { echo "scaling.sh: quern bench --synthetic $model gave nothing" >&2; exit 1; }
    [ -e "$out.csv" ] || echo "curve,model,$(head -1 <<<"$rows")" >"$out.csv"
    sed -n "2,\$s/^/$curve,$model,/p" <<<"$rows" >>"$out.csv"
    echo "scaling.sh: $curve $model" >&2
}

for s in $(each "$shapes"); do measure size "$s" -t "$most"; done
measure threads "$shape" -t "$threads"
measure depth "$shape" -t "$most" -d "$depths"

# For the plots, x of a model is what one token of a decode test reads, in GB. Columns of OUT.csv: curve, model, test, n, batch,
# depth, threads, tps_median, tps_min, tps_max, bytes_per_token.
for curve in size threads depth; do
    awk -F, -v curve="$curve" '
        FNR == 1 { if (NR > 1) print "series,x,y"; next }
        $1 != curve { next }
        NR == FNR { if ($3 == "decode") size[$2] = $11 * 1e-9; next }
        { print $3 " " $4 "," (curve == "threads" ? $7 : curve == "depth" ? $6 : size[$2]) "," $8 }' \
        "$out.csv" "$out.csv" >"$out-$curve.csv"
done
