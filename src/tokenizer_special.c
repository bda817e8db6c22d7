#include <stdlib.h>
#include <string.h>

#include "tokenizer_internal.h"

/* ---- which tokens are special ---- */

/* Files name few of their special tokens by key, and conversions have often given the others a wrong type. Tokens with these
 * texts are control tokens whatever their type says; `key` is where a file may name the role's token itself, which then stands. */
enum role { ROLE_END, ROLE_FIM_PREFIX, ROLE_FIM_SUFFIX, ROLE_FIM_MIDDLE, ROLE_FIM_PAD, ROLE_FIM_REPO, ROLE_FIM_FILE, ROLES };

static const struct { enum role role; const char *text; } known_texts[] = {
    { ROLE_END, "<|eot_id|>" }, { ROLE_END, "<|im_end|>" }, { ROLE_END, "<|end|>" }, { ROLE_END, "<|return|>" },
    { ROLE_END, "<|call|>" }, { ROLE_END, "<|flush|>" }, { ROLE_END, "<|calls|>" }, { ROLE_END, "<end_of_turn>" },
    { ROLE_END, "<|endoftext|>" }, { ROLE_END, "</s>" }, { ROLE_END, "<|eom_id|>" }, { ROLE_END, "<EOT>" }, { ROLE_END, "_<EOT>" },
    { ROLE_END, "[EOT]" }, { ROLE_END, "[EOS]" }, { ROLE_END, "<|end_of_text|>" }, { ROLE_END, "<end_of_utterance>" },
    { ROLE_END, "<eos>" }, { ROLE_END, "<turn|>" }, { ROLE_END, "<|tool_response>" }, { ROLE_END, "[e~[" },
    { ROLE_END, "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>" },
    { ROLE_FIM_PREFIX, "<|fim_prefix|>" }, { ROLE_FIM_PREFIX, "<fim-prefix>" }, { ROLE_FIM_PREFIX, "<fim_prefix>" },
    { ROLE_FIM_PREFIX, "<\xEF\xBD\x9C" "fim\xE2\x96\x81" "begin\xEF\xBD\x9C>" }, { ROLE_FIM_PREFIX, "<PRE>" },
    { ROLE_FIM_PREFIX, "\xE2\x96\x81<PRE>" }, { ROLE_FIM_PREFIX, "<|code_prefix|>" }, { ROLE_FIM_PREFIX, "<|prefix|>" },
    { ROLE_FIM_SUFFIX, "<|fim_suffix|>" }, { ROLE_FIM_SUFFIX, "<fim-suffix>" }, { ROLE_FIM_SUFFIX, "<fim_suffix>" },
    { ROLE_FIM_SUFFIX, "<\xEF\xBD\x9C" "fim\xE2\x96\x81hole\xEF\xBD\x9C>" }, { ROLE_FIM_SUFFIX, "<SUF>" },
    { ROLE_FIM_SUFFIX, "\xE2\x96\x81<SUF>" }, { ROLE_FIM_SUFFIX, "<|code_suffix|>" }, { ROLE_FIM_SUFFIX, "<|suffix|>" },
    { ROLE_FIM_MIDDLE, "<|fim_middle|>" }, { ROLE_FIM_MIDDLE, "<fim-middle>" }, { ROLE_FIM_MIDDLE, "<fim_middle>" },
    { ROLE_FIM_MIDDLE, "<\xEF\xBD\x9C" "fim\xE2\x96\x81" "end\xEF\xBD\x9C>" }, { ROLE_FIM_MIDDLE, "<MID>" },
    { ROLE_FIM_MIDDLE, "\xE2\x96\x81<MID>" }, { ROLE_FIM_MIDDLE, "<|code_middle|>" }, { ROLE_FIM_MIDDLE, "<|middle|>" },
    { ROLE_FIM_PAD, "<|fim_pad|>" }, { ROLE_FIM_PAD, "<fim-pad>" }, { ROLE_FIM_PAD, "<fim_pad>" }, { ROLE_FIM_PAD, "<PAD>" },
    { ROLE_FIM_PAD, "[PAD]" },
    { ROLE_FIM_REPO, "<|fim_repo|>" }, { ROLE_FIM_REPO, "<|repo_name|>" }, { ROLE_FIM_REPO, "<fim-repo>" },
    { ROLE_FIM_REPO, "<REPO>" }, { ROLE_FIM_REPO, "<reponame>" },
    { ROLE_FIM_FILE, "<|file_sep|>" },
};

/* Where a file names the token of a role itself. */
static const char *const role_keys[ROLES] = {
    [ROLE_FIM_PREFIX] = "tokenizer.ggml.fim_pre_token_id", [ROLE_FIM_SUFFIX] = "tokenizer.ggml.fim_suf_token_id",
    [ROLE_FIM_MIDDLE] = "tokenizer.ggml.fim_mid_token_id", [ROLE_FIM_PAD] = "tokenizer.ggml.fim_pad_token_id",
    [ROLE_FIM_REPO] = "tokenizer.ggml.fim_rep_token_id",   [ROLE_FIM_FILE] = "tokenizer.ggml.fim_sep_token_id",
};

