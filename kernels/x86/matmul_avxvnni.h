/* matmul_avxvnni.h - AVX2's products with the dots of AVX-VNNI: the same runs, panels and order of sums. */
#ifndef QUERN_MATMUL_AVXVNNI_H
#define QUERN_MATMUL_AVXVNNI_H

#include "matmul_avx2.h"

six_fn micro_six_avxvnni;

/* A format's shape on AVX-VNNI: where AVX2 takes signed bytes, values plus 128. */
static ALWAYS_INLINE struct panel_shape on_vnni(struct panel_shape shape)
{
    if (comes_signed(shape))
        shape.offset = 128;
    shape.vnni = true;
    return shape;
}

static ALWAYS_INLINE void matmul_format_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                                                decode_fn *decode, panel_fn *panel, const struct panel_shape shape)
{
    const struct format_avx2 format = { on_vnni(shape), decode, panel, micro_six_avxvnni };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

#endif
