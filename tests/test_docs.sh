#!/usr/bin/env bash
# What the texts name is there: links and pictures, files of bench/results, every file of that folder in its index, every module in
# the README's map. Prose keeps within 130 columns; rows of tables and commands may be longer.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
texts=(README.md kernels/README.md models/*.md bench/results/*.md)
for text in "${texts[@]}"; do
    folder=$(dirname "$text")
    for link in $(grep -o '](\([^)#]*\))' "$text" | sed 's/^](//; s/)$//' | grep -v ':' | sort -u); do
        check "$text: $link" [ -e "$folder/$link" ]
    done
    for file in $(grep -o 'bench/results/[0-9A-Za-z._-]*[a-z]' "$text" | sort -u); do
        check "$text: $file" [ -e "$file" ]
    done
    long=$(grep -v '^ *|\|^    ' "$text" | LC_ALL=C.UTF-8 grep -E -m1 '^.{131}')
    check "$text: a line over 130 columns: $long" [ -z "$long" ]
done
for file in bench/results/*; do
    name=$(basename "$file")
    [ "$name" = README.md ] || check "$name is in the index" grep -qF "]($name)" bench/results/README.md
done
map=$(mktemp "${QUERN_TMP:-/tmp}/docs.XXXXXX")
sed -n '/^## Map/,/^## What/p' README.md | tr -c 'a-z_\n' ' ' >"$map"
for file in src/*.c; do
    name=$(basename "$file" .c)
    check "$name is in the map" 'grep -qwE "$name|${name%%_*}|${name%%_*}_" "$map"'
done
rm -f "$map"
finish
