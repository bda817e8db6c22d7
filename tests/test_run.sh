#!/usr/bin/env bash
# Sections E, F and G of the list of bad inputs, as far as they concern `quern run` and `quern logits`: each row must give its exit
# code, its words, and nothing worse.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
quern=${BUILD:-build}/quern
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/run.XXXXXX")
trap 'rm -rf "$dir"' EXIT
model=models/tiny-books-q8_0.gguf

# Did `$dir/err` get a sanitizer's report?
clean() { ! grep -qE 'AddressSanitizer|runtime error|LeakSanitizer' "$dir/err"; }

# ROW EXPECTED-CODE WORDS COMMAND...: run it; the words (a grep -E pattern, may be empty) must be on stderr
row() {
    local name=$1 code=$2 words=$3 got
    shift 3
    timeout 120 "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    if [ $got -ne "$code" ]; then fail "$name: exit $got, expected $code: $(tail -1 "$dir/err")"
    elif [ -n "$words" ] && ! grep -qE -- "$words" "$dir/err"; then fail "$name: '$words' is not in: $(tail -1 "$dir/err")"
    elif ! clean; then fail "$name: $(grep -m1 -E 'Sanitizer|runtime error' "$dir/err")"
    else ok; fi
}

run() { local name=$1 code=$2 words=$3; shift 3; row "$name" "$code" "$words" "$quern" run -m $model -q "$@"; }

# ---- E: numbers ----
cp $model "$dir/nan.gguf" && chmod u+w "$dir/nan.gguf"
head -c 8192 /dev/zero | tr '\0' '\177' | dd of="$dir/nan.gguf" bs=1 seek=3000000 conv=notrunc 2>/dev/null
row 'E1 NaN scale' 1 'NaN|finite' "$quern" run -m "$dir/nan.gguf" -p 'a' -n 50
bias=()
for ((i = 0; i < 4096; i++)); do bias+=("--logit-bias=$i=-inf"); done
run 'E4 no token allowed' 1 'no token is allowed' -p a -n 3 "${bias[@]}"
for flag in '--temp=nan' '--temp=-1' '--temp=inf' '--temp=x' '--top-k=-1' '--top-k=1.5' '--top-p=2' '--top-p=-0.1' \
            '--min-p=1.5' '--seed=-1' '--seed=18446744073709551616' '--typical=nan' '--repeat-penalty=0' '--dry-base=0' \
            '--repeat-last-n=-2' '--logit-bias=5' \
            '--logit-bias=4096=1' '--logit-bias=-1=1' '--logit-bias=1=nan' '-n=-2' '--kv=q3' '--context=x' '--mem-limit=1X'; do
    run "E5 $flag" 2 '.' -p a -n 2 "$flag"
done
for flag in '--temp=0' '--temp=1e30' '--top-k=0' '--top-k=1000000000' '--top-p=0' '--top-p=1' '--min-p=1' \
            '--seed=18446744073709551615' '--seed=random' '--typical=0.5' '--logit-bias=5+1' '--dry-multiplier=1' \
            '--repeat-penalty=1.3'; do
    run "E5 $flag" 0 '' -p a -n 4 "$flag"
done

