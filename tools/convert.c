#include "convert.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "cpu_words.h"
#include "gguf_plan.h"
#include "hf_model.h"
#include "vocab.h"

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
    return !t->stop || !*t->stop;
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
            progress_aside(&ticker.progress);
            cli_warn("'%s' has %zu values that are NaN or infinite", text_escape(shown, sizeof shown, tensors[i].name,
                     strlen(tensors[i].name)), report.odd);
        }
    }
    progress_end(&ticker.progress);
    return ok;
}

/* ---- GGUF to GGUF ----------------------------------------------------------------------------------------------- */

static bool convert_gguf(const char *input, const char *output, const struct convert_options *how, const struct kernels *kernels,
                         struct quern_error *err)
{
    struct gguf in;
    struct gguf_plan plan = { 0 };
    if (how->vocab_from || how->name || how->pre)
        return ERR(err, QUERN_EUSAGE, "--name, --tokenizer-pre and --vocab-from are for a checkpoint's folder; '%s' is a file",
                   input);
    if (!gguf_open(&in, input, NULL, err))
        return false;
    struct gguf_writer_options options = { .force = how->force, .inputs = in.parts, .input_count = in.part_count };
    struct gguf_writer *w = gguf_writer_open(output, &options, err);
    bool ok = w && gguf_plan(&plan, &in, how->type, kernels, err) && gguf_copy_keys(&in, how->type, w, err) &&
              describe_all(plan.tensors, plan.count, w, err) && write_all(plan.tensors, plan.count, kernels, w, how->stop, err) &&
              gguf_writer_commit(w, err);
    gguf_writer_close(w);
    gguf_plan_free(&plan);
    gguf_close(&in);
    return ok;
}

/* ---- folder to GGUF --------------------------------------------------------------------------------------------- */

bool convert_check_output(const char *folder, const char *output, struct quern_error *err)
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

/* general.name without --name: the folder's own, whatever way leads to it. In `out` of `size` bytes. */
static bool folder_name(const char *path, char *out, size_t size, struct quern_error *err)
{
    char *real = realpath(path, NULL);
    if (!real)
        return ERR_ERRNO(err, "cannot resolve '%s'", path);
    const char *slash = strrchr(real, '/');
    snprintf(out, size, "%s", slash[1] ? slash + 1 : "model");
    free(real);
    return true;
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

static bool write_vocab(const struct convert_options *how, struct hf *h, const struct hf_plan *plan, struct gguf_writer *w,
                        struct quern_error *err)
{
    if (how->vocab_from) {
        struct gguf from;
        if (!gguf_open(&from, how->vocab_from, NULL, err))
            return false;
        bool ok = vocab_copy(&from, plan->vocabulary, w, err);
        gguf_close(&from);
        return ok;
    }
    struct vocab vocab;
    return vocab_read(&vocab, h, plan->vocabulary, how->pre, err) && vocab_write(&vocab, w, err);
}

static bool convert_folder(const char *folder, const char *output, const struct convert_options *how, const struct kernels *kernels,
                           struct quern_error *err)
{
    struct hf h;
    struct hf_plan plan;
    char name[256];
    if (!convert_check_output(folder, output, err) || !hf_open(&h, folder, err))
        return false;
    uint32_t type = how->type == FORMAT_COUNT ? folder_type(&h) : how->type;
    struct gguf_writer_options options = { .force = how->force, .inputs = h.weights.parts, .input_count = h.weights.part_count,
                                           .texts = &how->vocab_from, .text_count = 1 };
    struct gguf_writer *w = gguf_writer_open(output, &options, err);
    bool ok = w && (how->name || folder_name(folder, name, sizeof name, err)) && hf_plan(&plan, &h, type, kernels, err) &&
              hf_write_keys(&plan, &h, how->name ? how->name : name, file_type_of(type), w, err) &&
              write_vocab(how, &h, &plan, w, err) && describe_all(plan.tensors, plan.count, w, err) &&
              write_all(plan.tensors, plan.count, kernels, w, how->stop, err) && gguf_writer_commit(w, err);
    gguf_writer_close(w);
    hf_close(&h);
    return ok;
}

bool convert_model(const char *input, const char *output, const struct convert_options *how, struct quern_error *err)
{
    struct cpu cpu;
    struct kernels kernels;
    struct stat st;
    if (!cpu_choose(&cpu, NULL, err))
        return false;
    kernels_init(&kernels, &cpu);
    if (stat(input, &st) == 0 && S_ISDIR(st.st_mode))
        return convert_folder(input, output, how, &kernels, err);
    return convert_gguf(input, output, how, &kernels, err);
}
