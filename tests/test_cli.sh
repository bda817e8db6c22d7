#!/usr/bin/env bash
# What every program shares: help, manual and completions say the same; words that are near are offered; output that cannot be
# written is an error.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}
quern=$build/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/cli.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# Every option of a help text must be in the manual and in each completion.
compare() {     # PROGRAM LABEL HELP
    local option missing=
    for option in $(grep -oE '^      --[a-z0-9-]+|^  -[a-zA-Z0-9], --[a-z0-9-]+' "$3" | grep -oE '\-\-[a-z0-9-]+'); do
        grep -qF -- "\\-\\-${option#--}" "$dir/$1.man" || missing="$missing $option(man)"
        grep -qE -- "(^| )$option( |\$|\\)|\\||')" "$dir/$1.bash" || missing="$missing $option(bash)"
        grep -qE -- "'\*?$option(=|\[)" "$dir/$1.zsh" || missing="$missing $option(zsh)"
        grep -qE -- "-l ${option#--}( |\$)" "$dir/$1.fish" || missing="$missing $option(fish)"
    done
    check "$2: missing$missing" '[ -z "$missing" ]'
}

for program in "$build"/quern "$build"/quern-*; do
    [ -x "$program" ] && [ ! -d "$program" ] || continue
    name=$(basename "$program")
    for kind in man bash zsh fish; do
        check "$name --generate $kind" '"$program" --generate $kind >"$dir/$name.$kind" 2>/dev/null && [ -s "$dir/$name.$kind" ]'
    done
    check "$name: bash completion parses" 'bash -n "$dir/$name.bash"'
    check "$name: --generate of another shell is refused" '! "$program" --generate tcsh >/dev/null 2>&1'
    check "$name --help" '"$program" --help >"$dir/help" 2>&1'
    for words in '--version now' '--generate man now'; do
        check "$name: a word too many: $words" \
            '"$program" $words >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && [ ! -s "$dir/out" ] &&
                grep -q "^$name: .*too many: .now" "$dir/err"'
    done
    check "$name --version" '"$program" --version | grep -qE "^$name [0-9]+\.[0-9]+\.[0-9]+"'
    for words in help -h '--help help'; do
        check "$name: $words is --help" '"$program" $words 2>/dev/null | cmp -s - "$dir/help"'
    done
    check "$name: help of an unknown verb" \
        '"$program" help wrogn >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && [ ! -s "$dir/out" ] &&
            grep -q "^$name: unknown verb .wrogn" "$dir/err"'
    for verb in $(sed -n '/^Verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p' "$dir/help"); do
        "$program" "$verb" --help >"$dir/$verb.help"
        for words in "help $verb" "--help $verb" "-h $verb" "$verb -h"; do
            check "$name $words is $verb --help" '"$program" $words 2>/dev/null | cmp -s - "$dir/$verb.help"'
        done
        check "$verb: help ends with a sentence" '[ -n "$(tail -1 "$dir/$verb.help")" ]'
        check "$verb: unknown option" '"$program" "$verb" --hepl 2>&1 | grep -q "unknown option .--hepl"'
        check "$verb: help to a full disk" '"$program" "$verb" --help >/dev/full 2>/dev/null; [ $? -eq 6 ]'
        check "$verb is in the completions" \
            'grep -q "^ *$verb)" "$dir/$name.bash" && grep -q "^ *$verb)" "$dir/$name.zsh" &&
                grep -q -- "-a $verb " "$dir/$name.fish"'
        compare "$name" "$verb" "$dir/$verb.help"
    done
    if [ "$name" != quern ]; then compare "$name" "$name" "$dir/help"; fi
    if command -v groff >/dev/null; then
        check "$name: the manual is sound" '[ -z "$(groff -man -ww -z "$dir/$name.man" 2>&1)" ]'
    else
        skip "$name: the manual is sound" 'no groff'
    fi
