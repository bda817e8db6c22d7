/* Questions with choices: what is read from each format, what is refused and where, and the scores against a plain computation. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "choices_score.h"
#include "csv.h"
#include "test.h"
#include "tiny.h"

static struct quern_error err;

static const char *save(const char *name, const char *text)
{
    const char *path = temp_path(name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "cannot write %s", path);
    return path;
}

static bool open_text(struct choice_set *set, const char *name, const char *text, enum choice_format format)
{
    struct choice_options options = {.format = format};
    return choices_open(set, save(name, text), &options, &err);
}

static void check_choice(const struct choice_item *item, size_t c, const char *context, const char *text)
{
    const struct choice *choice = &item->choices[c];
    CHECK(c < item->count && choice->context_n == strlen(context) && !memcmp(choice->context, context, choice->context_n),
          "choice %zu: context '%s'", c, choice->context);
    CHECK(choice->text_n == strlen(text) && !memcmp(choice->text, text, choice->text_n),
          "choice %zu: '%.*s'", c, (int)choice->text_n, choice->text);
}

/* ---- the formats ---------------------------------------------------------------------------------------------------- */

static const char hellaswag[] = "A cat: It sits. It\n2\njumps.\nflies.\nsleeps.\nsings.\nB: c\n0\nw\nx\ny\nz\n\n\n";

static void test_hellaswag(void)
{
    struct choice_set set;
    CHECK(open_text(&set, "mc-h.txt", hellaswag, CHOICES_AUTO), "%s", err.text);
    CHECK(set.format == CHOICES_HELLASWAG && set.count == 2 && set.total == 2, "%zu items", set.count);
    check_choice(&set.items[0], 0, "A cat: It sits. It", "jumps.");
    check_choice(&set.items[0], 3, "A cat: It sits. It", "sings.");
    CHECK(set.items[0].gold == 2 && set.items[1].gold == 0 && set.items[1].line == 7 && set.items[0].lead_n == 0, "labels, lines");
    choices_close(&set);
}

static const char mmlu[] =
    "question,choice0,choice1,choice2,choice3,answer\r\n"
    "\" What, \"\"this\"\"?\n\nReally \",a,\"b, c\",\"\"\"\",d,3\r\n"
    "\r\n"
    "plain,1,2,3,4,B\n";

static void test_mmlu(void)
{
    struct choice_set set;
    CHECK(open_text(&set, "two_words_test.csv", mmlu, CHOICES_AUTO), "%s", err.text);
    CHECK(set.format == CHOICES_MMLU && set.count == 2, "%zu items", set.count);
    check_choice(&set.items[0], 3, "What, \"this\"?\n\nReally\nA. a\nB. b, c\nC. \"\nD. d\nAnswer:", "D");
    CHECK(set.items[0].gold == 3 && set.items[1].gold == 1 && set.items[0].line == 2 && set.items[1].line == 6,
          "gold %zu %zu, line %zu", set.items[0].gold, set.items[1].gold, set.items[1].line);
    CHECK(!strcmp(set.items[0].lead, "The following are multiple choice questions (with answers) about two words.\n\n"), "'%s'",
          set.items[0].lead);
    choices_close(&set);
    struct choice_options options = {.shots = 1, .dev = NULL};
    CHECK(!choices_open(&set, temp_path("two_words_test.csv"), &options, &err) && err.code == QUERN_EUSAGE, "shots without dev");
    choices_close(&set);
    char folder[500];
    snprintf(folder, sizeof folder, "%s", temp_path("."));
    options.dev = folder;
    save("two_words_dev.csv", "One?,w,x,y,z,C\nTwo?,w,x,y,z,0\n");
    CHECK(choices_open(&set, temp_path("two_words_test.csv"), &options, &err), "%s", err.text);
    CHECK(set.count == 2 && strstr(set.items[1].lead, "two words.\n\nOne?\nA. w\nB. x\nC. y\nD. z\nAnswer: C\n\n") &&
              !strstr(set.items[1].lead, "Two?"), "'%s'", set.count ? set.items[0].lead : "");
    choices_close(&set);
    options.shots = 3;
    CHECK(!choices_open(&set, temp_path("two_words_test.csv"), &options, &err) && err.code == QUERN_EUSAGE &&
              strstr(err.text, "2 questions, 3 shots"), "%s", err.text);
    choices_close(&set);
}

