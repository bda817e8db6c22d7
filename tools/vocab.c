#include "vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "sentencepiece.h"
#include "text.h"

enum { TOKENS_MOST = 1 << 24 };
/* What SentencePiece vocabularies get for tokens that no merge may prefer. */
#define SCORE_HOLE  (-10000.0f)
#define SCORE_ADDED (-1000.0f)

static const char *const special_names[SPECIAL_COUNT] = { "bos", "eos", "unk", "pad", "sep", "cls", "mask", "eot", "eom" };
static const char *const special_keys[SPECIAL_COUNT] = { "bos", "eos", "unknown", "padding", "seperator", "cls", "mask", "eot",
                                                         "eom" };

static const char lower_block[] = "\xE2\x96\x81";   /* U+2581, SentencePiece's blank */

/* ---- pieces of both kinds --------------------------------------------------------------------------------------- */

static bool begins(const char *text, size_t n, const char *with)
{
    size_t m = strlen(with);
    return n >= m && !memcmp(text, with, m);
}

static bool ends(const char *text, size_t n, const char *with)
{
    size_t m = strlen(with);
    return n >= m && !memcmp(text + n - m, with, m);
}

/* Some published files forget to mark control tokens as special; these are such whatever the file says. */
static bool looks_special(const char *text, size_t n)
{
    static const char *const words[] = { "<pad>", "<mask>", "<2mass>", "[@BOS@]" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n == strlen(words[i]) && !memcmp(text, words[i], n))
            return true;
    return (begins(text, n, "<|") && ends(text, n, "|>")) || (begins(text, n, "<\uff5c") && ends(text, n, "\uff5c>")) ||
           (begins(text, n, "<unused") && ends(text, n, ">"));
}

/* `text` with every U+2581 as a blank, in the arena: user-defined tokens are matched against the text as it was typed. */
static const char *plain_blanks(struct arena *arena, const char *text, size_t *n, struct quern_error *err)
{
    char *out = arena_text(arena, text, *n, err);
    size_t used = 0;
    if (!out)
        return NULL;
    for (size_t i = 0; i < *n;) {
        bool blank = begins(text + i, *n - i, lower_block);
        out[used++] = blank ? ' ' : text[i];
        i += blank ? 3 : 1;
    }
    out[used] = '\0';
    *n = used;
    return out;
}

/* An added token takes its place. Ids beyond the embedding can never come out of the model: named on stderr and left out. */
static bool add_token(struct vocab *v, struct arena *arena, int64_t id, const struct json *content, bool special,
                      struct quern_error *err)
{
    char shown[80];
    if (!content || content->type != JSON_STRING)
        return ERR(err, QUERN_EFORMAT, "the added token %lld has no text", (long long)id);
    text_escape(shown, sizeof shown, content->text, content->n);
    if (id < 0 || (uint64_t)id >= v->count) {
        cli_warn("added token '%s' has id %lld, the embedding has %zu rows: left out", shown, (long long)id, v->count);
        return true;
    }
    struct vocab_token *token = &v->tokens[id];
    *token = (struct vocab_token){ .text = content->text, .n = content->n, .score = SCORE_ADDED, .type = PIECE_CONTROL };
    if (!special && !looks_special(content->text, content->n)) {
        token->type = PIECE_USER_DEFINED;
        token->text = plain_blanks(arena, content->text, &token->n, err);
    }
    return token->text != NULL;
}

static bool truth(const struct json *j)
{
    return j && j->type == JSON_BOOL && j->boolean;
}

/* tokenizer.json's list: [{ id, content, special }]. */
static bool add_listed(struct vocab *v, struct hf *h, struct quern_error *err)
{
    const struct json *list = json_get(h->tokenizer, "added_tokens");
    for (size_t i = 0; list && list->type == JSON_ARRAY && i < list->n; i++) {
        const struct json *id = json_get(list->items[i], "id");
        if (!id || !id->integral)
            return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: added token %zu has no id", h->path, i);
        if (!add_token(v, &h->arena, id->integer, json_get(list->items[i], "content"), truth(json_get(list->items[i], "special")),
                       err))
            return error_prefix(err, "tokenizer.json");
    }
    return true;
}

