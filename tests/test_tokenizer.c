/* Tokenizers on small vocabularies of their own; tests/test_vocab.c has the reference vectors. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "test.h"
#include "tiny_vocab.h"
#include "tokenizer.h"

static struct quern_error err;

/* The tokenizer of a vocabulary that must be fine; opens the file as well. */
static struct tokenizer *open_tiny(struct vocab *v)
{
    struct tokenizer *t = NULL;
    if (!vocab_view(v, &err) || !(t = tokenizer_open(&v->g, NULL, &err))) {
        printf("a vocabulary of the test is refused: %s\n", err.text);
        exit(1);
    }
    return t;
}

static void close_tiny(struct tokenizer *t, struct vocab *v)
{
    tokenizer_close(t);
    vocab_free(v);
}

/* Encode and compare with the texts of tokens, one after the other: "▁a b" and so on, a blank between them. Byte tokens are
 * <0x0A>. */
static void check_tokens(const struct tokenizer *t, const char *text, unsigned flags, const char *expected)
{
    int32_t *ids;
    size_t n, used = 0;
    char found[1000] = "";
    if (!tokenizer_encode(t, text, strlen(text), flags, &ids, &n, &err)) {
        CHECK(false, "'%s': %s", text, err.text);
        return;
    }
    size_t at = 0;
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        size_t length = strcspn(expected + at, " ");
        same = same && tokenizer_find(t, expected + at, length) == ids[i];
        at += length + (expected[at + length] == ' ');
        used += (size_t)snprintf(found + used, sizeof found - used, " %d", ids[i]);
    }
    CHECK(same && expected[at] == '\0', "'%s' gives%s, expected %s", text, found, expected);
    free(ids);
}

#define MARK "\xE2\x96\x81"

static void test_spm(void)
{
    struct vocab v;
    vocab_spm(&v, true);
    vocab_bool(&v, "tokenizer.ggml.add_eos_token", true);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "", 0, "");
    check_tokens(t, "", TOKENIZE_ADD_SPECIAL, "<s> </s>");
    check_tokens(t, "ab", 0, MARK "ab");
    check_tokens(t, "ab", TOKENIZE_ADD_SPECIAL, "<s> " MARK "ab </s>");
    check_tokens(t, " ab", 0, MARK " " MARK "ab");      /* the best pair first */
    check_tokens(t, "abc ab", 0, MARK "ab c " MARK "ab");
    check_tokens(t, "caaaaaaaaaaa", 0, MARK " c aaaaaaaa aa a");
    check_tokens(t, "\xC3\xA9\n\xC3\xA8", 0, MARK " \xC3\xA9 <0x0A> <0xC3> <0xA8>");
    check_tokens(t, "\xC3", 0, MARK " <0xC3>");
    check_tokens(t, "c<tool>ab", 0, MARK " c <tool> " MARK "ab");         /* user-defined: always found */
    check_tokens(t, "<|user|>ab", TOKENIZE_PARSE_SPECIAL, "<|user|> " MARK "ab");
    check_tokens(t, "<|user|>", 0, MARK " < <0x7C> <0x75> s <0x65> <0x72> <0x7C> >");
    close_tiny(t, &v);
}

/* "<s" and ">" are pieces, and "<s>" a token: text must not become it by merging. */
static void test_text_makes_no_control_token(void)
{
    struct vocab v;
    vocab_spm(&v, true);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "<s>ab", 0, MARK " <s > ab");
    check_tokens(t, "<s>ab", TOKENIZE_PARSE_SPECIAL, "<s> " MARK "ab");
    check_tokens(t, "<0x0A>", 0, MARK " < <0x30> <0x78> <0x30> <0x41> >");
    close_tiny(t, &v);
}

static void test_spm_prefix(void)
{
    struct vocab v;
    vocab_spm(&v, true);
    vocab_bool(&v, "tokenizer.ggml.add_space_prefix", false);
    vocab_bool(&v, "tokenizer.ggml.add_bos_token", false);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "ab ab", TOKENIZE_ADD_SPECIAL, "ab " MARK "ab");
    check_tokens(t, "<tool>ab", 0, "<tool> ab");
    CHECK(!tokenizer_adds_bos(t) && tokenizer_bos(t) == 1 && tokenizer_is_end(t, 2), "BOS %d", tokenizer_bos(t));
    close_tiny(t, &v);
}

/* A token with a blank inside: words then do not merge one by one. */
static void test_spm_across_blanks(void)
{
    static const char *const list[] = { "a", "b", MARK, "a" MARK, "a" MARK "b" };
    static const float scores[] = { 0, 0, 0, -1, -2 };
    struct vocab v;
    vocab_begin(&v);
    vocab_text(&v, "tokenizer.ggml.model", "llama");
    vocab_bool(&v, "tokenizer.ggml.add_bos_token", false);
    vocab_bool(&v, "tokenizer.ggml.add_space_prefix", false);
    vocab_texts(&v, "tokenizer.ggml.tokens", list, 5);
    vocab_array(&v, "tokenizer.ggml.scores", GGUF_F32, scores, 5, 20);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "a b", 0, "a" MARK "b");
    check_tokens(t, "b a", 0, "b " MARK " a");
    close_tiny(t, &v);
}

