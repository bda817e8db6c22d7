#include "iquants_avx512.h"

#include "grid_codes.h"
#include "pairs_avx512vbmi.h"

/* IQ1 with AVX-512 VBMI, one to four tokens; more take the entries by loads (matmul_iquants_avx512.c), which also costs less from
 * three tokens of IQ1_M on: there what must be kept for each token pushes tables out of registers.
 *
 * The book has 2048 entries of eight values, too many for a table by index, but half an entry is one of 81 and has a name of seven
 * bits, and the book is sorted (grid_codes.h): the upper seven bits of an index all but tell the second half, and sixteen tables of
 * 128 bytes, one for each value of the lower four bits, tell the first. A permutation under a mask leaves indices that are not its
 * own as they are, so that four tables in turn fill one vector without blends; four such vectors are then blended. Two vectors of
 * two rows' entries are looked up together: a table's load costs as much as its use.
 *
 * Cycles on a Zen 4 per run of 256 columns and row, data in the cache, and by loads: IQ1_S 26.6 and 37.7 for one token, 32.6 and
 * 42.7 for two, 40.7 and 49.5 for three, 52 and 59 for four; IQ1_M 30.8 and 38.7, 38.1 and 43.5. Of IQ1_S's 26.6 the names take 14,
 * the values 5, the ends of runs 2. Its operations would pass in 17 if none waited; in a loop of their own the names of four rows
 * take 50 cycles, their permutations alone 34. No better: all sixteen tables and blends (28.1), names of four rows while the four
 * before are multiplied (27.0), eight rows at a time (35.8: compilers run out of registers). */

/* Indices of 64 entries, two rows' 32: their lower bytes; the upper seven of their eleven bits, below whatever; and the upper three
 * as they were unpacked to bits 4 to 6, which in IQ1_M has the delta's sign above. */
struct indices { __m512i low, chunk, upper; };

/* Names of the halves of 64 entries: columns 0 to 3, with a mark at bit 7 that means nothing here, and 4 to 7. */
struct names { __m512i first, last; };

static ALWAYS_INLINE void name_entries(struct names out[2], const struct indices at[2])
{
    const __m512i three = _mm512_set1_epi8(3);
    __m512i part[4][2], low[2];
    for (int v = 0; v < 2; v++) {
        low[v] = _mm512_and_si512(at[v].low, three);
        for (int i = 0; i < 4; i++)
            part[i][v] = at[v].chunk;
    }
    UNROLL_ALL
    for (int j = 0; j < 4; j++) {
        __mmask64 mine[2];
        for (int v = 0; v < 2; v++)
            mine[v] = j ? _mm512_cmpeq_epi8_mask(low[v], _mm512_set1_epi8((char)j)) : _mm512_testn_epi8_mask(at[v].low, three);
        UNROLL_ALL
        for (int i = 0; i < 4; i++) {
            __m512i a = _mm512_load_si512(firsts_iq1[4 * i + j]), b = _mm512_load_si512(firsts_iq1[4 * i + j] + 64);
            for (int v = 0; v < 2; v++)
                part[i][v] = _mm512_mask2_permutex2var_epi8(a, part[i][v], mine[v], b);
        }
    }
    for (int v = 0; v < 2; v++) {
        __mmask64 bit_2 = _mm512_test_epi8_mask(at[v].low, _mm512_set1_epi8(4));
        __mmask64 bit_3 = _mm512_test_epi8_mask(at[v].low, _mm512_set1_epi8(8));
        __m512i last = book_of_128(lasts_iq1[0], at[v].chunk);
        out[v].first = _mm512_mask_blend_epi8(bit_3, _mm512_mask_blend_epi8(bit_2, part[0][v], part[1][v]),
                                               _mm512_mask_blend_epi8(bit_2, part[2][v], part[3][v]));
        out[v].last = _mm512_mask_sub_epi8(last, _mm512_movepi8_mask(out[v].first), last, _mm512_set1_epi8(-1));
    }
}

/* What a token offers for a run, in a pair's order. The deltas are taken for plus one eighth, with the values' offset of eight:
 * seven times the sums of x off. Where they are minus one eighth, two times the sum more: IQ1_S, whose lanes have one delta,
 * chooses between two starts; IQ1_M adds dots of 16 and 2, or 0, with eighths of the sums per entry and the rest. */