/* tokenizer_config.json's object: "id": { content, special }. */
static bool add_decoder(struct vocab *v, struct hf *h, struct quern_error *err)
{
    const struct json *decoder = json_get(h->tokenizer_config, "added_tokens_decoder");
    for (size_t i = 0; decoder && decoder->type == JSON_OBJECT && i < decoder->n; i++) {
        const struct json *entry = decoder->items[i];
        int64_t id = entry->key_n ? 0 : -1;
        for (size_t k = 0; k < entry->key_n && id >= 0; k++)
            id = entry->key[k] >= '0' && entry->key[k] <= '9' && id < TOKENS_MOST ? id * 10 + entry->key[k] - '0' : -1;
        if (id < 0)
            return ERR(err, QUERN_EFORMAT, "%s/tokenizer_config.json: added_tokens_decoder has a key that is no id", h->path);
        if (!add_token(v, &h->arena, id, json_get(entry, "content"), truth(json_get(entry, "special")), err))
            return error_prefix(err, "tokenizer_config.json");
    }
    return true;
}

/* added_tokens.json: "text": id. */
static bool add_map(struct vocab *v, struct hf *h, struct quern_error *err)
{
    for (size_t i = 0; h->added_tokens && i < h->added_tokens->n; i++) {
        const struct json *entry = h->added_tokens->items[i];
        struct json content = { .type = JSON_STRING, .text = entry->key, .n = entry->key_n };
        if (!entry->integral)
            return ERR(err, QUERN_EFORMAT, "%s/added_tokens.json: member %zu is no id", h->path, i);
        if (!add_token(v, &h->arena, entry->integer, &content, false, err))
            return error_prefix(err, "added_tokens.json");
    }
    return true;
}

/* Rows of the embedding that no file names. */
static bool fill_holes(struct vocab *v, struct arena *arena, struct quern_error *err)
{
    for (size_t i = 0; i < v->count; i++)
        if (!v->tokens[i].text) {
            char name[32];
            int n = snprintf(name, sizeof name, "[PAD%zu]", i);
            v->tokens[i] = (struct vocab_token){ arena_text(arena, name, (size_t)n, err), (size_t)n, SCORE_HOLE, PIECE_UNUSED };
            if (!v->tokens[i].text)
                return false;
        }
    return true;
}

/* ---- tokenizer.model -------------------------------------------------------------------------------------------- */

static bool read_pieces(struct vocab *v, struct hf *h, struct quern_error *err)
{
    struct sentencepiece s;
    if (!sentencepiece_read(&s, &h->arena, h->pieces.data, h->pieces.size, "tokenizer.model", err))
        return error_prefix(err, h->path);
    if (s.model != MODEL_BPE)
        return ERR(err, QUERN_EUNSUPPORTED, "%s/tokenizer.model: SentencePiece model type %d; only BPE (2) can be expressed",
                   h->path, s.model);
    if (s.has_charsmap)
        cli_warn("tokenizer.model normalizes text by a compiled table, which the GGUF cannot say: unusual characters may tokenize "
                 "differently");
    if (s.count > v->count)
        return ERR(err, QUERN_EFORMAT, "%s/tokenizer.model has %zu pieces, the embedding %zu rows", h->path, s.count, v->count);
    v->model = "llama";
    v->pre = "default";
    for (size_t i = 0; i < s.count; i++) {
        struct vocab_token *token = &v->tokens[i];
        *token = (struct vocab_token){ s.pieces[i].text, s.pieces[i].n, s.pieces[i].score, s.pieces[i].type };
        if (token->type == PIECE_USER_DEFINED)
            token->text = plain_blanks(&h->arena, token->text, &token->n, err);
        if (!token->text)
            return false;
    }
    v->special[SPECIAL_UNK] = s.unk;
    v->special[SPECIAL_BOS] = s.bos;
    v->special[SPECIAL_EOS] = s.eos;
    v->special[SPECIAL_PAD] = s.pad;
    v->add_bos = true;
    v->add_space_prefix = s.add_dummy_prefix;
    return add_map(v, h, err) && add_decoder(v, h, err);
}

/* ---- tokenizer.json --------------------------------------------------------------------------------------------- */

/* model.vocab: "text": id. */
static bool read_json_tokens(struct vocab *v, struct hf *h, const struct json *words, struct quern_error *err)
{
    if (!words || words->type != JSON_OBJECT)
        return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: model.vocab is missing", h->path);
    for (size_t i = 0; i < words->n; i++) {
        const struct json *entry = words->items[i];
        if (!entry->integral || entry->integer < 0 || (uint64_t)entry->integer >= v->count)
            return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: token %zu has an id outside the embedding's %zu rows", h->path, i,
                       v->count);
        struct vocab_token *token = &v->tokens[entry->integer];
        if (token->text)
            return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: two tokens have the id %lld", h->path, (long long)entry->integer);
        *token = (struct vocab_token){ entry->key, entry->key_n, 0, PIECE_NORMAL };
    }
    return true;
}