/* Texts that are known to end an answer do so whatever their type; in a file with <|return|> and <|call|>, <|end|> only ends a
 * message. White space after phi-3's special tokens and before jina's <mask> belongs to them. */
static void test_known_texts(void)
{
    static const char *const list[] = { "a", "\xC4\xA0", "<|end|>", "<|return|>", "<|call|>", "<|fim_pad|>", "<|fim_prefix|>",
                                        "<mask>" };
    static const int32_t types[] = { 1, 1, 3, 1, 3, 1, 1, 4 };
    for (int phi = 0; phi < 2; phi++) {
        struct vocab v;
        vocab_begin(&v);
        vocab_text(&v, "general.name", phi ? "Tiny-Phi-3" : "tiny");
        vocab_text(&v, "tokenizer.ggml.model", "gpt2");
        vocab_text(&v, "tokenizer.ggml.pre", phi ? "gpt-2" : "jina-v2-code");
        vocab_texts(&v, "tokenizer.ggml.tokens", list, 8);
        vocab_array(&v, "tokenizer.ggml.token_type", GGUF_I32, types, 8, 32);
        vocab_texts(&v, "tokenizer.ggml.merges", list, 0);
        struct tokenizer *t = open_tiny(&v);
        static const bool is_end[] = { false, false, false, true, true, true, false, false };
        for (int32_t id = 0; id < 8; id++)
            CHECK(tokenizer_is_end(t, id) == is_end[id], "'%s' %s", list[id], is_end[id] ? "does not end" : "ends");
        check_tokens(t, "a <mask> a", 0, phi ? "a \xC4\xA0 <mask> a" : "a <mask> \xC4\xA0 a");
        check_tokens(t, "<|fim_prefix|>a", 0, "a");          /* its bytes have no tokens */
        check_tokens(t, "<|fim_prefix|>a", TOKENIZE_PARSE_SPECIAL, "<|fim_prefix|> a");
        close_tiny(t, &v);
    }
}

/* A file that names its token for a role means that one: the texts known for the role are then texts like others. Roles that end an
 * answer do so by either. Gemma 4's </s> is an HTML tag. */
static void test_named_roles(void)
{
    static const char *const list[] = { "a", "\xC4\xA0", "<PRE>", "b", "<|fim_pad|>", "</s>", "<|tool_response>" };
    static const int32_t types[] = { 1, 1, 1, 1, 1, 1, 3 };
    for (int named = 0; named < 2; named++) {
        struct vocab v;
        vocab_begin(&v);
        vocab_text(&v, "tokenizer.ggml.model", "gpt2");
        vocab_text(&v, "tokenizer.ggml.pre", "gpt-2");
        vocab_texts(&v, "tokenizer.ggml.tokens", list, 7 - (size_t)named);
        vocab_array(&v, "tokenizer.ggml.token_type", GGUF_I32, types, 7 - (size_t)named, 28 - 4 * (size_t)named);
        vocab_texts(&v, "tokenizer.ggml.merges", list, 0);
        if (named) {
            vocab_u32(&v, "tokenizer.ggml.fim_pre_token_id", 3);
            vocab_u32(&v, "tokenizer.ggml.fim_pad_token_id", 3);
        }
        struct tokenizer *t = open_tiny(&v);
        check_tokens(t, "<PRE>a", TOKENIZE_PARSE_SPECIAL, named ? "a" : "<PRE> a");
        CHECK(tokenizer_is_end(t, 3) == (named != 0) && tokenizer_is_end(t, 4) == !named, "padding, %d", named);
        CHECK(tokenizer_is_end(t, 5) == (named != 0), "</s> without the token of Gemma 4: %d", named);
        close_tiny(t, &v);
    }
}

/* The longest token wins, and what it cuts off another's end leaves that place to the longest that still fits there. Of phi-3's
 * special tokens some keep the white space behind them. */
static void test_overlapping_tokens(void)
{
    static const char *const list[] = {
        "a", "c", "\xC4\xA0", "<ab", "<abcd>", "d>efghij", "<unk>", "<s>", "<|endoftext|>", "</s>",
    };
    static const int32_t types[] = { 1, 1, 1, 4, 4, 4, 2, 3, 3, 3 };
    struct vocab v;
    vocab_begin(&v);
    vocab_text(&v, "general.name", "phi-3");
    vocab_text(&v, "tokenizer.ggml.model", "gpt2");
    vocab_text(&v, "tokenizer.ggml.pre", "gpt-2");
    vocab_texts(&v, "tokenizer.ggml.tokens", list, 10);
    vocab_array(&v, "tokenizer.ggml.token_type", GGUF_I32, types, 10, 40);
    vocab_texts(&v, "tokenizer.ggml.merges", list, 0);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "a<abcd>a", 0, "a <abcd> a");
    check_tokens(t, "<abcd>efghij", 0, "<ab c d>efghij");
    check_tokens(t, "<s> a<unk> a<|endoftext|> a</s> a", TOKENIZE_PARSE_SPECIAL,
                 "<s> \xC4\xA0 a <unk> \xC4\xA0 a <|endoftext|> \xC4\xA0 a </s> a");
    close_tiny(t, &v);
}

