#include "text/spm.h"
#include "base/mem.h"

#include <string.h>

/* The wire format of protocol buffers: a message is fields, each a number and a
 * type in one varint, then the value. */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct reader {
    const unsigned char *file, *at, *end;
    struct why *why;
};

struct field {
    uint32_t number;
    enum wire wire;
    uint64_t value; /* of WIRE_VARINT and WIRE_32 */
    const unsigned char *bytes;
    size_t len; /* of WIRE_BYTES */
};

static int bad(const struct reader *r, const char *what)
{
    return err_set(r->why, ERR_FORMAT, "%s at byte %zu", what,
                   (size_t)(r->at - r->file));
}

static int read_varint(struct reader *r, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end) return bad(r, "a number is cut off");
        unsigned char byte = *r->at++;
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return 0;
    }
    return bad(r, "a number of more than 64 bits");
}

static int take(struct reader *r, uint64_t n, struct field *f)
{
    if (n > (uint64_t)(r->end - r->at)) return bad(r, "a field is cut off");
    f->bytes = r->at;
    f->len = (size_t)n;
    r->at += n;
    return 0;
}

static uint32_t le32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

/* 1: f is the next field, 0: there is none. */
static int next(struct reader *r, struct field *f)
{
    uint64_t tag, n = 0;
    if (r->at == r->end) return 0;
    int rc = read_varint(r, &tag);
    if (rc) return rc;
    if (tag >> 3 == 0 || tag >> 3 > UINT32_MAX) return bad(r, "a bad field");
    *f = (struct field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
    switch (f->wire) {
    case WIRE_VARINT: rc = read_varint(r, &f->value); break;
    case WIRE_64: rc = take(r, 8, f); break;
    case WIRE_32:
        rc = take(r, 4, f);
        if (!rc) f->value = le32(f->bytes);
        break;
    case WIRE_BYTES:
        rc = read_varint(r, &n);
        if (!rc) rc = take(r, n, f);
        break;
    default: rc = bad(r, "a field of unknown type");
    }
    return rc ? rc : 1;
}

static struct reader inside(const struct reader *r, const struct field *f)
{
    return (struct reader){r->file, f->bytes, f->bytes + f->len, r->why};
}

static int expect(const struct reader *r, const struct field *f, enum wire wire)
{
    return f->wire == wire ? 0 : bad(r, "a field of another type before");
}

static struct tokenizer_text text_of(const struct field *f)
{
    return (struct tokenizer_text){(const char *)f->bytes, f->len};
}

/* The messages. */

enum {
    MODEL_PIECE = 1,
    MODEL_TRAINER,
    MODEL_NORMALIZER,
    MODEL_DENORMALIZER = 5
};
enum { PIECE_TEXT = 1, PIECE_SCORE, PIECE_TYPE };
enum {
    NORMALIZER_MAP = 2,
    NORMALIZER_PREFIX,
    NORMALIZER_SQUEEZE,
    NORMALIZER_ESCAPE
};
enum {
    TRAINER_TYPE = 3,
    TRAINER_SUFFIX = 24,
    TRAINER_BYTES = 35,
    TRAINER_BOS = 46,
    TRAINER_EOS = 47
};
enum { TYPE_UNIGRAM = 1, TYPE_BPE, TYPE_WORD, TYPE_CHAR };

struct specs {
    uint64_t type;
    bool suffix, escape;
    struct tokenizer_text bos, eos;
};

static int read_piece(struct spm *m, struct reader r)
{
    struct field f;
    struct tokenizer_text *text = &m->pieces[m->count];
    int rc;
    m->types[m->count] = TOKEN_NORMAL;
    while ((rc = next(&r, &f)) > 0) {
        if (f.number == PIECE_TEXT) {
            rc = expect(&r, &f, WIRE_BYTES);
            *text = text_of(&f);
        } else if (f.number == PIECE_SCORE) {
            uint32_t bits = (uint32_t)f.value;
            rc = expect(&r, &f, WIRE_32);
            memcpy(&m->scores[m->count], &bits, sizeof bits);
        } else if (f.number == PIECE_TYPE) {
            rc = expect(&r, &f, WIRE_VARINT);
            if (!rc && (f.value < TOKEN_NORMAL || f.value > TOKEN_BYTE))
                rc = bad(&r, "a piece of unknown type");
            m->types[m->count] = (int32_t)f.value;
        }
        if (rc < 0) return rc;
    }
    if (!rc && !text->len) rc = bad(&r, "a piece without text");
    m->count++;
    return rc;
}

static int read_trainer(struct spm *m, struct specs *specs, struct reader r)
{
    struct field f;
    int rc;
    while ((rc = next(&r, &f)) > 0) {
        bool text = f.number == TRAINER_BOS || f.number == TRAINER_EOS;
        switch (f.number) {
        case TRAINER_TYPE: specs->type = f.value; break;
        case TRAINER_SUFFIX: specs->suffix = f.value; break;
        case TRAINER_BYTES: m->byte_fallback = f.value; break;
        case TRAINER_BOS: specs->bos = text_of(&f); break;
        case TRAINER_EOS: specs->eos = text_of(&f); break;
        default: continue;
        }
        rc = expect(&r, &f, text ? WIRE_BYTES : WIRE_VARINT);
        if (rc) return rc;
    }
    return rc;
}

static int read_normalizer(struct spm *m, struct specs *specs, struct reader r)
{
    struct field f;
    int rc;
    while ((rc = next(&r, &f)) > 0) {
        switch (f.number) {
        case NORMALIZER_MAP: m->charsmap = text_of(&f); break;
        case NORMALIZER_PREFIX: m->dummy_prefix = f.value; break;
        case NORMALIZER_SQUEEZE: m->squeeze = f.value; break;
        case NORMALIZER_ESCAPE: specs->escape = f.value; break;
        default: continue;
        }
        rc = expect(&r, &f,
                    f.number == NORMALIZER_MAP ? WIRE_BYTES : WIRE_VARINT);
        if (rc) return rc;
    }
    return rc;
}

static int read_denormalizer(struct reader r)
{
    struct field f;
    int rc;
    while ((rc = next(&r, &f)) > 0)
        if (f.number == NORMALIZER_MAP && f.len)
            return err_set(r.why, ERR_UNSUPPORTED, "a denormalizer");
    return rc;
}

/* Room for all pieces; those that are bad count too. */
static int make_room(struct spm *m, struct reader r)
{
    struct field f;
    size_t count = 1;
    int rc;
    while ((rc = next(&r, &f)) > 0)
        count += f.number == MODEL_PIECE;
    if (rc) return rc;
    if (count > TOKENIZER_MAX_TOKENS) return bad(&r, "too many pieces");
    m->pieces = mem_try(count, sizeof *m->pieces, 0);
    m->scores = mem_try(count, sizeof *m->scores, 0);
    m->types = mem_try(count, sizeof *m->types, 0);
    if (!m->pieces || !m->scores || !m->types)
        return err_set(r.why, ERR_NOMEM, "%zu pieces", count);
    return 0;
}

static int read_model(struct spm *m, struct specs *specs, struct reader r)
{
    struct field f;
    int rc;
    while ((rc = next(&r, &f)) > 0) {
        if (f.number < MODEL_PIECE || f.number > MODEL_DENORMALIZER) continue;
        rc = expect(&r, &f, WIRE_BYTES);
        if (rc) return rc;
        struct reader in = inside(&r, &f);
        switch (f.number) {
        case MODEL_PIECE: rc = read_piece(m, in); break;
        case MODEL_TRAINER: rc = read_trainer(m, specs, in); break;
        case MODEL_NORMALIZER: rc = read_normalizer(m, specs, in); break;
        case MODEL_DENORMALIZER: rc = read_denormalizer(in); break;
        default: break; /* texts to test it with */
        }
        if (rc) return rc;
    }
    return rc;
}

/* What SentencePiece itself demands when it loads a model. */
static int settle(struct spm *m, const struct specs *specs, struct why *why)
{
    size_t unknown = 0, bytes = 0;
    for (size_t i = 0; i < m->count; i++) {
        const struct tokenizer_text *p = &m->pieces[i];
        bool control = m->types[i] == TOKEN_CONTROL;
        if (m->types[i] == TOKEN_UNKNOWN) {
            m->unk = (int32_t)i;
            unknown++;
        }
        if (control && p->len == specs->bos.len &&
            !memcmp(p->data, specs->bos.data, p->len))
            m->bos = (int32_t)i;
        if (control && p->len == specs->eos.len &&
            !memcmp(p->data, specs->eos.data, p->len))
            m->eos = (int32_t)i;
        bytes += m->types[i] == TOKEN_BYTE;
    }
    if (unknown != 1)
        return err_set(why, ERR_FORMAT, "%zu pieces of type unknown", unknown);
    if (bytes != (m->byte_fallback ? 256 : 0))
        return err_set(why, ERR_FORMAT, "%zu byte pieces, byte_fallback %d",
                       bytes, m->byte_fallback);
    if (specs->type != TYPE_UNIGRAM && specs->type != TYPE_BPE)
        return err_set(why, ERR_UNSUPPORTED, "model of %s",
                       specs->type == TYPE_WORD   ? "words"
                       : specs->type == TYPE_CHAR ? "characters"
                                                  : "an unknown type");
    if (specs->suffix || !specs->escape)
        return err_set(why, ERR_UNSUPPORTED, "%s",
                       specs->suffix ? "treat_whitespace_as_suffix"
                                     : "spaces that are not escaped");
    m->unigram = specs->type == TYPE_UNIGRAM;
    return 0;
}

int spm_read(struct spm *m, const char *bytes, size_t n, struct why *why)
{
    const unsigned char *at = (const unsigned char *)bytes;
    struct reader r = {at, at, at + n, why};
    struct specs specs = {.type = TYPE_UNIGRAM,
                          .escape = true,
                          .bos = {"<s>", 3},
                          .eos = {"</s>", 4}};
    *m = (struct spm){
        .unk = -1, .bos = -1, .eos = -1, .dummy_prefix = true, .squeeze = true};
    int rc = make_room(m, r);
    if (!rc) rc = read_model(m, &specs, r);
    return rc ? rc : settle(m, &specs, why);
}

void spm_fini(struct spm *m)
{
    mem_free(m->pieces);
    mem_free(m->scores);
    mem_free(m->types);
    *m = (struct spm){0};
}