# ---- F: prompt and session ----
printf 'abc\377def' >"$dir/bad.txt"
run 'F1 invalid UTF-8' 2 'not UTF-8 at byte 3' -f "$dir/bad.txt" -n 2
run 'F1 replaced' 0 '' -f "$dir/bad.txt" -n 2 --utf8 replace
printf '\355\240\200' >"$dir/surrogate.txt"; run 'F1 surrogate' 2 'byte 0' -f "$dir/surrogate.txt" -n 2
printf 'a\300\200' >"$dir/overlong.txt"; run 'F1 overlong' 2 'byte 1' -f "$dir/overlong.txt" -n 2
printf 'a\0b' >"$dir/nul.txt"; run 'F2 NUL' 0 '' -f "$dir/nul.txt" -n 2
run 'F3 empty' 0 '' -p '' -n 3
run 'F3 blanks' 0 '' -p '    ' -n 3
head -c 1000000 /dev/zero | tr '\0' 'a' >"$dir/long.txt"
run 'F4 1 MB of one letter' 8 'needs [0-9]+ tokens, the context has 512' -f "$dir/long.txt"
row 'F4 a pipe without an end' 8 'standard input. is longer than 256 MiB' bash -c "yes | $quern run $model; exit \${PIPESTATUS[1]}"
mkfifo "$dir/quiet"; exec 7<>"$dir/quiet"
"$quern" run $model <&7 2>"$dir/err" &
sleep 0.5; kill -INT $! 2>/dev/null; wait $!; code=$?
if [ $code -eq 130 ] && [ ! -s "$dir/err" ]; then ok; else fail "G15 while the prompt is awaited: exit $code: $(cat "$dir/err")"; fi
run 'F5 prompt + n' 8 'need 603, the context has 512' -p 'a b' -n 600
run 'F5 shift' 0 'the context is full' -p 'a b' -n 100 -c 64 --on-overflow shift --ignore-eos
run 'F5 long prompt, shift' 0 'the context is full' -f "$dir/long.txt" -c 64 -n 3 --on-overflow shift
# Without -n: until the text ends or the context is full, exit 0; with -n: refused before anything is computed.
for flags in '' '-n -1'; do
    row "full context, $flags" 0 '^ended: the context of 64 tokens is full' \
        "$quern" run -m $model -p 'a b' -c 64 --ignore-eos $flags
    run "full context, $flags, quiet" 0 '' -p 'a b' -c 64 --ignore-eos --json $flags
    if [ ! -s "$dir/err" ] &&
            grep -q '"ended":"context","finish_reason":"length","prompt_tokens":3,"tokens":62,' "$dir/out"; then ok
    else fail "full context, $flags: $(cat "$dir/err" "$dir/out")"; fi
done
run 'F5 -n that just fits' 0 '' -p 'a b' -c 64 --ignore-eos -n 61
row 'F5 -n of one too many' 8 'need 65, the context has 64' "$quern" run -m $model -p 'a b' -c 64 --ignore-eos -n 62
if [ ! -s "$dir/out" ]; then ok; else fail 'F5 -n of one too many: words came out'; fi
run 'a prompt as long as the context' 0 '' -p 'a b' -c 3 --ignore-eos --json
if grep -q '"finish_reason":"length","prompt_tokens":3,"tokens":1,' "$dir/out"; then ok
else fail "context of 3: $(cat "$dir/out")"; fi
run 'a prompt longer than the context' 8 'the prompt needs 3 tokens, the context has 2' -p 'a b' -c 2
row 'ended: -n' 0 '^ended: all tokens of -n' "$quern" run -m $model -p a -n 2
row 'ended: stop string' 0 '^ended: a stop string' "$quern" run -m $model -p 'Once upon a time' -n 40 --temp 0 --stop ' '
run 'F6 as text' 0 '' -p '<s><s><s>' -n 1 --json; text=$(grep -o '"prompt_tokens":[0-9]*' "$dir/out")
run 'F6 as tokens' 0 '' -p '<s><s><s>' -n 1 --json --special; special=$(grep -o '"prompt_tokens":[0-9]*' "$dir/out")
if [ "$special" = '"prompt_tokens":4' ] && [ "$text" != "$special" ]; then ok; else fail "F6 special tokens: $text, $special"; fi
run 'F8 empty stop' 2 'stop string 1 is empty' -p a --stop ''
"$quern" run -m $model -q -p 'Once upon a time' -n 40 --temp 0 >"$dir/whole" 2>/dev/null
stop=$(head -c 60 "$dir/whole" | tail -c 12 | tr -d '\n')
run 'F8 stop over tokens' 0 '' -p 'Once upon a time' -n 40 --temp 0 --stop "$stop"
whole=$(cat "$dir/whole"; echo x) got=$(cat "$dir/out"; echo x)
if [ "${got%x}" = "${whole%%"$stop"*}" ]; then ok; else fail "F8 text before the stop string: '${got%x}'"; fi
stops=()
for ((i = 0; i < 10000; i++)); do stops+=("--stop=zq$i"); done
run 'F8 10000 stops' 0 '' -p a -n 20 "${stops[@]}"
run 'two prompts' 2 'two prompts' -p a -f "$dir/nul.txt"
row 'two models' 2 'two models' "$quern" run -m $model $model -p a
run 'prompt file missing' 6 'No such file' -f "$dir/none" -n 1
run 'logprobs' 0 '' -p 'Once' -n 5 --temp 0 --logprobs 3
line='^\{"token":[0-9]+,"text":".*","logprob":-[0-9.e-]+,"top":\[\{.*\},\{.*\},\{.*\}\]\}$'
if [ "$(grep -cE "$line" "$dir/out")" = 5 ]; then ok; else fail 'logprobs: five lines'; fi
run 'json' 0 '' -p 'Once' -n 5 --json
object='^\{"model":.*"ended":"length","finish_reason":"length","prompt_tokens":[0-9]+,"tokens":5,.*\}$'
if grep -qE "$object" "$dir/out"; then ok; else fail 'json: one object'; fi
run 'context beyond training' 0 'a context of 600 tokens, the model was trained for 512' -p a -n 1 -c 600
run '-n 0' 0 '' -p a -n 0
if [ -s "$dir/out" ]; then fail '-n 0: something was written'; else ok; fi
row 'plan of memory' 0 '^memory: weights 5.* MiB \(mapped\), cache .* \([fi]16\), scratch ' "$quern" run -m $model -p a -n 1
row 'cache of the reference' 0 '^memory: .* \(f16\), scratch ' env QUERN_CPU=ref "$quern" run -m $model -p a -n 1
row 'cache as asked for' 0 '^memory: .* \(i16\), scratch ' env QUERN_CPU=ref "$quern" run -m $model -p a -n 1 --kv i16
if "$quern" run -m $model -p a -n 1 -q 2>&1 >/dev/null | grep -q .; then fail '--quiet: words on stderr'; else ok; fi
run 'verbose' 0 'temp = 0.3 \(flag\)' -p a -n 1 --temp 0.3 -v
for words in "model = '$model' \(flag\)" 'top-k = 40 \(default\)' 'threads: [0-9]+ thread' 'sampler: top-k 40'; do
    if grep -qE "$words" "$dir/err"; then ok; else fail "verbose: $words"; fi