/* Without byte tokens a character that is not in the vocabulary is the unknown token; without that one an error. */
static void test_no_byte_tokens(void)
{
    struct vocab v;
    vocab_spm(&v, false);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "a\n\xE2\x82\xAC" "b", 0, MARK "a <unk> <unk> b");
    close_tiny(t, &v);

    static const char *const texts[] = { "a", "b" };
    int32_t *ids;
    size_t n;
    vocab_begin(&v);
    vocab_text(&v, "tokenizer.ggml.model", "llama");
    vocab_texts(&v, "tokenizer.ggml.tokens", texts, 2);
    vocab_bool(&v, "tokenizer.ggml.add_bos_token", false);
    vocab_bool(&v, "tokenizer.ggml.add_space_prefix", false);
    t = open_tiny(&v);
    check_tokens(t, "abba", 0, "a b b a");
    bool ok = tokenizer_encode(t, "ab\nb", 4, 0, &ids, &n, &err);
    CHECK(!ok && err.code == QUERN_EUNSUPPORTED && strstr(err.text, "'\\x0A'"), "code %d, %s", err.code, err.text);
    close_tiny(t, &v);
}

static void test_bpe(void)
{
    struct vocab v;
    vocab_bpe(&v, "gpt-2");
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "", TOKENIZE_ADD_SPECIAL, "");
    check_tokens(t, "abc ab", 0, "abc \xC4\xA0" "ab");
    check_tokens(t, "aaaaa", 0, "aaaa a");
    check_tokens(t, "hello", 0, "hello");
    check_tokens(t, "\xC3\xA9", 0, "\xC3\x83\xC2\xA9");
    check_tokens(t, "<tool>>", 0, "<tool>>");           /* the longest */
    check_tokens(t, "<tool><tool>", 0, "<tool> <tool>");
    check_tokens(t, "<|end|>", 0, "< | e n d | >");
    check_tokens(t, "<|end|>", TOKENIZE_PARSE_SPECIAL, "<|end|>");
    CHECK(tokenizer_bos(t) == -1, "BOS %d", tokenizer_bos(t));
    CHECK(tokenizer_is_end(t, tokenizer_find(t, "<|end|>", 7)) && tokenizer_is_end(t, tokenizer_find(t, "<|endoftext|>", 13)) &&
          !tokenizer_is_end(t, 5) && !tokenizer_is_end(t, -1) && !tokenizer_is_end(t, 100000), "ends of generation");
    CHECK(strcmp(tokenizer_model(t), "gpt2") == 0 && strcmp(tokenizer_pre(t), "gpt-2") == 0, "%s %s", tokenizer_model(t),
          tokenizer_pre(t));
    close_tiny(t, &v);
}

/* A pair that has changed since it was queued must wait for its new turn: "a b" is no reason to merge "a bc" before "bc d". */
static void test_merges_in_order(void)
{
    static const char *const list[] = { "a", "b", "c", "d", "ab", "bc", "abc", "bcd" };
    static const char *const merges[] = { "b c", "a b", "bc d", "a bc" };
    struct vocab v;
    vocab_begin(&v);
    vocab_text(&v, "tokenizer.ggml.model", "gpt2");
    vocab_text(&v, "tokenizer.ggml.pre", "gpt-2");
    vocab_texts(&v, "tokenizer.ggml.tokens", list, 8);
    vocab_texts(&v, "tokenizer.ggml.merges", merges, 4);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "abcd", 0, "a bcd");
    check_tokens(t, "abc", 0, "abc");
    check_tokens(t, "abab", 0, "ab ab");
    check_tokens(t, "abcabcd", 0, "abc a bcd");
    close_tiny(t, &v);
}

/* llama3: a word that is a token is taken as it is, though no merges lead to it. */
static void test_ignore_merges(void)
{
    static const char *const texts[] = { "a", "b", "c", "abc", "ab" }, *const merges[] = { "a b" };
    for (int llama = 0; llama < 2; llama++) {
        struct vocab v;
        vocab_begin(&v);
        vocab_text(&v, "tokenizer.ggml.model", "gpt2");
        vocab_text(&v, "tokenizer.ggml.pre", llama ? "llama3" : "qwen2");
        vocab_texts(&v, "tokenizer.ggml.tokens", texts, 5);
        vocab_texts(&v, "tokenizer.ggml.merges", merges, 1);
        vocab_bool(&v, "tokenizer.ggml.add_bos_token", false);
        struct tokenizer *t = open_tiny(&v);
        check_tokens(t, "abc", 0, llama ? "abc" : "ab c");
        check_tokens(t, "abz", 0, "ab");                /* no token for z: it vanishes */
        close_tiny(t, &v);
    }
}

