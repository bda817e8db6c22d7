#!/usr/bin/env bash
# Every header compiles alone; the public one also as C++ and as strict C11; the arrows between folders point one way.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
[ "${BUILD:-build}" = build ] || finish          # the same for every build
# On x86 this machine's compiler must be told that the vector headers may use their instructions; elsewhere they are left out.
vector=''
case $(uname -m) in
    x86_64) vector='-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi -mfma -mf16c' ;;
esac
for header in include/*.h kernels/*.h src/*.h tools/*.h $([ -z "$vector" ] || ls kernels/x86/*.h); do
    check "$header alone" '${CC:-cc} -std=c11 -D_GNU_SOURCE -Iinclude -Ikernels -Isrc -Itools $vector -Wall -Wextra \
        -Wno-unused-function -Werror -fsyntax-only -x c -include "$header" /dev/null'
done
check 'quern.h in strict C11' '${CC:-cc} -std=c11 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c include/quern.h'
check 'quern.h has at most 250 lines' '[ "$(wc -l <include/quern.h)" -le 250 ]'
if command -v g++ >/dev/null; then
    check 'quern.h in C++' 'g++ -std=c++11 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c++ -include include/quern.h /dev/null'
else
    skip 'quern.h in C++' 'g++ is not installed'
fi
# kernels <- src <- tools: what a file includes lies in its own folder or in one before it.
includes() { grep -ohE '^#include "[^"]+"' "$@" | sed 's/.*"\(.*\)"/\1/' | sort -u; }
stray=''
for name in $(includes kernels/*.[ch] kernels/*/*.[ch]); do
    [ -n "$(find kernels -name "$(basename "$name")")" ] || stray+=" $name"
done
check "kernels includes nothing from elsewhere:$stray" '[ -z "$stray" ]'
stray=''
for name in $(includes src/*.[ch]); do
    [ -e "src/$name" ] || [ -e "kernels/$name" ] || [ -e "include/$name" ] || stray+=" $name"
done
check "src includes nothing from tools:$stray" '[ -z "$stray" ]'
finish
