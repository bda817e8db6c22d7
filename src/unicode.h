/* unicode.h - UTF-8, and what the tokenizers need to know about characters.
 *
 * Classes are those of Unicode 15.1 (the version behind the reference vectors); the tables are in unicode_tables.c and are
 * written by unicode_tables.awk. */
#ifndef QUERN_UNICODE_H
#define QUERN_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits, so that a set of classes is a mask. Every character has exactly one of the first eight. */
enum unicode_class {
    UNICODE_LETTER      = 1,
    UNICODE_MARK        = 2,
    UNICODE_NUMBER      = 4,
    UNICODE_PUNCTUATION = 8,
    UNICODE_SYMBOL      = 16,
    UNICODE_SEPARATOR   = 32,
    UNICODE_CONTROL     = 64,      /* Cc, Cf, Cs, Co                  */
    UNICODE_UNASSIGNED  = 128,
    UNICODE_WHITESPACE  = 256      /* besides: the property White_Space */
};

enum { UNICODE_REPLACEMENT = 0xFFFD, UNICODE_LAST = 0x10FFFF };

/* The class bits of a code point; UNICODE_UNASSIGNED above UNICODE_LAST. */
unsigned unicode_class(uint32_t c);

/* Simple lower-case mapping; `c` itself where there is none. */
uint32_t unicode_lower(uint32_t c);

/* First character of the canonical decomposition (NFD); `c` itself where there is none. */
uint32_t unicode_base(uint32_t c);

/* The character at text[0..n), n > 0: its bytes (1..4), and *c. Bytes that are not UTF-8 (overlong forms and surrogates too) are
 * taken one at a time as UNICODE_REPLACEMENT, which is told from the character itself by its length: 1 instead of 3. */
size_t unicode_decode(const char *text, size_t n, uint32_t *c);

/* Bytes of the character at text[0..n), n > 0: 1..4, or 0 where they are not UTF-8 (as above). */
size_t unicode_valid(const char *text, size_t n);

/* UTF-8 of a code point up to UNICODE_LAST: gives the bytes written, 1..4. */
size_t unicode_encode(uint32_t c, char out[4]);

/* Bytes that the character beginning with `lead` has, 1..4; 0 for a byte that begins none. */
size_t unicode_length(unsigned char lead);

#endif