static void test_wpm(void)
{
    struct vocab v;
    vocab_wpm(&v);
    struct tokenizer *t = open_tiny(&v);
    check_tokens(t, "", TOKENIZE_ADD_SPECIAL, "[CLS] [SEP]");
    check_tokens(t, "aB  abba", TOKENIZE_ADD_SPECIAL, "[CLS] " MARK "ab " MARK "ab b a [SEP]");
    check_tokens(t, "ab,a", 0, MARK "ab " MARK ", " MARK "a");
    check_tokens(t, "a\xE4\xBD\xA0" "a", 0, MARK "a " MARK "\xE4\xBD\xA0 " MARK "a");
    check_tokens(t, "\xC3\x89", 0, MARK "e");           /* É: lower-cased, without its accent */
    check_tokens(t, "abz a", 0, "[UNK] " MARK "a");
    check_tokens(t, "[SEP]a", TOKENIZE_PARSE_SPECIAL, "[SEP] " MARK "a");
    close_tiny(t, &v);
}

static void test_pieces(void)
{
    struct vocab v;
    char out[16];
    vocab_spm(&v, true);
    struct tokenizer *t = open_tiny(&v);
    size_t n = tokenizer_piece(t, tokenizer_find(t, MARK "ab", 5), false, out, sizeof out);
    CHECK(n == 3 && memcmp(out, " ab", 3) == 0, "%zu bytes", n);
    memset(out, '#', sizeof out);
    n = tokenizer_piece(t, tokenizer_find(t, MARK "ab", 5), false, out, 2);
    CHECK(n == 3 && memcmp(out, " a#", 3) == 0, "a piece that does not fit: %zu bytes", n);
    CHECK(tokenizer_piece(t, 3 + 10, false, out, sizeof out) == 1 && out[0] == '\n', "byte token");
    CHECK(tokenizer_piece(t, 1, false, out, sizeof out) == 0 && tokenizer_piece(t, 1, true, out, sizeof out) == 3, "control token");
    CHECK(tokenizer_piece(t, -1, true, out, sizeof out) == 0 && tokenizer_piece(t, 1 << 30, true, out, sizeof out) == 0,
          "no such token");
    int32_t bad[] = { 3, -1 };
    char *text;
    CHECK(!tokenizer_decode(t, bad, 2, true, &text, &n, &err) && err.code == QUERN_EUSAGE, "decoding token -1");
    CHECK(tokenizer_decode(t, NULL, 0, true, &text, &n, &err) && n == 0 && text[0] == '\0', "no tokens");
    free(text);
    close_tiny(t, &v);
}

/* clean_spaces: as BERT's and GPT-2's tokenizers write English. */
static void test_clean_spaces(void)
{
    static const char *const cases[][2] = {
        { "a , b . c ! d ? e", "a, b. c! d? e" }, { "a  .", "a ." }, { " .", "." }, { "it 's", "it's" }, { "I 'm", "I'm" },
        { "we 're", "we're" }, { "we 've", "we've" }, { "we 'll", "we 'll" }, { "a ' b", "a'b" }, { "a ' ' b", "a'' b" },
        { "", "" }, { " ", " " },
        { "n 't", "n 't" }, { "a '", "a '" }, { "a 'r", "a 'r" },
    };
    struct vocab v;
    vocab_bpe(&v, "gpt-2");
    struct tokenizer *t = open_tiny(&v);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *ids;
        size_t n, bytes;
        char *text = NULL;
        bool ok = tokenizer_encode(t, cases[i][0], strlen(cases[i][0]), 0, &ids, &n, &err) &&
                  tokenizer_decode(t, ids, n, true, &text, &bytes, &err);
        CHECK(ok && strcmp(text, cases[i][1]) == 0, "'%s' gives '%s', expected '%s'", cases[i][0], ok ? text : err.text,
              cases[i][1]);
        free(ids);
        free(text);
    }
    close_tiny(t, &v);
}

/* What the vocabularies are made of, with bytes that are not UTF-8 between. */
static size_t random_text(uint64_t *seed, char *text, size_t room)
{
    static const char *const parts[] = { "a", "ab", "abc", " ", "  ", "\n", "\r\n", "1", "123", "<tool>", "<|end|>", "\xC3\xA9",
                                         "\xE4\xBD\xA0", "'s", "!",
                                         "\xF0\x9F\x98\x80", "\xE2\x80\x8B", "\xC2\xA0", "hello", "\xCC\x81", "\xE1\x9A\x80", "Z" };
    size_t n = 0;
    while (n + 8 < room && random_u64(seed) % 50) {
        if (random_u64(seed) % 8 == 0) {
            text[n++] = (char)random_u64(seed);
        } else {
            const char *part = parts[random_u64(seed) % (sizeof parts / sizeof *parts)];
            memcpy(text + n, part, strlen(part));
            n += strlen(part);
        }
    }
    return n;
}

