#!/usr/bin/env bash
# quern eval: which cache it has and says; --mc and --lambada: what is printed, what is refused, a few items of the real files.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}
quern=$build/quern
model=models/tiny-books-q8_0.gguf
shared=${QUERN_SHARED:-../shared}
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/choices.XXXXXX")
trap 'rm -rf "$dir"' EXIT
# refused NAME CODE ARGS...
refused() {
    "$quern" eval "$model" "${@:3}" >"$dir/out" 2>"$dir/err" </dev/null
    check "$1" "[ $? -eq $2 ] && [ ! -s '$dir/out' ]"
}

printf 'It was a dark and stormy\n1\nzebra xylophone.\nnight.\nqueue of of.\nbanana blue.\n' >"$dir/h.txt"
printf '{"text":"It was a dark and stormy night"}\n' >"$dir/l.jsonl"
printf 'He said:\n0\na\nb\nc\n' >"$dir/bad.txt"
"$quern" eval "$model" --mc "$dir/h.txt" -t 1 --json >"$dir/out"
check 'json' "[ $? -eq 0 ] && grep -q '\"format\":\"hellaswag\",\"items\":1,\"total\":1' '$dir/out' &&
    grep -q '\"accuracy\":1.000000,' '$dir/out'"
"$quern" eval "$model" --mc "$dir/h.txt" -t 1 --against "$model" >"$dir/out"
check 'against itself' "[ $? -eq 0 ] && grep -q 'answers differ   0, per byte 0, per token 0' '$dir/out' &&
    grep -q '^base accuracy' '$dir/out'"
"$quern" eval "$model" --lambada "$dir/l.jsonl" -t 1 >"$dir/out"
check 'lambada' "[ $? -eq 0 ] && grep -qE '^perplexity +[0-9.]+ .*last word' '$dir/out' && ! grep -q 'per byte' '$dir/out'"
refused 'wrong count' 3 --mc "$dir/bad.txt"
check 'names the line' "grep -q 'bad.txt: line 6' '$dir/err'"
refused 'too long' 8 --mc "$dir/h.txt" -c 4
check 'names the item' "grep -q 'h.txt: line 1' '$dir/err'"
refused 'nothing asked' 2
refused 'two things' 2 --mc "$dir/h.txt" --lambada "$dir/l.jsonl"
refused 'limit of a text' 2 --text "$dir/h.txt" --limit 3
refused 'chunks of questions' 2 --mc "$dir/h.txt" --chunks 3
refused 'shots of HellaSwag' 2 --mc "$dir/h.txt" --shots 5 --dev "$dir"
refused 'shots without dev' 2 --mc "$dir/h.txt" --shots 5
refused 'dev without shots' 2 --mc "$dir/h.txt" --dev "$dir"
refused 'format of lambada' 2 --lambada "$dir/l.jsonl" --mc-format arc
refused 'unknown format' 2 --mc "$dir/h.txt" --mc-format trivia
refused 'an empty folder' 2 --mc "$dir"
refused 'a folder of another format' 2 --mc "$dir" --mc-format arc
check 'says that' "grep -q 'is a folder: only MMLU' '$dir/err'"
refused 'forced format' 3 --mc "$dir/h.txt" --mc-format mmlu
refused 'memory limit' 5 --mc "$dir/h.txt" --mem-limit 1M
refused 'no file' 6 --mc "$dir/none"

# The cache is named, and two models have caches of one type: by default this llama and this deepseek2 may differ.
for kind in llama deepseek2; do "$build/tests/gen_tiny" model "$dir/$kind.gguf" $kind; done
"$build/tests/gen_tiny" text "$dir/text" 300 1
of() { "$quern" eval "$dir/$1.gguf" -t 1 "${@:2}" 2>/dev/null; }
default() { "$quern" show --json "$dir/$1.gguf" | sed -n 's/.*"plan": .*"kv": "\([a-z0-9_]*\)".*/\1/p'; }
[ "$(default llama)" = "$(default deepseek2)" ] && both=$(default llama) || both=f16
for what in "--text $dir/text -c 32" "--mc $dir/h.txt" "--lambada $dir/l.jsonl"; do
    for kv in f32 q8_0 i16; do
        check "$what: the cache is named, $kv" 'of llama $what --json --kv $kv | grep -q "[{,]\"kv\":\"$kv\"[,}]" &&
            of llama $what --kv $kv | grep -qx "cache            $kv"'
    done
    check "$what: the default cache" 'of llama $what --json | grep -q "\"kv\":\"$(default llama)\""'
    of llama $what --json --against "$dir/deepseek2.gguf" >"$dir/auto"
    of llama $what --json --against "$dir/deepseek2.gguf" --kv $both >"$dir/both"
    check "$what: one cache for two models" '[ -s "$dir/auto" ] && grep -q "\"kv\":\"$both\"" "$dir/auto" &&
        cmp -s "$dir/auto" "$dir/both"'
done

if [ -d "$shared/evals" ]; then
    evals=$shared/evals
    smoke() {   # NAME ITEMS ARGS...
        "$quern" eval "$shared/models/stories260K/stories260K-F32.gguf" --json -t 2 --limit 50 --on-overflow cut "${@:3}" \
            >"$dir/out"
        check "$1" "[ $? -eq 0 ] && grep -q '\"format\":\"$1\",\"items\":50,\"total\":$2,' '$dir/out'"
    }
    smoke hellaswag 10042 --mc "$evals/hellaswag/hellaswag_val_full.txt"
    smoke arc 1150 --mc "$evals/arc/ARC-Challenge-Test.jsonl"
    smoke winogrande 1267 --mc "$evals/winogrande/dev.jsonl"
    smoke piqa 1838 --mc "$evals/piqa/valid.jsonl"
    smoke lambada 5153 --lambada "$evals/lambada/lambada_test.jsonl"
    smoke mmlu "[0-9]*" --mc "$evals/mmlu/test"
    check 'subjects' "[ \$(grep -o '\"name\"' '$dir/out' | wc -l) -gt 30 ]"
    smoke mmlu "[0-9]*" --mc "$evals/mmlu/test/anatomy_test.csv" --shots 5 --dev "$evals/mmlu/dev"
    check 'shots' "grep -q '\"shots\":5,\"cut\":[1-9]' '$dir/out'"
    refused 'gsm8k has no choices' 3 --mc "$evals/gsm8k/test.jsonl"
else
    skip 'items of the real files' 'no ../shared'
fi
finish