/* Merge `i` of the list in either of its two forms: "left right" or ["left", "right"]. */
static bool merge_parts(const struct json *merge, struct gguf_string *left, struct gguf_string *right)
{
    if (merge->type == JSON_STRING) {
        const char *blank = memchr(merge->text, ' ', merge->n);
        if (!blank || blank == merge->text || (size_t)(blank - merge->text) + 1 == merge->n)
            return false;
        *left = (struct gguf_string){ merge->text, (size_t)(blank - merge->text) };
        *right = (struct gguf_string){ blank + 1, merge->n - left->n - 1 };
        return true;
    }
    if (merge->type != JSON_ARRAY || merge->n != 2 || merge->items[0]->type != JSON_STRING || merge->items[1]->type != JSON_STRING)
        return false;
    *left = (struct gguf_string){ merge->items[0]->text, merge->items[0]->n };
    *right = (struct gguf_string){ merge->items[1]->text, merge->items[1]->n };
    return true;
}

/* "left right" with blanks inside the parts written as U+0120, which is how byte-level BPE writes them anyway. */
static bool join_merge(struct arena *arena, struct gguf_string left, struct gguf_string right, struct gguf_string *out,
                       struct quern_error *err)
{
    char *joined = arena_take(arena, 2 * (left.n + right.n) + 2, 1, "a merge", err);
    if (!joined)
        return false;
    size_t n = 0;
    const struct gguf_string parts[2] = { left, right };
    for (int p = 0; p < 2; p++) {
        for (size_t i = 0; i < parts[p].n; i++)
            if (parts[p].text[i] == ' ') {
                memcpy(joined + n, "\u0120", 2);
                n += 2;
            } else {
                joined[n++] = parts[p].text[i];
            }
        if (p == 0)
            joined[n++] = ' ';
    }
    *out = (struct gguf_string){ joined, n };
    return true;
}

static bool read_merges(struct vocab *v, struct hf *h, const struct json *merges, struct quern_error *err)
{
    if (!merges || merges->type != JSON_ARRAY)
        return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: model.merges is missing", h->path);
    v->merges = arena_take(&h->arena, merges->n, sizeof *v->merges, "the merges", err);
    if (!v->merges)
        return false;
    for (size_t i = 0; i < merges->n; i++) {
        struct gguf_string left, right;
        if (!merge_parts(merges->items[i], &left, &right))
            return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: merge %zu is not a pair", h->path, i);
        if (!join_merge(&h->arena, left, right, &v->merges[i], err))
            return false;
    }
    v->merge_count = merges->n;
    return true;
}

static int compare_strings(const char *a, size_t an, const char *b, size_t bn)
{
    int order = memcmp(a, b, an < bn ? an : bn);
    return order ? order : an < bn ? -1 : an > bn;
}

static int by_text(const void *a, const void *b)
{
    const struct vocab_token *x = *(struct vocab_token *const *)a, *y = *(struct vocab_token *const *)b;
    return compare_strings(x->text, x->n, y->text, y->n);
}

/* The "llama" tokenizer joins the neighbours whose union has the highest score. Giving the union of merge i the score -i makes it
 * choose in the order of the merges; what no merge makes comes last. */
static bool score_by_merges(struct vocab *v, struct hf *h, const struct json *merges, struct quern_error *err)
{
    if (!merges || merges->type != JSON_ARRAY)
        return ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: model.merges is missing", h->path);
    struct vocab_token **sorted = mem_take(v->count, sizeof *sorted, "the vocabulary's index", err);
    if (!sorted)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++)
        if (v->tokens[i].text) {
            v->tokens[i].score = -(float)(merges->n + 1);
            sorted[n++] = &v->tokens[i];
        }
    qsort(sorted, n, sizeof *sorted, by_text);
    bool ok = true;
    for (size_t i = merges->n; ok && i-- > 0;) {      /* from the last, so that the first that makes a token stands */
        struct gguf_string left, right;
        struct vocab_token key = { 0 }, *at = &key, **found;
        char *joined = NULL;
        ok = merge_parts(merges->items[i], &left, &right) ||
             ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: merge %zu is not a pair", h->path, i);
        ok = ok && (joined = mem_take(left.n + right.n, 1, "a merge", err));
        if (ok) {
            memcpy(joined, left.text, left.n);
            memcpy(joined + left.n, right.text, right.n);
            key.text = joined;
            key.n = left.n + right.n;
            found = bsearch(&at, sorted, n, sizeof *sorted, by_text);
            if (found)
                (*found)->score = -(float)i;
            else
                ok = ERR(err, QUERN_EFORMAT, "%s/tokenizer.json: merge %zu makes a token that is not in the vocabulary", h->path,
                         i);
        }
        free(joined);
    }
    free(sorted);
    return ok;
}