static void check_round_trips(struct tokenizer *t, const char *what)
{
    uint64_t seed = 5;
    for (int round = 0; round < 1500; round++) {
        char text[512], *back = NULL;
        int32_t *ids;
        size_t n = random_text(&seed, text, sizeof text), count, bytes = 0;
        unsigned flags = round % 2 ? TOKENIZE_PARSE_SPECIAL : 0;
        bool ok = tokenizer_encode(t, text, n, flags, &ids, &count, &err) &&
            tokenizer_decode(t, ids, count, true, &back, &bytes, &err);
        CHECK(ok && bytes == n && memcmp(back, text, n) == 0, "%s, round %d: %zu bytes became %zu", what, round, n, bytes);
        free(ids);
        free(back);
    }
}

/* Any bytes come back, with each pre-tokenizer that does not clean blanks. */
static void test_round_trips(void)
{
    static const char *const names[] = { "qwen2", "qwen35", "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",
                                         "viking",
                                         "poro-chat", "command-r", "kimi-k2", "youtu", "afmoe", "laguna", "superbpe", "tiny_aya",
                                         "seed-coder", "chameleon", "granite-embed-multi-97m" };
    struct vocab v;
    struct tokenizer *t;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vocab_bpe(&v, names[i]);
        vocab_u32(&v, "tokenizer.ggml.bos_token_id", 0);
        t = open_tiny(&v);
        check_round_trips(t, names[i]);
        close_tiny(t, &v);
    }
    vocab_spm(&v, true);
    vocab_bool(&v, "tokenizer.ggml.add_space_prefix", false);
    t = open_tiny(&v);
    check_round_trips(t, "SPM");
    close_tiny(t, &v);
}

/* ---- time ---- */

/* Of this process: what others compute meanwhile, or a stop, is no fault of the tokenizer. */
static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static const char *const monotonous[] = { "a", " ", "\xF0\x9F\x98\x80", "\n", "1", "!", "\xE4\xBD\xA0", "\xCC\x81", "A", "<tool>",
                                          " a", "'", "\xC2\xA0", "\xFF" };

/* 1 MB of one thing takes well under a second; quadratic time would be a quarter of an hour. */
static void check_time(struct tokenizer *t, size_t size, const char *what)
{
    char *text = malloc(size);
    for (size_t i = 0; i < sizeof monotonous / sizeof *monotonous; i++) {
        size_t n = strlen(monotonous[i]), count;
        int32_t *ids;
        for (size_t at = 0; at < size; at++)
            text[at] = monotonous[i][at % n];
        double begin = seconds();
        bool ok = tokenizer_encode(t, text, size, TOKENIZE_PARSE_SPECIAL, &ids, &count, &err);
        double took = seconds() - begin;
        CHECK(ok && took < 20, "%s: %zu bytes of '%s' took %.1f s (%s)", what, size, monotonous[i], took, ok ? "done" : err.text);
        free(ids);
    }
    free(text);
}

static void test_time(void)
{
    struct vocab v;
    vocab_spm(&v, true);
    struct tokenizer *t = open_tiny(&v);
    check_time(t, 1 << 20, "SPM");
    close_tiny(t, &v);
    vocab_wpm(&v);
    t = open_tiny(&v);
    check_time(t, 1 << 20, "WPM");
    close_tiny(t, &v);
    static const char *const names[] = { "gpt-2", "llama3", "gpt-4o", "jais-2", "exaone-moe", "deepseek-llm", "deepseek-v3",
                                         "superbpe", "chameleon",
                                         "afmoe", "youtu", "kimi-k2", "gemma4", "poro-chat", "granite-embed-multi-97m", "default" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vocab_bpe(&v, names[i]);
        vocab_u32(&v, "tokenizer.ggml.bos_token_id", 0);
        t = open_tiny(&v);
        check_time(t, i < 2 ? 1 << 20 : 200000, names[i]);
        close_tiny(t, &v);
    }
}

/* ---- bad files: section D of the table of bad inputs ---- */

struct bad {
    const char *row, *what;
    void (*make)(struct vocab *v);
    enum quern_code code;            /* QUERN_OK: must open */
    const char *pattern;
};

static const char *const abc[] = { "a", "b", "c" };
static const int32_t abc_types[] = { 1, 1, 1 };
static const float abc_scores[] = { 0, -1, -2 };

static void begin(struct vocab *v, const char *model)
{
    vocab_begin(v);
    vocab_text(v, "tokenizer.ggml.model", model);
    vocab_bool(v, "tokenizer.ggml.add_bos_token", false);
}

