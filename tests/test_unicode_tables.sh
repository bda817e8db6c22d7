#!/usr/bin/env bash
# src/unicode_tables.c is what its generator makes of the Unicode Character Database.
ucd=${UNICODE_DATA:-/usr/share/unicode}
if [ ! -e "$ucd/UnicodeData.txt" ] || [ ! -e "$ucd/PropList.txt" ] || ! command -v awk >/dev/null; then
    echo "SKIPPED unicode tables: no $ucd/UnicodeData.txt (package unicode-data)"
    echo "0 passed, 0 failed, 1 skipped"
elif awk -f src/unicode_tables.awk "$ucd/PropList.txt" "$ucd/UnicodeData.txt" | cmp - src/unicode_tables.c; then
    echo "1 passed, 0 failed, 0 skipped"
else
    echo "FAIL the tables are not those of the database in $ucd"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