static const char arc[] =
    "{\"id\":\"1\",\"question\":{\"stem\":\"Why?\",\"choices\":[{\"text\":\"no\",\"label\":\"1\"},"
    "{\"text\":\"so\",\"label\":\"2\"},{\"text\":\"\\u00e9\",\"label\":\"3\"}]},\"answerKey\":\"2\"}\n\n";
static const char winogrande[] =
    "{\"sentence\":\"The cup or the box: _  was red. \",\"option1\":\"cup\",\"option2\":\"box\",\"answer\":\"2\"}";
static const char piqa[] =
    "{\"goal\":\"Boil\",\"sol1\":\"Heat \",\"sol2\":\"Cool\"}\n{\"goal\":\"Dry\",\"sol1\":\"Sun\",\"sol2\":\"Rain\"}\n";
static const char lambada[] = "{\"text\":\"She said no \\\"words\\\"\"}\n";

static void test_json_lines(void)
{
    struct choice_set set;
    CHECK(open_text(&set, "mc-a.jsonl", arc, CHOICES_AUTO) && set.format == CHOICES_ARC && set.count == 1, "%s", err.text);
    CHECK(set.items[0].count == 3 && set.items[0].gold == 1, "gold %zu", set.items[0].gold);
    check_choice(&set.items[0], 2, "Question: Why?\nAnswer:", "\xC3\xA9");
    choices_close(&set);
    CHECK(open_text(&set, "mc-w.jsonl", winogrande, CHOICES_AUTO) && set.format == CHOICES_WINOGRANDE && set.count == 1,
          "%s", err.text);
    CHECK(set.items[0].gold == 1, "gold %zu", set.items[0].gold);
    check_choice(&set.items[0], 0, "The cup or the box: cup", "was red.");
    check_choice(&set.items[0], 1, "The cup or the box: box", "was red.");
    choices_close(&set);
    save("mc-p-labels.lst", "1\n0\n");
    CHECK(open_text(&set, "mc-p.jsonl", piqa, CHOICES_AUTO) && set.format == CHOICES_PIQA && set.count == 2, "%s", err.text);
    CHECK(set.items[0].gold == 1 && set.items[1].gold == 0, "labels");
    check_choice(&set.items[0], 0, "Question: Boil\nAnswer:", "Heat ");
    choices_close(&set);
    CHECK(open_text(&set, "mc-l.jsonl", lambada, CHOICES_LAMBADA) && set.count == 1 && set.items[0].count == 1, "%s", err.text);
    check_choice(&set.items[0], 0, "She said no", "\"words\"");
    choices_close(&set);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------ */

static void test_refusals(void)
{
    static const struct { enum choice_format format; const char *text, *says; } cases[] = {
        {CHOICES_AUTO, "", "empty"},
        {CHOICES_AUTO, "\n \n", "empty"},
        {CHOICES_AUTO, "just words\nmore of them\n", "neither"},
        {CHOICES_AUTO, "{\"question\":\"q\",\"answer\":\"4\"}\n", "neither"},
        {CHOICES_AUTO, "{\"question\":", "line 1"},
        {CHOICES_HELLASWAG, "c\n4\na\nb\nc\nd\n", "line 2: the label"},
        {CHOICES_HELLASWAG, "c\n-1\na\nb\nc\nd\n", "line 2: the label"},
        {CHOICES_AUTO, "c\n1\na\nb\nc\n", "line 6: ending 4"},
        {CHOICES_AUTO, "c\n1\na\n\nc\nd\n", "line 4: ending 2"},
        {CHOICES_AUTO, "c\n1\na\nb\nc\nd\n\n\ne\n1\na\nb\nc\nd\n", "line 7: an empty line"},
        {CHOICES_HELLASWAG, "c", "line 2: the label"},
        {CHOICES_MMLU, "q,a,b,c,d\n", "line 1: 5 fields"},
        {CHOICES_MMLU, "q,a,b,c,d,A\nq,a,b,c,d,e,A\n", "line 2: 7 fields"},
        {CHOICES_MMLU, "q,a,b,c,d,E\n", "line 1: the answer"},
        {CHOICES_MMLU, "q,a,b,c,d,4\n", "line 1: the answer"},
        {CHOICES_MMLU, "q,a,b,c,d,\n", "line 1: the answer"},
        {CHOICES_MMLU, "q,a,,c,d,A\n", "line 1: field 3 is empty"},
        {CHOICES_MMLU, "q,a,b,c,d,A\n\"open\n,a,b,c,d,A\n", "line 2: a quote opens"},
        {CHOICES_MMLU, "\"q\"x,a,b,c,d,A\n", "line 1: something stands"},
        {CHOICES_MMLU, "q\"x,a,b,c,d,A\n", "line 1: a quote within"},
        {CHOICES_MMLU, "question,a,b,c,d,answer\n", "no items"},
        {CHOICES_ARC, "[1]\n", "line 1: not a JSON object"},
        {CHOICES_ARC, "{\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"}]},\"answerKey\":\"A\"}",
         "list of 2"},
        {CHOICES_AUTO, "\n{\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
                       "{\"text\":\"b\",\"label\":\"B\"}]},\"answerKey\":\"C\"}", "line 2: 'answerKey' is no"},
        {CHOICES_ARC, "{\"question\":{\"choices\":[]},\"answerKey\":\"A\"}", "'stem' is missing"},
        {CHOICES_WINOGRANDE, "{\"sentence\":\"a _ b\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"0\"}", "line 1: 'answer'"},
        {CHOICES_WINOGRANDE, "{\"sentence\":\"a b\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}", "must have a _"},
        {CHOICES_WINOGRANDE, "{\"sentence\":\"a _ \",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}", "must have a _"},
        {CHOICES_WINOGRANDE, "{\"sentence\":\"a _ b\",\"option1\":7,\"option2\":\"y\",\"answer\":\"1\"}", "'option1' is missing"},
        {CHOICES_LAMBADA, "{\"text\":\"word\"}", "line 1: 'text' must be"},
        {CHOICES_LAMBADA, "{\"text\":\" word\"}", "line 1: 'text' must be"},
        {CHOICES_LAMBADA, "{\"text\":\"two words \"}", "line 1: 'text' must be"},
        {CHOICES_LAMBADA, "{\"text\":\"a b\"}\nx\n", "line 2"},
    };
    struct choice_set set;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err = (struct quern_error){0};
        CHECK(!open_text(&set, "mc-bad", cases[i].text, cases[i].format) && err.code == QUERN_EFORMAT &&
              strstr(err.text, cases[i].says), "case %zu: code %d, %s", i, err.code, err.text);
        choices_close(&set);
    }
    static const struct { const char *labels, *says; } labels[] = {
        {"1\n", "1 labels for 2 items"}, {"1\n0\n0\n", "line 3: more labels"}, {"1\n2\n", "line 2: a label"}, {"", "0 labels"}};
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        save("mc-q-labels.lst", labels[i].labels);
        CHECK(!open_text(&set, "mc-q.jsonl", piqa, CHOICES_AUTO) && err.code == QUERN_EFORMAT &&
              strstr(err.text, labels[i].says), "%s", err.text);
        choices_close(&set);
    }
    unlink(temp_path("mc-q-labels.lst"));
    CHECK(!open_text(&set, "mc-q.jsonl", piqa, CHOICES_AUTO) && err.code == QUERN_EIO, "no labels: %s", err.text);
    choices_close(&set);
}