/* An SPM vocabulary of three tokens, of which the caller may replace a part. */
static void spm(struct vocab *v)
{
    begin(v, "llama");
    vocab_texts(v, "tokenizer.ggml.tokens", abc, 3);
}

static void no_tokenizer(struct vocab *v)      { vocab_begin(v); }
static void unknown_model(struct vocab *v)     { begin(v, "t6\x1B"); }
static void unknown_pre(struct vocab *v)       { vocab_bpe(v, "gpt-3"); }
static void no_pre(struct vocab *v)            { vocab_bpe(v, NULL); }
static void no_tokens(struct vocab *v)         { begin(v, "llama"); }
static void tokens_empty(struct vocab *v)      { begin(v, "llama"); vocab_texts(v, "tokenizer.ggml.tokens", abc, 0); }
static void tokens_u8(struct vocab *v)         { begin(v, "llama"); vocab_array(v, "tokenizer.ggml.tokens", GGUF_U8, "abc", 3, 3); }
static void tokens_text(struct vocab *v)       { begin(v, "llama"); vocab_text(v, "tokenizer.ggml.tokens", "abc"); }
static void scores_u8(struct vocab *v)         { spm(v); vocab_array(v, "tokenizer.ggml.scores", GGUF_U8, "abc", 3, 3); }
static void scores_few(struct vocab *v)        { spm(v); vocab_array(v, "tokenizer.ggml.scores", GGUF_F32, abc_scores, 2, 8); }
static void types_i64(struct vocab *v)         { int64_t types[3] = { 1, 1, 1 }; spm(v);
                                                 vocab_array(v, "tokenizer.ggml.token_type", GGUF_I64, types, 3, 24); }
static void types_few(struct vocab *v)         { spm(v); vocab_array(v, "tokenizer.ggml.token_type", GGUF_I32, abc_types, 2, 8); }
static void types_9(struct vocab *v)           { int32_t types[3] = { 1, 9, 1 }; spm(v);
                                                 vocab_array(v, "tokenizer.ggml.token_type", GGUF_I32, types, 3, 12); }
static void eot_text(struct vocab *v)          { spm(v); vocab_text(v, "tokenizer.ggml.eot_token_id", "2"); }
static void bos_minus(struct vocab *v)         { spm(v); vocab_u32(v, "tokenizer.ggml.bos_token_id", UINT32_MAX); }
static void eos_size(struct vocab *v)          { spm(v); vocab_u32(v, "tokenizer.ggml.eos_token_id", 3); }
static void eot_size(struct vocab *v)          { spm(v); vocab_u32(v, "tokenizer.ggml.eot_token_id", 3); }
static void unknown_size(struct vocab *v)      { spm(v); vocab_u32(v, "tokenizer.ggml.unknown_token_id", 77); }
static void fim_size(struct vocab *v)          { spm(v); vocab_u32(v, "tokenizer.ggml.fim_pad_token_id", 77); }
static void fine(struct vocab *v)              { spm(v); vocab_u32(v, "tokenizer.ggml.eos_token_id", 2);
                                                 vocab_array(v, "tokenizer.ggml.scores", GGUF_F32, abc_scores, 3, 12); }

static void scores_nan(struct vocab *v)
{
    const uint32_t scores[3] = { 0, 0x7FC00000, 0 };
    spm(v);
    vocab_array(v, "tokenizer.ggml.scores", GGUF_F32, scores, 3, 12);
}

static void bos_missing(struct vocab *v)
{
    vocab_begin(v);
    vocab_text(v, "tokenizer.ggml.model", "llama");
    vocab_texts(v, "tokenizer.ggml.tokens", abc, 3);
}

static void eos_missing(struct vocab *v)
{
    bos_missing(v);
    vocab_bool(v, "tokenizer.ggml.add_bos_token", false);
    vocab_bool(v, "tokenizer.ggml.add_eos_token", true);
}

static void texts(struct vocab *v, const char *const *list, size_t n)
{
    begin(v, "llama");
    vocab_texts(v, "tokenizer.ggml.tokens", list, n);
}

static void duplicates(struct vocab *v)  { static const char *const t[] = { "a", "b", "a" }; texts(v, t, 3); }
static void empty_token(struct vocab *v) { static const char *const t[] = { "a", "", "" }; texts(v, t, 3); }
static void not_utf8(struct vocab *v)    { static const char *const t[] = { "a", "\xFF\xFE", "\xC3" }; texts(v, t, 3); }

static void long_token(struct vocab *v)
{
    char *text = calloc(1, (1 << 20) + 1);
    const char *list[] = { "a", text };
    memset(text, 'x', 1 << 20);
    texts(v, list, 2);
    free(text);
}

static void byte_token(struct vocab *v, const char *text)
{
    static const int32_t types[] = { 1, 6 };
    const char *list[] = { "a", text };
    texts(v, list, 2);
    vocab_array(v, "tokenizer.ggml.token_type", GGUF_I32, types, 2, 8);
}

