/* tensor/cpu/slab_body.h - packed weights taken apart, for the instruction set
 * of the file that includes it. kernels.h has the layouts. */
#ifndef BATON_TENSOR_CPU_SLAB_BODY_H
#define BATON_TENSOR_CPU_SLAB_BODY_H

#include "tensor/cpu/linear_body.h"

#include "tensor/quant.h"

/* What bytes of group j of a run have above their nibbles. */
ALWAYS vi run_above(enum dtype type, const uint8_t *run, int j)
{
    if (type == DTYPE_Q5_K) {
        vi bits = vi_load(run + 256);
        return (j < 4 ? bits << (4 - j) : bits >> (j - 4)) & 0x10101010;
    }
    if (type == DTYPE_Q6_K) {
        vi bits = vi_load(run + 256 + j / 4 * 64);
        int at = j % 4 * 2;
        return (at < 4 ? bits << (4 - at) : bits >> (at - 4)) & 0x30303030;
    }
    return (vi){0};
}

/* The eight groups of a run, as bytes, rows part * L and up. */
ALWAYS void run_groups(enum dtype type, const uint8_t *run, int part, vi w[8])
{
    run += part * 4 * L;
    UNROLLED (j, 4) {
        vi v = vi_load(run + 64 * j);
        w[j] = v & 0x0f0f0f0f;
        w[j + 4] = (v >> 4) & 0x0f0f0f0f;
    }
    if (type == DTYPE_Q5_K || type == DTYPE_Q6_K)
        UNROLLED (j, 8)
            w[j] |= run_above(type, run, j);
}

ALWAYS vf signed_bytes(const uint8_t *p)
{
    return vf_of((vi_of_bytes(p) ^ 0x80) - 0x80);
}

/* w = d q + e; of Q6_K, d and e are the scales of columns 0..15 and 16..31. */
ALWAYS void run_scales(enum dtype type, const uint8_t *head, const uint8_t *run,
                       int part, vf *d, vf *e)
{
    *d = vf_of_f16(head + part * 2 * L);
    *e = (vf){0};
    const uint8_t *k = run + 256 + part * L;
    switch (type) {
    case DTYPE_Q4_1: *e = vf_of_f16(head + 32 + part * 2 * L); break;
    case DTYPE_Q5_K: k += 64; /* fall through */
    case DTYPE_Q4_K:
        *d *= vf_of(vi_of_bytes(k));
        *e = vf_of_f16(head + 32 + part * 2 * L) * -vf_of(vi_of_bytes(k + 16));
        break;
    case DTYPE_Q6_K:
        *e = *d * signed_bytes(k + 144);
        *d *= signed_bytes(k + 128);
        break;
    default: break;
    }
}

/* Zero points z of rows part * L and up, one a lane. */
ALWAYS vi zeros_load(enum dtype type, const uint8_t *zeros, size_t group,
                     int part)
{
    if (type == DTYPE_Q4_0) return vi_set(8);
    return vi_of_bytes(zeros + group * ROWS + part * L);
}

ALWAYS bool has_min(enum dtype type)
{
    return type == DTYPE_Q4_1 || type == DTYPE_Q4_K || type == DTYPE_Q5_K;
}

/* Columns k and k + 1 of a packed panel as float32 (F16: only k). */
ALWAYS void columns(enum dtype type, const uint8_t *panel, size_t k, int part,
                    vf w[2])
{
    if (type == DTYPE_F16)
        w[0] = vf_of_f16(panel + (k * ROWS + (size_t)part * L) * 2);
    else {
        vi pair = vi_load(panel + (k / 2 * ROWS + (size_t)part * L) * 4);
        w[0] = (vf)(pair << 16);
        w[1] = (vf)(pair & (int32_t)0xffff0000);
    }
}

/* --- slabs -------------------------------------------------------------- */

/* F16, and BF16 where there is no product of its pairs, to floats. */
ALWAYS void unpack_floats(enum dtype type, const uint8_t *panel, size_t first,
                          size_t cols, struct slab_room *room)
{
    int step = type == DTYPE_BF16 ? 2 : 1; /* first is even */
    for (size_t k = first; k < first + cols; k += (size_t)step) {
        UNROLLED (part, PARTS) {
            vf w[2];
            columns(type, panel, k, part, w);
            vi_store(room->steps[k - first] + part * 4 * L, (vi)w[0]);
            if (step == 2 && k + 1 < first + cols)
                vi_store(room->steps[k + 1 - first] + part * 4 * L, (vi)w[1]);
        }
    }
}

/* The eight steps of a run from the four of its nibbles, each + add. */
ALWAYS void nibbles_spread(const uint8_t *from, int part, vu add, uint8_t *to)
{
    UNROLLED (j, 4) {
        vi v = vi_load(from + STEP * j + part * 4 * L);
        vi_store(to + STEP * j + part * 4 * L,
                 (vi)((vu)(v & 0x0f0f0f0f) + add));
        vi_store(to + STEP * (j + 4) + part * 4 * L,
                 (vi)((vu)((v >> 4) & 0x0f0f0f0f) + add));
    }
}

