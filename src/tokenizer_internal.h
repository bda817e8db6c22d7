/* tokenizer_internal.h - what the files tokenizer*.c share.
 *
 *   tokenizer.c           opening: every key checked; the questions about a vocabulary
 *   tokenizer_table.c     text -> id, pair -> merge, longest prefix
 *   tokenizer_special.c   which tokens are special, and where their texts stand in a text
 *   tokenizer_split.c     pre-tokenizers: where a text is cut before byte-pair merges
 *   tokenizer_encode.c    text -> ids
 *   tokenizer_decode.c    ids -> text */
#ifndef QUERN_TOKENIZER_INTERNAL_H
#define QUERN_TOKENIZER_INTERNAL_H

#include "arena.h"
#include "tokenizer.h"
#include "unicode.h"

/* U+2581 stands for a blank in SPM vocabularies. */
#define BLANK_MARK "\xE2\x96\x81"
enum { BLANK_MARK_BYTES = 3 };

enum {
    NO_ID = -1,
    LONGEST_TOKEN = 65536,           /* bytes; the longest seen in a published vocabulary is 1024 */
    NO_INDEX = -1
};
#define NO_PAIR UINT32_MAX

enum token_flags {
    TOKEN_NORMAL  = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 4,
    TOKEN_USER    = 8,               /* found in a text before anything else is done with it */
    TOKEN_UNUSED  = 16,
    TOKEN_BYTE    = 32,
    TOKEN_LSTRIP  = 64,              /* blanks before (after) its text belong to it          */
    TOKEN_RSTRIP  = 128,
    TOKEN_END     = 256,             /* ends generation                                      */
    /* Text never becomes one of these by merging or by being looked up. */
    TOKEN_HIDDEN  = TOKEN_UNKNOWN | TOKEN_CONTROL | TOKEN_BYTE
};

struct token {
    const char *text;                /* as in the file */
    uint32_t    n;
    uint32_t    flags;
};

enum tokenizer_kind { TOKENIZER_SPM, TOKENIZER_BPE, TOKENIZER_WPM };

/* Text to id, by a polynomial modulo 2^31 - 1 in a base that is drawn at random for each table: nobody who writes a file
 * knows which texts will meet, and for any two texts of n bytes the odds are below n / 3 in 2^31. */
struct text_table {
    uint32_t *slots;                 /* id + 1; 0: free */
    size_t    mask;
    uint64_t  base;
};

struct pair_slot {
    uint32_t left, right;            /* token ids */
    uint32_t merge;                  /* its line in the file; NO_PAIR: free */
};

struct pair_table {
    struct pair_slot *slots;
    size_t            mask;
    uint64_t          base[2];
};

/* Ids in the order of their texts; narrowed byte by byte it answers: the longest of these that begins here? */
struct prefix_table {
    const int32_t *ids;
    size_t         count;
    uint32_t       first[257];       /* ids[first[b] .. first[b + 1]) begin with the byte b */
};

struct pretokenizer;

struct tokenizer {
    struct arena        arena;
    enum tokenizer_kind kind;
    const struct pretokenizer *pre;  /* BPE only */
    const char   *model;
    struct token *tokens;
    size_t        size;
    size_t        longest;           /* bytes of the longest token */
    struct text_table   texts;
    struct prefix_table specials;    /* control, user-defined and unknown tokens */
    struct prefix_table users;       /* the user-defined ones alone              */
    struct prefix_table words;       /* WPM: all but the hidden ones             */
    struct pair_table   pairs;       /* BPE */
    uint32_t *merged;                /* BPE: [merges] the id that a merge gives  */
    uint32_t *rank;                  /* SPM: [size] 0 is the highest score; equal scores, equal ranks */
    int32_t   bytes[256];            /* the token of a byte, or NO_ID            */
    bool      has_bytes;
    bool      words_apart;           /* SPM: in no token a blank follows another character, so each word merges alone */
    int32_t   bos, eos, unknown, separator;
    bool      add_bos, add_eos;
    bool      space_prefix, clean_spaces;
    bool      lowercase, strip_accents;     /* WPM */
};

