/* hf_folder.h - a GGUF turned back into the folder that it could have come from: config.json, model.safetensors, tokenizer files.
 * The mapping is written down a second time here, the other way round, so that a fault in the converter does not hide. */
#ifndef QUERN_HF_FOLDER_H
#define QUERN_HF_FOLDER_H

#include "gguf.h"
#include "json.h"

struct hf_folder_options {
    bool   shards;             /* several files and an index                                             */
    bool   pair_merges;        /* merges as pairs instead of texts                                       */
    const char *config;        /* further members of config.json: ",\"key\":1"; may be NULL              */
};

/* Makes `folder` and its files. Aborts when it cannot: this is a test. */
void hf_folder_write(const struct gguf *g, const char *folder, const struct hf_folder_options *options);

void write_text_file(const char *folder, const char *name, const char *text, size_t n);

#endif