/* Does the tree of normalizers hold nothing but what the "llama" tokenizer does itself: blanks to U+2581, one put before? */
static bool plain_normalizer(const struct json *stage, bool *prepend)
{
    if (!stage || stage->type == JSON_NULL)
        return true;
    const struct json *type = json_get(stage, "type");
    if (hf_text_is(type, "Sequence")) {
        const struct json *list = json_get(stage, "normalizers");
        bool ok = list && list->type == JSON_ARRAY;
        for (size_t i = 0; ok && i < list->n; i++)
            ok = plain_normalizer(list->items[i], prepend);
        return ok;
    }
    if (hf_text_is(type, "Prepend")) {
        *prepend = true;
        return hf_text_is(json_get(stage, "prepend"), lower_block);
    }
    return hf_text_is(type, "Replace") && hf_text_is(json_get(json_get(stage, "pattern"), "String"), " ") &&
           hf_text_is(json_get(stage, "content"), lower_block);
}

/* The same for the stages before BPE: a blank put before the text, a cut at blanks that the normalizer has already replaced. */
static bool plain_stage(const struct json *stage, bool *prepend)
{
    if (!stage || stage->type == JSON_NULL)
        return true;
    const struct json *type = json_get(stage, "type"), *scheme = json_get(stage, "prepend_scheme");
    const struct json *prefix = json_get(stage, "add_prefix_space");
    if (hf_text_is(type, "Metaspace")) {
        *prepend = scheme ? !hf_text_is(scheme, "never") : !prefix || truth(prefix);
        return true;
    }
    return hf_text_is(type, "Split") && hf_text_is(json_get(json_get(stage, "pattern"), "String"), " ");
}

/* BPE over characters with byte fallback: what SentencePiece's BPE is called in tokenizer.json. */
static bool read_fallback_bpe(struct vocab *v, struct hf *h, const struct json *model, const char *pre, struct quern_error *err)
{
    bool prepend = false;
    if (!plain_normalizer(json_get(h->tokenizer, "normalizer"), &prepend) && !pre)
        return ERR(err, QUERN_EUNSUPPORTED, "%s/tokenizer.json: unknown normalizer (--tokenizer-pre default writes the file "
                   "without it)",
                   h->path);
    if (!plain_stage(json_get(h->tokenizer, "pre_tokenizer"), &prepend) && !pre)
        return ERR(err, QUERN_EUNSUPPORTED, "%s/tokenizer.json: unknown pre-tokenizer before a BPE with byte fallback "
                   "(--tokenizer-pre "
                   "default writes the file without it)", h->path);
    v->model = "llama";
    v->pre = "default";
    v->add_bos = true;
    v->add_space_prefix = prepend;
    if (!read_json_tokens(v, h, json_get(model, "vocab"), err) || !score_by_merges(v, h, json_get(model, "merges"), err))
        return false;
    const struct json *unk = json_get(model, "unk_token");
    for (size_t i = 0; i < v->count; i++) {
        struct vocab_token *token = &v->tokens[i];
        if (token->text && token->n == 6 && begins(token->text, 6, "<0x") && token->text[5] == '>')
            token->type = PIECE_BYTE;
    }
    if (!add_listed(v, h, err))
        return false;
    for (size_t i = 0; unk && unk->type == JSON_STRING && i < v->count; i++)
        if (v->tokens[i].text && v->tokens[i].n == unk->n && !memcmp(v->tokens[i].text, unk->text, unk->n)) {
            v->tokens[i].type = PIECE_UNKNOWN;
            v->special[SPECIAL_UNK] = (int32_t)i;
        }
    return true;
}