/* What an encoding has in hand. All memory in it is freed by tokenizer_encode. */
struct symbol {
    uint32_t start;                  /* first byte in the text                         */
    int32_t  prev, next;             /* neighbours, NO_INDEX at the ends               */
    int32_t  id;                     /* NO_ID: a character that the vocabulary lacks   */
    uint32_t pair;                   /* what it and the next would become, or NO_PAIR  */
};

struct heap {                        /* the smallest on top */
    uint64_t *keys;
    size_t    n, room;
};

struct encoder {
    const struct tokenizer *t;
    struct quern_error     *err;
    int32_t  *ids;
    size_t    count, room;
    struct symbol *symbols;
    size_t    symbol_room;
    struct heap heap;
    char     *text;                  /* text in the vocabulary's own spelling */
    size_t    text_room;
    uint32_t *glyphs;                /* tokenizer_split.c */
    size_t    glyph_room;
};

/* Make *p hold at least `count` things of `size` bytes; contents are kept. */
bool encoder_room(struct encoder *e, void *p, size_t *room, size_t count, size_t size);

bool     heap_push(struct encoder *e, uint64_t key);
uint64_t heap_pop(struct heap *heap);

/* ---- tokenizer_table.c ---- */

bool    text_table_init(struct tokenizer *t, struct quern_error *err);
/* NO_ID when there is none. */
int32_t text_table_find(const struct tokenizer *t, const char *text, size_t n);
/* The same for text of a user: hidden tokens are not found. */
int32_t text_table_plain(const struct tokenizer *t, const char *text, size_t n);
bool    pair_table_init(struct tokenizer *t, size_t merges, struct quern_error *err);
/* False when the pair is there already (the first one stands). */
bool    pair_table_add(struct pair_table *table, uint32_t left, uint32_t right, uint32_t merge);
uint32_t pair_table_find(const struct pair_table *table, uint32_t left, uint32_t right);
/* A table of the tokens that have any of the flags `with` and none of `without`. */
bool    prefix_table_init(struct tokenizer *t, struct prefix_table *table, unsigned with, unsigned without,
                          struct quern_error *err);
/* Id and bytes of the longest that text[0..n) begins with; NO_ID when none. */
int32_t prefix_table_longest(const struct tokenizer *t, const struct prefix_table *table, const char *text, size_t n,
                             size_t *bytes);

/* ---- tokenizer_special.c ---- */

/* Sets TOKEN_END, TOKEN_CONTROL and the strip flags from ids, texts and the model's name. */
bool special_init(struct tokenizer *t, const struct gguf *g, struct quern_error *err);

struct special_match { size_t start, n; int32_t id; };
/* Matches of special tokens in ascending order; *skip marks (a bit per byte) what belongs to no other text. Both malloc'ed,
 * NULL where there is no match. */
bool special_find(struct encoder *e, const char *text, size_t n, bool parse, struct special_match **matches, size_t *count,
                  uint8_t **skip);

/* ---- tokenizer_split.c ---- */

/* What a name of tokenizer.ggml.pre means besides its splits. */
enum pre_flags { PRE_IGNORE_MERGES = 1, PRE_ADD_BOS = 2, PRE_CLEAN_SPACES = 4, PRE_RAW = 8, PRE_NEWLINES = 16, PRE_FORCE_BOS = 32 };

const struct pretokenizer *pretokenizer_find(const char *name, size_t n);
const char *pretokenizer_name(const struct pretokenizer *pre);
unsigned    pretokenizer_flags(const struct pretokenizer *pre);
/* All names, with ", " between them, as far as they fit. */
void        pretokenizer_list(char *out, size_t size);
/* Calls word() for each piece of text in order, until it gives false. */
typedef bool pretokenizer_word(struct encoder *e, const char *word, size_t n);
bool pretokenizer_split(struct encoder *e, const char *text, size_t n, pretokenizer_word *word);

/* ---- tokenizer_encode.c, tokenizer_decode.c ---- */

/* The character that stands for a byte in byte-level vocabularies. */
uint32_t byte_to_char(unsigned byte);
/* NO_ID unless text is <0xHH> with two hex digits in capitals. */
int      byte_token_value(const char *text, size_t n);

#endif
