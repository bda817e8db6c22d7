/* quern-convert: a published checkpoint, or another GGUF, to a GGUF. */
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "gguf_plan.h"
#include "hf_model.h"
#include "vocab.h"

struct convert_args {
    struct args args;
    int         type;                /* index of TYPES */
    bool        force;
    const char *name, *pre, *vocab_from;
};

#define TYPES "auto|f32|f16|bf16|q8_0"
static const uint32_t type_ids[] = { FORMAT_COUNT, FORMAT_F32, FORMAT_F16, FORMAT_BF16, FORMAT_Q8_0 };

static const struct option options[] = {
    { .name = "type", .kind = OPTION_CHOICE, .offset = offsetof(struct convert_args, type), .arg = "TYPE", .fallback = "auto",
      .choices = TYPES, .help = "type of the matrices; auto: what the input has" },
    { .name = "force", .kind = OPTION_SWITCH, .offset = offsetof(struct convert_args, force), .help = "replace OUTPUT if it exists" },
    { .name = "name", .kind = OPTION_TEXT, .offset = offsetof(struct convert_args, name), .arg = "NAME",
      .help = "general.name to write; without it the folder's name" },
    { .name = "tokenizer-pre", .kind = OPTION_TEXT, .offset = offsetof(struct convert_args, pre), .arg = "NAME",
      .help = "tokenizer.ggml.pre to write, where tokenizer.json's is not recognised" },
    { .name = "vocab-from", .kind = OPTION_FILE, .offset = offsetof(struct convert_args, vocab_from), .arg = "FILE",
      .help = "take the tokenizer from this GGUF" },
    { .name = NULL },
};

static int convert(int argc, char **argv);

static const struct verb verb = {
    .name = "quern-convert",
    .summary = "convert a checkpoint's folder, or another GGUF, to a GGUF",
    .operands = "INPUT OUTPUT",
    .operands_min = 2,
    .operands_max = 2,
    .details = "INPUT is a folder with config.json, safetensors and a tokenizer (families: llama, mistral, mixtral, qwen2, qwen3, gemma, "
               "gemma2, gemma3, phi3), or a GGUF of any architecture (all parts of a split one).\n\n"
               "Matrices get the asked type; norms, biases and routers stay F32. A matrix whose rows do not divide into blocks of the "
               "type stays what it is, and is named. OUTPUT appears only when it is complete.",
    .options = options,
    .size = sizeof(struct convert_args),
    .main = convert,
};
static const struct verb *const verbs[] = { &verb };
static const struct program program = { .name = "quern-convert", .summary = "convert checkpoints to GGUF", .verbs = verbs, .count = 1,
                                        .single = true };

/* ---- writing the data ------------------------------------------------------------------------------------------- */

struct ticker {
    struct progress progress;
    size_t done, total;              /* source bytes */
    const volatile int *stop;
};

static bool tick(void *arg, size_t bytes)
{
    struct ticker *t = arg;
    t->done += bytes;
    progress_show(&t->progress, t->total ? (double)t->done / (double)t->total : 1);
    return !*t->stop;
}

static bool describe_all(const struct emit_tensor *tensors, size_t count, struct gguf_writer *w, struct quern_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (!emit_describe(&tensors[i], w, err))
            return false;
    return true;
}

static bool write_all(const struct emit_tensor *tensors, size_t count, const struct kernels *kernels, struct gguf_writer *w,
                      const volatile int *stop, struct quern_error *err)
{
    struct ticker ticker = { .stop = stop };
    bool ok = true;
    for (size_t i = 0; i < count; i++) {
        struct emit_tensor source = tensors[i];
        size_t bytes = 0;
        source.type = source.source_type;
        if (emit_bytes(&source, &bytes))
            ticker.total += bytes;
    }
    progress_begin(&ticker.progress, "converting");
    for (size_t i = 0; i < count && ok; i++) {
        struct emit_report report = { .tick = tick, .arg = &ticker };
        ok = emit_data(&tensors[i], kernels, w, &report, err);
        if (ok && report.odd) {
            char shown[160];
            progress_end(&ticker.progress);
            cli_warn("'%s' has %zu values that are NaN or infinite", text_escape(shown, sizeof shown, tensors[i].name,
                     strlen(tensors[i].name)), report.odd);
        }
    }
    progress_end(&ticker.progress);
    return ok;
}

static bool init_kernels(struct kernels *kernels, struct quern_error *err)
{
    struct cpu cpu;
    const char *word = getenv("QUERN_CPU");
    cpu_detect(&cpu);
    if (!cpu_cap(&cpu, word))
        return ERR(err, QUERN_EUSAGE, "QUERN_CPU: '%s' is not a level of this machine", word);
    kernels_init(kernels, &cpu);
    return true;
}

/* ---- GGUF to GGUF ----------------------------------------------------------------------------------------------- */

