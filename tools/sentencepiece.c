#include "sentencepiece.h"

#include <math.h>
#include <string.h>

/* Field numbers of sentencepiece_model.proto. */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL = 3, TRAINER_UNK = 40, TRAINER_BOS = 41, TRAINER_EOS = 42, TRAINER_PAD = 43 };
enum { NORMALIZER_CHARSMAP = 2, NORMALIZER_DUMMY = 3, NORMALIZER_EXTRA = 4 };
enum { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_GROUP, WIRE_END, WIRE_32 };

/* A stretch of the file: one message. */
struct reader {
    const char *name;
    const uint8_t *file, *at, *end;
    struct quern_error *err;
};

struct field {
    uint32_t       number, wire;
    uint64_t       value;         /* WIRE_VARINT, WIRE_32, WIRE_64 */
    const uint8_t *data;          /* WIRE_BYTES */
    size_t         n;
};

static bool fail(const struct reader *r, const char *sentence)
{
    return ERR(r->err, QUERN_EFORMAT, "%s: byte %zu: %s", r->name, (size_t)(r->at - r->file), sentence);
}

/* At most 10 bytes; the tenth may only carry the last bit. */
static bool read_varint(struct reader *r, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (r->at == r->end)
            return fail(r, "the message ends inside a number");
        uint8_t byte = *r->at++;
        if (shift == 63 && byte > 1)
            break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return fail(r, "a number has more than 64 bits");
}

static bool read_fixed(struct reader *r, size_t bytes, uint64_t *out)
{
    if ((size_t)(r->end - r->at) < bytes)
        return fail(r, "the message ends inside a number");
    *out = 0;
    for (size_t i = 0; i < bytes; i++)
        *out |= (uint64_t)r->at[i] << (8 * i);
    r->at += bytes;
    return true;
}

static bool read_field(struct reader *r, struct field *f)
{
    uint64_t tag;
    if (!read_varint(r, &tag))
        return false;
    if (tag >> 3 == 0 || tag >> 32)
        return fail(r, "an impossible field number (not a SentencePiece model?)");
    *f = (struct field){ .number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7) };
    switch (f->wire) {
    case WIRE_VARINT:
        return read_varint(r, &f->value);
    case WIRE_64:
        return read_fixed(r, 8, &f->value);
    case WIRE_32:
        return read_fixed(r, 4, &f->value);
    case WIRE_BYTES:
        if (!read_varint(r, &f->value))
            return false;
        if (f->value > (size_t)(r->end - r->at))
            return fail(r, "a field is longer than what is left of its message");
        f->n = (size_t)f->value;
        f->data = r->at;
        r->at += f->n;
        return true;
    default:
        return fail(r, "a wire type that is no longer used (not a SentencePiece model?)");
    }
}

static struct reader inside(const struct reader *r, const struct field *f)
{
    return (struct reader){ .name = r->name, .file = r->file, .at = f->data, .end = f->data + f->n, .err = r->err };
}

static bool read_piece(struct reader r, struct piece *piece)
{
    struct field f;
    *piece = (struct piece){ .text = "", .type = PIECE_NORMAL };
    while (r.at < r.end) {
        if (!read_field(&r, &f))
            return false;
        if (f.number == PIECE_TEXT && f.wire == WIRE_BYTES) {
            piece->text = (const char *)f.data;
            piece->n = f.n;
        } else if (f.number == PIECE_SCORE && f.wire == WIRE_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece->score, &bits, sizeof bits);
            if (!isfinite(piece->score))
                return fail(&r, "a piece's score is not finite");
        } else if (f.number == PIECE_TYPE && f.wire == WIRE_VARINT) {
            if (f.value < PIECE_NORMAL || f.value > PIECE_BYTE)
                return fail(&r, "a piece's type is unknown");
            piece->type = (enum piece_type)f.value;
        }
    }
    return true;
}

