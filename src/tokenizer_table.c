/* The indices of a vocabulary: text to id, pair of ids to merge, longest token at a place.
 *
 * Both hash tables are open addressing at half load with a random base per run. The file is untrusted: with a known base, a
 * vocabulary built of colliding texts would make every lookup a walk through the whole table. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tokenizer_internal.h"

/* The Mersenne prime of the polynomial hash: products of two residues fit 64 bits, and folding is a shift and an add. */
static const uint64_t PRIME = ((uint64_t)1 << 31) - 1;

static uint64_t fold(uint64_t x)
{
    x = (x & PRIME) + (x >> 31);
    x = (x & PRIME) + (x >> 31);
    return x >= PRIME ? x - PRIME : x;
}

/* A residue that a file's author cannot foresee. */
static uint64_t random_base(uint64_t salt)
{
    uint64_t value = 0;
    if (getentropy(&value, sizeof value) != 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        value = ((uint64_t)now.tv_nsec << 20) ^ (uint64_t)(uintptr_t)&now ^ salt * 0x9E3779B97F4A7C15u;
    }
    return 1000 + value % (PRIME - 2000);
}

static size_t slots_for(size_t count)
{
    size_t slots = 64;
    while (slots / 2 < count)
        slots *= 2;
    return slots;
}

/* ---- text to id ---- */

/* Three bytes a step: the largest term, 2^24 - 1, is below the prime. */
static uint64_t hash_text(uint64_t base, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    uint64_t h = n;
    size_t i = 0;
    for (; i + 3 <= n; i += 3)
        h = fold(h * base + ((uint64_t)s[i] | (uint64_t)s[i + 1] << 8 | (uint64_t)s[i + 2] << 16));
    if (i < n)
        h = fold(h * base + ((uint64_t)s[i] | (i + 1 < n ? (uint64_t)s[i + 1] << 8 : 0)));
    return h * base >> 7;    /* the last term must move the low bits of the slot by more than itself */
}

bool text_table_init(struct tokenizer *t, struct quern_error *err)
{
    struct text_table *table = &t->texts;
    size_t slots = slots_for(t->size);
    table->slots = arena_take(&t->arena, slots, sizeof *table->slots, "the index of the vocabulary", err);
    if (!table->slots)
        return false;
    table->mask = slots - 1;
    table->base = random_base(1);
    for (size_t id = 0; id < t->size; id++) {
        const struct token *token = &t->tokens[id];
        if (token->n == 0)      /* never found in a text */
            continue;
        size_t slot = hash_text(table->base, token->text, token->n) & table->mask;
        for (; table->slots[slot]; slot = (slot + 1) & table->mask) {
            const struct token *other = &t->tokens[table->slots[slot] - 1];
            if (other->n == token->n && memcmp(other->text, token->text, token->n) == 0) {
                char shown[100];
                return ERR(err, QUERN_EFORMAT, "tokenizer.ggml.tokens: tokens %u and %zu are both '%s'", table->slots[slot] - 1, id,
                           text_escape(shown, sizeof shown, token->text, token->n));
            }
        }
        table->slots[slot] = (uint32_t)id + 1;
    }
    return true;
}

int32_t text_table_find(const struct tokenizer *t, const char *text, size_t n)
{
    const struct text_table *table = &t->texts;
    if (n == 0 || n > t->longest)
        return NO_ID;
    size_t slot = hash_text(table->base, text, n) & table->mask;
    for (; table->slots[slot]; slot = (slot + 1) & table->mask) {
        const struct token *token = &t->tokens[table->slots[slot] - 1];
        if (token->n == n && memcmp(token->text, text, n) == 0)
            return (int32_t)(table->slots[slot] - 1);
    }
    return NO_ID;
}

int32_t text_table_plain(const struct tokenizer *t, const char *text, size_t n)
{
    int32_t id = text_table_find(t, text, n);
    return id != NO_ID && t->tokens[id].flags & TOKEN_HIDDEN ? NO_ID : id;
}

/* ---- pair to merge ---- */

bool pair_table_init(struct tokenizer *t, size_t merges, struct quern_error *err)
{
    struct pair_table *table = &t->pairs;
    size_t slots = slots_for(merges);
    table->slots = arena_take(&t->arena, slots, sizeof *table->slots, "the index of the merges", err);
    if (!table->slots)
        return false;
    for (size_t i = 0; i < slots; i++)
        table->slots[i].merge = NO_PAIR;
    table->mask = slots - 1;
    table->base[0] = random_base(2);
    table->base[1] = random_base(3);
    return true;
}