struct iq1_token {
    __m512i x[8], init[2];     /* PAIR_SUBS: init for plus, for minus; PAIR_UNITS: for q[0..3], for q[4..7] */
    __m512i sums[2];           /* PAIR_UNITS: per entry two bytes, h and l: 8 h + l is minus the sum of its eight x */
    float   dx;
};

struct iq1_scratch {
    __m512i          sums[DECODE_TOKS][8];
    struct iq1_token token[];                /* [run][token] */
};
_Static_assert(DECODE_TOKS * sizeof(struct iq1_token) <= sizeof(struct few_run), "fits what five tokens and more take");

/* See iq1_token; x: four vectors of a pair's order, lanes with two entries. The sums are at most 8 * 127, so that h fits. */
static ALWAYS_INLINE __m512i sums_of_entries(const __m512i x[4])
{
    __m512i s[2], byte = _mm512_set1_epi32(0xff);
    for (int k = 0; k < 2; k++) {
        s[k] = _mm512_setzero_si512();
        for (int f = 0; f < 4; f++)
            s[k] = dot_64(s[k], _mm512_set1_epi32(k ? 0x01010000 : 0x0101), x[f]);
        __m512i h = _mm512_srai_epi32(s[k], 3), l = _mm512_and_si512(s[k], _mm512_set1_epi32(7));
        h = _mm512_and_si512(_mm512_sub_epi32(_mm512_setzero_si512(), h), byte);
        l = _mm512_and_si512(_mm512_sub_epi32(_mm512_setzero_si512(), l), byte);
        s[k] = _mm512_or_si512(h, _mm512_slli_epi32(l, 8));
    }
    return _mm512_or_si512(s[0], _mm512_slli_epi32(s[1], 16));
}

static ALWAYS_INLINE void load_iq1_token(struct iq1_token *out, const uint8_t *act, const struct act_layout *layout, size_t run,
                                         const enum pair_order order)
{
    const __m512i seven = _mm512_set1_epi32(-7), nine = _mm512_set1_epi32(-9);
    __m256i sums = _mm256_loadu_si256((const __m256i *)(act + layout->sums + run * 32));
    load_pair_acts(out->x, (const int8_t *)act + run * PANEL_COLS, order);
    memcpy(&out->dx, act + layout->scales + run * 4, 4);
    if (order == PAIR_SUBS) {
        __m512i wide = _mm512_broadcast_i64x4(sums_32(sums));
        out->init[0] = _mm512_mullo_epi32(wide, seven);
        out->init[1] = _mm512_mullo_epi32(wide, nine);
    } else {
        __m512i init = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(sums), seven);
        out->init[0] = _mm512_shuffle_i32x4(init, init, 0x88);
        out->init[1] = _mm512_shuffle_i32x4(init, init, 0xdd);
        out->sums[0] = sums_of_entries(out->x);
        out->sums[1] = sums_of_entries(out->x + 4);
    }
}

/* Two rows' runs: values plus one in eighths, what the deltas need, and scales. */
struct iq1_pair {
    __m512i   q[8], scales[2];
    __m512i   minus[2];        /* PAIR_UNITS: per entry 16 and 2 where the delta is minus      */
    __mmask16 minuses;         /* PAIR_SUBS: lanes whose delta is                              */
};

static ALWAYS_INLINE void iq1_values(__m512i out[4], __m512i names)
{
    for (int f = 0; f < 4; f++)
        out[f] = book_of_128(values_iq1[f], names);
}

static ALWAYS_INLINE __m512i dot_iq1(const struct iq1_pair *w, const struct iq1_token *token, const enum pair_order order)
{
    __m512i a = token->init[0], b = token->init[1];
    if (order == PAIR_SUBS) {
        a = _mm512_mask_blend_epi32(w->minuses, a, b);
        b = _mm512_setzero_si512();
    } else {
        a = dot_64(a, w->minus[0], token->sums[0]);
        b = dot_64(b, w->minus[1], token->sums[1]);
    }
    for (int f = 0; f < 4; f++) {
        a = dot_64(a, w->q[f], token->x[f]);
        b = dot_64(b, w->q[4 + f], token->x[4 + f]);
    }
    if (order == PAIR_SUBS)
        return _mm512_mullo_epi32(_mm512_add_epi32(a, b), w->scales[0]);
    return _mm512_add_epi32(_mm512_mullo_epi32(a, w->scales[0]), _mm512_mullo_epi32(b, w->scales[1]));
}