static void test_limit(void)
{
    char text[3000] = "";
    struct choice_set set;
    for (int i = 0; i < 23; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d\n0\na\nb\nc\nd\n", i);
    for (size_t n = 0; n < 26; n++) {
        CHECK(open_text(&set, "mc-n.txt", text, CHOICES_AUTO), "%s", err.text);
        choices_limit(&set, n);
        CHECK(set.count == (n && n < 23 ? n : 23) && set.total == 23, "%zu of %zu", set.count, set.total);
        for (size_t i = 0; i < set.count; i++)
            CHECK((size_t)atoi(set.items[i].choices->context) == i * 23 / set.count, "item %zu of %zu", i, n);
        choices_close(&set);
    }
}

/* ---- scores --------------------------------------------------------------------------------------------------------- */

/* Log-probability of the tokens [start, n), each from a session that begins anew, through session_score. */
static double by_hand(struct quern_model *m, const int32_t *tokens, size_t start, size_t n, bool *greedy)
{
    struct quern_session_options so = {.kv = QUERN_KV_F32, .context = 256};
    size_t vocab = quern_model_vocabulary(m);
    struct quern_session *s = quern_open_session(m, &so, &err);
    float *x = malloc(n * vocab * sizeof *x);
    double sum = 0;
    *greedy = true;
    CHECK(s && x && session_score(s, tokens, n - 1, n - 1, x, &err), "%s", err.text);
    for (size_t i = start; s && x && i < n; i++) {
        const float *row = x + (i - 1) * vocab;
        double total = 0;
        for (size_t v = 0; v < vocab; v++) {
            total += exp((double)row[v]);
            *greedy &= row[v] <= row[tokens[i]];
        }
        sum += row[tokens[i]] - log(total);
    }
    free(x);
    quern_close_session(s);
    return sum;
}

/* What an item's choices must score: tokens of the whole text, scored behind as many as the context has. */
static void check_item(struct quern_model *m, const struct choice_item *item, const struct choice_score *scores, const char *what)
{
    for (size_t c = 0; c < item->count; c++) {
        char context[1000], whole[2000];
        int32_t *ids = NULL, *before = NULL;
        size_t n = 0, start = 0;
        bool greedy;
        snprintf(context, sizeof context, "%s%s", item->lead, item->choices[c].context);
        snprintf(whole, sizeof whole, "%s %.*s", context, (int)item->choices[c].text_n, item->choices[c].text);
        CHECK(quern_encode_text(m, whole, strlen(whole), true, false, &ids, &n, &err) &&
                  quern_encode_text(m, context, strlen(context), true, false, &before, &start, &err), "%s", err.text);
        double hand = by_hand(m, ids, start, n, &greedy);
        CHECK(fabs(hand - scores[c].log_p) < 1e-4 && scores[c].tokens == n - start && scores[c].greedy == greedy,
              "%s, line %zu, choice %zu: %.7f of %zu tokens, by hand %.7f of %zu", what, item->line, c, scores[c].log_p,
              scores[c].tokens, hand, n - start);
        free(ids);
        free(before);
    }
}

/* Choices that share their first tokens, are each other's begin, have contexts of their own; one choice; batches of few tokens. */
static void test_scores_by_hand(void)
{
    static const char text[] = "the a to\n1\nabc abd\nabc abe and\nabc\nbcd\nab ac\n3\nx\ny\nx y\nx\nthe a to\n0\nq\nr\ns\nt\n";
    static const struct { const char *name, *text; enum choice_format format; } sets[] = {
        {"mc-s.txt", text, CHOICES_HELLASWAG}, {"mc-s.jsonl", winogrande, CHOICES_WINOGRANDE}, {"s_test.csv", mmlu, CHOICES_MMLU},
        {"mc-t.jsonl", lambada, CHOICES_LAMBADA}};
    static const enum tiny_kind kinds[] = {TINY_LLAMA, TINY_WINDOWS, TINY_MAMBA, TINY_DELTA};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        static struct tiny tiny;
        tiny_model(&tiny, kinds[k]);
        tiny_save(&tiny, temp_path("mc.gguf"));
        struct quern_model_options mo = {.threads = 2};
        struct quern_model *m = quern_open_model(temp_path("mc.gguf"), &mo, &err);
        CHECK(m, "%s", err.text);
        for (size_t i = 0; m && i < sizeof sets / sizeof *sets; i++)
            for (size_t batch = 0; batch < 8; batch += 7) {
                struct choice_set set;
                struct choice_run run = {.kv = QUERN_KV_F32, .context = 256, .batch = batch};
                struct choice_answer answers[4];
                struct choice_score scores[4][CHOICES_MOST];
                size_t longest, cut;
                bool ok = open_text(&set, sets[i].name, sets[i].text, sets[i].format) &&
                          choices_measure(&set, m, &run, &longest, &cut, &err) &&
                          choices_answer(answers, scores, &set, m, &run, longest, &err);
                CHECK(ok && cut == 0, "%s, %s: %s", tiny_names[kinds[k]], sets[i].name, err.text);
                for (size_t j = 0; ok && j < set.count; j++)
                    check_item(m, &set.items[j], scores[j], tiny_names[kinds[k]]);
                choices_close(&set);
            }
        quern_close_model(m);
    }
}