static void byte_minus(struct vocab *v)   { byte_token(v, "<0x-1>"); }
static void byte_letters(struct vocab *v) { byte_token(v, "<0xGG>"); }
static void byte_256(struct vocab *v)     { byte_token(v, "<0x100>"); }
static void byte_small(struct vocab *v)   { byte_token(v, "<0xab>"); }
static void bytes_few(struct vocab *v)    { byte_token(v, "<0x41>"); }

static void bpe(struct vocab *v, const char *const *merges, size_t n)
{
    static const char *const list[] = { "a", "b", "ab" };
    begin(v, "gpt2");
    vocab_text(v, "tokenizer.ggml.pre", "gpt-2");
    vocab_texts(v, "tokenizer.ggml.tokens", list, 3);
    if (merges)
        vocab_texts(v, "tokenizer.ggml.merges", merges, n);
}

static void merges_none(struct vocab *v)    { bpe(v, NULL, 0); }
static void merges_first(struct vocab *v)   { static const char *const m[] = { "a b", "x b" }; bpe(v, m, 2); }
static void merges_second(struct vocab *v)  { static const char *const m[] = { "a x" }; bpe(v, m, 1); }
static void merges_both(struct vocab *v)    { static const char *const m[] = { "b a" }; bpe(v, m, 1); }
static void merges_blank(struct vocab *v)   { static const char *const m[] = { "ab" }; bpe(v, m, 1); }
static void merges_empty(struct vocab *v)   { static const char *const m[] = { "" }; bpe(v, m, 1); }
static void merges_twice(struct vocab *v)   { static const char *const m[] = { "a b", "a b" }; bpe(v, m, 2); }
static void merges_i32(struct vocab *v) { bpe(v, NULL, 0); vocab_array(v, "tokenizer.ggml.merges", GGUF_I32, abc_types, 3, 12); }

static const struct bad table[] = {
    { "D1", "no tokenizer", no_tokenizer, QUERN_EUNSUPPORTED, "no tokenizer" },
    { "D1", "unknown model", unknown_model, QUERN_EUNSUPPORTED, "'t6\\x1B', known are llama, gpt2" },
    { "D1", "unknown pre-tokenizer", unknown_pre, QUERN_EUNSUPPORTED,
      "'gpt-3' is unknown; another may be given with --tokenizer-pre: a.x-4.0, afmoe" },
    { "D1", "no pre-tokenizer", no_pre, QUERN_EUNSUPPORTED, "does not name its pre-tokenizer" },
    { "D2", "no tokens", no_tokens, QUERN_EFORMAT, "tokenizer.ggml.tokens is missing" },
    { "D2", "empty vocabulary", tokens_empty, QUERN_EFORMAT, "has 0 elements" },
    { "D2", "tokens of u8", tokens_u8, QUERN_EFORMAT, "array of u8, expected string" },
    { "D2", "tokens a string", tokens_text, QUERN_EFORMAT, "of type string, expected an array" },
    { "D2", "scores of u8", scores_u8, QUERN_EFORMAT, "array of u8, expected f32" },
    { "D2", "two scores", scores_few, QUERN_EFORMAT, "has 2 elements, the vocabulary has 3" },
    { "D2", "score NaN", scores_nan, QUERN_EFORMAT, "token 1 is not a number" },
    { "D2", "types of i64", types_i64, QUERN_EFORMAT, "array of i64, expected i32" },
    { "D2", "two types", types_few, QUERN_EFORMAT, "has 2 elements, the vocabulary has 3" },
    { "D2", "type 9", types_9, QUERN_EFORMAT, "the type of token 1" },
    { "D4", "empty tokens", empty_token, QUERN_OK, "" },
    { "D4", "1 MB token", long_token, QUERN_EFORMAT, "token 1 has 1048576 bytes" },
    { "D4", "duplicates", duplicates, QUERN_EFORMAT, "tokens 0 and 2 are both 'a'" },
    { "D4", "not UTF-8", not_utf8, QUERN_OK, "" },
    { "D5", "<0x-1>", byte_minus, QUERN_EFORMAT, "'<0x-1>', expected <0x00> to <0xFF>" },
    { "D5", "<0xGG>", byte_letters, QUERN_EFORMAT, "<0xGG>" },
    { "D5", "<0x100>", byte_256, QUERN_EFORMAT, "<0x100>" },
    { "D5", "<0xab>", byte_small, QUERN_EFORMAT, "<0xab>" },
    { "D5", "one byte token", bytes_few, QUERN_EFORMAT, "1 of 256 bytes" },
    { "D6", "BOS -1", bos_minus, QUERN_EFORMAT, "bos_token_id is 4294967295, the vocabulary has 3" },
    { "D6", "EOS = size", eos_size, QUERN_EFORMAT, "eos_token_id is 3, the vocabulary has 3" },
    { "D6", "EOT = size", eot_size, QUERN_EFORMAT, "eot_token_id is 3" },
    { "D6", "EOT a string", eot_text, QUERN_EFORMAT, "eot_token_id" },
    { "D6", "unknown = 77", unknown_size, QUERN_EFORMAT, "unknown_token_id is 77" },
    { "D6", "FIM pad = 77", fim_size, QUERN_EFORMAT, "fim_pad_token_id is 77" },
    { "D6", "BOS wanted, none named", bos_missing, QUERN_EFORMAT, "bos_token_id" },
    { "D6", "EOS wanted, none named", eos_missing, QUERN_EFORMAT, "texts are to end with a token" },
    { "D7", "no merges", merges_none, QUERN_EFORMAT, "tokenizer.ggml.merges is missing" },
    { "D7", "merge of an absent first", merges_first, QUERN_EFORMAT, "line 1, 'x b': the first is not" },
    { "D7", "merge of an absent second", merges_second, QUERN_EFORMAT, "line 0, 'a x': the second is not" },
    { "D7", "merge to an absent token", merges_both, QUERN_EFORMAT, "'b a': what they make together is not" },
    { "D7", "merge without a blank", merges_blank, QUERN_EFORMAT, "'ab', is not two texts" },
    { "D7", "empty merge", merges_empty, QUERN_EFORMAT, "'', is not two texts" },
    { "D7", "merge twice", merges_twice, QUERN_OK, "" },
    { "D7", "merges of i32", merges_i32, QUERN_EFORMAT, "array of i32, expected string" },
    { "D", "nothing wrong", fine, QUERN_OK, "" },
};

