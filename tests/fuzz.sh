#!/usr/bin/env bash
# Build the libFuzzer targets (make fuzz) and run each for a fixed count, from a fixed seed. Without clang and libFuzzer: SKIPPED.
#   RUNS=50000 ONLY='fuzz_gguf' bash tests/fuzz.sh
# Seeds for a target NAME are what `seeds_NAME` below puts into its folder.
set -u
cd "$(dirname "$0")/.."
runs=${RUNS:-50000}
passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

seeds_fuzz_gguf() {     # the bad inputs that are small: their neighbours are worse
    local folder=$1
    if [ -x build/tests/gen_bad ]; then
        mkdir -p "$work/bad"
        build/tests/gen_bad "$work/bad" >/dev/null
        find "$work/bad" -size -4k -exec mv {} "$folder" \;
        rm -rf "$work/bad"
    fi
}

seeds_fuzz_tokenizer() {
    if [ -x build/tests/gen_vocab ]; then build/tests/gen_vocab "$1"; fi
}

seeds_fuzz_json() {
    printf '{"a":[1,-2.5e3,true,null,"\\u00e9\\ud83d\\ude00"],"b":{}}' >"$1/a"
}

seeds_fuzz_safetensors() {
    printf '\x3c\0\0\0\0\0\0\0{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}       ABCD' >"$1/a"
}

seeds_fuzz_hf() {       # the first byte says which file it is: config, tokenizer.json, tokenizer_config.json, tokenizer.model
    printf '\0{"architectures":["LlamaForCausalLM"],"hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,%s}' \
        '"rope_scaling":{"type":"yarn","factor":2}' >"$1/a"
    printf '\1{"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]},%s}' \
        '"added_tokens":[{"id":3,"content":"<s>"}]' >"$1/b"
    printf '\2{"bos_token":"<s>","added_tokens_decoder":{"4":{"content":"x","special":true}},%s}' \
        '"chat_template":[{"name":"default","template":"t"}]' >"$1/c"
    printf '\3\x0a\x0a\x0a\x01a\x15\0\0\x80\x3f\x18\x02\x0a\x03\x0a\x01b\x12\x02\x18\x02\x1a\x02\x18\0' >"$1/d"
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

cat >"$work/try.c" <<'END'
int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n);
int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d && n > 4096; }
END
if ! clang -fsanitize=fuzzer,address,undefined -o "$work/try" "$work/try.c" >/dev/null 2>&1; then
    for source in tests/fuzz_*.c; do
        echo "SKIPPED $(basename "${source%.c}"): clang with libFuzzer is not installed"
        skipped=$((skipped + 1))
    done
    finish
fi
if ! make fuzz >"$work/log" 2>&1; then
    tail -20 "$work/log"
    echo "FAIL make fuzz"
    failed=1
    finish
fi
for source in tests/fuzz_*.c; do
    name=$(basename "${source%.c}")
    [ -z "${ONLY:-}" ] || [[ $name == $ONLY ]] || continue
    mkdir -p "$work/$name"
    if declare -F "seeds_$name" >/dev/null; then "seeds_$name" "$work/$name"; fi
    if timeout 600 build-fuzz/tests/"$name" -seed=1 -runs="$runs" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$work/" "$work/$name" >"$work/log" 2>&1; then
        echo "$name: $(grep -E '^Done' "$work/log")"
        passed=$((passed + 1))
    else
        tail -30 "$work/log"
        echo "FAIL $name"
        failed=$((failed + 1))
    fi
done
finish