/* Items above the limit: refused by name, or cut from the left, so that the last tokens are what is left behind the first. */
static void test_overflow(void)
{
    static struct tiny tiny;
    struct choice_set set;
    struct choice_answer answers[2];
    struct choice_score scores[2][CHOICES_MOST];
    size_t longest, cut;
    tiny_model(&tiny, TINY_LLAMA);
    tiny_save(&tiny, temp_path("mc.gguf"));
    struct quern_model *m = quern_open_model(temp_path("mc.gguf"), NULL, &err);
    struct choice_run run = {.kv = QUERN_KV_F32, .context = 12};
    CHECK(m && open_text(&set, "mc-o.txt", "a\n0\nb\nc\nd\ne\nlonger than twelve\n3\nx\ny\nz\nabc\n", CHOICES_AUTO),
          "%s", err.text);
    CHECK(!choices_measure(&set, m, &run, &longest, &cut, &err) && err.code == QUERN_ELIMIT && strstr(err.text, "mc-o.txt: line 7"),
          "%s", err.text);
    run.cut = true;
    CHECK(choices_measure(&set, m, &run, &longest, &cut, &err) && longest == 12 && cut == 1, "%zu tokens, %zu cut", longest, cut);
    CHECK(choices_answer(answers, scores, &set, m, &run, longest, &err), "%s", err.text);
    int32_t *ids = NULL;
    size_t n;
    bool greedy;
    CHECK(quern_encode_text(m, "longer than twelve abc", 22, true, false, &ids, &n, &err) && n > 12, "%zu tokens", n);
    memmove(ids + 1, ids + n - 11, 11 * sizeof *ids);
    size_t scored = scores[1][3].tokens;
    CHECK(fabs(by_hand(m, ids, 12 - scored, 12, &greedy) - scores[1][3].log_p) < 1e-4, "the cut item's figure");
    free(ids);
    run.context = 4;
    CHECK(choices_measure(&set, m, &run, &longest, &cut, &err) && !choices_answer(answers, scores, &set, m, &run, longest, &err) &&
              err.code == QUERN_ELIMIT && strstr(err.text, "mc-o.txt: line 1: choice 1 alone"), "%s", err.text);
    choices_close(&set);
    quern_close_model(m);
}