static bool read_byte_bpe(struct vocab *v, struct hf *h, const struct json *model, const char *pre, struct quern_error *err)
{
    const struct json *normalizer = json_get(h->tokenizer, "normalizer");
    const struct json *type = json_get(normalizer, "type");
    const struct json *list = json_get(normalizer, "normalizers");
    bool known = !normalizer || normalizer->type == JSON_NULL || hf_text_is(type, "NFC") ||
                 (hf_text_is(type, "Sequence") && list && list->n == 0);
    if (!known && !pre)
        return ERR(err, QUERN_EUNSUPPORTED, "%s/tokenizer.json: unknown normalizer (--tokenizer-pre NAME writes the file without "
                   "it)",
                   h->path);
    v->model = "gpt2";
    v->pre = pre ? pre : vocab_pre_name(h->tokenizer, h->path, err);
    return v->pre && read_json_tokens(v, h, json_get(model, "vocab"), err) && read_merges(v, h, json_get(model, "merges"), err) &&
           add_listed(v, h, err);
}

static bool read_json_vocab(struct vocab *v, struct hf *h, const char *pre, struct quern_error *err)
{
    const struct json *model = json_get(h->tokenizer, "model"), *type = json_get(model, "type");
    bool fallback = truth(json_get(model, "byte_fallback"));
    char shown[40] = "none";
    if (type && type->type == JSON_STRING)
        text_escape(shown, sizeof shown, type->text, type->n);
    /* Old files have no type; merges tell. */
    if (!(hf_text_is(type, "BPE") || (!type && json_get(model, "merges"))))
        return ERR(err, QUERN_EUNSUPPORTED, "%s/tokenizer.json: model type '%s', only BPE is converted", h->path, shown);
    if (fallback && !vocab_is_byte_level(h->tokenizer))
        return read_fallback_bpe(v, h, model, pre, err);
    return read_byte_bpe(v, h, model, pre, err);
}

/* ---- special tokens and flags ----------------------------------------------------------------------------------- */

static int32_t find_token(const struct vocab *v, const struct json *text)
{
    if (!text || text->type != JSON_STRING)
        return -1;
    for (size_t i = 0; i < v->count; i++)
        if (v->tokens[i].text && v->tokens[i].n == text->n && !memcmp(v->tokens[i].text, text->text, text->n))
            return (int32_t)i;
    return -1;
}

/* "bos_token" and so on: a text, or an object with its text as content. */
static const struct json *special_text(const struct json *from, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token", name);
    const struct json *j = json_get(from, key);
    return j && j->type == JSON_OBJECT ? json_get(j, "content") : j;
}

/* Ids in generation_config.json or config.json: a number or a list. The first stands for a token that has no text anywhere; further
 * ends of text become end of turn and end of message. */
static void special_ids(struct vocab *v, const struct json *from, enum vocab_special which)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token_id", special_names[which]);
    const struct json *j = json_get(from, key);
    size_t n = !j ? 0 : j->type == JSON_ARRAY ? j->n : 1;
    for (size_t i = 0; i < n; i++) {
        const struct json *id = j->type == JSON_ARRAY ? j->items[i] : j;
        if (!id->integral || id->integer < 0 || (uint64_t)id->integer >= v->count)
            continue;
        int32_t token = (int32_t)id->integer;
        if (v->special[which] < 0)
            v->special[which] = token;
        else if (which == SPECIAL_EOS && token != v->special[SPECIAL_EOS]) {
            bool message = v->tokens[token].n == 10 && !memcmp(v->tokens[token].text, "<|eom_id|>", 10);
            int32_t *end = &v->special[message ? SPECIAL_EOM : SPECIAL_EOT];
            if (*end < 0)
                *end = token;
        }
    }
}

static const struct json *template_special(const struct json *list, size_t i)
{
    return list && list->type == JSON_ARRAY && i < list->n ? json_get(json_get(list->items[i], "SpecialToken"), "id") : NULL;
}

