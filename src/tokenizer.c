/* A tokenizer out of a file's keys: everything is checked here, once, so that encoding and decoding need no checks.
 *
 * Sources: the keys tokenizer.ggml.* of the GGUF specification; what happens where a file says nothing follows llama.cpp, for
 * which the files were made. Texts are not copied: tokens point into the mapped file. */
#include "tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_internal.h"

/* Names of tokenizer.ggml.model that are known, and the algorithm of each. */
static const struct { const char *name; enum tokenizer_kind kind; } models[] = {
    { "llama", TOKENIZER_SPM }, { "gpt2", TOKENIZER_BPE }, { "gemma4", TOKENIZER_BPE }, { "bert", TOKENIZER_WPM },
};

/* ---- arrays ---- */

/* An array of `n` elements (any number when n is 0) under a key; *out is NULL when it is absent and may be. */
static bool read_array(const struct gguf *g, const char *key, size_t n, bool needed, const struct gguf_value **out,
                       struct quern_error *err)
{
    *out = gguf_find(g, key);
    if (!*out)
        return !needed || ERR(err, QUERN_EFORMAT, "%s is missing", key);
    if ((*out)->type != GGUF_ARRAY)
        return ERR(err, QUERN_EFORMAT, "%s is of type %s, expected an array", key, gguf_type_name((*out)->type));
    if (n && (*out)->as.array.n != n)
        return ERR(err, QUERN_EFORMAT, "%s has %zu elements, the vocabulary has %zu tokens", key, (*out)->as.array.n, n);
    return true;
}

static bool wrong_elements(const char *key, const struct gguf_value *array, const char *expected, struct quern_error *err)
{
    return ERR(err, QUERN_EFORMAT, "%s is an array of %s, expected %s", key, gguf_type_name(array->as.array.type), expected);
}

static bool read_tokens(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    static const char key[] = "tokenizer.ggml.tokens";
    const struct gguf_value *array;
    if (!read_array(g, key, 0, true, &array, err))
        return false;
    if (array->as.array.type != GGUF_STRING)
        return wrong_elements(key, array, "string", err);
    t->size = array->as.array.n;
    if (t->size == 0 || t->size > INT32_MAX)
        return ERR(err, QUERN_EFORMAT, "%s has %zu elements, expected 1 to %d", key, t->size, INT32_MAX);
    t->tokens = arena_take(&t->arena, t->size, sizeof *t->tokens, "the vocabulary", err);
    if (!t->tokens)
        return false;
    size_t cursor = 0;
    for (size_t id = 0; id < t->size; id++) {
        struct gguf_string s = gguf_array_string(array, &cursor);
        if (s.n > LONGEST_TOKEN)
            return ERR(err, QUERN_EFORMAT, "%s: token %zu has %zu bytes, allowed are %d", key, id, s.n, LONGEST_TOKEN);
        t->tokens[id] = (struct token){ s.text, (uint32_t)s.n, TOKEN_NORMAL };
        if (s.n > t->longest)
            t->longest = s.n;
    }
    return true;
}

static bool read_types(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    static const unsigned flags[] = { 0, TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };
    const struct gguf_value *array;
    if (!read_array(g, key, t->size, false, &array, err))
        return false;
    if (!array)
        return true;
    if (array->as.array.type != GGUF_I32 && array->as.array.type != GGUF_U32)
        return wrong_elements(key, array, "i32", err);
    for (size_t id = 0; id < t->size; id++) {
        int64_t type;
        if (!gguf_array_i64(array, id, &type) || type < 0 || type >= (int64_t)(sizeof flags / sizeof *flags))
            return ERR(err, QUERN_EFORMAT, "%s: the type of token %zu is not one of 0 to 6", key, id);
        t->tokens[id].flags = flags[type];
        if (type == 6 && byte_token_value(t->tokens[id].text, t->tokens[id].n) == NO_ID) {
            char shown[60];
            return ERR(err, QUERN_EFORMAT, "token %zu is a byte token, but its text is '%s', expected <0x00> to <0xFF>", id,
                       text_escape(shown, sizeof shown, t->tokens[id].text, t->tokens[id].n));
        }
    }
    return true;
}

/* ---- SPM ---- */