static ALWAYS_INLINE __m256i twice_16(const uint8_t *first, const uint8_t *second)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)first)),
                                   _mm_loadu_si128((const __m128i *)second), 1);
}

static ALWAYS_INLINE struct indices indices_of(__m512i low, __m512i upper)
{
    __m512i chunk = pick(_mm512_set1_epi8(15), _mm512_srli_epi16(low, 4), upper);
    return (struct indices){ low, chunk, upper };
}

typedef struct indices iq1_find_fn(__m512i *words, const uint8_t *first, const uint8_t *second);
typedef void iq1_pair_fn(struct iq1_pair *out, struct names names, const struct indices *at, __m512i words, const uint8_t *first,
                         const uint8_t *second);

/* d; 32 lower index bytes; 8 words: four times three upper index bits, a 3-bit scale, the delta's sign. The words go to `words`. */
static ALWAYS_INLINE struct indices locate_iq1_s(__m512i *words, const uint8_t *first, const uint8_t *second)
{
    *words = _mm512_cvtepu16_epi32(twice_16(first + 34, second + 34));
    return indices_of(twice_32(first + 2, second + 2), _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x25221f1c05023f3c), *words));
}

static ALWAYS_INLINE void pair_iq1_s(struct iq1_pair *out, struct names names, const struct indices *at, __m512i words,
                                     const uint8_t *first, const uint8_t *second)
{
    (void)at, (void)first, (void)second;
    iq1_values(out->q, names.first);
    iq1_values(out->q + 4, names.last);
    out->scales[0] = _mm512_ternarylogic_epi32(_mm512_srli_epi32(words, 11), _mm512_set1_epi32(14), _mm512_set1_epi32(1), 0xea);
    out->minuses = _mm512_test_epi32_mask(words, _mm512_set1_epi32(0x8000));
}

/* 32 lower index bytes; 16 bytes with three upper bits and the delta's sign per entry; 4 words of four 3-bit scales, above them d's
 * nibbles. */
static ALWAYS_INLINE struct indices locate_iq1_m(__m512i *words, const uint8_t *first, const uint8_t *second)
{
    __m512i both = _mm512_cvtepu8_epi16(twice_16(first + 32, second + 32));
    *words = _mm512_setzero_si512();         /* IQ1_S's */
    return indices_of(twice_32(first, second), _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x302c201c100c003c), both));
}

static ALWAYS_INLINE void pair_iq1_m(struct iq1_pair *out, struct names names, const struct indices *at, __m512i words,
                                     const uint8_t *first, const uint8_t *second)
{
    (void)words;
    const __m512i low = _mm512_broadcast_i64x4(_mm256_setr_epi64x(0x20000003f, 0x800000005, 0x220000001f, 0x2800000025));
    const __m512i high = _mm512_broadcast_i64x4(_mm256_setr_epi64x(0x120000000f, 0x1800000015, 0x320000002f, 0x3800000035));
    const __mmask64 minus = _mm512_movepi8_mask(at->upper);
    __m512i by_16 = _mm512_maskz_mov_epi8(minus, _mm512_set1_epi8(16)), by_2 = _mm512_maskz_mov_epi8(minus, _mm512_set1_epi8(2));
    __m512i both = _mm512_set1_epi64((int64_t)load_u64(first + 48));
    both = _mm512_mask_set1_epi64(both, 0xf0, (int64_t)load_u64(second + 48));
    iq1_values(out->q, _mm512_unpacklo_epi8(names.first, names.last));
    iq1_values(out->q + 4, _mm512_unpackhi_epi8(names.first, names.last));
    out->minus[0] = _mm512_unpacklo_epi8(by_16, by_2);
    out->minus[1] = _mm512_unpackhi_epi8(by_16, by_2);
    const __m512i mask = _mm512_set1_epi32(14), one = _mm512_set1_epi32(1);
    out->scales[0] = _mm512_ternarylogic_epi32(_mm512_multishift_epi64_epi8(low, both), mask, one, 0xea);
    out->scales[1] = _mm512_ternarylogic_epi32(_mm512_multishift_epi64_epi8(high, both), mask, one, 0xea);
}

static ALWAYS_INLINE uint32_t d_iq1(const uint8_t *bytes, const struct panel_shape shape)
{
    return shape.sub == 32 ? load_u16(bytes) : (uint32_t)_pext_u64(load_u64(bytes + 48), 0xf000f000f000f000);
}

