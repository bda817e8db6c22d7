#!/usr/bin/env bash
# Only files with a level in their name (kernels/x86, one of tools) may hold instructions beyond the baseline: anything else would
# end the program on the machine that dispatch is there for. (One that slips into a shared header's function shows here, not only on
# old machines.)
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}

if [ "$(uname -m)" != x86_64 ]; then
    skip baseline 'looks for x86 instructions'
elif ! command -v objdump >/dev/null; then
    skip baseline 'no objdump (Debian package binutils)'
else
    # VEX and EVEX mnemonics begin with v; of the baseline's, verr, verw and the vm* of virtual machines do.
    found=$(find "$build/src" "$build/kernels" "$build/tools" -name '*.o' 2>/dev/null |
        grep -vE '_(avx2|avxvnni|avx512[a-z0-9]*|amx)\.o$' |
        xargs objdump -d --no-show-raw-insn | awk '
            /file format/ { file = $1 }
            $2 ~ /^v/ && $2 !~ /^(verr|verw|vm)/ || /%[yz]mm/ { if (!(file in seen)) print file " " $0; seen[file] = 1 }
            END { if (NR < 1000) print "objdump saw only " NR " lines" }')
    [ -z "$found" ] || echo "$found"
    check 'baseline: no instructions beyond it' [ -z "$found" ]
fi
finish