/* Padding, repository and file tokens of fill-in-the-middle end an ordinary answer as well. */
static bool role_ends(enum role role)
{
    return role == ROLE_END || role >= ROLE_FIM_PAD;
}

static void mark(struct tokenizer *t, const char *text, unsigned set, unsigned clear)
{
    int32_t id = text_table_find(t, text, strlen(text));
    if (id != NO_ID)
        t->tokens[id].flags = (t->tokens[id].flags & ~clear) | set;
}

static bool ends(const struct tokenizer *t, const char *text)
{
    int32_t id = text_table_find(t, text, strlen(text));
    return id != NO_ID && t->tokens[id].flags & TOKEN_END;
}

/* Token of a role by its key: *id stays NO_ID when there is no such key. */
static bool read_role(const struct tokenizer *t, const struct gguf *g, const char *key, int32_t *id, struct quern_error *err)
{
    uint32_t value = UINT32_MAX;
    *id = NO_ID;
    if (!gguf_find(g, key))
        return true;
    if (!gguf_read_u32(g, key, &value, err))
        return false;
    if (value >= t->size)
        return ERR(err, QUERN_EFORMAT, "%s is %u, the vocabulary has %zu tokens", key, value, t->size);
    *id = (int32_t)value;
    return true;
}

static bool mark_roles(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    static const char *const end_keys[] = { "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id" };
    bool by_key[ROLES] = { false };
    int32_t id;
    for (int role = ROLE_END + 1; role < ROLES; role++) {
        if (!read_role(t, g, role_keys[role], &id, err))
            return false;
        by_key[role] = id != NO_ID;
        if (id != NO_ID && role_ends((enum role)role))
            t->tokens[id].flags |= TOKEN_END;
    }
    for (size_t i = 0; i < sizeof known_texts / sizeof *known_texts; i++) {
        enum role role = known_texts[i].role;
        if (!by_key[role])
            mark(t, known_texts[i].text, TOKEN_CONTROL | (role_ends(role) ? TOKEN_END : 0), 0);
    }
    for (size_t i = 0; i < sizeof end_keys / sizeof *end_keys; i++) {
        if (!read_role(t, g, end_keys[i], &id, err))
            return false;
        if (id != NO_ID)
            t->tokens[id].flags |= TOKEN_END;
    }
    if (t->eos != NO_ID)
        t->tokens[t->eos].flags |= TOKEN_END;
    return true;
}

/* Families whose control tokens mean something else than their texts say. */
static void mark_exceptions(struct tokenizer *t)
{
    static const char *const shown[] = { "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>" };
    const unsigned all = TOKEN_NORMAL | TOKEN_UNKNOWN | TOKEN_CONTROL | TOKEN_USER | TOKEN_UNUSED | TOKEN_BYTE;
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)       /* gpt-oss: part of the answer's text */
        mark(t, shown[i], TOKEN_USER, all);
    /* gpt-oss and solar-open close a message with <|end|> and go on; <|return|>, <|call|>, <|flush|> end the answer. */
    if (ends(t, "<|end|>") && ((ends(t, "<|return|>") && (ends(t, "<|call|>") || ends(t, "<|calls|>"))) ||
                               (ends(t, "<|flush|>") && (ends(t, "<|call|>") || ends(t, "<|calls|>")))))
        mark(t, "<|end|>", TOKEN_USER, all | TOKEN_END);
    if (ends(t, "<|tool_response>") && ends(t, "</s>"))             /* gemma 4: </s> is an HTML tag */
        mark(t, "</s>", TOKEN_NORMAL, all | TOKEN_END);
}

static bool same_letter(char c, char small, bool any_case)
{
    return c == small || (any_case && c >= 'A' && c <= 'Z' && (c | 32) == small);
}

static bool contains(struct gguf_string s, const char *text, bool any_case)
{
    size_t n = strlen(text);
    for (size_t at = 0; at + n <= s.n; at++) {
        size_t i = 0;
        while (i < n && same_letter(s.text[at + i], text[i], any_case))
            i++;
        if (i == n)
            return true;
    }
    return false;
}

/* White space next to some tokens belongs to them. Files do not say which; the model's name does. */
static bool mark_strips(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    struct gguf_string name = { "", 0 }, pre = { "", 0 }, arch = { "", 0 };
    if (!gguf_read_string(g, "general.name", &name, err) || !gguf_read_string(g, "general.architecture", &arch, err) ||
        !gguf_read_string(g, "tokenizer.ggml.pre", &pre, err))
        return false;
    if (contains(pre, "jina-v2-de", false) || contains(pre, "jina-v2-es", false) || contains(pre, "jina-v2-code", false) ||
        contains(arch, "nomic-bert-moe", false) || contains(arch, "jina-bert-v3", false)) {
        mark(t, "<mask>", TOKEN_LSTRIP, 0);
    } else if (contains(name, "phi-3", true) || contains(name, "phi3", true)) {
        for (size_t id = 0; id < t->size; id++)
            if (t->tokens[id].flags & (TOKEN_CONTROL | TOKEN_USER | TOKEN_UNKNOWN))
                t->tokens[id].flags |= TOKEN_RSTRIP;
        mark(t, "</s>", TOKEN_RSTRIP, 0);
        mark(t, "<unk>", 0, TOKEN_RSTRIP);
        mark(t, "<s>", 0, TOKEN_RSTRIP);
        mark(t, "<|endoftext|>", 0, TOKEN_RSTRIP);
    } else if (contains(name, "modern-bert", true)) {
        mark(t, "[MASK]", TOKEN_LSTRIP, 0);
    }
    return true;
}

