#!/usr/bin/env bash
# quern bench: its rows and fields (bench/compare.sh and others read them), its formats, its refusals.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
quern=${BUILD:-build}/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
refused() { "$quern" bench "${@:2}" >"$dir/out" 2>"$dir/err" </dev/null; check "$1" "[ $? -eq 2 ] && [ ! -s '$dir/out' ]"; }

"$quern" bench --synthetic tiny:q4_0 -p 8 -n 4 -b 1,2 -d 0,32 -t 1 -r 2 --json >"$dir/rows" 2>"$dir/err"
check 'exit 0' "[ $? -eq 0 ]"
check 'no bar where no terminal is' '! grep -q "$(printf "\\r")" "$dir/err"'
env -u NO_COLOR TERM=xterm "$(dirname "$quern")/tests/gen_terminal" "$quern" bench --synthetic tiny:q4_0 -p 0 -n 2 -d 600 -t 1 \
    -r 2 >"$dir/terminal" </dev/null
check 'progress on a terminal, cleared before the row' \
    'grep -q "filling the cache \[###" "$dir/terminal" && grep -q "\[Ktest " "$dir/terminal"'
check 'a row per test' '[ "$(wc -l <"$dir/rows")" -eq 6 ]'
for field in test n batch depth threads tps_median tps_min tps_max bytes_per_token gbps gops roof_gbps roof_gops share_of_roof \
             ttft_seconds load_seconds first_seconds peak_memory isa kv reps; do
    check "field $field" "[ \$(grep -cE '\"$field\":(\"[a-z0-9]+\"|[0-9.]+)[,}]' '$dir/rows') -eq 6 ]"
done
check 'a verdict per row' \
    '[ "$(grep -cE "\"noisy\":(true,\"verdict\":\"noisy: rep|false,\"verdict\":\"quiet\")" "$dir/rows")" -eq 6 ]'
check 'what was asked for' 'grep -q "\"test\":\"decode\",\"n\":4,\"batch\":2,\"depth\":32,\"threads\":1," "$dir/rows"'
# Figures that follow from each other, and from the shape: two layers of 256 x (256 + 128 + 128 + 256) + 3 x 256 x 512 weights, and
# the output's 256 x 512, at 18 bytes for 32.
awk '
    function field(name,   s) {
        match($0, "\"" name "\":[0-9.]+"); s = substr($0, RSTART, RLENGTH); sub(/.*:/, "", s); return s + 0
    }
    function near(a, b) { return a > b * 0.98 && a < b * 1.02 }
    { if (field("tps_min") > field("tps_median") || field("tps_median") > field("tps_max")) exit 1
      if (!near(field("gbps"), field("tps_median") * field("bytes_per_token") * 1e-9)) exit 2
      if (field("roof_gbps") < 0.1 || field("roof_gops") < 0.1) exit 3
      # The nearer roof counts. This model lies in the caches, where memory is no roof: the share may be above 1.
      memory = field("gbps") / field("roof_gbps"); arithmetic = field("gops") / field("roof_gops")
      if (!near(field("share_of_roof"), memory > arithmetic ? memory : arithmetic)) exit 5 }
    /"decode","n":4,"batch":1,"depth":0/ { weights = 2 * (256 * 768 + 3 * 256 * 512) + 256 * 512; cache = 2 * 2.5 * 256 * 2
      if (!near(field("bytes_per_token"), weights * 18 / 32 + cache)) {
          print field("bytes_per_token"), weights * 18 / 32 + cache; exit 4 } }
    ' "$dir/rows"
check "figures agree" "[ $? -eq 0 ]"
# A token meets two of eight experts: two layers of 4 x 256 x 256 + 2 x 3 x 256 x 256 weights and 256 x 8 floats of the router.
"$quern" bench --synthetic tiny-moe:q4_0 -p 24 -n 4 -b 1,3 -t 2 -r 1 --json >"$dir/experts" 2>"$dir/err"
check 'a model of experts' '[ "$(grep -c "\"test\":" "$dir/experts")" -eq 3 ]'
check 'its bytes per token' 'awk "/\"decode\",\"n\":4,\"batch\":1,/ { match(\$0, /bytes_per_token\":[0-9.]+/)
    got = substr(\$0, RSTART + 17, RLENGTH - 17); want = (2 * 10 * 65536 + 131072) * 18 / 32 + 2 * 8192 + 2 * 2.5 * 512 * 2
    exit !(got > want * 0.98 && got < want * 1.02) }" "$dir/experts"'