/* tokenizer.json's post-processor says what is put around a text: [bos] A [eos]. */
static void read_post_processor(struct vocab *v, const struct json *stage)
{
    const struct json *list = json_get(stage, "processors");
    for (size_t i = 0; list && list->type == JSON_ARRAY && i < list->n; i++)
        read_post_processor(v, list->items[i]);
    if (!hf_text_is(json_get(stage, "type"), "TemplateProcessing"))
        return;
    const struct json *single = json_get(stage, "single");
    const struct json *first = template_special(single, 0);
    const struct json *last = single && single->n > 1 ? template_special(single, single->n - 1) : NULL;
    int32_t begin = find_token(v, first), end = find_token(v, last);
    if (begin >= 0 && v->special[SPECIAL_BOS] < 0)
        v->special[SPECIAL_BOS] = begin;
    v->add_bos = begin >= 0 && begin == v->special[SPECIAL_BOS];
    v->add_eos = end >= 0 && end == v->special[SPECIAL_EOS];
}

static void read_flag(const struct json *from, const char *key, bool *out)
{
    const struct json *j = json_get(from, key);
    if (j && j->type == JSON_BOOL)
        *out = j->boolean;
}

static void read_specials(struct vocab *v, const struct hf *h)
{
    for (int i = 0; i < SPECIAL_EOT; i++) {
        int32_t id = find_token(v, special_text(h->tokenizer_config, special_names[i]));
        if (id < 0)
            id = find_token(v, special_text(h->special_tokens, special_names[i]));
        if (id >= 0)
            v->special[i] = id;
    }
    for (int i = 0; i <= SPECIAL_PAD; i++) {
        special_ids(v, h->generation, (enum vocab_special)i);
        special_ids(v, h->text_config, (enum vocab_special)i);
        special_ids(v, h->config, (enum vocab_special)i);
    }
    read_post_processor(v, json_get(h->tokenizer, "post_processor"));
    read_flag(h->tokenizer_config, "add_bos_token", &v->add_bos);
    read_flag(h->tokenizer_config, "add_eos_token", &v->add_eos);
    read_flag(h->tokenizer_config, "add_prefix_space", &v->add_space_prefix);
    v->chat_template = json_get(h->tokenizer_config, "chat_template");
    v->chat_file = (struct gguf_string){ (const char *)h->chat_template.data, h->chat_template.size };
}

