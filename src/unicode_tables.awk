# unicode_tables.awk - writes src/unicode_tables.c from the Unicode Character Database.
#
#     awk -f src/unicode_tables.awk /usr/share/unicode/PropList.txt /usr/share/unicode/UnicodeData.txt > src/unicode_tables.c
#
# Debian's package unicode-data has both files. Not part of the build: the result is kept beside this script.
#
# The version matters: the reference vectors come from tables of Unicode 15.1, Debian 12 has 15.0. The 627 characters that
# 15.1 added are entered below; with a database that has them already the result is the same.

function hex(text,    i, value)
{
    value = 0
    for (i = 1; i <= length(text); i++)
        value = value * 16 + index("0123456789ABCDEF", substr(text, i, 1)) - 1
    return value
}

function fill(first, last, class,    c)
{
    for (c = first; c <= last; c++)
        category[c] = class
}

# The first character of the full canonical decomposition.
function base(c)
{
    while (c in decomposed)
        c = decomposed[c]
    return c
}

function pair_table(name, comment, map, count,    c, n)
{
    printf "\n/* %s */\nconst uint32_t %s[%d][2] = {", comment, name, count
    n = 0
    for (c = 0; c <= 1114111; c++)
        if (c in map)
            printf "%s{ 0x%05X, 0x%05X },", n++ % 5 ? " " : "\n    ", c, map[c]
    printf "\n};\nconst size_t %s_count = %d;\n", name, count
}

BEGIN {
    FS = "[ ]*;[ ]*"
    # The bits of enum unicode_class in unicode.h.
    bit["L"] = 1; bit["M"] = 2; bit["N"] = 4; bit["P"] = 8; bit["S"] = 16; bit["Z"] = 32; bit["C"] = 64
    UNASSIGNED = 128; WHITESPACE = 256
}

FILENAME ~ /PropList/ {
    if ($2 ~ /^White_Space/) {
        split($1, ends, "[.][.]")
        first = hex(ends[1])
        last = ends[2] == "" ? first : hex(ends[2])
        for (c = first; c <= last; c++)
            white[c] = 1
    }
    next
}

{
    c = hex($1)
    class = bit[substr($3, 1, 1)]
    if ($2 ~ /First>$/) { range_first = c; next }
    if ($2 ~ /Last>$/) { fill(range_first, c, class); next }
    category[c] = class
    if ($14 != "")
        lower[c] = hex($14)
    if ($6 != "" && $6 !~ /^</) {
        split($6, parts, " ")
        decomposed[c] = hex(parts[1])
    }
}

END {
    fill(hex("2EBF0"), hex("2EE5D"), bit["L"])
    fill(hex("2FFC"), hex("2FFF"), bit["S"])
    fill(hex("31EF"), hex("31EF"), bit["S"])

    ranges = 0
    previous = -1
    for (c = 0; c <= 1114111; c++) {
        class = (c in category) ? category[c] : UNASSIGNED
        if (c in white)
            class += WHITESPACE
        if (class != previous)
            starts[ranges++] = c * 512 + class
        previous = class
    }
    lowered = 0
    for (c in lower)
        lowered++
    based = 0
    for (c in decomposed) {
        first_of[c] = base(c)
        based++
    }

    print "/* Written by unicode_tables.awk from the Unicode Character Database (15.1). Do not edit. */"
    print "#include \"unicode_tables.h\""
    printf "\n/* First code point << 9 | class; each range reaches to the next. */\nconst uint32_t unicode_ranges[%d] = {", ranges
    for (i = 0; i < ranges; i++)
        printf "%s0x%08X,", i % 10 ? " " : "\n    ", starts[i]
    printf "\n};\nconst size_t unicode_ranges_count = %d;\n", ranges
    pair_table("unicode_lowers", "Capital, small letter (simple mapping).", lower, lowered)
    pair_table("unicode_bases", "Character, first of its canonical decomposition; Hangul syllables are computed.", first_of, based)
}