/* Up to 16 rows as decode_pairs of matmul_iquants_avx512vbmi.c, but two pairs at a time. */
static ALWAYS_INLINE void decode_names(const struct matmul_job *job, size_t row, struct row_range all, struct iq1_scratch *scratch,
                                       const size_t toks, iq1_find_fn *find, iq1_pair_fn *unpack, const enum pair_order order,
                                       const struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS;
    const struct ask ask = ask_of(job, row, all, shape), next = { .next = ask.next, .near = ask.near };
    const uint8_t *soon = ask.later ? ask.later : (const uint8_t *)job->weights + row * job->row_bytes;
    const uint8_t *from[PANEL_ROWS];
    uint32_t d[PANEL_ROWS];
    __m512 acc[DECODE_TOKS];

    for (size_t r = 0; r < PANEL_ROWS; r++)  /* the last row stands in for those beyond the end */
        from[r] = (const uint8_t *)job->weights + (row + (r < rows ? r : rows - 1)) * job->row_bytes;
    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    ask_first(&ask, job, row, all, rows);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        const struct iq1_token *token = scratch->token + run * toks;
        for (size_t i = 0; i < 8; i += 2) {
            const size_t r = i / 4 * 8 + i % 4;
            const uint8_t *at[4];
            struct indices index[2];
            struct names names[2];
            __m512i words[2];
            prefetch_run(soon, 4 * shape.bytes, ask.near);
            soon += 4 * shape.bytes;
            for (int v = 0; v < 2; v++) {
                at[2 * v] = from[r + v] + run * shape.bytes;
                at[2 * v + 1] = from[r + 4 + v] + run * shape.bytes;
                index[v] = find(&words[v], at[2 * v], at[2 * v + 1]);
            }
            if (ask.own) {
                for (int k = 0; k < 4; k++)
                    prefetch_run(at[k] + ask.own, shape.bytes, ask.near);
                ask_soon(&next, run, i / 2, 0, 1, shape);
            }
            name_entries(names, index);
            for (int v = 0; v < 2; v++) {
                struct iq1_pair w;
                unpack(&w, names[v], &index[v], words[v], at[2 * v], at[2 * v + 1]);
                for (size_t t = 0; t < toks; t++)
                    scratch->sums[t][i + v] = dot_iq1(&w, &token[t], order);
                d[r + v] = d_iq1(at[2 * v], shape);
                d[r + v + 4] = d_iq1(at[2 * v + 1], shape);
            }
        }
        for (size_t t = 0; t < toks; t++)
            acc[t] = finish_pairs(acc[t], scratch->sums[t], d, token[t].dx, shape);
    }
    store_rows(job, row, rows, acc, toks);
}

static ALWAYS_INLINE void decode_iq1_rows(const struct matmul_job *job, struct row_range call, struct iq1_scratch *scratch,
                                          iq1_find_fn *find, iq1_pair_fn *unpack, const enum pair_order order,
                                          const struct panel_shape shape)
{
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const struct row_range all = rows_to_ask(job, call);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++)
        for (size_t t = 0; t < job->toks; t++)
            load_iq1_token(&scratch->token[run * job->toks + t], (const uint8_t *)job->acts + t * job->act_stride, &layout, run,
                           order);
    for (size_t row = call.begin; row < call.end; row += PANEL_ROWS) {
        if (job->toks == 1)
            decode_names(job, row, all, scratch, 1, find, unpack, order, shape);
        else if (job->toks == 2)
            decode_names(job, row, all, scratch, 2, find, unpack, order, shape);
        else if (job->toks == 3)
            decode_names(job, row, all, scratch, 3, find, unpack, order, shape);
        else
            decode_names(job, row, all, scratch, 4, find, unpack, order, shape);
    }
}

/* So many tokens go this way, others by loads. */
enum { IQ1_S_TOKS = 4, IQ1_M_TOKS = 2 };

void matmul_iq1_s_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= IQ1_S_TOKS)
        decode_iq1_rows(job, call, scratch, locate_iq1_s, pair_iq1_s, PAIR_SUBS, (struct panel_shape)SHAPE_IQ1_S);
    else
        matmul_iq1_s_avx512(job, row_begin, row_end, scratch);
}

void matmul_iq1_m_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= IQ1_M_TOKS)
        decode_iq1_rows(job, call, scratch, locate_iq1_m, pair_iq1_m, PAIR_UNITS, (struct panel_shape)SHAPE_IQ1_M);
    else
        matmul_iq1_m_avx512(job, row_begin, row_end, scratch);
}