done

row 'verbose, the model as an operand' 0 "^model = '$model' \(operand\)" "$quern" run $model -p a -n 1 -v
echo 1 2 >"$dir/few"
for verb in 'run -p a' 'bench --gen 1' "logits -o $dir/never --tokens-file $dir/few" "eval -f $dir/nul.txt"; do
    row "$verb: more threads than there can be" 2 '4096 threads asked for, 1 to 1024' "$quern" $verb -m $model -t 4096
    if [ "$(wc -l <"$dir/err")" -eq 1 ] && [ ! -s "$dir/out" ]; then ok; else fail "$verb -t 4096: more than its refusal"; fi
done

# ---- the same bytes whatever the threads, batch and rung can do about it ----
"$quern" run -m $model -q -p 'It was a dark and stormy night' -n 60 -s 5 >"$dir/one" -t 1 2>/dev/null
for flags in '-t 2' '-t 3' '-t 4' '-t 4 --batch 3'; do
    "$quern" run -m $model -q -p 'It was a dark and stormy night' -n 60 -s 5 $flags >"$dir/other" 2>/dev/null
    if cmp -s "$dir/one" "$dir/other" && [ -s "$dir/one" ]; then ok; else fail "same bytes with $flags"; fi
done
"$quern" run -q -p 'It was a dark and stormy night' -n 60 -s 5 -t 2 >"$dir/other" 2>/dev/null
if cmp -s "$dir/one" "$dir/other"; then ok; else fail 'the model inside the program is models/tiny-books-q8_0.gguf'; fi