static bool convert_gguf(const struct convert_args *args, const struct kernels *kernels, const volatile int *stop,
                         struct quern_error *err)
{
    struct gguf in;
    struct gguf_plan plan = { 0 };
    uint32_t type = type_ids[args->type];
    if (args->vocab_from || args->name || args->pre)
        return ERR(err, QUERN_EUSAGE, "--name, --tokenizer-pre and --vocab-from are for a checkpoint's folder; '%s' is a file",
                   args->args.operands[0]);
    if (!gguf_open(&in, args->args.operands[0], NULL, err))
        return false;
    struct gguf_writer_options how = { .force = args->force, .inputs = in.parts,
                                           .input_count = in.part_count };
    struct gguf_writer *w = gguf_writer_open(args->args.operands[1], &how, err);
    bool ok = w && gguf_plan(&plan, &in, type, kernels, err) && gguf_copy_keys(&in, type, w, err) &&
              describe_all(plan.tensors, plan.count, w, err) && write_all(plan.tensors, plan.count, kernels, w, stop, err) &&
              gguf_writer_commit(w, err);
    gguf_writer_close(w);
    gguf_plan_free(&plan);
    gguf_close(&in);
    return ok;
}

/* ---- folder to GGUF --------------------------------------------------------------------------------------------- */

/* The writer refuses to write onto weights; nor may it be onto any other file of the folder. */
static bool check_not_inside(const char *folder, const char *output, struct quern_error *err)
{
    struct stat out, st;
    DIR *dir;
    bool same = false;
    if (stat(output, &out) != 0 || !(dir = opendir(folder)))
        return true;
    for (struct dirent *entry; !same && (entry = readdir(dir));) {
        size_t n = strlen(entry->d_name);
        bool ours = n > 5 && !strcmp(entry->d_name + n - 5, ".gguf");   /* not read: may be replaced with --force */
        same = !ours && fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && st.st_dev == out.st_dev && st.st_ino == out.st_ino;
    }
    closedir(dir);
    return !same || ERR(err, QUERN_EUSAGE, "'%s' is a file of the input folder", output);
}

/* The folder's own name, without the slashes at its end: for general.name. In `out` of `size` bytes. */
static const char *folder_name(const char *path, char *out, size_t size)
{
    char *real = realpath(path, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    snprintf(out, size, "%s", slash && slash[1] ? slash + 1 : "model");
    free(real);
    return out;
}

/* auto: the type of the largest tensor. */
static uint32_t folder_type(const struct hf *h)
{
    const struct safetensor *largest = NULL;
    for (size_t i = 0; i < h->weights.count; i++)
        if (!largest || h->weights.tensors[i].elements > largest->elements)
            largest = &h->weights.tensors[i];
    return largest && largest->format != FORMAT_COUNT ? largest->format : FORMAT_F32;
}

static bool write_vocab(const struct convert_args *args, struct hf *h, const struct hf_plan *plan, struct gguf_writer *w,
                        struct quern_error *err)
{
    if (args->vocab_from) {
        struct gguf from;
        if (!gguf_open(&from, args->vocab_from, NULL, err))
            return false;
        bool ok = vocab_copy(&from, plan->vocabulary, w, err);
        gguf_close(&from);
        return ok;
    }
    struct vocab vocab;
    return vocab_read(&vocab, h, plan->vocabulary, args->pre, err) && vocab_write(&vocab, w, err);
}

static bool convert_folder(const struct convert_args *args, const struct kernels *kernels, const volatile int *stop,
                           struct quern_error *err)
{
    struct hf h;
    struct hf_plan plan;
    char name[256];
    const char *folder = args->args.operands[0], *output = args->args.operands[1];
    if (!check_not_inside(folder, output, err) || !hf_open(&h, folder, err))
        return false;
    uint32_t type = type_ids[args->type] == FORMAT_COUNT ? folder_type(&h) : type_ids[args->type];
    struct gguf_writer_options how = { .force = args->force, .inputs = h.weights.parts, .input_count = h.weights.part_count };
    struct gguf_writer *w = gguf_writer_open(output, &how, err);
    bool ok = w && hf_plan(&plan, &h, type, kernels, err) &&
              hf_write_keys(&plan, &h, args->name ? args->name : folder_name(folder, name, sizeof name), file_type_of(type), w, err) &&
              write_vocab(args, &h, &plan, w, err) && describe_all(plan.tensors, plan.count, w, err) &&
              write_all(plan.tensors, plan.count, kernels, w, stop, err) && gguf_writer_commit(w, err);
    gguf_writer_close(w);
    hf_close(&h);
    return ok;
}

static int convert(int argc, char **argv)
{
    struct convert_args args;
    struct quern_error err;
    struct kernels kernels;
    struct stat st;
    int code = 0;
    if (!cli_begin(&program, &verb, argc, argv, &args, &code))
        return code;
    const volatile int *stop = cli_catch_signals();
    bool folder = stat(args.args.operands[0], &st) == 0 && S_ISDIR(st.st_mode);
    bool ok = init_kernels(&kernels, &err) &&
              (folder ? convert_folder(&args, &kernels, stop, &err) : convert_gguf(&args, &kernels, stop, &err));
    return cli_end(&verb, &args, ok ? 0 : cli_fail(&err));
}

int main(int argc, char **argv)
{
    cli_start("quern-convert");
    return cli_main(&program, argc, argv);
}
