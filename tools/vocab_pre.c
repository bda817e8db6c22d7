/* Which of the known ways to cut text before BPE does a tokenizer.json describe?
 *
 * The "pre_tokenizer" tree is written as one line, a word per stage, and looked up. Nothing is guessed: a line that is not in the
 * table is refused. Names are those of tokenizer.ggml.pre. */
#include <string.h>

#include "text.h"
#include "vocab.h"

/* Pieces that several expressions share. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"
#define BLANKS "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define MARKS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define MARKS_SLASH "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define DEEPSEEK3 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"

/* `merges`: 1 when the name is right only with ignore_merges, 0 only without, -1 either way. A line may end in "...": the rest is
 * not compared (one expression lists 300 ranges of letters). */
static const struct { const char *name, *line; int ignore_merges; } known[] = {
    { "gpt-2", "bytes+regex", -1 },
    { "llama-bpe", "split(" CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1,3}" MARKS BLANKS ") bytes", 1 },
    { "dbrx", "split(" CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}{1,3}" MARKS BLANKS ") bytes", 0 },
    { "qwen2", "split(" CONTRACTIONS "|" LEAD "\\p{L}+|\\p{N}" MARKS BLANKS ") bytes", -1 },
    { "qwen35", "split(" CONTRACTIONS "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" BLANKS ") bytes", -1 },
    { "tekken", "split(" LEAD UPPER "*" LOWER "+|" LEAD UPPER "+" LOWER "*|\\p{N}" MARKS_SLASH BLANKS ") bytes", -1 },
    { "gpt-4o", "split(" LEAD UPPER "*" LOWER "+" CONTRACTIONS "?|" LEAD UPPER "+" LOWER "*" CONTRACTIONS "?|\\p{N}{1,3}"
      MARKS_SLASH
      BLANKS ") bytes", -1 },
    { "starcoder", "digits bytes+regex", -1 },
    { "falcon", "punctuation(Contiguous) bytes+regex numbers split([0-9][0-9][0-9])", -1 },
    { "deepseek-coder", "split([\\r\\n]) split(\\s?\\p{L}+) split(\\s?\\p{P}+) split([\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+) "
      "digits bytes",
      -1 },
    { "deepseek-llm", "split([\\r\\n]) split(\\s?[A-Za-z\u00b5\u00c0-\u00d6...", -1 },
    { "deepseek-v3", "split(\\p{N}{1,3}) split([\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+) split(" DEEPSEEK3 BLANKS ") bytes", -1 },
};

static bool flag(const struct json *stage, const char *key, bool fallback)
{
    const struct json *j = json_get(stage, key);
    return j && j->type == JSON_BOOL ? j->boolean : fallback;
}

/* Real line ends in an expression mean what their escapes mean: write them one way. */
static void add_pattern(struct text *line, const struct json *pattern)
{
    for (size_t i = 0; i < pattern->n; i++)
        if (pattern->text[i] == '\r')
            text_add(line, "\\r", 2);
        else if (pattern->text[i] == '\n')
            text_add(line, "\\n", 2);
        else
            text_add(line, pattern->text + i, 1);
}

static void describe(struct text *line, const struct json *stage)
{
    const struct json *type = json_get(stage, "type");
    if (hf_text_is(type, "Sequence")) {
        const struct json *list = json_get(stage, "pretokenizers");
        for (size_t i = 0; list && list->type == JSON_ARRAY && i < list->n; i++)
            describe(line, list->items[i]);
        return;
    }
    if (line->n)
        text_add(line, " ", 1);
    if (hf_text_is(type, "ByteLevel")) {
        text_addf(line, "bytes%s%s", flag(stage, "use_regex", true) ? "+regex" : "",
                  flag(stage, "add_prefix_space", true) ? "+prefix" : "");
    } else if (hf_text_is(type, "Digits")) {
        text_addf(line, "%s", flag(stage, "individual_digits", false) ? "digits" : "numbers");
    } else if (hf_text_is(type, "Punctuation")) {
        const struct json *behavior = json_get(stage, "behavior");
        text_addf(line, "punctuation(%s)", behavior && behavior->type == JSON_STRING ? behavior->text : "Isolated");
    } else if (hf_text_is(type, "Split") && json_get(json_get(stage, "pattern"), "Regex") && !flag(stage, "invert", false)) {
        const struct json *regex = json_get(json_get(stage, "pattern"), "Regex");
        const struct json *behavior = json_get(stage, "behavior");
        text_addf(line, hf_text_is(behavior, "Isolated") ? "split(" : "split, not isolated(");
        if (regex->type == JSON_STRING)
            add_pattern(line, regex);
        text_add(line, ")", 1);
    } else {
        text_addf(line, "%s", type && type->type == JSON_STRING ? type->text : "none");
    }
}

static bool line_is(const char *line, const char *expected)
{
    size_t n = strlen(expected);
    if (n > 3 && !strcmp(expected + n - 3, "..."))
        return !strncmp(line, expected, n - 3);
    return !strcmp(line, expected);
}

bool vocab_is_byte_level(const struct json *tokenizer)
{
    const struct json *pre = json_get(tokenizer, "pre_tokenizer");
    if (!pre || pre->type != JSON_OBJECT)
        return false;
    struct text line = { 0 };
    describe(&line, pre);
    bool found = line.data && strstr(line.data, "bytes");
    text_free(&line);
    return found;
}

const char *vocab_pre_name(const struct json *tokenizer, const char *path, struct quern_error *err)
{
    const struct json *pre = json_get(tokenizer, "pre_tokenizer");
    int ignore_merges = flag(json_get(tokenizer, "model"), "ignore_merges", false);
    struct text line = { 0 };
    if (pre && pre->type == JSON_OBJECT)
        describe(&line, pre);
    const char *name = NULL;
    for (size_t i = 0; line.data && i < sizeof known / sizeof *known && !name; i++)
        if ((known[i].ignore_merges < 0 || known[i].ignore_merges == ignore_merges) && line_is(line.data, known[i].line))
            name = known[i].name;
    if (!name) {
        char shown[400];
        const char *found = line.data ? line.data : "none";
        text_escape(shown, sizeof shown, found, strlen(found));
        ERR(err, line.failed ? QUERN_EMEM : QUERN_EUNSUPPORTED,
            "%s/tokenizer.json: unknown pre-tokenizer: %s (--tokenizer-pre NAME says which one to write)", path, shown);
    }
    text_free(&line);
    return name;
}