# ---- G: the operating system ----
endless=(run -q -p 'It was' --ignore-eos --on-overflow shift)
# NAME CODE WORDS SIGNALS...: start, signal after the first words are out, see how it ends
signals() {
    local name=$1 code=$2 words=$3 pid got
    shift 3
    : >"$dir/out"                    # a signal before the program runs would hit the shell's copy
    "$quern" "${endless[@]}" -m "$dir/copy.gguf" >"$dir/out" 2>"$dir/err" </dev/null &
    pid=$!
    for ((i = 0; i < 200; i++)); do [ -s "$dir/out" ] && break; sleep 0.05; done
    for action in "$@"; do
        case $action in
            truncate) truncate -s 8192 "$dir/copy.gguf" ;;
            replace)  cp $model "$dir/new.gguf"; truncate -s 100 "$dir/new.gguf"; mv "$dir/new.gguf" "$dir/copy.gguf"; sleep 0.3 ;;
            *)        kill -s "$action" $pid; sleep 0.05 ;;
        esac
    done
    wait $pid 2>/dev/null
    got=$?
    if [ $got -eq "$code" ] && { [ -z "$words" ] || grep -q "$words" "$dir/err"; } && clean; then ok
    else fail "$name: exit $got, $(tail -1 "$dir/err")"; fi
}
fresh() { rm -f "$dir/copy.gguf"; cp $model "$dir/copy.gguf"; chmod u+w "$dir/copy.gguf"; }
fresh; signals 'G1 file cut short' 6 'changed while in use' truncate
fresh; signals 'G2 file replaced' 130 '' replace INT
fresh; signals 'G15 SIGINT' 130 '' INT
fresh; signals 'G15 SIGTERM' 143 '' TERM
mkfifo "$dir/fifo"; ln -s loop "$dir/loop"; mkdir "$dir/folder"; : >"$dir/empty"
cp $model "$dir/secret.gguf"; chmod 000 "$dir/secret.gguf"
for file in none fifo loop folder; do row "G5 $file" 6 "$file" "$quern" run -m "$dir/$file" -p a; done
row 'G5 /dev/zero' 6 'dev/zero' "$quern" run -m /dev/zero -p a
if [ "$(id -u)" -ne 0 ]; then row 'G5 no permission' 6 'ermission' "$quern" run -m "$dir/secret.gguf" -p a
else skip 'G5 no permission' 'root reads everything'; fi
echo '1 2 3 4 5' >"$dir/ids"
row 'G9 file size limit' 6 'too large' bash -c "ulimit -f 8; exec '$quern' logits $model --tokens-file '$dir/ids' -o '$dir/limited'"
if [ -e "$dir/limited" ]; then fail 'G9 a part was left'; else ok; fi
whole() { "$quern" logits $model --tokens-file "$dir/ids" -o "$1" --force >"$dir/out" 2>"$dir/err"; }
echo before >"$dir/target"; ln -s target "$dir/linked"; chmod 640 "$dir/target"
row 'G9 file size limit, by a link' 6 'too large' \
    bash -c "ulimit -f 8; exec '$quern' logits $model --tokens-file '$dir/ids' -o '$dir/linked' --force"
if [ "$(cat "$dir/target")" = before ]; then ok; else fail 'G9 what was there is gone'; fi
row 'G12 the output exists' 2 'exists already .--force' "$quern" logits $model --tokens-file "$dir/ids" -o "$dir/linked"
if [ "$(cat "$dir/target")" = before ] && [ -L "$dir/linked" ]; then ok; else fail 'G12 what was there is gone'; fi
: >"$dir/mktemp"
row 'G12 an empty output is nobody'\''s' 0 '' "$quern" logits $model --tokens-file "$dir/ids" -o "$dir/mktemp"
if [ "$(stat -c %s "$dir/mktemp")" = $((5 * 4096 * 4)) ]; then ok; else fail 'G12 into an empty file'; fi
whole "$dir/linked"
size=$((5 * 4096 * 4))
if [ "$(stat -c '%s %a' "$dir/target")" = "$size 640" ] && [ -L "$dir/linked" ]; then ok; else fail 'replaced, by a link'; fi
if ls -A "$dir" | grep -q '\.quern-'; then fail 'temporary files of logits are left'; else ok; fi
{ "$quern" logits $model --tokens-file "$dir/ids" -o /dev/stdout 2>/dev/null; echo; } >"$dir/stdout"
if [ "$(stat -c %s "$dir/stdout")" = $((size + 1)) ]; then ok; else fail '/dev/stdout is not another file'; fi
cp "$dir/target" "$dir/kept"
"$quern" logits $model --tokens-file <(seq 1 4000) --cpu ref -o "$dir/target" --force >/dev/null 2>&1 &
pid=$!; sleep 0.3; kill -INT $pid 2>/dev/null; wait $pid; code=$?
if [ $code -eq 130 ] && cmp -s "$dir/target" "$dir/kept"; then ok; else fail "G15 logits: exit $code, or the old file changed"; fi
ln -s /dev/full "$dir/device"
row 'G7 the output is a device that is full' 6 'No space' "$quern" logits $model --tokens-file "$dir/ids" -o "$dir/device"
if [ -L "$dir/device" ] && [ -c /dev/full ]; then ok; else fail 'G7 the device was removed'; fi
row 'G10 no such folder' 6 'No such' "$quern" logits $model --tokens-file "$dir/ids" -o "$dir/no/where"
fresh; ln "$dir/copy.gguf" "$dir/link.gguf"
row 'G11 output is the model' 2 'link.gguf. is an input itself' \
    "$quern" logits "$dir/copy.gguf" --tokens-file "$dir/ids" -o "$dir/link.gguf" --force
