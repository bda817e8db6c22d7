#!/usr/bin/env bash
# bench/compare.sh, table.sh, scaling.sh and plot: that other engines' output is read as it is written, medians and ratios are
# right, an interrupted table goes on, pictures are well-formed. The other engines are made up here: they print what the real ones
# print.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
quern=${BUILD:-build}/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/scripts.XXXXXX")
trap 'rm -rf "$dir"' EXIT

mkdir "$dir/new" "$dir/old"
# A llama-bench with -d: speeds rise from call to call: 100, 200, 300 for a prompt, a tenth of it for decode; with each thread 7
# more.
cat >"$dir/new/llama-bench" <<E2
#!/usr/bin/env bash
[ "\$1" = --help ] && { echo '  -d, --n-depth <n>'; exit; }
calls=\$(( \$(cat "$dir/calls" 2>/dev/null || echo 0) + 1 )); echo \$calls >"$dir/calls"
while [ \$# -gt 0 ]; do case \$1 in -p) p=\$2 ;; -n) n=\$2 ;; -t) threads=\${2//,/ } ;; esac; shift; done
echo '['
for t in \$threads; do
[ "\$p" = 0 ] || printf '  {\n    "n_threads": %d,\n    "n_prompt": %d,\n    "n_gen": 0,\n    "avg_ts": %d.0\n  },\n' \
    \$t "\$p" \$((calls * 100 + t * 7 - 7))
[ "\$n" = 0 ] || printf '  {\n    "n_threads": %d,\n    "n_prompt": 0,\n    "n_gen": %d,\n    "avg_ts": %d.500000,\n%s\n  }\n' \
    \$t "\$n" \$((calls * 10)) '    "samples_ts": [ 1.0 ]'
done
echo ']'
E2
# One without: a decode behind a prompt is asked for by -gp. All on one line, and noise on standard error.
cat >"$dir/old/llama-bench" <<'E2'
#!/usr/bin/env bash
[ "$1" = --help ] && { echo '  -gp <pp,tg>'; exit; }
echo 'loading | 1 | 2 |' >&2
p=0 n=0
while [ $# -gt 0 ]; do case $1 in -p) p=$2 ;; -n) n=$2 ;; -gp) gp=$2 ;; -t) threads=${2//,/ } ;; esac; shift; done
for t in $threads; do
[ "$p" = 0 ] || echo "[{\"n_threads\": $t, \"n_prompt\": $p, \"n_gen\": 0, \"avg_ts\": 50.25, \"test\": \"pp$p\"}]"
[ "$n" = 0 ] || echo "[{\"n_threads\": $t, \"n_prompt\": 0, \"n_gen\": $n, \"avg_ts\": 5.5, \"test\": \"tg$n\"}]"
[ -z "${gp:-}" ] || echo "[{\"n_threads\": $t, \"n_prompt\": ${gp%,*}, \"n_gen\": ${gp#*,}, \"avg_ts\": 4.5, \"test\": \"tg@pp\"}]"
done
E2
# Tables on standard error, as ik_llama.cpp's.
cat >"$dir/old/llama-batched-bench" <<'E2'
#!/usr/bin/env bash
echo "$@" >>"$0.calls"
{ echo '|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |'
  echo '|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|'
  echo '|    16 |      2 |    1 |     18 |    0.069 |   232.77 |    0.103 |    21.00 |    0.172 |   139.42 |'
  echo '|    16 |      2 |    4 |     72 |    0.219 |   292.76 |    0.231 |    63.25 |    0.450 |   213.54 |'; } >&2
E2
cat >"$dir/old/llama-sweep-bench" <<'E2'
#!/usr/bin/env bash
echo '|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |'
echo '|-------|--------|--------|----------|----------|----------|----------|'
for kv in 0 8 24; do echo "|     8 |      2 |    $kv |    0.365 |   7$kv.00 |    0.461 |    3$kv.00 |"; done
E2
chmod +x "$dir"/*/llama-*

"$quern" bench --synthetic tiny:q4_0 --save "$dir/tiny.gguf" >/dev/null 2>&1
bash bench/compare.sh --quern "$quern" --rounds 3 --threads 1,2 --prompt 8 --gen 2 --depth 0,24 --batch 1,4 --out "$dir/all.csv" \
    "$dir/tiny.gguf" "new=$dir/new/llama-bench" "old=$dir/old/llama-bench" "old=$dir/old/llama-batched-bench" \
    "sweep=$dir/old/llama-sweep-bench" none=/bin/false >"$dir/table" 2>"$dir/err"
check 'compare ends well' "[ $? -eq 0 ]"
check 'the cache is named' 'tail -1 "$dir/table" | grep -qE ": quern [fi]16; the others F16"'
check 'an engine that gives nothing is named, once' '[ "$(grep -c "none gave nothing" "$dir/err")" -eq 1 ]'
check 'columns' '[ "$(tr -cd ",\n" <"$dir/all.csv" | sort -u | wc -l)" -eq 1 ]'
rows() { grep -cE "$1" "$dir/all.csv"; }
check 'quern: two prefills and four decodes per round and thread count' '[ "$(rows ",quern,")" -eq 36 ]'
check 'quern tells its share' '[ "$(rows ",quern,.*,[0-9]+\.[0-9]+,[0-9]+\.[0-9]+$")" -eq 36 ]'
check 'depth by -d' '[ "$(rows ",new,(prefill,8|decode,2),1,24,")" -eq 12 ]'
check 'depth by -gp: decode only' \
    '[ "$(rows ",old,decode,2,1,24,[12],4.5,$")" -eq 6 ] && [ "$(rows ",old,prefill,8,1,24,")" -eq 0 ]'
check 'batched' '[ "$(rows ",old,decode,2,4,0,[12],63.25,$")" -eq 6 ]'
# Each depth is a prompt of that length, and the cache has room for four such sequences.
asked() {
    for pp in 16 24; do
        for t in 1 2; do echo "-c $(((pp + 2) * 4 + 256)) -b 2048 -npp $pp -ntg 2 -npl 1,4 -t $t"; done
    done | sort | cmp - <(sort -u "$dir/old/llama-batched-bench.calls" | sed 's/^.* -c /-c /')
}
check 'batched: what it is asked for' asked
check 'sweep: the depths that were asked for' \
    '[ "$(rows ",sweep,prefill,8,1,24,[12],724,$")" -eq 6 ] && [ "$(rows ",sweep,.*,1,8,")" -eq 0 ]'
# Depth 0 comes with calls 1, 3 and 5 of the made-up engine (two depths per round).
check 'median and spread' 'grep -qE "^\| prefill \| 8 \| 1 \| 0 \| 1 \|.*\| 300 \[100-500\] \|" "$dir/table"'
check 'each thread count has its own figures' 'grep -qE "^\| prefill \| 8 \| 1 \| 0 \| 2 \|.*\| 307 \[107-507\] \|" "$dir/table"'
check 'ratio' 'awk -F"|" "/prefill . 8 . 1 . 0 . 1 / { split(\$7, q, \" \"); for (i = 9; i < NF; i += 2)
    if (\$i ~ /300 .100/) { r = q[1] / 300 / \$(i + 1); ok = r > 0.98 && r < 1.02 } } END { exit !ok }" "$dir/table"'
share() {   # TEST,N,BATCH,DEPTH,THREADS: the median of the samples is what the table has
    local share
    share=$(grep -E ",quern,$1," "$dir/all.csv" | cut -d, -f9 | sort -g | sed -n 2p)
    grep -qE "^\| ${1//,/ \\| } \|[^|]*\| $(awk "BEGIN { printf \"%.0f\", 100 * $share }") % \|" "$dir/table"
}
for row in prefill,8,1,0,1 decode,2,4,24,2; do check "share of the roof: $row" share $row; done
check 'no figures: a dash' 'grep -qE "^\| prefill \| 8 \| 1 \| 24 \| 1 \|.*\| - \| - \|" "$dir/table"'
bash bench/compare.sh --quern "$quern" --rounds 1 --prompt 8 --gen - --kv q8_0 "$dir/tiny.gguf" >"$dir/table" 2>/dev/null
check 'the cache that was asked for' 'tail -1 "$dir/table" | grep -q ": quern q8_0;"'
bash bench/compare.sh --quern "$quern" "$dir/tiny.gguf" nothing >/dev/null 2>&1
check 'a peer without a program' "[ $? -eq 2 ]"
bash bench/compare.sh --quern "$dir/none" "$dir/tiny.gguf" >/dev/null 2>&1
check 'no program of ours' "[ $? -eq 2 ]"
bash bench/compare.sh --quern "$quern" "$dir/none.gguf" none=/bin/false >"$dir/table" 2>"$dir/err"
code=$?
check 'a file that cannot be run: no table, and why' '[ $code -eq 1 ] && [ ! -s "$dir/table" ] && grep -q "No such file" "$dir/err"'

table() { bash bench/table.sh --quern "$quern" --rounds 2 --threads 1 --prompt 8 --gen 2 --note 'made up' "$dir" "$dir/out" "$@" \
              -- "old=$dir/old/llama-bench" 2>>"$dir/log"; }
table tiny:q4_0 tiny:nothing
check 'table: the first model' '[ "$(grep -c "^tiny:q4_0," "$dir/out.csv")" -eq 8 ] && grep -q "cannot be made" "$dir/log"'
cp "$dir/out.csv" "$dir/before"
table tiny:q4_0 tiny:q8_0
check 'table: what is there is kept' \
    'cmp -s "$dir/before" <(head -9 "$dir/out.csv") && [ "$(grep -c "^tiny:q8_0," "$dir/out.csv")" -eq 8 ]'
check 'table: files are deleted' '[ ! -e "$dir/tiny-q4_0.gguf" ] && [ -z "$(ls "$dir"/tiny-*.csv 2>/dev/null)" ]'
check 'table: a row per model' \
    '[ "$(grep -c "^| tiny:q4_0 |" "$dir/out.md")" -eq 3 ] && [ "$(grep -c "^| tiny:q8_0 |" "$dir/out.md")" -eq 3 ]'
check 'table: the other engine' 'grep -q "| \*\*50.2\*\* \[50.2-50.2\] |" "$dir/out.md" && grep -q "made up" "$dir/out.md"'

bash bench/table.sh --keep --kv q8_0 --quern "$quern" --rounds 1 --threads 1 --prompt 8 --gen - "$dir" "$dir/kept" tiny:q4_0 -- \
    2>/dev/null
check 'table: which cache' 'grep -q "^Caches of keys and values: quern q8_0;" "$dir/kept.md"'
check 'table: --keep, and - is no test' '[ -s "$dir/tiny-q4_0.gguf" ] && [ "$(wc -l <"$dir/kept.csv")" -eq 2 ]'
minutes() {
    bash bench/table.sh --estimate "$@" "$dir" "$dir/none" 1b:q4_k_m 1b:q8_0 -- 2>&1 | sed -n 's/.*about \([0-9]*\) minutes/\1/p'
}
check 'table: --estimate grows with the rounds, and measures nothing' \
    '[ "$(minutes --rounds 100)" -gt $((10 * $(minutes --rounds 5))) ] && [ ! -e "$dir/none.csv" ]'

scaling() { bash bench/scaling.sh --quern "$quern" --type q4_0 --shapes tiny --shape tiny --depths 0,64 --threads 1,2 \
                --prompt 8 --gen 2 --reps 1 "$dir/scale" 2>/dev/null; }
scaling
check 'scaling' '[ "$(wc -l <"$dir/scale.csv")" -eq 11 ] && grep -q "^decode 2,64," "$dir/scale-depth.csv" &&
    grep -q "^prefill 8,2," "$dir/scale-threads.csv"'
cp "$dir/scale.csv" "$dir/before"
scaling
check 'scaling goes on' 'cmp -s "$dir/before" "$dir/scale.csv"'

# Pictures: every opened element is closed, something is drawn, and no number is missing.
"$quern" bench --synthetic tiny:q4_0 -p 8 -n 2 -t 1 -r 1 --json >"$dir/rows.jsonl" 2>/dev/null
for picture in "compare $dir/all.csv" "roofline $dir/rows.jsonl" "curves $dir/scale-depth.csv" "types $dir/out.csv"; do
    kind=${picture%% *} svg=$dir/${picture%% *}.svg
    bench/plot -v kind="$kind" -v title="A & B < C" "${picture#* }" >"$svg"
    check "plot $kind" '[ "$(head -c 4 "$svg")" = "<svg" ] && [ "$(tail -1 "$svg")" = "</svg>" ] &&
        grep -q "A &amp; B &lt; C" "$svg" &&
        ! grep -qiE "[^a-z]-?(nan|inf)[^a-z]" "$svg" && [ "$(grep -c "<text" "$svg")" -gt 4 ]'
    if command -v xmllint >/dev/null; then check "plot $kind is XML" 'xmllint --noout "$svg"'; fi
done
bench/plot -v kind=pie "$dir/all.csv" >/dev/null 2>&1
check 'an unknown picture' "[ $? -eq 2 ]"
finish