/* Two random factors, one per id: no choice of ids makes many pairs collide. */
static size_t pair_slot(const struct pair_table *table, uint32_t left, uint32_t right)
{
    uint64_t h = fold((uint64_t)left * table->base[0] + (uint64_t)right * table->base[1]);
    return (h ^ h >> 15) & table->mask;
}

bool pair_table_add(struct pair_table *table, uint32_t left, uint32_t right, uint32_t merge)
{
    size_t slot = pair_slot(table, left, right);
    for (; table->slots[slot].merge != NO_PAIR; slot = (slot + 1) & table->mask)
        if (table->slots[slot].left == left && table->slots[slot].right == right)
            return false;
    table->slots[slot] = (struct pair_slot){ left, right, merge };
    return true;
}

uint32_t pair_table_find(const struct pair_table *table, uint32_t left, uint32_t right)
{
    size_t slot = pair_slot(table, left, right);
    for (; table->slots[slot].merge != NO_PAIR; slot = (slot + 1) & table->mask)
        if (table->slots[slot].left == left && table->slots[slot].right == right)
            return table->slots[slot].merge;
    return NO_PAIR;
}

/* ---- longest prefix ---- */

static int compare_tokens(const struct token *a, const struct token *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int order = memcmp(a->text, b->text, n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

/* Merge sort of ids by text: qsort has no place for the tokenizer, and its worst case is not promised. */
static void sort_ids(const struct token *tokens, int32_t *ids, int32_t *spare, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t middle = n - start < width ? n : start + width;
            size_t end = n - start < 2 * width ? n : start + 2 * width;
            size_t a = start, b = middle;
            for (size_t out = start; out < end; out++)
                if (b == end || (a < middle && compare_tokens(&tokens[ids[a]], &tokens[ids[b]]) <= 0))
                    spare[out] = ids[a++];
                else
                    spare[out] = ids[b++];
        }
        memcpy(ids, spare, n * sizeof *ids);
    }
}

/* Sorted texts with an index by first byte: a search for the longest prefix narrows a range byte by byte (two binary searches
 * each). It takes 4 bytes a token; a trie of the same texts takes a node per byte. */
bool prefix_table_init(struct tokenizer *t, struct prefix_table *table, unsigned with, unsigned without, struct quern_error *err)
{
    size_t count = 0;
    for (size_t id = 0; id < t->size; id++)
        count += t->tokens[id].n > 0 && t->tokens[id].flags & with && !(t->tokens[id].flags & without);
    int32_t *ids = arena_take(&t->arena, count, sizeof *ids, "an index of tokens", err);
    int32_t *spare = mem_take(count, sizeof *spare, "sorting tokens", err);
    if (!ids || !spare) {
        free(spare);
        return false;
    }
    size_t used = 0;
    for (size_t id = 0; id < t->size; id++)
        if (t->tokens[id].n > 0 && t->tokens[id].flags & with && !(t->tokens[id].flags & without))
            ids[used++] = (int32_t)id;
    sort_ids(t->tokens, ids, spare, count);
    free(spare);
    table->ids = ids;
    table->count = count;
    size_t at = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        table->first[byte] = (uint32_t)at;
        while (at < count && (unsigned char)t->tokens[ids[at]].text[0] == byte)
            at++;
    }
    table->first[256] = (uint32_t)count;
    return true;
}

/* First of ids[low, high), which share their first `depth` bytes, whose byte at `depth` is at least `byte`. Texts that end
 * there stand before all others. */
static size_t lower_bound(const struct token *tokens, const int32_t *ids, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct token *token = &tokens[ids[middle]];
        if (token->n <= depth || (unsigned char)token->text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t prefix_table_longest(const struct tokenizer *t, const struct prefix_table *table, const char *text, size_t n, size_t *bytes)
{
    int32_t found = NO_ID;
    if (n == 0 || table->count == 0)
        return NO_ID;
    size_t low = table->first[(unsigned char)text[0]], high = table->first[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (t->tokens[table->ids[low]].n == depth) {
            found = table->ids[low];
            *bytes = depth;
        }
        if (depth == n)
            break;
        unsigned byte = (unsigned char)text[depth];
        low = lower_bound(t->tokens, table->ids, low, high, depth, byte);
        high = lower_bound(t->tokens, table->ids, low, high, depth, byte + 1);
    }
    return found;
}