if cmp -s "$dir/copy.gguf" $model; then ok; else fail 'G11 the model was changed'; fi
row 'G11 output is the list' 2 'ids. is an input itself' "$quern" logits $model --tokens-file "$dir/ids" -o "$dir/ids" --force
row 'no list' 2 '--tokens-file is needed' "$quern" logits $model -o "$dir/x"
row 'no output' 2 '--output is needed' "$quern" logits $model --tokens-file "$dir/ids"
row 'an empty list' 2 'no token ids' "$quern" logits $model --tokens-file /dev/null -o "$dir/x"
row 'an output without a name' 2 'is not the name of a file' "$quern" logits $model --tokens-file "$dir/ids" -o "$dir/none/"
row 'token ids: text' 2 'no token id at byte 2' "$quern" logits $model --tokens-file <(echo '1 x') -o "$dir/x"
row 'token ids: beyond 32 bits' 2 'no token id at byte 2' "$quern" logits $model --tokens-file <(echo '1 4294967298') -o "$dir/x"
row 'token ids: out of range' 2 'token 2 has the id 4096' "$quern" logits $model --tokens-file <(echo '1 2 4096') -b 1 -o -
if [ -s "$dir/out" ]; then fail 'token ids: logits before a bad id'; else ok; fi
"$quern" "${endless[@]}" 2>"$dir/err" </dev/null | head -c 5 >"$dir/out"
code=${PIPESTATUS[0]}
if [ "$code" -eq 141 ] && ! grep -qv 'no model was named' "$dir/err"; then ok
else fail "G17 SIGPIPE: exit $code: $(tail -1 "$dir/err")"; fi
"$quern" run -q -p a -n 5 -m $model >/dev/full 2>"$dir/err" </dev/null; code=$?
if [ $code -eq 6 ] && grep -q 'No space' "$dir/err"; then ok; else fail "G18 /dev/full: exit $code"; fi
"$quern" run -q -p a -n 5 -m $model >&- 2>"$dir/err" </dev/null; code=$?
if [ $code -eq 6 ]; then ok; else fail "G18 stdout closed: exit $code"; fi
"$quern" run -q -n 3 -m $model >"$dir/out" 2>"$dir/err" <&-; code=$?
if [ $code -eq 0 ]; then ok; else fail "G19 stdin closed: exit $code: $(tail -1 "$dir/err")"; fi
"$quern" run -q -n 3 -m $model -p a >"$dir/out" 2>&- <&-; code=$?
if [ $code -eq 0 ] && [ -s "$dir/out" ]; then ok; else fail "G26 stderr closed: exit $code"; fi
row 'G20 memory limit' 5 'are more than the limit' "$quern" run -m $model -p a -n 2 --mem-limit 1M
row 'G24 plan above what there is' 5 'are more than' "$quern" run -m $model -p a -n 2 -c 2000000000
if command -v taskset >/dev/null; then
    row 'G23 one CPU, eight threads' 0 '' timeout 60 taskset -c 0 "$quern" run -m $model -p a -n 30 -t 8
else
    skip 'G23 one CPU, eight threads' 'no taskset'
fi
row 'G25 reference rung' 0 '' env QUERN_CPU=ref "$quern" run -m $model -p a -n 2
row 'G25 unknown level' 2 'sse9' env QUERN_CPU=sse9 "$quern" run -m $model -p a -n 2
case $(uname -m) in x86_64) other=neon ;; *) other=avx2 ;; esac
row 'G25 a level that the machine lacks' 4 "does not have the instruction set .$other., its best is" \
    env QUERN_CPU=$other "$quern" run -m $model -p a -n 2
row 'G25 the same by flag' 4 "does not have the instruction set .$other." "$quern" run -m $model -p a -n 2 --cpu $other
row 'G25 unknown level by flag' 2 'sse9' "$quern" run -m $model -p a -n 2 --cpu sse9
row 'G26 empty environment, odd locale' 0 '' env -i LC_ALL=de_DE.UTF-8 TZ=nonsense "$quern" run -m $model -p a -n 2 --temp 0.5
case ${BUILD:-build} in *asan*) stack=256 ;; *) stack=64 ;; esac      # the sanitizers' frames are wider
row "G29 $stack KiB of stack" 0 '' bash -c "ulimit -s $stack; exec '$quern' run -m $model -p a -n 2"
finish