bool vocab_read(struct vocab *v, struct hf *h, size_t count, const char *pre, struct quern_error *err)
{
    *v = (struct vocab){ .count = count };
    for (int i = 0; i < SPECIAL_COUNT; i++)
        v->special[i] = -1;
    if (!count || count > TOKENS_MOST)
        return ERR(err, QUERN_EUNSUPPORTED, "%s: a vocabulary of %zu tokens, 1 to %d are possible", h->path, count, TOKENS_MOST);
    v->tokens = arena_take(&h->arena, count, sizeof *v->tokens, "the vocabulary", err);
    if (!v->tokens)
        return false;
    bool ok;
    if (h->pieces.size)
        ok = read_pieces(v, h, err);
    else if (h->tokenizer)
        ok = read_json_vocab(v, h, pre, err);
    else
        ok = ERR(err, QUERN_EUNSUPPORTED, "%s: neither tokenizer.model nor tokenizer.json is there (--vocab-from FILE.gguf takes "
                 "the "
                 "vocabulary of another file)", h->path);
    if (!ok || !fill_holes(v, &h->arena, err))
        return false;
    if (pre)
        v->pre = pre;
    read_specials(v, h);
    return true;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static void pack_u64(struct text *t, uint64_t value)
{
    uint8_t packed[8];
    gguf_pack(packed, value, sizeof packed);
    text_add(t, (const char *)packed, sizeof packed);
}

static void pack_string(struct text *t, const char *text, size_t n)
{
    pack_u64(t, n);
    text_add(t, text, n);
}

static bool write_packed(struct gguf_writer *w, const char *key, enum gguf_type type, struct text *t, size_t n,
                         struct quern_error *err)
{
    bool ok = t->failed ? ERR(err, QUERN_EMEM, "not enough memory for '%s'", key) :
                          gguf_writer_array(w, key, type, t->data ? t->data : "", n, t->n, err);
    text_free(t);
    return ok;
}

static bool write_tokens(const struct vocab *v, struct gguf_writer *w, struct quern_error *err)
{
    struct text texts = { 0 }, scores = { 0 }, types = { 0 }, merges = { 0 };
    bool llama = !strcmp(v->model, "llama");
    for (size_t i = 0; i < v->count; i++) {
        const struct vocab_token *token = &v->tokens[i];
        pack_string(&texts, token->text, token->n);
        text_add(&scores, (const char *)&token->score, 4);
        text_add(&types, (const char *)&token->type, 4);
    }
    for (size_t i = 0; i < v->merge_count; i++)
        pack_string(&merges, v->merges[i].text, v->merges[i].n);
    bool ok = write_packed(w, "tokenizer.ggml.tokens", GGUF_STRING, &texts, v->count, err);
    ok = ok && (!llama || write_packed(w, "tokenizer.ggml.scores", GGUF_F32, &scores, v->count, err));
    ok = ok && write_packed(w, "tokenizer.ggml.token_type", GGUF_I32, &types, v->count, err);
    ok = ok && (llama || write_packed(w, "tokenizer.ggml.merges", GGUF_STRING, &merges, v->merge_count, err));
    text_free(&texts);
    text_free(&scores);
    text_free(&types);
    text_free(&merges);
    return ok;
}

static bool write_string(struct gguf_writer *w, const char *key, const char *text, size_t n, struct quern_error *err)
{
    struct gguf_value value = { .type = GGUF_STRING, .as.string = { text, n } };
    return gguf_writer_value(w, key, strlen(key), &value, err);
}

/* One template, or several by name: "default" is the template, the others stand beside it. */
static bool write_templates(const struct vocab *v, struct gguf_writer *w, struct quern_error *err)
{
    const struct json *list = v->chat_template;
    if (v->chat_file.n)
        return write_string(w, "tokenizer.chat_template", v->chat_file.text, v->chat_file.n, err);
    if (!list || (list->type != JSON_STRING && list->type != JSON_ARRAY))
        return true;
    if (list->type == JSON_STRING)
        return write_string(w, "tokenizer.chat_template", list->text, list->n, err);
    struct text names = { 0 };
    size_t count = 0;
    bool ok = true;
    for (size_t i = 0; i < list->n && ok; i++) {
        const struct json *name = json_get(list->items[i], "name"), *body = json_get(list->items[i], "template");
        if (!name || name->type != JSON_STRING || !body || body->type != JSON_STRING)
            continue;
        struct text key = { 0 };
        text_addf(&key, "tokenizer.chat_template");
        if (!hf_text_is(name, "default")) {
            text_addf(&key, ".");
            for (size_t k = 0; k < name->n; k++)
                if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", name->text[k]) && name->text[k])
                    text_add(&key, name->text + k, 1);
            pack_string(&names, name->text, name->n);
            count++;
        }
        ok = key.failed ? ERR(err, QUERN_EMEM, "not enough memory for a key") : write_string(w, key.data, body->text, body->n, err);
        text_free(&key);
    }
    if (ok && count)
        ok = write_packed(w, "tokenizer.chat_templates", GGUF_STRING, &names, count, err);
    text_free(&names);
    return ok;
}

bool vocab_write(const struct vocab *v, struct gguf_writer *w, struct quern_error *err)
{
    bool ok = gguf_writer_text(w, "tokenizer.ggml.model", v->model, err) &&
              gguf_writer_text(w, "tokenizer.ggml.pre", v->pre, err) && write_tokens(v, w, err);
    for (int i = 0; i < SPECIAL_COUNT && ok; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", special_keys[i]);
        ok = v->special[i] < 0 || gguf_writer_u32(w, key, (uint32_t)v->special[i], err);
    }
    ok = ok && gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos, err) &&
         gguf_writer_bool(w, "tokenizer.ggml.add_eos_token", v->add_eos, err);
    if (ok && !strcmp(v->model, "llama"))
        ok = gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", v->add_space_prefix, err);
    return ok && write_templates(v, w, err);
}

bool vocab_copy(const struct gguf *from, size_t count, struct gguf_writer *w, struct quern_error *err)
{
    const struct gguf_value *tokens = gguf_find(from, "tokenizer.ggml.tokens");
    if (!tokens || tokens->type != GGUF_ARRAY)
        return ERR(err, QUERN_EUNSUPPORTED, "%s: no vocabulary (tokenizer.ggml.tokens) to take", from->path);
    if (tokens->as.array.n != count)
        return ERR(err, QUERN_EFORMAT, "%s: the vocabulary has %zu tokens, the embedding %zu rows", from->path, tokens->as.array.n,
                   count);
    for (size_t i = 0; i < from->kv_count; i++) {
        const struct gguf_kv *kv = &from->kvs[i];
        if (begins(kv->key.text, kv->key.n, "tokenizer.") && !gguf_writer_value(w, kv->key.text, kv->key.n, &kv->value, err))
            return false;
    }
    return true;
}
