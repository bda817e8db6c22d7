#include "fallbacks.h"

#include <stdio.h>
#include <string.h>

/* Reasons are refine's outcomes and this one. */
enum { ROWS = REFINE_OUTCOMES, REASONS };

static bool falls(const struct quantize_job *job, size_t i, int reason)
{
    if (reason == ROWS)
        return job->plan[i].reason == PLAN_FALLBACK;
    if (!job->notes || !job->notes[i].without || reason == REFINE_SEARCH_BETTER || reason == REFINE_NONE)
        return false;
    return (int)job->notes[i].outcome == reason;
}

/* One reason with its tensors; *names: bytes of names that may still be listed. */
static void add_reason(struct fallbacks *f, const struct quantize_job *job, int reason, size_t *names)
{
    uint8_t *head = f->packed + f->bytes;
    char *text = (char *)head + 8;
    size_t room = sizeof f->packed - f->bytes - 8, more = 0;
    const char *why = reason == ROWS ? "rows do not divide into the blocks" : refine_reason((enum refine_outcome)reason);
    size_t n = (size_t)snprintf(text, room, "%s:", why), listed = 0;
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        struct gguf_string name = job->input->tensors[i].name;
        if (!falls(job, i, reason))
            continue;
        char experts[64] = "";
        if (reason != ROWS)
            refine_experts(experts, sizeof experts, &job->notes[i]);
        size_t bytes = name.n + 2 + (*experts ? strlen(experts) + 3 : 0);
        if (more || bytes > *names) {
            more++;
            continue;
        }
        *names -= bytes;
        n += (size_t)snprintf(text + n, room - n, "%s %.*s%s%s%s", listed++ ? "," : "", (int)name.n, name.text,
                              *experts ? " (" : "", experts, *experts ? ")" : "");
    }
    if (listed + more == 0)
        return;
    if (more)
        n += (size_t)snprintf(text + n, room - n, listed ? " and %zu more" : " %zu tensors", more);
    gguf_pack(head, n, 8);
    f->bytes += 8 + n;
    f->reasons++;
}

void fallbacks_list(struct fallbacks *f, const struct quantize_job *job)
{
    size_t names = FALLBACK_NAMES;
    *f = (struct fallbacks){ 0 };
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        bool fell = false;
        for (int reason = 0; reason < REASONS; reason++)
            fell = fell || falls(job, i, reason);
        f->count += fell;
        f->refined += job->notes && job->notes[i].experts > job->notes[i].without;
    }
    for (int reason = 0; reason < REASONS; reason++)
        add_reason(f, job, reason, &names);
}