struct scored { float score; uint32_t id; };

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Merges are compared by score: the order is all that matters, so each distinct score becomes a number. */
static bool read_scores(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    static const char key[] = "tokenizer.ggml.scores";
    const struct gguf_value *array;
    t->rank = arena_take(&t->arena, t->size, sizeof *t->rank, "the scores of tokens", err);
    if (!t->rank || !read_array(g, key, t->size, false, &array, err))
        return false;
    if (!array)
        return true;
    if (array->as.array.type != GGUF_F32)
        return wrong_elements(key, array, "f32", err);
    struct scored *scored = mem_take(t->size, sizeof *scored, "the scores of tokens", err);
    if (!scored)
        return false;
    bool ok = true;
    for (size_t id = 0; ok && id < t->size; id++) {
        double score = 0;
        if (!gguf_array_f64(array, id, &score) || isnan(score))
            ok = ERR(err, QUERN_EFORMAT, "%s: the score of token %zu is not a number", key, id);
        scored[id] = (struct scored){ (float)score, (uint32_t)id };
    }
    if (ok)
        qsort(scored, t->size, sizeof *scored, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; ok && i < t->size; i++) {
        rank += i > 0 && scored[i].score != scored[i - 1].score;
        t->rank[scored[i].id] = rank;
    }
    free(scored);
    return ok;
}

/* Does U+2581 stand after anything but itself in any token that text can become? Hardly ever; then a text of 10 MB is
 * millions of small heaps instead of one large one. */
static bool find_words_apart(const struct tokenizer *t)
{
    for (size_t id = 0; id < t->size; id++) {
        const struct token *token = &t->tokens[id];
        size_t blanks = 0;                       /* at the start */
        while (blanks + BLANK_MARK_BYTES <= token->n && memcmp(token->text + blanks, BLANK_MARK, BLANK_MARK_BYTES) == 0)
            blanks += BLANK_MARK_BYTES;
        if (!(token->flags & TOKEN_HIDDEN) && memmem(token->text + blanks, token->n - blanks, BLANK_MARK, BLANK_MARK_BYTES))
            return false;
    }
    return true;
}

/* The 256 tokens <0x00> to <0xFF>: all of them, or none. */
static bool find_byte_tokens(struct tokenizer *t, struct quern_error *err)
{
    size_t found = 0;
    unsigned missing = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        const char digits[] = "0123456789ABCDEF", text[] = { '<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>' };
        t->bytes[byte] = text_table_find(t, text, sizeof text);
        found += t->bytes[byte] != NO_ID;
        if (t->bytes[byte] == NO_ID)
            missing = byte;
    }
    if (found != 0 && found != 256)
        return ERR(err, QUERN_EFORMAT, "tokenizer.ggml.tokens has byte tokens for %zu of 256 bytes, <0x%02X> is missing", found,
                   missing);
    t->has_bytes = found == 256;
    return true;
}

/* ---- BPE ---- */

/* A merge is two tokens with a blank between them (the first may begin with one); their concatenation must be a token, too. */
static bool read_merge(struct tokenizer *t, struct gguf_string s, size_t line, char *joined, struct quern_error *err)
{
    static const char key[] = "tokenizer.ggml.merges";
    char shown[200];
    const char *blank = s.n > 1 ? memchr(s.text + 1, ' ', s.n - 1) : NULL;
    if (!blank)
        return ERR(err, QUERN_EFORMAT, "%s: line %zu, '%s', is not two texts with a blank between them", key, line,
                   text_escape(shown, sizeof shown, s.text, s.n));
    size_t first = (size_t)(blank - s.text), second = s.n - first - 1;
    int32_t left = text_table_find(t, s.text, first), right = text_table_find(t, blank + 1, second), both = NO_ID;
    if (left != NO_ID && right != NO_ID) {
        memcpy(joined, s.text, first);
        memcpy(joined + first, blank + 1, second);
        both = text_table_find(t, joined, first + second);
    }
    if (both == NO_ID)
        return ERR(err, QUERN_EFORMAT, "%s: line %zu, '%s': %s is not in the vocabulary", key, line,
                   text_escape(shown, sizeof shown, s.text, s.n),
                   left == NO_ID ? "the first" : right == NO_ID ? "the second" : "what they make together");
    pair_table_add(&t->pairs, (uint32_t)left, (uint32_t)right, (uint32_t)line);
    t->merged[line] = (uint32_t)both;
    return true;
}

