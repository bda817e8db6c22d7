#include <stdlib.h>
#include <string.h>

#include "tokenizer_internal.h"

/* ---- scratch ---- */

/* Grow by half: a list of n elements is copied 3 n times in all at most. The encoder keeps its buffers for the next piece. */
bool encoder_room(struct encoder *e, void *p, size_t *room, size_t count, size_t size)
{
    void **memory = p;
    if (count <= *room && *memory)
        return true;
    size_t want = *room + *room / 2, bytes;
    if (want < count)
        want = count;
    if (want < 64)
        want = 64;
    if (!checked_mul(&bytes, want, size))
        return ERR(e->err, QUERN_EMEM, "not enough memory for a text of this length (%zu x %zu bytes)", want, size);
    void *grown = realloc(*memory, bytes);
    if (!grown)
        return ERR(e->err, QUERN_EMEM, "not enough memory for a text of this length (%zu bytes)", bytes);
    *memory = grown;
    *room = want;
    return true;
}

static bool emit(struct encoder *e, int32_t id)
{
    if (!encoder_room(e, &e->ids, &e->room, e->count + 1, sizeof *e->ids))
        return false;
    e->ids[e->count++] = id;
    return true;
}

/* An 8-ary heap: a node's children share one or two cache lines, and 10 million keys are 8 levels deep instead of 24. */
enum { FANOUT = 8 };

static void sift_down(struct heap *heap, size_t i)
{
    uint64_t key = heap->keys[i];
    for (;;) {
        size_t first = i * FANOUT + 1, least = i;
        uint64_t smallest = key;
        for (size_t child = first; child < first + FANOUT && child < heap->n; child++) {
            if (heap->keys[child] < smallest) {
                smallest = heap->keys[child];
                least = child;
            }
        }
        if (least == i)
            break;
        heap->keys[i] = smallest;
        i = least;
    }
    heap->keys[i] = key;
}

bool heap_push(struct encoder *e, uint64_t key)
{
    struct heap *heap = &e->heap;
    if (!encoder_room(e, &heap->keys, &heap->room, heap->n + 1, sizeof *heap->keys))
        return false;
    size_t i = heap->n++;
    while (i > 0 && heap->keys[(i - 1) / FANOUT] > key) {
        heap->keys[i] = heap->keys[(i - 1) / FANOUT];
        i = (i - 1) / FANOUT;
    }
    heap->keys[i] = key;
    return true;
}

uint64_t heap_pop(struct heap *heap)
{
    uint64_t top = heap->keys[0];
    heap->keys[0] = heap->keys[--heap->n];
    if (heap->n)
        sift_down(heap, 0);
    return top;
}

/* ---- merging ----
 *
 * SPM and BPE do the same: of all neighbours that can become one token take the best, leftmost first, until none can. They
 * differ in what is best (the score of the result; the line of the merge). A key is rank << 32 | symbol; a key whose symbol
 * has since changed is recognised by the rank and dropped. Each merge takes a symbol away and adds at most two keys: n log n. */

static uint32_t find_pair(const struct encoder *e, const char *text, size_t n, const struct symbol *left,
                          const struct symbol *right)
{
    const struct tokenizer *t = e->t;
    if (t->kind == TOKENIZER_BPE)
        return left->id < 0 || right->id < 0 ? NO_PAIR : pair_table_find(&t->pairs, (uint32_t)left->id, (uint32_t)right->id);
    size_t end = right->next == NO_INDEX ? n : e->symbols[right->next].start;
    int32_t id = text_table_plain(t, text + left->start, end - left->start);
    return id == NO_ID ? NO_PAIR : (uint32_t)id;
}

static uint64_t pair_key(const struct encoder *e, int32_t i)
{
    uint32_t pair = e->symbols[i].pair;
    return (uint64_t)(e->t->kind == TOKENIZER_BPE ? pair : e->t->rank[pair]) << 32 | (uint32_t)i;
}

/* Looks again at what symbol i and the next can become. */
static bool update_pair(struct encoder *e, const char *text, size_t n, int32_t i)
{
    struct symbol *symbol = &e->symbols[i];
    symbol->pair = symbol->next == NO_INDEX ? NO_PAIR : find_pair(e, text, n, symbol, &e->symbols[symbol->next]);
    return symbol->pair == NO_PAIR || heap_push(e, pair_key(e, i));
}

