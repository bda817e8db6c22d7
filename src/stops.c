#include "stops.h"

#include <stdlib.h>
#include <string.h>

/* Bounds first_candidate's work per token: strings are compared only where their first byte stands. */
enum { TOTAL_BYTES = 1 << 20 };

bool stops_init(struct stops *s, const char *const *texts, size_t count, struct quern_error *err)
{
    size_t total = 0;
    *s = (struct stops){.texts = texts, .count = count};
    if (!(s->lengths = mem_take(count, sizeof *s->lengths, "stop strings", err)))
        return false;
    for (size_t i = 0; i < count; i++) {
        s->lengths[i] = strlen(texts[i]);
        total += s->lengths[i];
        if (s->lengths[i] == 0 || total > TOTAL_BYTES) {
            stops_free(s);
            return total > TOTAL_BYTES ? ERR(err, QUERN_EUSAGE, "stop strings have more than %d bytes together", TOTAL_BYTES)
                                       : ERR(err, QUERN_EUSAGE, "stop string %zu is empty", i + 1);
        }
    }
    return true;
}

void stops_free(struct stops *s)
{
    free(s->lengths);
    free(s->held);
    *s = (struct stops){0};
}

/* Forget what went out with the last call. */
static void drop_given(struct stops *s)
{
    if (s->given)
        memmove(s->held, s->held + s->given, s->n - s->given);
    s->n -= s->given;
    s->given = 0;
}

/* Where the first stop string that is wholly there begins, or where the first one that may still come begins. All of `held` is
 * looked at again with each piece; it is never longer than the longest stop string and one piece, because everything before the
 * first candidate goes out. */
static size_t first_candidate(const struct stops *s, bool *whole)
{
    for (size_t at = 0; at < s->n; at++)
        for (size_t i = 0; i < s->count; i++) {
            size_t rest = s->n - at, length = s->lengths[i];
            if (s->held[at] != s->texts[i][0] || memcmp(s->held + at, s->texts[i], rest < length ? rest : length) != 0)
                continue;
            *whole = length <= rest;
            if (*whole)
                return at;
            /* Only a beginning: another string may be whole at the same place. */
            for (size_t j = i + 1; j < s->count && !*whole; j++)
                *whole = s->lengths[j] <= rest && memcmp(s->held + at, s->texts[j], s->lengths[j]) == 0;
            return at;
        }
    *whole = false;
    return s->n;
}

bool stops_add(struct stops *s, const char *piece, size_t n, const char **out, size_t *out_n, struct quern_error *err)
{
    size_t need;
    drop_given(s);                    /* not before: the caller was still reading it */
    *out = s->held;
    *out_n = 0;
    if (s->stopped || n == 0)
        return true;
    if (!checked_add(&need, s->n, n))
        return ERR(err, QUERN_EMEM, "a text of more than %zu bytes", s->n);
    if (need > s->capacity) {
        char *held = checked_mul(&need, need, 2) ? realloc(s->held, need) : NULL;
        if (!held)
            return ERR(err, QUERN_EMEM, "not enough memory for %zu bytes of text", need);
        s->held = held;
        s->capacity = need;
    }
    memcpy(s->held + s->n, piece, n);
    s->n += n;
    s->given = first_candidate(s, &s->stopped);
    *out = s->held;
    *out_n = s->given;
    return true;
}

void stops_end(struct stops *s, const char **out, size_t *out_n)
{
    drop_given(s);
    *out = s->held;
    *out_n = s->stopped ? 0 : s->n;      /* a beginning whose rest never came is text after all */
    s->n = 0;
}