static bool read_merges(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    static const char key[] = "tokenizer.ggml.merges";
    const struct gguf_value *array;
    /* kimi-k2's vocabulary is its list of ranks: such files may do without. */
    bool needed = strcmp(pretokenizer_name(t->pre), "kimi-k2") != 0;
    if (!read_array(g, key, 0, needed, &array, err))
        return false;
    if (array && array->as.array.type != GGUF_STRING)
        return wrong_elements(key, array, "string", err);
    size_t n = array ? array->as.array.n : 0;
    if (n >= NO_PAIR)
        return ERR(err, QUERN_EFORMAT, "%s has %zu elements, too many", key, n);
    char *joined = mem_take(2 * t->longest, 1, "reading merges", err);
    t->merged = arena_take(&t->arena, n, sizeof *t->merged, "the merges", err);
    bool ok = joined && t->merged && pair_table_init(t, n, err);
    size_t cursor = 0;
    for (size_t line = 0; ok && line < n; line++)
        ok = read_merge(t, gguf_array_string(array, &cursor), line, joined, err);
    free(joined);
    return ok;
}

/* GPT-2's byte-level BPE spells each byte as one printable character; a byte without a token stays NO_ID. */
static void find_byte_characters(struct tokenizer *t)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4];
        t->bytes[byte] = text_table_find(t, text, unicode_encode(byte_to_char(byte), text));
    }
}

/* ---- opening ---- */

/* An unknown algorithm is refused: a wrong one would give words that look right and mean nothing to the model. */
static bool find_model(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    struct gguf_string name = { "", 0 };
    char shown[80];
    if (!gguf_find(g, "tokenizer.ggml.model"))
        return ERR(err, QUERN_EUNSUPPORTED, "the file has no tokenizer (no key tokenizer.ggml.model)");
    if (!gguf_read_string(g, "tokenizer.ggml.model", &name, err))
        return false;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (gguf_string_is(name, models[i].name)) {
            t->kind = models[i].kind;
            t->model = models[i].name;
            return true;
        }
    }
    return ERR(err, QUERN_EUNSUPPORTED, "the tokenizer is of the model '%s', known are llama, gpt2, gemma4, bert",
               text_escape(shown, sizeof shown, name.text, name.n));
}

/* The same holds for pre-tokenizers, of which BPE files have dozens. A default where a file names none would only be a guess, and
 * its worse answers would be taken for the model's fault. */
static bool find_pre(struct tokenizer *t, const struct gguf *g, const char *wanted, struct quern_error *err)
{
    struct gguf_string name = { "", 0 };
    char shown[80], list[1000];
    if (t->kind != TOKENIZER_BPE)
        return !wanted || ERR(err, QUERN_EUSAGE, "a pre-tokenizer ('%s') was given, but a tokenizer of the model '%s' has none",
                              wanted, t->model);
    if (wanted)
        name = (struct gguf_string){ wanted, strlen(wanted) };
    else if (strcmp(t->model, "gemma4") == 0)
        name = (struct gguf_string){ "gemma4", 6 };
    else if (!gguf_read_string(g, "tokenizer.ggml.pre", &name, err))
        return false;
    t->pre = pretokenizer_find(name.text, name.n);
    if (t->pre)
        return true;
    pretokenizer_list(list, sizeof list);
    if (name.n == 0)
        return ERR(err, QUERN_EUNSUPPORTED, "the file does not name its pre-tokenizer (tokenizer.ggml.pre); give one with "
                   "--tokenizer-pre: %s", list);
    return ERR(err, QUERN_EUNSUPPORTED, "the pre-tokenizer '%s' is unknown; another may be given with --tokenizer-pre: %s",
               text_escape(shown, sizeof shown, name.text, name.n), list);
}

/* The token that a key names, or `fallback` where there is no such key and that token has one of the flags. */
static bool read_id(const struct tokenizer *t, const struct gguf *g, const char *key, size_t fallback, unsigned flags, int32_t *out,
                    struct quern_error *err)
{
    uint32_t id = UINT32_MAX;
    if (!gguf_find(g, key)) {
        if (*out == NO_ID && fallback < t->size && t->tokens[fallback].flags & flags)
            *out = (int32_t)fallback;
        return true;
    }
    if (!gguf_read_u32(g, key, &id, err))
        return false;
    if (id >= t->size)
        return ERR(err, QUERN_EFORMAT, "%s is %u, the vocabulary has %zu tokens", key, id, t->size);
    *out = (int32_t)id;
    return true;
}