done
check 'did you mean (verb)' '"$quern" rnu 2>&1 | grep -q "did you mean .run"; "$quern" rnu 2>/dev/null; [ $? -eq 2 ]'
check 'did you mean (option)' '"$quern" run --promt x 2>&1 | grep -q "did you mean .--prompt"'
check 'did you mean (option before any verb)' \
    '"$quern" --verison 2>"$dir/err"; [ $? -eq 2 ] &&
        grep -q "^quern: unknown option .--verison.: did you mean .--version" "$dir/err"'
check 'an unknown instruction set, and which there are' \
    'QUERN_CPU=avx3 "$quern" --cpu 2>&1 | grep -q "avx3.* (ref, avx2, avx_vnni, avx512, "'
check 'unknown option before any verb' \
    '"$quern" --wrong >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && [ ! -s "$dir/out" ] &&
        grep -q "unknown option .--wrong.;" "$dir/err"'
verbs='run|eval|bench|logits|show|verify|tokenize|detokenize'
check 'the verbs are listed' \
    '[ "$("$quern" --help | grep -cE "^  ($verbs) ")" -eq 8 ] && "$quern-quantize" --help | grep -q "^  imprint "'
for words in '--cpu now' 'help run now' '--help run now'; do
    check "a word too many: $words" \
        '"$quern" $words >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && [ ! -s "$dir/out" ] && grep -q "too many: .now" "$dir/err"'
done
check 'choices in any case' '"$quern" run -q -p a -n 1 --kv Q8_0 >/dev/null 2>&1 && ! "$quern" run -q -p a -n 1 --kv Q8 2>/dev/null'
check 'limits as whole numbers' '"$quern" run -p a --top-k -1 2>&1 | grep -q "top-k is -1, 0 to 2147483647 are allowed"'
# What helps is said: nothing makes weights smaller here; the logits of a pass are more than the cache of few tokens.
memory() { "$quern" run -p a -c 32 -t 4 --mem-limit "$1" 2>&1 | grep -q "are more than the limit of .*$2"; }
check 'a limit below the weights' 'memory 1M "the weights alone do not fit$"'
check 'a limit below weights and scratch' 'memory 6400K "fewer threads or tokens per pass take less$"'
# q8_0 is offered where it takes less, and where the heads allow it: those of the latent attention here have 48 values.
"$build/tests/gen_tiny" model "$dir/latent.gguf" deepseek2
small() { "$quern" run "$1" -p a -c 65536 -b 1 -t 1 --kv "$2" --mem-limit 10M 2>&1 | grep -q ": a smaller context$3 takes less$"; }
check 'a limit below the cache' '"$quern" run -p a -c 4096 -b 1 -t 1 --mem-limit 8M 2>&1 | grep -q "a smaller context or --kv q8_0"'
for kv in f32 f16 bf16 i16; do
    check "... of $kv" 'small models/tiny-books-q8_0.gguf $kv " or --kv q8_0"'
done
for kv in q8_0 q4_0; do check "... of $kv" 'small models/tiny-books-q8_0.gguf $kv ""'; done
check '... of heads that q8_0 does not fit' 'small "$dir/latent.gguf" f16 ""'
check 'no verb' '"$quern" >"$dir/out" 2>/dev/null; [ $? -eq 2 ] && [ ! -s "$dir/out" ]'
check 'a model in the place of a verb' '"$quern" no.gguf 2>&1 | grep -q "a model stands behind one: quern run FILE"'
check '--cpu' '"$quern" --cpu | grep -q "^level"'
check 'version to a full disk' '"$quern" --version >/dev/full 2>"$dir/err"; [ $? -eq 6 ] && grep -q "No space" "$dir/err"'
check 'version to a closed stdout' '"$quern" --version >&- 2>/dev/null; [ $? -eq 6 ]'
# The sampler's defaults stand in two places: the library's and the table's.
check 'sampler defaults agree' '"$quern" run -p a -n 1 -v 2>&1 >/dev/null </dev/null |
    grep -q "^sampler: top-k 40, top-p 0.95, min-p 0.05, temperature 0.8, seed 0$"'
finish
