#!/usr/bin/env bash
# quern tokenize and detokenize, through the program.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
quern=${BUILD:-build}/quern
shared=${QUERN_SHARED:-../shared}
vocab=$shared/vectors/vocab
tmp=$(mktemp -d "${QUERN_TMP:-/tmp}/tokenize.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
same() { if cmp -s "$2" "$3"; then ok; else fail "$1"; fi; }
text() { if [ "$2" = "$3" ]; then ok; else fail "$1: '$2' instead of '$3'"; fi; }
code() { # NAME STATUS PATTERN COMMAND...: exit status, and a sentence on stderr
    local name=$1 status=$2 pattern=$3 found
    shift 3
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    found=$?
    if [ $found -eq "$status" ] && grep -q -- "$pattern" "$tmp/err"; then ok
    else fail "$name: status $found, $(head -c 300 "$tmp/err")"; fi
}

separator=$'\n__ggml_vocab_test__\n'
if [ ! -e "$vocab/extra.inp" ]; then
    skip_all tokenize "no ../shared/vectors/vocab"
fi

for name in llama-spm gpt-2 bert-bge phi-3; do
    model=$vocab/ggml-vocab-$name.gguf
    "$quern" tokenize "$model" --separator "$separator" --no-add-special <"$vocab/extra.inp" >"$tmp/ids" 2>"$tmp/err" ||
        fail "$name: $(cat "$tmp/err")"
    sed 's/^ //' "$vocab/$name.extra.out" >"$tmp/expected"      # the vectors have a blank before each id
    same "tokenize $name" "$tmp/ids" "$tmp/expected"
    "$quern" tokenize "$model" --separator "$separator" --special <"$vocab/extra.inp" >"$tmp/ids"
    if [ -e "$vocab/$name.extra.special.out" ]; then
        sed 's/^ //' "$vocab/$name.extra.special.out" >"$tmp/expected"
        same "tokenize --special $name" "$tmp/ids" "$tmp/expected"
    fi
    "$quern" detokenize "$model" --separator "$separator" --special <"$vocab/$name.extra.out" >"$tmp/text"
    same "detokenize $name" "$tmp/text" "$vocab/$name.extra.detok"
done

gpt2=$vocab/ggml-vocab-gpt-2.gguf
text "whole input" "$(printf 'Hello world' | "$quern" tokenize "$gpt2")" "15496 995"
text "no input" "$(printf '' | "$quern" tokenize "$gpt2")" ""
text "last string without separator" "$(printf 'a;b' | "$quern" tokenize --separator=';' "$gpt2" | tr '\n' ,)" "64,65,"
text "empty strings" "$(printf 'a;;' | "$quern" tokenize --separator=';' "$gpt2" | tr '\n' ,)" "64,,"
text "ids to text" "$(printf '15496\n995 \t\n' | "$quern" detokenize "$gpt2")" "Hello world"
text "nothing to text" "$(printf '' | "$quern" detokenize "$gpt2")" ""
text "another pre-tokenizer" "$(printf '1234' | "$quern" tokenize --no-add-special --tokenizer-pre llama3 "$gpt2")" "10163 19"
text "special text is text" "$(printf '<|endoftext|>' | "$quern" tokenize "$gpt2")" "27 91 437 1659 5239 91 29"
text "special text" "$(printf '<|endoftext|>' | "$quern" tokenize --special "$gpt2")" "50256"
text "hidden" "$(printf '50256 64' | "$quern" detokenize "$gpt2")" "a"
text "shown" "$(printf '50256 64' | "$quern" detokenize --special "$gpt2")" "<|endoftext|>a"
text "raw in a pipe" "$(printf '197 201' | "$quern" detokenize "$gpt2" | od -An -tx1 | tr -d ' ')" "090d"
head -c 100000 /dev/urandom >"$tmp/random"
"$quern" tokenize "$gpt2" --separator '' <"$tmp/random" >"$tmp/ids" 2>"$tmp/err"
text "empty separator" "$?" 2
# gpt-2's own rules clean blanks away, command-r's do not: random bytes come back as they were.
"$quern" tokenize --no-add-special --tokenizer-pre command-r "$gpt2" <"$tmp/random" >"$tmp/ids"
"$quern" detokenize --tokenizer-pre command-r "$gpt2" <"$tmp/ids" >"$tmp/back"
same "100,000 random bytes and back" "$tmp/random" "$tmp/back"

code "unknown pre-tokenizer" 4 "pre-tokenizer 'nonsense' is unknown.*llama3.*qwen2" \
    "$quern" tokenize --tokenizer-pre nonsense "$gpt2"
code "pre-tokenizer for SPM" 2 "has none" "$quern" tokenize --tokenizer-pre llama3 "$vocab/ggml-vocab-llama-spm.gguf"
code "no model" 2 "MODEL" "$quern" tokenize
code "no file" 6 "nowhere.gguf" "$quern" tokenize "$tmp/nowhere.gguf"
printf 'not a model' >"$tmp/bad.gguf"
code "no GGUF" 3 "bad.gguf" "$quern" detokenize "$tmp/bad.gguf"
for ids in '12 x' '99999999999' '-1' '50257' '1.5'; do
    printf '%s' "$ids" | "$quern" detokenize "$gpt2" >/dev/null 2>"$tmp/err"
    text "ids '$ids'" "$?" 2
done

if [ -e "$shared/models/babyllama105/babyllama105-F32.gguf" ]; then
    # No byte tokens: what is not in the vocabulary is the unknown token, 0.
    text "babyllama105" "$(printf 'a\n\xc3\xbcb' |
        "$quern" tokenize --no-add-special "$shared/models/babyllama105/babyllama105-F32.gguf" |
        tr ' ' '\n' | grep -c '^0$')" 2
else
    skip babyllama105 "no ../shared/models"
fi

finish