static bool read_ids(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    bool spm = t->kind == TOKENIZER_SPM, wpm = t->kind == TOKENIZER_WPM;
    unsigned any = TOKEN_NORMAL | TOKEN_CONTROL | TOKEN_UNKNOWN;
    t->bos = t->eos = t->unknown = t->separator = NO_ID;
    /* Where a file says nothing: what LLaMA and BERT have there. */
    return (!wpm || read_id(t, g, "tokenizer.ggml.cls_token_id", 101, any, &t->bos, err)) &&
           read_id(t, g, "tokenizer.ggml.bos_token_id", spm ? 1 : SIZE_MAX, TOKEN_CONTROL, &t->bos, err) &&
           read_id(t, g, "tokenizer.ggml.eos_token_id", spm ? 2 : SIZE_MAX, TOKEN_CONTROL, &t->eos, err) &&
           read_id(t, g, "tokenizer.ggml.unknown_token_id", spm ? 0 : wpm ? 100 : SIZE_MAX, spm ? TOKEN_UNKNOWN : any,
                   &t->unknown, err) &&
           read_id(t, g, "tokenizer.ggml.seperator_token_id", wpm ? 102 : SIZE_MAX, any, &t->separator, err);
}

static bool read_switches(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    unsigned pre = t->pre ? pretokenizer_flags(t->pre) : 0;
    t->space_prefix = t->kind == TOKENIZER_SPM;
    t->clean_spaces = t->kind == TOKENIZER_WPM || pre & PRE_CLEAN_SPACES;
    t->add_bos = t->kind != TOKENIZER_BPE || pre & PRE_ADD_BOS;
    t->lowercase = true;
    if (!gguf_read_bool(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix, err) ||
        !gguf_read_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, err) ||
        !gguf_read_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos, err) ||
        !gguf_read_bool(g, "tokenizer.ggml.normalizer.lowercase", &t->lowercase, err))
        return false;
    t->strip_accents = t->lowercase;
    if (!gguf_read_bool(g, "tokenizer.ggml.normalizer.strip_accents", &t->strip_accents, err))
        return false;
    if (pre & PRE_FORCE_BOS || t->kind == TOKENIZER_WPM)     /* published files of Gemma 4 say false, and it fails without */
        t->add_bos = true;
    if (t->add_bos && t->bos == NO_ID)
        return ERR(err, QUERN_EFORMAT,
                   "texts are to begin with a token, but the file does not say which (tokenizer.ggml.bos_token_id)");
    if (t->add_eos && t->eos == NO_ID)
        return ERR(err, QUERN_EFORMAT,
                   "texts are to end with a token, but the file does not say which (tokenizer.ggml.eos_token_id)");
    if (t->kind == TOKENIZER_WPM && t->separator == NO_ID)
        return ERR(err, QUERN_EFORMAT,
                   "texts are to end with a token, but the file does not say which (tokenizer.ggml.seperator_token_id)");
    return true;
}

/* In this order: types need tokens, ids need the table, special tokens need ids; the algorithm's own tables last. */
static bool open_all(struct tokenizer *t, const struct gguf *g, const char *pre, struct quern_error *err)
{
    if (!find_model(t, g, err) || !find_pre(t, g, pre, err) || !read_tokens(t, g, err) || !read_types(t, g, err) ||
        !text_table_init(t, err) || !read_ids(t, g, err) || !read_switches(t, g, err) || !special_init(t, g, err))
        return false;
    switch (t->kind) {
    case TOKENIZER_SPM:
        t->words_apart = find_words_apart(t);
        return read_scores(t, g, err) && find_byte_tokens(t, err);
    case TOKENIZER_BPE:
        if (pretokenizer_flags(t->pre) & PRE_RAW ? !find_byte_tokens(t, err) : (find_byte_characters(t), false))
            return false;
        return read_merges(t, g, err);
    default:
        return prefix_table_init(t, &t->words, ~0u, TOKEN_HIDDEN, err);
    }
}

struct tokenizer *tokenizer_open(const struct gguf *g, const struct tokenizer_options *options, struct quern_error *err)
{
    struct tokenizer *t = mem_take(1, sizeof *t, "the tokenizer", err);
    if (!t)
        return NULL;
    arena_init(&t->arena, 0);
    if (!open_all(t, g, options ? options->pre : NULL, err)) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    arena_free(&t->arena);
    free(t);
}

/* ---- questions ---- */

size_t tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->size && t->tokens[id].flags & TOKEN_END;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->add_bos;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n)
{
    return text_table_find(t, text, n);
}

const char *tokenizer_model(const struct tokenizer *t)
{
    return t->model;
}

const char *tokenizer_pre(const struct tokenizer *t)
{
    return t->pre ? pretokenizer_name(t->pre) : "";
}