bool special_init(struct tokenizer *t, const struct gguf *g, struct quern_error *err)
{
    if (!mark_roles(t, g, err))
        return false;
    mark_exceptions(t);
    return mark_strips(t, g, err) &&
           prefix_table_init(t, &t->specials, TOKEN_CONTROL | TOKEN_USER | TOKEN_UNKNOWN, 0, err) &&
           prefix_table_init(t, &t->users, TOKEN_USER, TOKEN_CONTROL | TOKEN_UNKNOWN, err);
}

/* ---- where they stand in a text ----
 *
 * The longest token wins wherever it stands, then the next longest in what is left; among equals the leftmost. Each
 * place where one begins is a key (length descending, place ascending) in the heap. A place whose longest token has been cut off by
 * another comes back with the longest that still fits. */

struct finder {
    struct encoder *e;
    const struct prefix_table *table;
    const char *text;
    size_t n;
    uint8_t *taken;              /* a bit per byte */
    struct special_match *matches;
    size_t count, room;
};

static bool is_taken(const struct finder *f, size_t i)
{
    return f->taken[i / 8] >> (i % 8) & 1;
}

static void take(struct finder *f, size_t i)
{
    f->taken[i / 8] |= (uint8_t)(1u << (i % 8));
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Key for the longest token at `at` of at most `limit` bytes, if there is one. */
static bool offer(struct finder *f, size_t at, size_t limit)
{
    size_t bytes;
    if (prefix_table_longest(f->e->t, f->table, f->text + at, limit, &bytes) == NO_ID)
        return true;
    return heap_push(f->e, (uint64_t)(LONGEST_TOKEN - bytes) << 32 | at);
}

/* Take the place, and the white space that belongs to the token on either side. */
static bool accept(struct finder *f, size_t at, size_t bytes)
{
    size_t length;
    int32_t id = prefix_table_longest(f->e->t, f->table, f->text + at, bytes, &length);
    unsigned flags = f->e->t->tokens[id].flags;
    if (!encoder_room(f->e, &f->matches, &f->room, f->count + 1, sizeof *f->matches))
        return false;
    f->matches[f->count++] = (struct special_match){ at, bytes, id };
    for (size_t i = at; i < at + bytes; i++)
        take(f, i);
    if (flags & TOKEN_LSTRIP)
        for (size_t i = at; i > 0 && !is_taken(f, i - 1) && is_blank(f->text[i - 1]); i--)
            take(f, i - 1);
    if (flags & TOKEN_RSTRIP)
        for (size_t i = at + bytes; i < f->n && !is_taken(f, i) && is_blank(f->text[i]); i++)
            take(f, i);
    return true;
}

static int by_start(const void *a, const void *b)
{
    const struct special_match *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static bool find_all(struct finder *f)
{
    struct heap *heap = &f->e->heap;
    while (heap->n) {
        uint64_t key = heap_pop(heap);
        size_t at = key & UINT32_MAX, bytes = LONGEST_TOKEN - (size_t)(key >> 32), fits = 0;
        /* A longer token may have taken the end of this place since it was offered: then the longest that still fits is offered
         * anew. Lengths only shrink, so every place comes back a bounded number of times. */
        while (fits < bytes && !is_taken(f, at + fits))
            fits++;
        if (fits == bytes ? !accept(f, at, bytes) : fits > 0 && !offer(f, at, fits))
            return false;
    }
    qsort(f->matches, f->count, sizeof *f->matches, by_start);
    return true;
}

bool special_find(struct encoder *e, const char *text, size_t n, bool parse, struct special_match **matches, size_t *count,
                  uint8_t **skip)
{
    struct finder f = { .e = e, .table = parse ? &e->t->specials : &e->t->users, .text = text, .n = n };
    *matches = NULL;
    *count = 0;
    *skip = NULL;
    e->heap.n = 0;
    if (f.table->count == 0)
        return true;
    for (size_t at = 0; at < n; at++)
        if (f.table->first[(unsigned char)text[at]] != f.table->first[(unsigned char)text[at] + 1] && !offer(&f, at, n - at))
            return false;
    if (e->heap.n == 0)
        return true;
    f.taken = mem_take(n / 8 + 1, 1, "the places of special tokens", e->err);
    if (!f.taken || !find_all(&f)) {
        free(f.taken);
        free(f.matches);
        return false;
    }
    *matches = f.matches;
    *count = f.count;
    *skip = f.taken;
    return true;
}
