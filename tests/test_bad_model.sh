#!/usr/bin/env bash
# Whole models with one thing wrong (bad-inputs A7, A10, A23, B10, B12 to B14, E1), given to verify and run. The model is
# the embedded one; gen_edit makes the faults.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}
quern=$build/quern
model=models/tiny-books-q8_0.gguf
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/model.XXXXXX")
trap 'rm -rf "$dir"' EXIT

expect() {  # ID WHAT VERB CODE WORDS COMMAND...: exit code, and words in what it prints
    local id=$1 what=$2 verb=$3 code=$4 words=$5 got
    shift 5
    timeout 60 "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    if [ $got -eq "$code" ] && cat "$dir/err" "$dir/out" | grep -qF -- "$words"; then
        ok
        said=$(grep -hF -- "$words" "$dir/out" "$dir/err" | head -1 | sed "s|$dir/||" | cut -c1-150)
        printf '%-4s %-36s %-7s %d  %s\n' "$id" "$what" "$verb" $got "$said"
    else
        fail "$id $what: $verb gave $got, expected $code and '$words'"
        head -c 1500 "$dir/out" "$dir/err"
    fi
}

row() {     # ID WHAT VERIFY-CODE VERIFY-WORDS RUN-CODE RUN-WORDS EDIT...
    local id=$1 what=$2 vcode=$3 vwords=$4 rcode=$5 rwords=$6
    shift 6
    if ! "$build/tests/gen_edit" "$model" "$dir/m.gguf" "$@" 2>"$dir/err"; then
        fail "$id $what: $(cat "$dir/err")"
        return
    fi
    both
}

both() {
    expect "$id" "$what" verify "$vcode" "$vwords" "$quern" verify "$dir/m.gguf"
    expect "$id" "$what" run "$rcode" "$rwords" "$quern" run "$dir/m.gguf" -p "Once upon a time" -n 2 --temp 0
}

row "--" "the model itself" 0 "all tensors fit" 0 "" text general.name "copy"
row A23 "keys and tensors reversed, unknown keys" 0 "all tensors fit" 0 "" reverse u32 zzz.unknown 7
row B14 "unknown extra tensors" 0 "1 tensors are not known" 0 "1 tensors are not known" extra surplus.weight
id=A7 what="1000 bytes after the last tensor" vcode=0 rcode=0
vwords=$what rwords=$what
cp "$model" "$dir/m.gguf" && chmod u+w "$dir/m.gguf" && head -c 1000 /dev/zero >>"$dir/m.gguf"
both
row B12 "one layer's ffn_down is missing" 3 "blk.2.ffn_down.weight" 3 "blk.2.ffn_down.weight" drop blk.2.ffn_down.weight
row B12 "embedding is missing" 3 "token_embd.weight" 3 "token_embd.weight" drop token_embd.weight
row B12 "two are missing" 3 "blk.4.attn_v.weight" 3 "blk.4.attn_v.weight" drop blk.1.attn_norm.weight drop blk.4.attn_v.weight
row B13 "ffn_up transposed" 3 "'blk.0.ffn_up.weight'" 3 "'blk.0.ffn_up.weight'" transpose blk.0.ffn_up.weight
row B13 "ffn_down with fewer rows" 3 "'blk.5.ffn_down.weight'" 3 "'blk.5.ffn_down.weight'" rows blk.5.ffn_down.weight 128
row B13 "attn_k with fewer rows" 3 "'blk.0.attn_k.weight'" 3 "'blk.0.attn_k.weight'" rows blk.0.attn_k.weight 96
row B13 "embedding with fewer rows" 3 "rows" 3 "rows" rows token_embd.weight 4000
row E1  "NaN in one block" 3 "tensor 'blk.3.ffn_gate.weight' (Q8_0) block 5 (row 0, values 160 to 191) holds NaN" 1 \
    "not finite (nan" fill blk.3.ffn_gate.weight 5 255
head -c 1000 models/heldout.txt >"$dir/text"
expect E1 "NaN in the model compared with" eval 1 "m.gguf: the logits after token" "$quern" eval $model -f "$dir/text" -c 32 \
    --against "$dir/m.gguf"
expect E1 "NaN in one block" convert 0 "'blk.3.ffn_gate.weight' has 32 values that are NaN or infinite" \
    "$build/quern-convert" "$dir/m.gguf" "$dir/f32.gguf" --type f32
expect E1 "NaN in one block" quantize 3 "'blk.3.ffn_gate.weight': the value in row 0, column 160 is not finite" \
    "$build/quern-quantize" "$dir/m.gguf" "$dir/out.gguf" --plain --type Q4_0 --requantize
if [ -e "$dir/out.gguf" ]; then fail 'E1: a file was written'; else ok; fi
finish