/* An id: -1 is written as the varint of 2^64 - 1. */
static bool read_id(const struct reader *r, uint64_t value, int32_t *out)
{
    int64_t id = (int64_t)value;
    if (id < -1 || id > INT32_MAX)
        return fail(r, "a special token's id is out of range");
    *out = (int32_t)id;
    return true;
}

static bool read_trainer(struct reader r, struct sentencepiece *s)
{
    struct field f;
    while (r.at < r.end) {
        if (!read_field(&r, &f))
            return false;
        if (f.wire != WIRE_VARINT)
            continue;
        int32_t *id = f.number == TRAINER_UNK ? &s->unk : f.number == TRAINER_BOS ? &s->bos : f.number == TRAINER_EOS ? &s->eos :
                      f.number == TRAINER_PAD ? &s->pad : NULL;
        if (id && !read_id(&r, f.value, id))
            return false;
        if (f.number == TRAINER_MODEL) {
            if (f.value < MODEL_UNIGRAM || f.value > MODEL_CHAR)
                return fail(&r, "the model type is unknown");
            s->model = (enum piece_model)f.value;
        }
    }
    return true;
}

static bool read_normalizer(struct reader r, struct sentencepiece *s)
{
    struct field f;
    while (r.at < r.end) {
        if (!read_field(&r, &f))
            return false;
        if (f.number == NORMALIZER_CHARSMAP && f.wire == WIRE_BYTES)
            s->has_charsmap = f.n > 0;
        else if (f.number == NORMALIZER_DUMMY && f.wire == WIRE_VARINT)
            s->add_dummy_prefix = f.value != 0;
        else if (f.number == NORMALIZER_EXTRA && f.wire == WIRE_VARINT)
            s->remove_extra_whitespaces = f.value != 0;
    }
    return true;
}

/* Walk the outer message; with `pieces` NULL only count. */
static bool walk(struct reader r, struct sentencepiece *s, struct piece *pieces)
{
    struct field f;
    size_t n = 0;
    while (r.at < r.end) {
        if (!read_field(&r, &f))
            return false;
        if (f.wire != WIRE_BYTES)
            continue;
        bool ok = true;
        if (f.number == MODEL_PIECES) {
            ok = !pieces || read_piece(inside(&r, &f), &pieces[n]);
            n++;
        } else if (f.number == MODEL_TRAINER) {
            ok = read_trainer(inside(&r, &f), s);
        } else if (f.number == MODEL_NORMALIZER) {
            ok = read_normalizer(inside(&r, &f), s);
        }
        if (!ok)
            return false;
    }
    s->count = n;
    return true;
}

bool sentencepiece_read(struct sentencepiece *s, struct arena *arena, const void *data, size_t size, const char *name,
                        struct quern_error *err)
{
    struct reader r = { .name = name, .file = data, .at = data, .end = (const uint8_t *)data + size, .err = err };
    /* The message's own defaults. */
    *s = (struct sentencepiece){ .model = MODEL_UNIGRAM, .unk = 0, .bos = 1, .eos = 2, .pad = -1,
                                 .add_dummy_prefix = true, .remove_extra_whitespaces = true };
    if (!walk(r, s, NULL))
        return false;
    if (!s->count)
        return ERR(err, QUERN_EFORMAT, "%s: no pieces (not a SentencePiece model?)", name);
    s->pieces = arena_take(arena, s->count, sizeof *s->pieces, "the vocabulary", err);
    if (!s->pieces || !walk(r, s, s->pieces))
        return false;
    const struct { const char *what; int32_t id; } ids[] = { { "unknown", s->unk }, { "begin", s->bos }, { "end", s->eos },
                                                             { "padding", s->pad } };
    for (size_t i = 0; i < 4; i++)
        if (ids[i].id >= 0 && (size_t)ids[i].id >= s->count)
            return ERR(err, QUERN_EFORMAT, "%s: the %s token has id %d, there are %zu pieces", name, ids[i].what, ids[i].id,
                       s->count);
    return true;
}
