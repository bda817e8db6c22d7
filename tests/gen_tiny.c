/* gen_tiny EDIT... - small models of random weights and what belongs to them, for scripts that need no other files:
 *     gen_tiny model OUT KIND          KIND: llama, gemma3, ... (tiny_names in tiny.c)
 *     gen_tiny starved OUT             qwen2moe whose last router sends almost everything to a few experts
 *     gen_tiny folder MODEL FOLDER     the model as the checkpoint's folder that it could have come from
 *     gen_tiny imatrix MODEL OUT       importances of every matrix: one input in 32 counts, the others do not
 *     gen_tiny text OUT BYTES SEED     sentences of invented words: something to calibrate on that no edit elsewhere changes */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hf_folder.h"
#include "imatrix.h"
#include "test.h"
#include "tiny.h"

static bool make_model(const char *out, const char *kind)
{
    for (int i = 0; i < TINY_KINDS; i++) {
        struct tiny t;
        if (strcmp(kind, tiny_names[i]))
            continue;
        tiny_model(&t, (enum tiny_kind)i);
        tiny_save(&t, out);
        return true;
    }
    return false;
}

/* A bias of the selection alone, as DeepSeek's routers have it: larger than most differences of probabilities. */
static void make_starved(const char *out)
{
    struct tiny t;
    tiny_model(&t, TINY_EXPERTS);
    tiny_add(&t, "blk.1.exp_probs_b.bias", 6, 1, 1, 0, 0.9f);
    tiny_save(&t, out);
}

static bool make_folder(const char *model, const char *folder, struct quern_error *err)
{
    struct hf_folder_options options = { .shards = false };
    struct gguf g;
    if (!gguf_open(&g, model, NULL, err))
        return false;
    hf_folder_write(&g, folder, &options);
    gguf_close(&g);
    return true;
}

/* Scales chosen by one value of each block fit no other: rounded so, a model is worse than rounded without. */
static bool make_imatrix(const char *model, const char *out, struct quern_error *err)
{
    struct gguf g;
    if (!gguf_open(&g, model, NULL, err))
        return false;
    struct imatrix m = { .chunks = 1, .chunk_size = 512, .dataset = "gen_tiny" };
    static float tokens[1] = { 512 };
    m.entries = calloc(g.tensor_count, sizeof *m.entries);
    for (size_t i = 0; m.entries && i < g.tensor_count; i++) {
        const struct gguf_tensor *t = &g.tensors[i];
        if (t->dims != 2)
            continue;
        struct imatrix_entry *e = &m.entries[m.count++];
        char *name = calloc(t->name.n + 1, 1);
        *e = (struct imatrix_entry){ .name = name, .inputs = t->shape[0], .experts = 1, .tokens = tokens };
        e->mean = calloc(e->inputs, sizeof *e->mean);
        if (!name || !e->mean)
            abort();
        memcpy(name, t->name.text, t->name.n);
        for (size_t x = 0; x < e->inputs; x++)
            e->mean[x] = x % 32 == 7 ? 1e6f : 1e-6f;
    }
    bool ok = m.entries && imatrix_write(out, &m, true, err);
    for (size_t i = 0; m.entries && i < m.count; i++) {
        free((char *)(uintptr_t)m.entries[i].name);
        free(m.entries[i].mean);
    }
    free(m.entries);
    gguf_close(&g);
    return ok;
}

/* Letters about as often as English has them, words of 1 to 9, a line for each sentence of 5 to 16 words. One word in RARE is of
 * any printable characters, so that experts who see none of the letters see a few tokens all the same. */
enum { RARE = 8 };

static bool make_text(const char *out, size_t bytes, uint64_t seed)
{
    static const char letters[] = "eeeeeeettttttaaaaaoooooiiiinnnnsssshhhrrrrdddlllcccuuummwwffggyypbvkxjqz";
    FILE *f = fopen(out, "w");
    size_t at = 0;
    while (f && at < bytes)
        for (size_t words = 5 + random_u64(&seed) % 12, w = 0; w < words; w++) {
            size_t length = 1 + random_u64(&seed) % 9;
            bool rare = random_u64(&seed) % RARE == 0;
            for (size_t i = 0; i < length; i++) {
                int letter = letters[random_u64(&seed) % (sizeof letters - 1)];
                int any = '!' + (int)(random_u64(&seed) % ('~' - '!' + 1));
                fputc(rare ? any : w == 0 && i == 0 ? toupper(letter) : letter, f);
            }
            const char *end = w + 1 == words ? ".\n" : random_u64(&seed) % 8 ? " " : ", ";
            fputs(end, f);
            at += length + strlen(end);
        }
    return f && fclose(f) == 0;
}

int main(int argc, char **argv)
{
    struct quern_error err = { .code = QUERN_EUSAGE,
                               .text = "gen_tiny model OUT KIND | starved OUT | folder MODEL FOLDER | imatrix MODEL OUT | "
                                       "text OUT BYTES SEED" };
    bool ok = false;
    if (argc == 3 && !strcmp(argv[1], "starved"))
        make_starved(argv[2]), ok = true;
    else if (argc == 4 && !strcmp(argv[1], "model"))
        ok = make_model(argv[2], argv[3]);
    else if (argc == 4 && !strcmp(argv[1], "folder"))
        ok = make_folder(argv[2], argv[3], &err);
    else if (argc == 4 && !strcmp(argv[1], "imatrix"))
        ok = make_imatrix(argv[2], argv[3], &err);
    else if (argc == 5 && !strcmp(argv[1], "text"))
        ok = make_text(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    if (!ok)
        fprintf(stderr, "gen_tiny: %s\n", err.text);
    return ok ? 0 : (int)err.code;
}
