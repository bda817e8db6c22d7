/* tiny_vocab.h - GGUF files that hold nothing but a small vocabulary, for tests that must not need other files. */
#ifndef QUERN_TINY_VOCAB_H
#define QUERN_TINY_VOCAB_H

#include "bytes.h"
#include "gguf.h"

struct vocab {
    struct bytes b;
    uint64_t keys;
    struct gguf g;           /* views b.data once vocab_view has been called */
};

void vocab_begin(struct vocab *v);
void vocab_text(struct vocab *v, const char *key, const char *value);
void vocab_u32(struct vocab *v, const char *key, uint32_t value);
void vocab_bool(struct vocab *v, const char *key, bool value);
/* Arrays; `type` is a gguf type id, values are packed little-endian. */
void vocab_texts(struct vocab *v, const char *key, const char *const *texts, size_t n);
void vocab_array(struct vocab *v, const char *key, uint32_t type, const void *values, size_t n, size_t bytes);
/* Close the header and open it as v->g. False when gguf_view refuses. */
bool vocab_view(struct vocab *v, struct quern_error *err);
void vocab_free(struct vocab *v);

/* Whole vocabularies without ids of special tokens; vocab_view is the caller's.
 *   SPM: 0 <unk>, 1 <s>, 2 </s>, 3..258 bytes (unless `bytes` is false), then tiny_pieces with falling scores, <|user|>
 *        (control), <tool> (user-defined)
 *   BPE: 0..255 the byte characters, then what tiny_merges make, <|end|>, <|endoftext|> (control), <tool>, <tool>>
 *        (user-defined)
 *   WPM: [PAD] [UNK] [CLS] [SEP], then words */
void vocab_spm(struct vocab *v, bool bytes);
void vocab_bpe(struct vocab *v, const char *pre);
void vocab_wpm(struct vocab *v);

extern const char *const tiny_pieces[];
extern const char *const tiny_merges[];      /* both end in NULL */

#endif