for format in table md csv json; do
    check "format $format" '"$quern" bench models/tiny-books-q8_0.gguf -p 4 -n 0 -t 1 -r 1 --format $format \
        >"$dir/$format" 2>/dev/null && [ -s "$dir/$format" ]'
done
check 'md has a rule' 'grep -q "^|---" "$dir/md"'
check 'json is a list' '[ "$(head -1 "$dir/json")" = "[" ] && [ "$(tail -1 "$dir/json")" = "]" ]'
check 'csv columns' '[ "$(sed -n 1p "$dir/csv" | tr -cd , | wc -c)" = "$(sed -n 2p "$dir/csv" | tr -cd , | wc -c)" ]'
check 'csv has the times' \
    'head -1 "$dir/csv" | grep -q "ttft_seconds,load_seconds,first_seconds,peak_memory,isa,kv,reps,noisy,verdict"'
check 'csv has the huge pages' 'awk -F, "NR == 1 { ok = \$NF == \"huge_pages\" } NR == 2 { ok = ok && \$NF ~ /^[01]\.[0-9]+\$/ }
    END { exit !ok }" "$dir/csv"'
check 'the roofs of each number of threads' \
    '"$quern" bench --synthetic tiny:bf16 -p 4 -n 2 -t 1,2 -r 1 --kv f16 2>/dev/null |
        grep -cE "^roofs of [12] threads? .* GB/s, bf16 .* f32" | grep -qx 2'
for format in table md csv json jsonl; do
    "$quern" bench --synthetic tiny:q4_k_m -p 40 -n 2 -t 2 -r 1 --stages --format $format >"$dir/stages.$format" 2>/dev/null
    check "stages as $format" '[ "$(grep -oE "gate.?\|up \+ activation" "$dir/stages.$format" | wc -l)" -eq 2 ]'
done
check 'cells of md' '[ "$(sed "s/\\\\|//g" "$dir/stages.md" | grep "^| .* activation" | tr -cd "|\n" | sort -u)" = "||||||||||" ]'
check 'stages add up' 'awk -F, "\$1 == \"prefill\" { sum += \$8 } END { exit !(sum > 0.998 && sum < 1.002) }" "$dir/stages.csv"'
check 'stage columns' '[ "$(tr -cd ",\n" <"$dir/stages.csv" | sort -u | wc -l)" -eq 1 ]'
for kv in f32 f16 bf16 q8_0 q4_0 i16; do
    check "cache $kv" \
        '"$quern" bench --synthetic tiny:q4_0 -p 4 -n 0 -t 1 -r 1 --kv $kv --json 2>/dev/null | grep -q "\"kv\":\"$kv\""'
done
for level in ref avx2 avx512; do
    [ $level = ref ] && want=f16 || want=i16
    QUERN_CPU=$level "$quern" --cpu 2>/dev/null >&2 || continue
    check "cache by default, $level" 'QUERN_CPU=$level "$quern" bench --synthetic tiny:q4_0 -p 4 -n 0 -t 1 -r 1 --json 2>/dev/null |
        grep -q "\"kv\":\"$want\""'
done
check 'the table names the cache' 'grep -qE "; [fi]16 caches$" "$dir/table"'
refused 'nothing to measure' --synthetic tiny:q4_0 -p 0 -n 0
check 'save' '"$quern" bench --synthetic tiny:q8_0 --save "$dir/tiny.gguf" && "$quern" verify "$dir/tiny.gguf" >/dev/null'
refused 'save does not replace' --synthetic tiny:q8_0 --save "$dir/tiny.gguf"
check '--force lets it' \
    '"$quern" bench --synthetic tiny:q4_0 --save "$dir/tiny.gguf" --force && "$quern" show "$dir/tiny.gguf" | grep -q Q4_0'
refused '-f is no --force: elsewhere it names a file' --synthetic tiny:q4_0 --save "$dir/tiny.gguf" -f
refused '--force without --save' --synthetic tiny:q4_0 -p 4 -n 0 -t 1 -r 1 --force
refused 'unknown shape' --synthetic 7b:q4_0
refused 'synthetic and a file' --synthetic tiny:q4_0 "$dir/tiny.gguf"
refused 'batch 0' --synthetic tiny:q4_0 -b 0
refused 'no repetitions' --synthetic tiny:q4_0 -r 0
refused 'save without synthetic' --save "$dir/x"
"$quern" bench models/tiny-books-q8_0.gguf -p 8 -n 0 -t 1 --mem-limit 1M >"$dir/out" 2>"$dir/err"
check 'memory limit' "[ $? -eq 5 ] && [ ! -s '$dir/out' ]"
finish