ALWAYS void unpack_nibbles(enum dtype type, const uint8_t *panel,
                           const uint8_t *zeros, struct pairs pairs,
                           size_t first, size_t cols, struct slab_room *room)
{
    size_t runs = pairs.columns / RUN;
    for (size_t b = first / RUN; b < (first + cols) / RUN; b++) {
        const uint8_t *run =
            panel + pairs_steps(pairs, b / runs) + b % runs * (4 * STEP);
        UNROLLED (part, PARTS) {
            vu z = (vu)zeros_load(type, zeros, b / runs, part);
            nibbles_spread(run, part, (128 - z) * 0x01010101,
                           room->steps[(b - first / RUN) * 8]);
        }
    }
}

/* The formats that keep head and runs together. */
ALWAYS void unpack_runs(enum dtype type, const uint8_t *panel, size_t first,
                        size_t cols, struct slab_room *room)
{
    struct panel_format f = panel_format(type);
    vu add = (vu)vi_set(type == DTYPE_Q6_K ? 0x60606060 : (int)0x80808080);
    for (size_t i = 0, b = first / RUN; i < cols / RUN; i++, b++) {
        const uint8_t *head = panel + run_head(f, b);
        const uint8_t *run = panel + run_at(f, b);
        for (int part = 0; part < PARTS; part++) {
            vi w[8];
            vf d, e;
            run_groups(type, run, part, w);
            run_scales(type, head, run, part, &d, &e);
            UNROLLED (j, 8)
                vi_store(room->steps[8 * i + (size_t)j] + part * 4 * L,
                         (vi)((vu)w[j] + add));
            if (type == DTYPE_Q6_K) {
                vf_store(room->d[2 * i] + part * L, d);
                vf_store(room->d[2 * i + 1] + part * L, e);
            } else {
                vf_store(room->d[i] + part * L, d);
                vf_store(room->e[i] + part * L, e);
            }
        }
    }
}

/* The formats that come in pairs of groups; a slab begins with a whole one.
 * Scales stay where they are, and so do steps that are bytes. */
ALWAYS void unpack_pairs(enum dtype type, size_t all_cols, const uint8_t *p,
                         size_t first, size_t cols, struct slab_room *room,
                         struct slab *out)
{
    struct pairs pairs = panel_pairs(type);
    size_t group = first / pairs.columns;
    out->d = p + pairs_scales(pairs, group);
    out->d_pair = pairs.bytes;
    if (type == DTYPE_Q8_0 || type == DTYPE_INT8_G128) {
        out->steps = p + pairs_steps(pairs, group);
        out->steps_pair = pairs.bytes;
        return;
    }
    out->steps_pair = pairs.columns / 4 * STEP * 2;
    if (type == DTYPE_Q4_0)
        unpack_nibbles(DTYPE_Q4_0, p, NULL, pairs, first, cols, room);
    else
        unpack_nibbles(DTYPE_INT4_G32, p, p + panel_zeros(type, all_cols),
                       pairs, first, cols, room);
}

static void unpack(enum dtype type, size_t all_cols, const void *panel,
                   size_t first, size_t cols, struct slab_room *room,
                   struct slab *out)
{
    const uint8_t *p = panel;
    *out = (struct slab){room->steps[0], room->d, room->e[0], 0, 0};
    if (panel_has_pairs(type)) {
        unpack_pairs(type, all_cols, p, first, cols, room, out);
        return;
    }
    switch (type) {
    case DTYPE_F32: out->steps = p + first * STEP; break;
    case DTYPE_F16: unpack_floats(DTYPE_F16, p, first, cols, room); break;
    case DTYPE_BF16:
        if (BF16_PAIRS)
            out->steps = p + first / 2 * STEP;
        else
            unpack_floats(DTYPE_BF16, p, first, cols, room);
        break;
    case DTYPE_INT8:
        out->steps = p + first / 4 * STEP;
        out->d = p + panel_scales(all_cols);
        break;
    default: /* head and runs together */
        out->steps_pair = 2 * STEP * (type == DTYPE_Q6_K ? HALF : RUN) / 4;
        out->d_pair = 2 * sizeof room->d[0];
        if (type == DTYPE_Q4_1) unpack_runs(DTYPE_Q4_1, p, first, cols, room);
        if (type == DTYPE_Q4_K) unpack_runs(DTYPE_Q4_K, p, first, cols, room);
        if (type == DTYPE_Q5_K) unpack_runs(DTYPE_Q5_K, p, first, cols, room);
        if (type == DTYPE_Q6_K) unpack_runs(DTYPE_Q6_K, p, first, cols, room);
    }
}

#endif
