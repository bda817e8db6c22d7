#include "lattice.h"

static const struct lattice lattices[] = {
    { FORMAT_Q4_0, SIGNED, 32, -8, 7, 0, 0, 0, false, 1 },        { FORMAT_Q5_0, SIGNED, 32, -16, 15, 0, 0, 0, false, 1 },
    { FORMAT_Q8_0, SIGNED, 32, -127, 127, 0, 0, 0, false, 1 },    { FORMAT_TQ1_0, SIGNED, 256, -1, 1, 0, 0, 0, false, 1 },
    { FORMAT_TQ2_0, SIGNED, 256, -1, 1, 0, 0, 0, false, 1 },      { FORMAT_Q4_1, AFFINE, 32, 0, 15, 0, 0, 0, false, 1 },
    { FORMAT_Q5_1, AFFINE, 32, 0, 31, 0, 0, 0, false, 1 },        { FORMAT_IQ4_NL, LEVELS, 32, 0, 15, 0, 0, 0, false, 1 },
    { FORMAT_Q3_K, SIGNED, 16, -4, 3, -32, 31, 0, false, 1 },     { FORMAT_Q6_K, SIGNED, 16, -32, 31, -128, 127, 0, false, 1 },
    { FORMAT_IQ4_XS, LEVELS, 32, 0, 15, -32, 31, 0, false, 1 },   { FORMAT_Q2_K, AFFINE, 16, 0, 3, 0, 15, 0, false, 1 },
    { FORMAT_Q4_K, AFFINE, 32, 0, 15, 0, 63, 0, false, 1 },       { FORMAT_Q5_K, AFFINE, 32, 0, 31, 0, 63, 0, false, 1 },
    { FORMAT_IQ2_XXS, BOOK, 32, 0, 0, 0, 15, BOOK_IQ2_XXS, true, 0.125f },
    { FORMAT_IQ2_XS, BOOK, 16, 0, 0, 0, 15, BOOK_IQ2_XS, true, 0.125f },
    { FORMAT_IQ2_S, BOOK, 16, 0, 0, 0, 15, BOOK_IQ2_S, false, 0.125f },
    { FORMAT_IQ3_XXS, BOOK, 32, 0, 0, 0, 15, BOOK_IQ3_XXS, true, 0.25f },
    { FORMAT_IQ3_S, BOOK, 32, 0, 0, 0, 15, BOOK_IQ3_S, false, 1 },
};

const struct lattice *lattice_find(uint32_t format)
{
    for (size_t i = 0; i < sizeof lattices / sizeof *lattices; i++)
        if (lattices[i].format == format)
            return &lattices[i];
    return NULL;
}
