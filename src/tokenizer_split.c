/* Pre-tokenizers: where a text is cut into pieces before byte-pair merges run inside each.
 *
 * A published pre-tokenizer is one or more regular expressions, applied in turn: each cuts every piece that the one before
 * has left, around its matches. They are built from few parts, so here each is a `stage`: a scanner, with parameters in place of
 * the expression. A scanner is given a position and says where the match that begins there ends; every choice in it is decided by
 * looking at classes of characters, without backtracking, so a text of any kind is cut in linear time.
 *
 * The reference for every name is llama.cpp's output (tests/test_tokenizer.c), deviations from the model's own expression
 * included: what its users have been served with is what the weights meet here too. Those known are said where they are made. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer_internal.h"

/* A character of the text in 32 bits: code point, class bits, and two marks of ours. */
enum { CODE_BITS = 21, CLASS_MASK = 511 };
static const uint32_t INVALID = (uint32_t)1 << 30;     /* a byte that is not UTF-8: one byte long */
static const uint32_t CUT = (uint32_t)1 << 31;         /* a piece begins here */

static uint32_t glyph_code(uint32_t glyph)
{
    return glyph & ((1u << CODE_BITS) - 1);
}

static unsigned glyph_class(uint32_t glyph)
{
    return glyph >> CODE_BITS & CLASS_MASK;
}

/* One piece while it is being cut. */
struct scan {
    uint32_t *g;
    size_t begin, end;
    size_t blank_end;        /* of the run of white space last looked at, so that none is measured twice */
    size_t newline_end;      /* past the last CR or LF in it, or 0 */
};

struct range { uint32_t first, last; };

enum lead { LEAD_NONE, LEAD_SPACE, LEAD_WHITE };
enum contraction { CONTRACT_NONE, CONTRACT_BEFORE, CONTRACT_AFTER };
enum shape { SHAPE_RUN, SHAPE_CASED, SHAPE_SPACED };

struct stage {
    size_t (*match)(const struct stage *stage, struct scan *s, size_t i);     /* end of the match at i; i when there is none */
    void (*whole)(struct scan *s);                                            /* or: cuts the piece by itself */
    bool alone;              /* characters that nothing matches stand alone, else they stay together */

    /* match_run: [lead]? set{least, most} */
    enum lead lead;
    unsigned classes;
    const char *ascii;
    const struct range *ranges;
    size_t range_count;
    bool negated;
    size_t least, most;      /* 0: 1 and no limit */

    /* match_words */
    enum contraction contraction;
    enum shape shape;
    unsigned letters;        /* classes that make words                           */
    unsigned not_before;     /* classes (and CR, LF) that cannot stand before one */
    unsigned others;         /* classes of runs of punctuation                    */
    size_t digits;           /* most numbers in a piece; 0: numbers are no match  */
    const char *tail;        /* characters that may follow punctuation            */
    size_t tail_most;        /* 0: any number of them                             */
    bool han;                /* Chinese characters make runs of their own         */
    bool joined;             /* ASCII punctuation joins the ASCII letters after it */
    bool cascade;            /* white space in powers of two                      */
};

/* ---- characters ---- */

static bool is_newline(uint32_t c)
{
    return c == '\r' || c == '\n';
}