static void test_sums(void)
{
    struct choice_set set;
    struct choice_sum sum;
    CHECK(open_text(&set, "mc-m.txt", "a\n0\nb\nc\nd\ne\nf\n3\nx\ny\nz\nabc\ng\n1\nx\ny\nz\nabc\n", CHOICES_AUTO), "%s", err.text);
    struct choice_answer answers[] = {
        {.pick = {0, 1, 1}, .log_p = -1}, {.pick = {3, 3, 0}, .log_p = -2}, {.pick = {0, 1, 0}, .log_p = -3},
    };
    choices_sum(&sum, &set, answers, SIZE_MAX);
    CHECK(sum.items == 3 && fabs(sum.accuracy[CHOICE_SUM] - 2.0 / 3) < 1e-12 &&
              fabs(sum.accuracy[CHOICE_PER_BYTE] - 2.0 / 3) < 1e-12 && sum.accuracy[CHOICE_PER_TOKEN] == 0 &&
              fabs(sum.error[0] - 1.0 / 3) < 1e-12 && sum.error[CHOICE_PER_TOKEN] == 0,
          "accuracy %g +- %g", sum.accuracy[0], sum.error[0]);
    CHECK(sum.chance == 0.25 && fabs(sum.perplexity - exp(2)) < 1e-12 && fabs(sum.perplexity_error - exp(2) * sqrt(1.0 / 3)) < 1e-9,
          "perplexity %g +- %g", sum.perplexity, sum.perplexity_error);
    choices_sum(&sum, &set, answers, 1);
    CHECK(sum.items == 0, "no second group");
    choices_close(&set);
}

int main(void)
{
    TEST(test_hellaswag);
    TEST(test_mmlu);
    TEST(test_json_lines);
    TEST(test_refusals);
    TEST(test_limit);
    TEST(test_scores_by_hand);
    TEST(test_overflow);
    TEST(test_sums);
    return test_end();
}