static void check_bad(const struct bad *bad)
{
    struct vocab v;
    bad->make(&v);
    struct tokenizer *t = NULL;
    if (!vocab_view(&v, &err)) {
        CHECK(false, "%s: the reader refuses it: %s", bad->what, err.text);
    } else {
        err.code = QUERN_OK;
        t = tokenizer_open(&v.g, NULL, &err);
        if (bad->code == QUERN_OK)
            CHECK(t, "%s %s: %s", bad->row, bad->what, t ? "" : err.text);
        else
            CHECK(!t && err.code == bad->code && strstr(err.text, bad->pattern), "%s %s: %s, code %d: %s", bad->row, bad->what,
                  t ? "opened" : "refused", err.code, err.text);
    }
    close_tiny(t, &v);
}

/* D7: many merges are read in linear time, and tokens cannot be made to meet in the tables. */
static void test_many_tokens(void)
{
    enum { TOKENS = 300000, LETTERS = 26 };
    struct vocab v;
    begin(&v, "gpt2");
    vocab_text(&v, "tokenizer.ggml.pre", "gpt-2");
    char (*text)[16] = calloc(TOKENS, sizeof *text), (*merge)[16] = calloc(TOKENS, sizeof *merge);
    const char **list = calloc(TOKENS, sizeof *list), **lines = calloc(TOKENS, sizeof *lines);
    size_t n = 0, merges = 0;
    for (; n < LETTERS; n++)
        text[n][0] = (char)('a' + n);
    for (size_t left = 0; n < TOKENS; left++) {     /* each token so far with each letter after it */
        for (size_t right = 0; right < LETTERS && n < TOKENS; right++, n++, merges++) {
            snprintf(text[n], sizeof text[n], "%.13s%s", text[left], text[right]);
            snprintf(merge[merges], sizeof merge[merges], "%.12s %s", text[left], text[right]);
        }
    }
    for (size_t i = 0; i < TOKENS; i++) {
        list[i] = text[i];
        lines[i] = merge[i];
    }
    vocab_texts(&v, "tokenizer.ggml.tokens", list, n);
    vocab_texts(&v, "tokenizer.ggml.merges", lines, merges);
    double begin_time = seconds();
    struct tokenizer *t = open_tiny(&v);
    double took = seconds() - begin_time;
    CHECK(took < 10, "%d tokens and %zu merges took %.1f s", TOKENS, merges, took);
    check_tokens(t, "abc", 0, "abc");
    close_tiny(t, &v);
    free(text);
    free(merge);
    free(list);
    free(lines);
}

int main(void)
{
    TEST(test_spm);
    TEST(test_text_makes_no_control_token);
    TEST(test_spm_prefix);
    TEST(test_spm_across_blanks);
    TEST(test_known_texts);
    TEST(test_named_roles);
    TEST(test_overlapping_tokens);
    TEST(test_no_byte_tokens);
    TEST(test_bpe);
    TEST(test_merges_in_order);
    TEST(test_ignore_merges);
    TEST(test_wpm);
    TEST(test_pieces);
    TEST(test_clean_spaces);
    TEST(test_round_trips);
    TEST(test_time);
    TEST(test_many_tokens);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        test_begin("%s %s", table[i].row, table[i].what);
        check_bad(&table[i]);
        test_finish();
    }
    return test_end();
}