/* symbols[0..count) of text[0..n) are single characters with prev, next and id set. */
static bool merge_symbols(struct encoder *e, const char *text, size_t n, size_t count)
{
    struct symbol *s = e->symbols;
    e->heap.n = 0;
    for (size_t i = 0; i < count; i++)
        if (!update_pair(e, text, n, (int32_t)i))
            return false;
    while (e->heap.n) {
        uint64_t key = heap_pop(&e->heap);
        int32_t left = (int32_t)(key & UINT32_MAX);
        if (s[left].pair == NO_PAIR || pair_key(e, left) != key)
            continue;
        int32_t right = s[left].next;
        s[left].id = e->t->kind == TOKENIZER_BPE ? (int32_t)e->t->merged[s[left].pair] : (int32_t)s[left].pair;
        s[left].next = s[right].next;
        if (s[right].next != NO_INDEX)
            s[s[right].next].prev = left;
        s[right].pair = NO_PAIR;
        if (!update_pair(e, text, n, left) || (s[left].prev != NO_INDEX && !update_pair(e, text, n, s[left].prev)))
            return false;
    }
    return true;
}

static void add_symbol(struct encoder *e, size_t i, size_t start, int32_t id)
{
    e->symbols[i] = (struct symbol){ .start = (uint32_t)start, .prev = (int32_t)i - 1, .next = (int32_t)i + 1, .id = id };
}

/* A character that the vocabulary has no token for: its bytes, or the unknown token, once. BPE has no token for the unknown:
 * there it vanishes, as in the reference. */
static bool emit_character(struct encoder *e, const char *text, size_t n)
{
    const struct tokenizer *t = e->t;
    if (t->has_bytes) {
        for (size_t i = 0; i < n; i++)
            if (!emit(e, t->bytes[(unsigned char)text[i]]))
                return false;
        return true;
    }
    if (t->kind == TOKENIZER_BPE)
        return true;
    if (t->unknown != NO_ID)
        return emit(e, t->unknown);
    char shown[40];
    return ERR(e->err, QUERN_EUNSUPPORTED, "the vocabulary has no token for '%s', no byte tokens and no token for the unknown",
               text_escape(shown, sizeof shown, text, n));
}

/* Characters of text[0..n) to symbols, merged, to ids: SPM, and BPE whose tokens are plain UTF-8. */
static bool merge_characters(struct encoder *e, const char *text, size_t n)
{
    if (!encoder_room(e, &e->symbols, &e->symbol_room, n, sizeof *e->symbols))
        return false;
    size_t count = 0;
    for (size_t at = 0; at < n; count++) {
        uint32_t c;
        size_t bytes = unicode_decode(text + at, n - at, &c);
        add_symbol(e, count, at, text_table_plain(e->t, text + at, bytes));
        at += bytes;
    }
    if (count == 0)
        return true;
    e->symbols[count - 1].next = NO_INDEX;
    if (!merge_symbols(e, text, n, count))
        return false;
    for (int32_t i = 0; i != NO_INDEX; i = e->symbols[i].next) {
        const struct symbol *symbol = &e->symbols[i];
        size_t end = symbol->next == NO_INDEX ? n : e->symbols[symbol->next].start;
        if (symbol->id != NO_ID ? !emit(e, symbol->id) : !emit_character(e, text + symbol->start, end - symbol->start))
            return false;
    }
    return true;
}

/* ---- SPM ---- */

/* text[0..n) with blanks as U+2581, one more at the start if `prefix`, in e->text. */
static bool mark_blanks(struct encoder *e, const char *text, size_t n, bool prefix, size_t *length)
{
    size_t blanks = prefix;
    for (size_t i = 0; i < n; i++)
        blanks += text[i] == ' ';
    size_t room;
    if (!checked_mul(&room, blanks, BLANK_MARK_BYTES) || !checked_add(&room, room, n) || room > INT32_MAX)
        return ERR(e->err, QUERN_ELIMIT, "a text of %zu bytes is too long for one call", n);
    if (!encoder_room(e, &e->text, &e->text_room, room, 1))
        return false;
    char *out = e->text;
    for (size_t i = 0; i < n + prefix; i++) {
        char c = i < prefix ? ' ' : text[i - prefix];
        if (c == ' ') {
            memcpy(out, BLANK_MARK, BLANK_MARK_BYTES);
            out += BLANK_MARK_BYTES;
        } else {
            *out++ = c;
        }
    }
    *length = (size_t)(out - e->text);
    return true;
}

