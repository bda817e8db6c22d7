/* convert.h - what quern-convert does: a checkpoint's folder, or a GGUF, to a GGUF. */
#ifndef QUERN_CONVERT_H
#define QUERN_CONVERT_H

#include "error.h"

struct convert_options {
    uint32_t    type;                /* a format id; FORMAT_COUNT: what the input has         */
    bool        force;               /* an existing output may be replaced                    */
    const char *name;                /* general.name; NULL: the folder's. Folders only, like the next two */
    const char *pre;                 /* tokenizer.ggml.pre; NULL: recognised                  */
    const char *vocab_from;          /* a GGUF whose tokenizer is taken; NULL: the folder's   */
    const volatile int *stop;        /* non-zero: QUERN_EINTERRUPT. NULL: none                */
};

/* Memory does not grow with the tensors; the output appears only when it is complete. What is left out or kept in another type is
 * said on stderr. Errors: hf_model.h, vocab.h, emit.h, gguf.h. */
bool convert_model(const char *input, const char *output, const struct convert_options *how, struct quern_error *err);

/* The writer refuses to write onto the weights it reads; nor may `output` be any other file of the checkpoint's folder, but a GGUF,
 * which is not read: QUERN_EUSAGE. True where `folder` is none. */
bool convert_check_output(const char *folder, const char *output, struct quern_error *err);

#endif
