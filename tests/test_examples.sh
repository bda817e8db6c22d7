#!/usr/bin/env bash
# Every command in the EXAMPLES of the manual pages works as it stands there, one after the other in a folder with two texts, a
# model.gguf (for quern the one inside the program, for the tools a tiny one of floats) and its checkpoint.
#   BUILD=build bash tests/test_examples.sh
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=$PWD/${BUILD:-build}
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/examples.XXXXXX")
trap 'rm -rf "$dir"' EXIT
head -c 3000 models/calibration.txt >"$dir/text.txt"
head -c 3000 models/heldout.txt >"$dir/other.txt"
mkdir "$dir/quern" "$dir/tools" && cp models/tiny-books-q8_0.gguf "$dir/quern/model.gguf"
"$build/tests/gen_tiny" model "$dir/tools/model.gguf" llama &&
    "$build/tests/gen_tiny" folder "$dir/tools/model.gguf" "$dir/tools/checkpoint" || fail 'the model is made'
PATH=$build:$PATH

# The commands of a page: the lines after .TP of that section, without roff's escapes.
examples() { "$1" --generate man | sed -n '/^\.SH EXAMPLES/,/^\.SH EXIT/s/^\.B //p' | sed 's/\\-/-/g; s/\\e/\\/g'; }

for program in quern quern-convert quern-quantize; do
    cd "$dir/tools" && if [ $program = quern ]; then cd "$dir/quern"; fi || exit 1
    cp "$dir"/*.txt . && examples $program >commands
    check "$program has examples" [ -s commands ]
    while IFS= read -r command <&3; do
        bash -c "set -o pipefail; $command" >out 2>said </dev/null && ok || { fail "$command"; tail -2 said; }
    done 3<commands
done
finish