/* Bytes up to the first U+2581 that follows something else. */
static size_t word_length(const char *text, size_t n)
{
    size_t at = 0;
    while (n - at >= BLANK_MARK_BYTES && memcmp(text + at, BLANK_MARK, BLANK_MARK_BYTES) == 0)
        at += BLANK_MARK_BYTES;
    const char *next = memmem(text + at, n - at, BLANK_MARK, BLANK_MARK_BYTES);
    return next ? (size_t)(next - text) : n;
}

static bool encode_spm(struct encoder *e, const char *text, size_t n, bool first)
{
    size_t length, start = 0;
    if (!mark_blanks(e, text, n, e->t->space_prefix && first, &length))
        return false;
    while (e->t->words_apart && start < length) {
        size_t end = start + word_length(e->text + start, length - start);
        if (!merge_characters(e, e->text + start, end - start))
            return false;
        start = end;
    }
    return merge_characters(e, e->text + start, length - start);
}

/* ---- BPE ---- */

/* The id of a whole word in the byte-level spelling, or NO_ID. */
static int32_t find_word(const struct encoder *e, const char *word, size_t n)
{
    char spelled[1024];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (used + 4 > sizeof spelled)
            return NO_ID;
        used += unicode_encode(byte_to_char((unsigned char)word[i]), spelled + used);
    }
    return text_table_plain(e->t, spelled, used);
}

static bool merge_bytes(struct encoder *e, const char *word, size_t n)
{
    if (pretokenizer_flags(e->t->pre) & PRE_IGNORE_MERGES) {
        int32_t id = find_word(e, word, n);
        if (id != NO_ID)
            return emit(e, id);
    }
    if (!encoder_room(e, &e->symbols, &e->symbol_room, n, sizeof *e->symbols))
        return false;
    for (size_t i = 0; i < n; i++)
        add_symbol(e, i, i, e->t->bytes[(unsigned char)word[i]]);
    e->symbols[n - 1].next = NO_INDEX;
    if (!merge_symbols(e, word, n, n))
        return false;
    /* A byte without a token (falcon, starcoder have some) vanishes, in the reference as in the model's own tokenizer. */
    for (int32_t i = 0; i != NO_INDEX; i = e->symbols[i].next)
        if (e->symbols[i].id != NO_ID && !emit(e, e->symbols[i].id))
            return false;
    return true;
}

/* Gemma 4 has tokens for runs of newlines that no merge leads to. */
static bool merge_raw(struct encoder *e, const char *word, size_t n)
{
    if (word[0] == '\n' && pretokenizer_flags(e->t->pre) & PRE_NEWLINES) {
        int32_t id = text_table_plain(e->t, word, n);
        if (id != NO_ID)
            return emit(e, id);
    }
    return merge_characters(e, word, n);
}

static bool encode_bpe(struct encoder *e, const char *text, size_t n)
{
    if (!(pretokenizer_flags(e->t->pre) & PRE_RAW))
        return pretokenizer_split(e, text, n, merge_bytes);
    size_t length;
    return mark_blanks(e, text, n, false, &length) && pretokenizer_split(e, e->text, length, merge_raw);
}

/* ---- WPM ---- */

/* BERT's list; the gap before U+2B920 is in the original. */
static bool stands_alone(uint32_t c)
{
    static const uint32_t blocks[][2] = {
        { 0x3400, 0x4DBF }, { 0x4E00, 0x9FFF }, { 0xF900, 0xFAFF }, { 0x20000, 0x2A6DF }, { 0x2A700, 0x2B73F },
        { 0x2B740, 0x2B81F },
        { 0x2B920, 0x2CEAF }, { 0x2F800, 0x2FA1F },
    };
    unsigned class = unicode_class(c);
    if (class & UNICODE_PUNCTUATION || (c < 0x7F && class & UNICODE_SYMBOL))
        return true;
    for (size_t i = 0; c >= 0x3400 && i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i][0] && c <= blocks[i][1])
            return true;
    return false;
}

/* A word in e->text[0..n), beginning with U+2581: the longest token, then the longest in what is left ... A word that cannot
 * be spelled to its end is the unknown token. */
static bool emit_word(struct encoder *e, size_t n)
{
    const struct tokenizer *t = e->t;
    size_t before = e->count;
    for (size_t at = 0, bytes = 0; at < n; at += bytes) {
        int32_t id = prefix_table_longest(t, &t->words, e->text + at, n - at, &bytes);
        if (id == NO_ID) {
            e->count = before;
            if (t->unknown == NO_ID)
                return ERR(e->err, QUERN_EUNSUPPORTED, "a word is not in the vocabulary, which has no token for the unknown");
            return emit(e, t->unknown);
        }
        if (!emit(e, id))
            return false;
    }
    return true;
}

