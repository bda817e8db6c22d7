/* The n-th allocation fails, for every n: opening a vocabulary, encoding, decoding. An error each time, and nothing is lost. */
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "test.h"
#include "tiny_vocab.h"
#include "tokenizer.h"

static struct quern_error err;

static const char text[] = "abc <tool> aaaa\n\xF0\x9F\x98\x80<|end|> hello, a b, 123 <|user|>  ab \xE4\xBD\xA0\xE4\xBD\xA0";

/* Everything once; false is an error. */
static bool work(const struct gguf *g)
{
    int32_t *ids = NULL;
    size_t count = 0, bytes;
    char *back = NULL, many[4000];
    memset(many, 'a', sizeof many);
    struct tokenizer *t = tokenizer_open(g, NULL, &err);
    bool ok = t && tokenizer_encode(t, text, sizeof text - 1, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &ids, &count, &err) &&
              tokenizer_decode(t, ids, count, true, &back, &bytes, &err);
    free(back);
    free(ids);
    ids = NULL;
    ok = ok && tokenizer_encode(t, many, sizeof many, 0, &ids, &count, &err);
    free(ids);
    tokenizer_close(t);
    return ok;
}

static void sweep(struct vocab *v, enum fault_mode mode)
{
    if (!vocab_view(v, &err)) {
        CHECK(false, "%s", err.text);
        return;
    }
    size_t errors = 0;
    for (size_t n = 0;; n++) {
        long before = fault_live_blocks();
        err.code = QUERN_OK;
        fault_arm(FAULT_MEMORY, n, mode);
        bool ok = work(&v->g);
        const char *where = fault_disarm();
        CHECK(ok == !where, "allocation %zu (%s): %s", n, where ? where : "none", ok ? "no error" : err.text);
        CHECK(ok || err.code == QUERN_EMEM, "allocation %zu: code %d, %s", n, err.code, err.text);
        CHECK(fault_live_blocks() == before, "allocation %zu: %ld blocks are lost", n, fault_live_blocks() - before);
        errors += !ok;
        if (!where || n > 1000)
            break;
    }
    CHECK(errors > 5, "only %zu allocations failed", errors);
    vocab_free(v);
}

static void test_allocations(void)
{
    struct vocab v;
    for (int mode = FAULT_ONCE; mode <= FAULT_FROM_THERE_ON; mode++) {
        vocab_spm(&v, true);
        sweep(&v, (enum fault_mode)mode);
        vocab_bpe(&v, "qwen2");
        sweep(&v, (enum fault_mode)mode);
        vocab_bpe(&v, "gemma4");
        vocab_u32(&v, "tokenizer.ggml.bos_token_id", 0);
        sweep(&v, (enum fault_mode)mode);
        vocab_wpm(&v);
        sweep(&v, (enum fault_mode)mode);
    }
}

int main(void)
{
    TEST(test_allocations);
    return test_end();
}
