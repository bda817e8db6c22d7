#!/usr/bin/env bash
# make install: every file in its place, the installed program finds its model, a program builds against header, library and
# quern.pc. Only for the release build: the others would install the same.
set -u
cd "$(dirname "$0")/.."
. tests/lib.sh
build=${BUILD:-build}
[ "$build" = build ] || finish
dir=$(mktemp -d "${QUERN_TMP:-/tmp}/install.XXXXXX")
trap 'rm -rf "$dir"' EXIT
check 'make install' 'make --no-print-directory BUILD=$build PREFIX=/usr DESTDIR="$dir/root" install >"$dir/log" 2>&1 ||
    { tail -5 "$dir/log"; false; }'
for file in bin/quern bin/quern-convert lib/libquern.a lib/pkgconfig/quern.pc include/quern.h share/man/man1/quern.1 \
            share/man/man1/quern-convert.1 share/bash-completion/completions/quern share/zsh/site-functions/_quern \
            share/fish/vendor_completions.d/quern.fish share/doc/quern/LICENSE; do
    check "$file" '[ -s "$dir/root/usr/$file" ]'
done
check 'the installed program writes' '[ -n "$(cd / && "$dir/root/usr/bin/quern" run -q -p "It was" -n 5 2>"$dir/err")" ]'
check 'and says which model it uses' 'grep -q "no model was named: using tiny-books" "$dir/err"'
cat >"$dir/use.c" <<'END'
#include <quern.h>
#include <stdio.h>
int main(void)
{
    struct quern_error err;
    struct quern_model *model = quern_open_model("no such file", NULL, &err);
    printf("%d %s\n", (int)err.code, err.text);
    return model != NULL;
}
END
flags() {
    sed -n "s|^$1: *||p" "$dir/root/usr/lib/pkgconfig/quern.pc" |
        sed "s|\${libdir}|$dir/root/usr/lib|; s|\${includedir}|$dir/root/usr/include|"
}
check 'a program builds against it' '${CC:-cc} "$dir/use.c" $(flags Cflags) $(flags Libs) -o "$dir/use" 2>"$dir/log" ||
    { cat "$dir/log"; false; }'
check 'and runs' '"$dir/use" | grep -q "^6 cannot open"'
check 'a folder with a blank' 'make --no-print-directory BUILD=$build PREFIX=/usr DESTDIR="$dir/a root" install \
    >"$dir/log" 2>&1 && [ -x "$dir/a root/usr/bin/quern" ]'
check 'make uninstall' 'make --no-print-directory BUILD=$build PREFIX=/usr DESTDIR="$dir/root" uninstall >/dev/null 2>&1 &&
    [ -z "$(find "$dir/root" -type f)" ]'
finish