/* Lower-cased, without accents (a letter is replaced by the first of its decomposition: Hangul syllables lose their vowel, too,
 * as in the reference), cut at white space and around punctuation and Chinese characters. */
static bool encode_wpm(struct encoder *e, const char *text, size_t n)
{
    const struct tokenizer *t = e->t;
    size_t room;
    /* Lower-casing and decomposing make no character longer than twice (U+023A: from 2 bytes to 3). */
    if (!checked_mul(&room, n, 2) || !checked_add(&room, room, 16))
        return ERR(e->err, QUERN_ELIMIT, "a text of %zu bytes is too long for one call", n);
    if (!encoder_room(e, &e->text, &e->text_room, room, 1))
        return false;
    memcpy(e->text, BLANK_MARK, BLANK_MARK_BYTES);
    size_t used = BLANK_MARK_BYTES;
    for (size_t at = 0; at < n; ) {
        uint32_t c;
        at += unicode_decode(text + at, n - at, &c);
        c = t->strip_accents ? unicode_base(c) : c;
        unsigned class = unicode_class(c);
        bool white = class & UNICODE_WHITESPACE;
        if (!white && (c == 0 || c == UNICODE_REPLACEMENT || class & UNICODE_CONTROL || (t->strip_accents && class & UNICODE_MARK)))
            continue;
        bool alone = !white && stands_alone(c);
        if ((white || alone) && used > BLANK_MARK_BYTES) {
            if (!emit_word(e, used))
                return false;
            used = BLANK_MARK_BYTES;
        }
        if (white)
            continue;
        used += unicode_encode(t->lowercase ? unicode_lower(c) : c, e->text + used);
        if (alone) {
            if (!emit_word(e, used))
                return false;
            used = BLANK_MARK_BYTES;
        }
    }
    return used == BLANK_MARK_BYTES || emit_word(e, used);
}

/* ---- the whole text ---- */

static bool encode_piece(struct encoder *e, const char *text, size_t n, bool first)
{
    switch (e->t->kind) {
    case TOKENIZER_SPM: return encode_spm(e, text, n, first);
    case TOKENIZER_BPE: return encode_bpe(e, text, n);
    default:            return encode_wpm(e, text, n);
    }
}

static bool skipped(const uint8_t *skip, size_t i)
{
    return skip[i / 8] >> (i % 8) & 1;
}

static bool encode_text(struct encoder *e, const char *text, size_t n, bool parse)
{
    struct special_match *matches = NULL;
    uint8_t *skip = NULL;
    size_t count = 0;
    if (!special_find(e, text, n, parse, &matches, &count, &skip))
        return false;
    /* SPM puts a blank before the text, and before what follows a special token. */
    bool ok = count > 0 || encode_piece(e, text, n, true);
    size_t at = 0, next = 0;
    bool first = true;
    while (ok && count > 0 && at < n) {
        if (next < count && matches[next].start == at) {
            ok = emit(e, matches[next].id);
            at += matches[next++].n;
            first = true;
        } else if (skipped(skip, at)) {
            at++;
        } else {
            size_t end = at;
            while (end < n && !skipped(skip, end))
                end++;
            ok = encode_piece(e, text + at, end - at, first);
            at = end;
            first = false;
        }
    }
    free(matches);
    free(skip);
    return ok;
}

static bool encode_all(struct encoder *e, const char *text, size_t n, unsigned flags)
{
    const struct tokenizer *t = e->t;
    bool special = flags & TOKENIZE_ADD_SPECIAL;
    if (special && t->add_bos && !emit(e, t->bos))
        return false;
    if (n > 0 && !encode_text(e, text, n, flags & TOKENIZE_PARSE_SPECIAL))
        return false;
    if (special && t->kind == TOKENIZER_WPM)
        return emit(e, t->separator);
    return !special || !t->add_eos || emit(e, t->eos);
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **out, size_t *count,
                      struct quern_error *err)
{
    struct encoder e = { .t = t, .err = err };
    *out = NULL;
    *count = 0;
    if (n > INT32_MAX)
        return ERR(err, QUERN_ELIMIT, "a text of %zu bytes is too long for one call (at most %d)", n, INT32_MAX);
    bool ok = encode_all(&e, text, n, flags);
    free(e.symbols);
    free(e.heap.keys);
    free(e.text);
    free(e.glyphs);
    if (!ok || e.count == 0) {
        free(e.ids);
        return ok;
    }
    *out = e.ids;
    *count = e.count;
    return true;
}
