/* formats.h - the tensor types of GGUF: ids, block sizes, block layouts.
 *
 * The ids and layouts are facts of the file format (ggml's type numbers); formats.c derives the size of each block from its parts,
 * and tests/check_formats.c compares every type with reference vectors. */
#ifndef QUERN_FORMATS_H
#define QUERN_FORMATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum format_id {
    FORMAT_F32 = 0, FORMAT_F16 = 1, FORMAT_Q4_0 = 2, FORMAT_Q4_1 = 3, FORMAT_Q5_0 = 6, FORMAT_Q5_1 = 7,
    FORMAT_Q8_0 = 8, FORMAT_Q8_1 = 9, FORMAT_Q2_K = 10, FORMAT_Q3_K = 11, FORMAT_Q4_K = 12, FORMAT_Q5_K = 13,
    FORMAT_Q6_K = 14, FORMAT_Q8_K = 15, FORMAT_IQ2_XXS = 16, FORMAT_IQ2_XS = 17, FORMAT_IQ3_XXS = 18,
    FORMAT_IQ1_S = 19, FORMAT_IQ4_NL = 20, FORMAT_IQ3_S = 21, FORMAT_IQ2_S = 22, FORMAT_IQ4_XS = 23,
    FORMAT_I8 = 24, FORMAT_I16 = 25, FORMAT_I32 = 26, FORMAT_I64 = 27, FORMAT_F64 = 28, FORMAT_IQ1_M = 29,
    FORMAT_BF16 = 30, FORMAT_TQ1_0 = 34, FORMAT_TQ2_0 = 35, FORMAT_MXFP4 = 39, FORMAT_NVFP4 = 40,
    FORMAT_Q1_0 = 41, FORMAT_Q2_0 = 42,
    FORMAT_COUNT = 43
};

struct format {
    const char *name;      /* "Q4_K": the field's name, as llama.cpp prints it                        */
    uint32_t    id;
    uint32_t    block;     /* values per block                                                        */
    uint32_t    bytes;     /* bytes per block                                                         */
    bool        weights;   /* may be an operand of a matrix product (has a decoder); Q8_1, Q8_K and the integers may not */
};

/* NULL for ids that were removed (4, 5, 31-33, 36-38) or never given. */
const struct format *format_find(uint32_t id);
/* By name, letter case ignored; NULL when unknown. */
const struct format *format_by_name(const char *name);
/* Bytes of a row of `cols` values; false when cols is no multiple of the block or the product overflows. */
bool format_row_bytes(size_t *out, const struct format *format, size_t cols);

#endif