static bool is_ascii_letter(uint32_t c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static bool is_white(uint32_t glyph)
{
    return glyph_class(glyph) & UNICODE_WHITESPACE;
}

static bool in_ranges(const struct range *ranges, size_t count, uint32_t c)
{
    for (size_t i = 0; i < count; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

/* The blocks of Chinese characters as kimi-k2 has them: without extension G and later. */
static bool is_han(uint32_t c)
{
    static const struct range han[] = {
        { 0x3400, 0x4DBF }, { 0x4E00, 0x9FFF }, { 0xF900, 0xFAFF }, { 0x20000, 0x2A6DF }, { 0x2A700, 0x2B73F },
        { 0x2B740, 0x2B81F },
        { 0x2B820, 0x2CEAF }, { 0x2CEB0, 0x2EBEF }, { 0x2F800, 0x2FA1F },
    };
    return c >= 0x3400 && in_ranges(han, sizeof han / sizeof *han, c);
}

/* ---- runs of one set ---- */

static bool in_set(const struct stage *stage, uint32_t glyph)
{
    uint32_t c = glyph_code(glyph);
    bool in = glyph_class(glyph) & stage->classes;
    if (!in && stage->ascii && c > 0 && c < 0x80)
        in = strchr(stage->ascii, (int)c) != NULL;
    /* White space beyond ASCII is in no range, though several reach over it: the reference has replaced it by then. */
    if (!in && stage->ranges && (c < 0x80 || !is_white(glyph)))
        in = in_ranges(stage->ranges, stage->range_count, c);
    return in != stage->negated;
}

static size_t match_run(const struct stage *stage, struct scan *s, size_t i)
{
    size_t least = stage->least ? stage->least : 1;
    size_t most = stage->most ? stage->most : SIZE_MAX;
    size_t first = i;
    bool leads = stage->lead == LEAD_SPACE ? glyph_code(s->g[i]) == ' ' : stage->lead == LEAD_WHITE && is_white(s->g[i]);
    if (leads && i + 1 < s->end && in_set(stage, s->g[i + 1]))
        first = i + 1;
    size_t j = first;
    while (j < s->end && j - first < most && in_set(stage, s->g[j]))
        j++;
    return j - first < least ? i : j;
}

/* ---- words, numbers, punctuation, white space ---- */

/* Length of 's 't 'm 'd 're 've 'll at i, or 0. */
static size_t contraction(const struct scan *s, size_t i, bool any_case)
{
    uint32_t fold = any_case ? 32 : 0;
    if (i + 1 >= s->end || glyph_code(s->g[i]) != '\'')
        return 0;
    uint32_t a = glyph_code(s->g[i + 1]);
    a = is_ascii_letter(a) ? a | fold : a;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (i + 2 >= s->end)
        return 0;
    uint32_t b = glyph_code(s->g[i + 2]);
    b = is_ascii_letter(b) ? b | fold : b;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

static bool is_letter(const struct stage *stage, const struct scan *s, size_t i)
{
    return i < s->end && glyph_class(s->g[i]) & stage->letters && !(stage->han && is_han(glyph_code(s->g[i])));
}

static size_t run_of_letters(const struct stage *stage, const struct scan *s, size_t i)
{
    while (is_letter(stage, s, i))
        i++;
    return i;
}

/* Capitals* small+ when `small` is set, else capitals+ small*. Letters beyond ASCII count as both: so has the reference
 * simplified it. The end, or i. */
static size_t cased_word(const struct stage *stage, const struct scan *s, size_t i, bool small)
{
    size_t j = i, last_both = i;
    for (; is_letter(stage, s, j); j++) {
        uint32_t c = glyph_code(s->g[j]);
        if (c >= 'a' && c <= 'z')
            break;
        if (c >= 0x80)
            last_both = j + 1;
    }
    bool small_follows = is_letter(stage, s, j);
    if (small && !small_follows)
        return last_both;       /* give capitals back until one can be small, too */
    if (!small && j == i)
        return i;
    for (; is_letter(stage, s, j); j++) {
        uint32_t c = glyph_code(s->g[j]);
        if (c >= 'A' && c <= 'Z')
            break;
    }
    return j;
}

/* Letters with their marks, single blanks between them allowed. */
static size_t spaced_words(const struct scan *s, size_t i)
{
    size_t j = i;
    for (;;) {
        size_t letter = j > i && j < s->end && glyph_code(s->g[j]) == ' ' ? j + 1 : j;
        if (letter >= s->end || !(glyph_class(s->g[letter]) & UNICODE_LETTER))
            return j;
        j = letter + 1;
        while (j < s->end && glyph_class(s->g[j]) & UNICODE_MARK)
            j++;
    }
}

/* A word at i, with at most one other character before it. The end, or i. */
static size_t word(const struct stage *stage, const struct scan *s, size_t i)
{
    bool leads = !(glyph_class(s->g[i]) & stage->not_before) && !is_newline(glyph_code(s->g[i])) && i + 1 < s->end;
    size_t end = i;
    if (stage->shape == SHAPE_CASED) {
        /* The order in which the expression tries: small letters needed or not, then with the leading one or without. */
        for (int attempt = 0; attempt < 4 && end == i; attempt++) {
            size_t start = i + (attempt % 2 == 0);
            if (start > i && !leads)
                continue;
            size_t j = cased_word(stage, s, start, attempt < 2);
            if (j > start)
                end = j;
        }
    } else {
        size_t start = leads ? i + 1 : i;
        end = stage->shape == SHAPE_SPACED ? spaced_words(s, start) : run_of_letters(stage, s, start);
        if (end == start) {
            start = i;
            end = stage->shape == SHAPE_SPACED ? spaced_words(s, start) : run_of_letters(stage, s, start);
        }
        if (end == start)
            return i;
    }
    if (end > i && stage->contraction == CONTRACT_AFTER)
        end += contraction(s, end, true);
    return end;
}

static bool in_tail(const struct stage *stage, uint32_t c)
{
    return stage->tail && c > 0 && c < 0x80 && strchr(stage->tail, (int)c);
}

/* A run of punctuation with a blank before and the stage's tail behind it. The end, or i. */
static size_t punctuation(const struct stage *stage, const struct scan *s, size_t i)
{
    size_t start = glyph_code(s->g[i]) == ' ' ? i + 1 : i, j = start;
    while (j < s->end && glyph_class(s->g[j]) & stage->others && !is_white(s->g[j]))
        j++;
    if (j == start)
        return i;
    size_t most = stage->tail_most ? stage->tail_most : SIZE_MAX;
    for (size_t n = 0; n < most && j < s->end && in_tail(stage, glyph_code(s->g[j])); n++)
        j++;
    return j;
}

/* Measures the run of white space that i is in, unless that is known. */
static void blanks(struct scan *s, size_t i)
{
    if (i < s->blank_end)
        return;
    s->newline_end = 0;
    for (s->blank_end = i; s->blank_end < s->end && is_white(s->g[s->blank_end]); s->blank_end++)
        if (is_newline(glyph_code(s->g[s->blank_end])))
            s->newline_end = s->blank_end + 1;
}

/* A run of white space gives its last character to what follows it, if anything does and it is not all that there is. */
static size_t white_space(struct scan *s, size_t i)
{
    if (!is_white(s->g[i]))
        return i;
    blanks(s, i);
    bool followed = s->blank_end < s->end;
    return s->blank_end - i > 1 && followed ? s->blank_end - 1 : s->blank_end;
}

/* 512, 256 ... 4, then 2 or 1 at a time; each only where white space or nothing follows; a single one anywhere. */
static size_t white_cascade(struct scan *s, size_t i)
{
    if (!is_white(s->g[i]))
        return i;
    blanks(s, i);
    size_t n = s->blank_end - i, free = s->blank_end < s->end ? n - 1 : n;
    for (size_t size = 512; size > 1; size /= 2)
        if (free >= size)
            return i + size;
    return i + 1;
}

/* Most expressions since GPT-4 are this one with other parameters. */
static size_t match_words(const struct stage *stage, struct scan *s, size_t i)
{
    uint32_t c = glyph_code(s->g[i]);
    size_t end = i;
    if (stage->han && is_han(c)) {
        while (end < s->end && is_han(glyph_code(s->g[end])))
            end++;
        return end;
    }
    if (stage->contraction == CONTRACT_BEFORE && (end = i + contraction(s, i, true)) > i)
        return end;
    if (stage->joined && c < 0x80 && glyph_class(s->g[i]) & (UNICODE_PUNCTUATION | UNICODE_SYMBOL)) {
        for (end = i + 1; end < s->end && is_ascii_letter(glyph_code(s->g[end])); end++)
            ;
        if (end > i + 1)
            return end;
    }
    if ((end = word(stage, s, i)) > i)
        return end;
    for (end = i; end < s->end && end - i < stage->digits && glyph_class(s->g[end]) & UNICODE_NUMBER; end++)
        ;
    if (end > i)
        return end;
    if ((end = punctuation(stage, s, i)) > i)
        return end;
    if (is_white(s->g[i])) {
        blanks(s, i);
        if (s->newline_end > i)
            return s->newline_end;
    }
    return stage->cascade ? white_cascade(s, i) : white_space(s, i);
}

enum {
    NOT_WHITE = UNICODE_LETTER | UNICODE_MARK | UNICODE_NUMBER | UNICODE_PUNCTUATION | UNICODE_SYMBOL | UNICODE_SEPARATOR |
                UNICODE_CONTROL | UNICODE_UNASSIGNED,
    OTHERS = NOT_WHITE & ~(UNICODE_LETTER | UNICODE_NUMBER),
    LETTER_NUMBER = UNICODE_LETTER | UNICODE_NUMBER,
    LETTER_MARK = UNICODE_LETTER | UNICODE_MARK
};

/* GPT-2's: a blank may stand before letters, numbers or others. */
static size_t match_gpt2(const struct stage *stage, struct scan *s, size_t i)
{
    static const unsigned runs[] = { UNICODE_LETTER, UNICODE_NUMBER, OTHERS };
    (void)stage;
    size_t length = contraction(s, i, false);
    if (length)
        return i + length;
    size_t start = glyph_code(s->g[i]) == ' ' && i + 1 < s->end ? i + 1 : i;
    for (size_t k = 0; k < 3; k++) {
        size_t j = start;
        while (j < s->end && glyph_class(s->g[j]) & runs[k] && !is_white(s->g[j]))
            j++;
        if (j > start)
            return j;
    }
    return white_space(s, i);
}

/* ---- chameleon's own words ---- */

static size_t match_text(const struct scan *s, size_t i, const char *text)
{
    size_t j = i;
    for (; *text; text++, j++)
        if (j >= s->end || glyph_code(s->g[j]) != (unsigned char)*text)
            return i;
    return j;
}

/* <sentinel:12> */
static size_t match_sentinel(const struct stage *stage, struct scan *s, size_t i)
{
    (void)stage;
    size_t digits = match_text(s, i, "<sentinel:"), j = digits;
    if (digits == i)
        return i;
    while (j < s->end && glyph_code(s->g[j]) - '0' < 10)
        j++;
    return j > digits && j < s->end && glyph_code(s->g[j]) == '>' ? j + 1 : i;
}

/* IMGIMG, one to four of A..I, Z */
static size_t match_image(const struct stage *stage, struct scan *s, size_t i)
{
    (void)stage;
    size_t letters = match_text(s, i, "IMGIMG"), j = letters;
    if (letters == i)
        return i;
    while (j < s->end && j - letters < 4 && glyph_code(s->g[j]) - 'A' < 9)
        j++;
    return j > letters && j < s->end && glyph_code(s->g[j]) == 'Z' ? j + 1 : i;
}

/* A tab, a newline, four blanks, two blanks */
static size_t match_indent(const struct stage *stage, struct scan *s, size_t i)
{
    (void)stage;
    uint32_t c = glyph_code(s->g[i]);
    if (c == '\t' || c == '\n')
        return i + 1;
    size_t four = match_text(s, i, "    ");
    return four > i ? four : match_text(s, i, "  ");
}

/* ---- stages that look at a piece as a whole ---- */

static void cut_trailing_white(struct scan *s)
{
    size_t i = s->end;
    while (i > s->begin && is_white(s->g[i - 1]))
        i--;
    if (i < s->end)
        s->g[i] |= CUT;
}

/* Numbers in threes from the right. What stands before a number stays with its first group: the reference does so, and the
 * stages that follow part them where it matters. */
static void cut_groups(struct scan *s)
{
    for (size_t i = s->begin; i < s->end; ) {
        size_t start = i;
        while (i < s->end && glyph_class(s->g[i]) & UNICODE_NUMBER)
            i++;
        size_t n = i - start;
        for (size_t at = n % 3 ? n % 3 : 3; at <= n; at += 3)
            if (start + at < s->end)
                s->g[start + at] |= CUT;
        if (n == 0)
            i++;
    }
}

/* ASCII digits in threes from the right, cut at both ends of each group that is whole. */
static void cut_thirds(struct scan *s)
{
    for (size_t i = s->begin; i < s->end; ) {
        size_t start = i;
        while (i < s->end && glyph_code(s->g[i]) - '0' < 10)
            i++;
        for (size_t at = (i - start) % 3; at < i - start; at += 3)
            s->g[start + at] |= CUT;
        if (i == start)
            i++;
    }
}

/* ---- the stages by name ---- */

#define RANGES(table) .ranges = table, .range_count = sizeof table / sizeof *table

/* Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee ...: the letters with case, as DeepSeek's tokenizer.json lists them. */
static const struct range deepseek_letters[] = {
    { 0x0041, 0x005A }, { 0x0061, 0x007A }, { 0x00B5, 0x00B5 }, { 0x00C0, 0x00D6 }, { 0x00D8, 0x00F6 }, { 0x00F8, 0x01BA },
    { 0x01BC, 0x01BF }, { 0x01C4, 0x0293 }, { 0x0295, 0x02AF }, { 0x0370, 0x0373 }, { 0x0376, 0x0377 }, { 0x037B, 0x037D },
    { 0x037F, 0x037F }, { 0x0386, 0x0386 }, { 0x0388, 0x038A }, { 0x038C, 0x038C }, { 0x038E, 0x03A1 }, { 0x03A3, 0x03F5 },
    { 0x03F7, 0x0481 }, { 0x048A, 0x052F }, { 0x0531, 0x0556 }, { 0x10A0, 0x10C5 }, { 0x13A0, 0x13F5 }, { 0x13F8, 0x13FD },
    { 0x1C90, 0x1CBA }, { 0x1CBD, 0x1CBF }, { 0x1D00, 0x1D2B }, { 0x1D6B, 0x1D77 }, { 0x1D79, 0x1D9A }, { 0x1E00, 0x1F15 },
    { 0x1F18, 0x1F1D }, { 0x1F20, 0x1F45 }, { 0x1F48, 0x1F4D }, { 0x1F50, 0x1F57 }, { 0x1F59, 0x1F59 }, { 0x1F5B, 0x1F5B },
    { 0x1F5D, 0x1F5D }, { 0x1F5F, 0x1F7D }, { 0x1F80, 0x1FB4 }, { 0x1FB6, 0x1FBC }, { 0x1FBE, 0x1FBE }, { 0x1FC2, 0x1FC4 },
    { 0x1FC6, 0x1FCC }, { 0x1FD0, 0x1FD3 }, { 0x1FD6, 0x1FDB }, { 0x1FE0, 0x1FEC }, { 0x1FF2, 0x1FF4 }, { 0x1FF6, 0x1FFC },
    { 0x2102, 0x2102 }, { 0x2107, 0x2107 }, { 0x210A, 0x2113 }, { 0x2115, 0x2115 }, { 0x2119, 0x211D }, { 0x2124, 0x2124 },
    { 0x2126, 0x2126 }, { 0x2128, 0x2128 }, { 0x212A, 0x212D }, { 0x212F, 0x2134 }, { 0x2139, 0x2139 }, { 0x213C, 0x213F },
    { 0x2145, 0x2149 }, { 0x214E, 0x214E }, { 0x2183, 0x2184 }, { 0x2C00, 0x2C7B }, { 0x2C7E, 0x2CE4 }, { 0x2CEB, 0x2CEE },
    { 0x2CF2, 0x2CF3 }, { 0xA640, 0xA66D }, { 0xA680, 0xA69B }, { 0xA722, 0xA76F }, { 0xA771, 0xA787 }, { 0xA78B, 0xA78E },
    { 0xAB70, 0xABBF }, { 0xFB00, 0xFB06 }, { 0xFB13, 0xFB17 }, { 0xFF21, 0xFF3A }, { 0xFF41, 0xFF5A }, { 0x10400, 0x1044F },
    { 0x104B0, 0x104D3 }, { 0x104D8, 0x104FB }, { 0x10C80, 0x10CB2 }, { 0x10CC0, 0x10CF2 }, { 0x118A0, 0x118DF },
    { 0x1E900, 0x1E943 },
};
/* The second range holds the letters of ASCII as well: so does the expression. */
static const struct range deepseek_marks[] = {
    { 0x21, 0x2F }, { 0x3A, 0x7E }, { 0xFF01, 0xFF0F }, { 0xFF1A, 0xFF5E }, { 0x2018, 0x201F }, { 0x3000, 0x3002 },
};
static const struct range deepseek_east[] = { { 0x0800, 0x9FA5 }, { 0xAC00, 0xD7FF } };
static const struct range chinese_kana[] = { { 0x4E00, 0x9FA5 }, { 0x3040, 0x30FF } };
/* The range from U+8C48 is meant to begin at U+F900, which normalization has turned into U+8C48 in the reference. */
static const struct range afmoe_east[] = {
    { 0x4E00, 0x9FFF }, { 0x3400, 0x4DBF }, { 0x8C48, 0xFAFF }, { 0x3040, 0x30FF }, { 0xFF65, 0xFF9F }, { 0x2F00, 0x2FDF },
    { 0x0E40, 0x0EFF }, { 0x1780, 0x17FF }, { 0x1000, 0x109F }, { 0xAA60, 0xAA7F }, { 0xA9E0, 0xA9FF }, { 0x1100, 0x11FF },
};
static const struct range hangul[] = { { 0xAC00, 0xD7A3 }, { 0x3131, 0x318E } };
static const struct range east_marks[] = {
    { 0xFF01, 0xFF01 }, { 0x2026, 0x2026 }, { 0x201C, 0x201D }, { 0x2018, 0x2019 }, { 0x2014, 0x2014 }, { 0xFF1A, 0xFF1B },
    { 0xFF0C, 0xFF0C }, { 0x3001, 0x303F }, { 0xFE30, 0xFE4F },
};
static const struct range bopomofo[] = { { 0x3105, 0x312F } };
static const struct range sentence_marks[] = {
    { 0x2026, 0x2026 }, { 0x3001, 0x3002 }, { 0xFF0C, 0xFF0C }, { 0x0964, 0x0964 }, { 0x06D4, 0x06D4 }, { 0x060C, 0x060C },
};

static const struct stage gpt2 = { .match = match_gpt2, .alone = true };
static const struct stage digit = { .match = match_run, .classes = UNICODE_NUMBER, .most = 1 };
static const struct stage digits_3 = { .match = match_run, .classes = UNICODE_NUMBER, .most = 3 };
static const struct stage digits = { .match = match_run, .classes = UNICODE_NUMBER };
static const struct stage ascii_3 = { .match = match_run, .ascii = "0123456789", .least = 3, .most = 3 };
static const struct stage digit_groups = { .whole = cut_groups };
static const struct stage digit_thirds = { .whole = cut_thirds };
static const struct stage newline = { .match = match_run, .ascii = "\r\n", .most = 1 };
static const struct stage lines = { .match = match_run, .ascii = "\n" };
static const struct stage trailing = { .whole = cut_trailing_white };

static const struct stage default_marks = { .match = match_run, .classes = UNICODE_PUNCTUATION, .ascii = "$+<=>^~|" };
static const struct stage falcon_marks = { .match = match_run, .classes = UNICODE_PUNCTUATION, .ascii = "$+<=>^~|`" };

static const struct stage llm_letters = { .match = match_run, .lead = LEAD_WHITE, RANGES(deepseek_letters) };
static const struct stage llm_marks = { .match = match_run, .lead = LEAD_WHITE, RANGES(deepseek_marks) };
static const struct stage llm_east = { .match = match_run, RANGES(deepseek_east) };
static const struct stage coder_letters = { .match = match_run, .lead = LEAD_WHITE, .classes = UNICODE_LETTER };
static const struct stage coder_marks = { .match = match_run, .lead = LEAD_WHITE, .classes = UNICODE_PUNCTUATION };

static const struct stage v3_east = { .match = match_run, RANGES(chinese_kana) };
static const struct stage v3_words = {
    .match = match_words, .joined = true, .letters = LETTER_MARK,
    .not_before = UNICODE_LETTER | UNICODE_PUNCTUATION | UNICODE_SYMBOL, .others = UNICODE_PUNCTUATION | UNICODE_SYMBOL,
    .tail = "\r\n",
};
static const struct stage afmoe_letters = { .match = match_run, RANGES(afmoe_east) };

static const struct stage youtu_hangul = { .match = match_run, RANGES(hangul) };
static const struct stage youtu_marks = { .match = match_run, RANGES(east_marks) };
static const struct stage youtu_bopomofo = { .match = match_run, RANGES(bopomofo) };
static const struct stage youtu_words = {
    .match = match_words, .letters = LETTER_MARK, .not_before = LETTER_NUMBER, .contraction = CONTRACT_AFTER, .digits = 1,
    .others = OTHERS, .tail = "\r\n/",
};

static const struct stage sentences = {
    .match = match_run, .lead = LEAD_SPACE, .negated = true, .classes = UNICODE_WHITESPACE, .ascii = "(|.,!?)",
    RANGES(sentence_marks),
};

static const struct stage sentinel = { .match = match_sentinel };
static const struct stage image = { .match = match_image };
static const struct stage indent = { .match = match_indent };
static const struct stage chameleon_marks = {
    .match = match_run, .classes = UNICODE_PUNCTUATION, .ascii = "$+<=>^`|~", .most = 1,
};

static const struct stage llama3 = {
    .match = match_words, .alone = true, .contraction = CONTRACT_BEFORE, .letters = UNICODE_LETTER, .not_before = LETTER_NUMBER,
    .digits = 3, .others = OTHERS, .tail = "\r\n",
};
static const struct stage qwen2 = {
    .match = match_words, .alone = true, .contraction = CONTRACT_BEFORE, .letters = UNICODE_LETTER, .not_before = LETTER_NUMBER,
    .digits = 1, .others = OTHERS, .tail = "\r\n",
};
static const struct stage qwen35 = {
    .match = match_words, .alone = true, .contraction = CONTRACT_BEFORE, .letters = LETTER_MARK, .not_before = LETTER_NUMBER,
    .digits = 1, .others = OTHERS & ~UNICODE_MARK, .tail = "\r\n",
};
static const struct stage minicpm_words = {
    .match = match_words, .contraction = CONTRACT_BEFORE, .letters = UNICODE_LETTER, .not_before = LETTER_NUMBER,
    .digits = SIZE_MAX, .others = OTHERS, .tail = "\r\n",
};
static const struct stage jais = {
    .match = match_words, .contraction = CONTRACT_BEFORE, .letters = UNICODE_LETTER, .not_before = LETTER_NUMBER,
    .digits = 3, .others = OTHERS, .tail = "\r\n", .cascade = true,
};
static const struct stage seed = {
    .match = match_words, .contraction = CONTRACT_BEFORE, .letters = UNICODE_LETTER, .not_before = LETTER_NUMBER,
    .digits = 1, .others = OTHERS,
};
static const struct stage tekken = {
    .match = match_words, .shape = SHAPE_CASED, .letters = UNICODE_LETTER, .not_before = LETTER_NUMBER, .digits = 1,
    .others = OTHERS, .tail = "\r\n/",
};
static const struct stage gpt4o = {
    .match = match_words, .shape = SHAPE_CASED, .contraction = CONTRACT_AFTER, .letters = UNICODE_LETTER,
    .not_before = LETTER_NUMBER,
    .digits = 3, .others = OTHERS, .tail = "\r\n/",
};
static const struct stage granite = {
    .match = match_words, .shape = SHAPE_CASED, .contraction = CONTRACT_AFTER, .letters = LETTER_MARK, .not_before = LETTER_NUMBER,
    .digits = 3, .others = OTHERS, .tail = "\r\n/",
};
static const struct stage aya_words = {
    .match = match_words, .contraction = CONTRACT_AFTER, .letters = LETTER_MARK, .not_before = LETTER_NUMBER, .digits = 3,
    .others = OTHERS, .tail = "\r\n/",
};
static const struct stage kimi = {
    .match = match_words, .alone = true, .han = true, .contraction = CONTRACT_AFTER, .letters = UNICODE_LETTER,
    .not_before = LETTER_NUMBER, .digits = 3, .others = OTHERS, .tail = "\r\n",
};
static const struct stage exaone_words = {
    .match = match_words, .shape = SHAPE_SPACED, .contraction = CONTRACT_BEFORE, .letters = UNICODE_LETTER,
    .not_before = LETTER_NUMBER, .digits = 1, .others = OTHERS, .tail = "\r\n/", .tail_most = 1,
};

/* ---- the names ---- */

struct pretokenizer {
    const char *name;
    unsigned flags;
    const struct stage *stages[7];       /* in their order; NULL after the last */
};

enum { IGNORE = PRE_IGNORE_MERGES, BOS = PRE_ADD_BOS, CLEAN = PRE_CLEAN_SPACES };

static const struct pretokenizer pretokenizers[] = {
    { "a.x-4.0", CLEAN, { &gpt2 } },
    { "afmoe", 0, { &digit_groups, &afmoe_letters, &v3_words } },
    { "bailingmoe", 0, { &qwen2 } },
    { "bailingmoe2", 0, { &qwen2 } },
    { "bloom", CLEAN, { &sentences } },
    { "chameleon", BOS, { &sentinel, &image, &indent, &digit, &chameleon_marks, &gpt2 } },
    { "chatglm-bpe", CLEAN, { &llama3 } },
    { "codeshell", CLEAN, { &digit, &gpt2 } },
    { "cohere2moe", 0, { &digit_groups, &aya_words } },
    { "command-r", 0, { &digit, &gpt2 } },
    { "dbrx", CLEAN, { &llama3 } },
    { "deepseek-coder", 0, { &newline, &coder_letters, &coder_marks, &llm_east, &digit } },
    { "deepseek-llm", 0, { &newline, &llm_letters, &llm_marks, &trailing, &llm_east, &digits } },
    { "deepseek-r1-qwen", 0, { &qwen2 } },
    { "deepseek-v3", 0, { &digits_3, &v3_east, &v3_words } },
    { "default", CLEAN, { &default_marks, &gpt2, &digits, &ascii_3 } },
    { "exaone", CLEAN, { &digit, &gpt2 } },
    { "exaone-moe", CLEAN, { &exaone_words } },
    { "exaone4", CLEAN, { &gpt2 } },
    { "f2llmv2", 0, { &qwen2 } },
    { "falcon", CLEAN, { &falcon_marks, &gpt2, &ascii_3 } },
    { "falcon-h1", IGNORE | BOS | CLEAN, { &llama3 } },
    { "falcon3", IGNORE | BOS | CLEAN, { &llama3 } },
    { "gemma4", BOS | PRE_FORCE_BOS | CLEAN | PRE_RAW | PRE_NEWLINES, { &lines } },
    { "gigachat", CLEAN, { &gpt2 } },
    { "glm4", CLEAN, { &llama3 } },
    { "gpt-2", CLEAN, { &gpt2 } },
    { "gpt-4o", 0, { &gpt4o } },
    { "gpt3-finnish", CLEAN, { &sentences } },
    { "granite-docling", 0, { &gpt2 } },
    { "granite-embed-multi-311m", BOS | PRE_FORCE_BOS | CLEAN | PRE_RAW | PRE_NEWLINES, { &lines } },
    { "granite-embed-multi-97m", IGNORE, { &granite } },
    { "grok-2", 0, { &qwen2 } },
    { "hunyuan", 0, { &qwen2 } },
    { "hunyuan-dense", 0, { &digits_3, &v3_east, &v3_words } },
    { "jais", CLEAN, { &gpt2 } },
    { "jais-2", CLEAN, { &jais } },
    { "jina-de", CLEAN, { &gpt2 } },
    { "jina-es", CLEAN, { &gpt2 } },
    { "jina-v1-en", CLEAN, { &gpt2 } },
    { "jina-v2-code", CLEAN, { &gpt2 } },
    { "jina-v2-de", CLEAN, { &gpt2 } },
    { "jina-v2-es", CLEAN, { &gpt2 } },
    { "jina-v5-nano", IGNORE | BOS | CLEAN, { &llama3 } },
    { "joyai-llm", 0, { &digits_3, &v3_east, &v3_words } },
    { "kanana2", 0, { &gpt4o } },
    { "kimi-k2", 0, { &kimi } },
    { "kormo", 0, { &qwen2 } },
    { "laguna", 0, { &lines, &qwen2 } },
    { "lfm2", IGNORE | BOS | CLEAN, { &llama3 } },
    { "llada-moe", 0, { &qwen2 } },
    { "llama-bpe", IGNORE | BOS | CLEAN, { &llama3 } },
    { "llama-v3", IGNORE | BOS | CLEAN, { &llama3 } },
    { "llama3", IGNORE | BOS | CLEAN, { &llama3 } },
    { "llama4", 0, { &gpt4o } },
    { "megrez", CLEAN, { &qwen2 } },
    { "mellum", CLEAN, { &gpt2 } },
    { "mellum2", CLEAN, { &digit, &gpt2 } },
    { "midm-2.0", IGNORE | BOS | CLEAN, { &llama3 } },
    { "minerva-7b", CLEAN, { &digit, &gpt2 } },
    { "minicpm5", IGNORE | CLEAN, { &digits_3, &minicpm_words } },
    { "minimax-m2", 0, { &gpt4o } },
    { "modern-bert", CLEAN, { &gpt2 } },
    { "mpt", CLEAN, { &gpt2 } },
    { "olmo", CLEAN, { &gpt2 } },
    { "phi-2", CLEAN, { &gpt2 } },
    { "pixtral", IGNORE | BOS | CLEAN, { &llama3 } },
    { "poro-chat", 0, { &sentences } },
    { "qwen2", 0, { &qwen2 } },
    { "qwen35", 0, { &qwen35 } },
    { "refact", CLEAN, { &digit, &gpt2 } },
    { "roberta-bpe", CLEAN, { &gpt2 } },
    { "sarvam-moe", PRE_RAW, { &lines } },
    { "seed-coder", 0, { &seed } },
    { "smaug-bpe", CLEAN, { &llama3 } },
    { "smollm", 0, { &digit, &gpt2 } },
    { "solar-open", 0, { &qwen2 } },
    { "stablelm2", CLEAN, { &qwen2 } },
    { "starcoder", CLEAN, { &digit, &gpt2 } },
    { "superbpe", 0, { &digits, &digit_thirds } },
    { "talkie", 0, { &gpt4o } },
    { "tekken", IGNORE | BOS, { &tekken } },
    { "tiny_aya", 0, { &digit_groups, &aya_words } },
    { "trillion", 0, { &gpt2 } },
    { "viking", 0, { &sentences, &digit } },
    { "youtu", IGNORE, { &youtu_hangul, &youtu_marks, &youtu_bopomofo, &v3_east, &youtu_words } },
};
enum { PRETOKENIZERS = sizeof pretokenizers / sizeof *pretokenizers };

const struct pretokenizer *pretokenizer_find(const char *name, size_t n)
{
    for (size_t i = 0; i < PRETOKENIZERS; i++)
        if (strlen(pretokenizers[i].name) == n && memcmp(pretokenizers[i].name, name, n) == 0)
            return &pretokenizers[i];
    return NULL;
}

const char *pretokenizer_name(const struct pretokenizer *pre)
{
    return pre->name;
}

unsigned pretokenizer_flags(const struct pretokenizer *pre)
{
    return pre->flags;
}

void pretokenizer_list(char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < PRETOKENIZERS; i++) {
        size_t n = strlen(pretokenizers[i].name);
        if (used + n + 3 > size)
            break;
        used += i ? (memcpy(out + used, ", ", 2), 2) : 0;
        memcpy(out + used, pretokenizers[i].name, n);
        used += n;
    }
    out[used] = '\0';
}

/* ---- cutting ---- */

static void cut_piece(const struct stage *stage, struct scan *s)
{
    if (stage->whole) {
        stage->whole(s);
        return;
    }
    for (size_t i = s->begin; i < s->end; ) {
        size_t end = stage->match(stage, s, i);
        if (end == i) {
            if (stage->alone)
                s->g[i] |= CUT;
            i++;
            if (stage->alone && i < s->end)
                s->g[i] |= CUT;
            continue;
        }
        s->g[i] |= CUT;
        if (end < s->end)
            s->g[end] |= CUT;
        i = end;
    }
}

static size_t read_glyphs(uint32_t *g, const char *text, size_t n)
{
    size_t count = 0;
    for (size_t at = 0; at < n; ) {
        uint32_t c;
        size_t bytes = unicode_decode(text + at, n - at, &c);
        bool invalid = c == UNICODE_REPLACEMENT && bytes == 1;
        g[count++] = c | unicode_class(c) << CODE_BITS | (invalid ? INVALID : 0);
        at += bytes;
    }
    return count;
}

static size_t glyph_bytes(uint32_t glyph)
{
    char bytes[4];
    return glyph & INVALID ? 1 : unicode_encode(glyph_code(glyph), bytes);
}

bool pretokenizer_split(struct encoder *e, const char *text, size_t n, pretokenizer_word *each)
{
    if (!encoder_room(e, &e->glyphs, &e->glyph_room, n, sizeof *e->glyphs))
        return false;
    uint32_t *g = e->glyphs;
    size_t count = read_glyphs(g, text, n);
    for (const struct stage *const *stage = e->t->pre->stages; *stage; stage++) {
        for (size_t a = 0, b; a < count; a = b) {
            for (b = a + 1; b < count && !(g[b] & CUT); b++)
                ;
            struct scan s = { .g = g, .begin = a, .end = b };
            cut_piece(*stage, &s);
        }
    }
    size_t start = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        if (g[i] & CUT && at > start) {
            if (!each(e, text + start, at - start))
                return false;
            start = at;
        }
        at += glyph_bytes(g[i]);
    }
    return at == start || each(e, text + start, at - start);
}
