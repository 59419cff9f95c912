/* Rows of activations rounded by every instruction set lie where they should,
 * as the plain rounding has them, and nothing else is written: in groups of any
 * sizes, by token or step by step, however many rows a call has. */
#include "tests/tensor/ops_help.h"

#include "tensor/cpu/cpu.h"
#include "tensor/quant.h"

enum { COLS = 608, TOKENS = 16, SLABS = 2 };

struct lay { /* of tokens, in groups whose sizes these are */
    size_t sizes[TOKENS];
    bool by_token;
    size_t group; /* columns that share a scale */
};

struct bytes {
    uint32_t words[SLABS * TOKENS * SLAB_STEPS];
    struct mark marks[SLABS * TOKENS * 4 * SLAB_STEPS / RUN];
};

static struct acts_room room_of(const struct lay *lay, struct bytes *to,
                                size_t token)
{
    size_t first = 0, i = 0;
    while (token >= first + lay->sizes[i])
        first += lay->sizes[i++];
    size_t n = lay->sizes[i], at = token - first;
    size_t marks = lay->group == COLS ? 1 : 4 * SLAB_STEPS / lay->group;
    return (struct acts_room){to->words + first * SLAB_STEPS +
                                  at * (lay->by_token ? SLAB_STEPS : 1),
                              to->marks + first * marks + at,
                              TOKENS * SLAB_STEPS * 4,
                              TOKENS * marks,
                              lay->by_token ? 4 : n * 4,
                              n};
}

/* As kernels.h says where words and marks are. */
static void row_put(const struct lay *lay, struct bytes *to, size_t token,
                    const float *x)
{
    struct acts_room room = room_of(lay, to, token);
    int8_t q[COLS];
    for (size_t c = 0; c < COLS; c += lay->group) {
        int32_t sum = 0, half = 0;
        float s = quant_round(q + c, x + c, lay->group);
        for (size_t i = 0; i < lay->group; i++) {
            sum += q[c + i];
            if (i < HALF) half += q[c + i];
        }
        size_t index = c / lay->group, in_slab = 4 * SLAB_STEPS / lay->group;
        size_t at = in_slab ? index / in_slab * room.marks_stride +
                                  index % in_slab * room.marks_step
                            : 0;
        room.marks[at] = (struct mark){s, s * (float)sum, sum, half};
    }
    for (size_t w = 0; w < COLS / 4; w++)
        memcpy((char *)room.words + w / SLAB_STEPS * room.words_stride +
                   w % SLAB_STEPS * room.words_step,
               q + 4 * w, 4);
}

static void compare(const struct lay *lay, const float *x)
{
    struct bytes *want = mem_must(1, sizeof *want);
    struct bytes *got = mem_must(1, sizeof *got);
    for (int i = 0; i < PRODUCT_ISAS; i++) {
        const struct kernels *k = kernels_choose(isas[i].isa);
        for (size_t first = 0; first < TOKENS; first++)
            for (size_t n = 1; n <= ACTS_ROWS && first + n <= TOKENS; n++) {
                struct acts_room to[ACTS_ROWS];
                memset(want, 0x55, sizeof *want);
                memset(got, 0x55, sizeof *got);
                for (size_t t = 0; t < n; t++) {
                    to[t] = room_of(lay, got, first + t);
                    row_put(lay, want, first + t, x + (first + t) * COLS);
                }
                k->acts_int8(to, x + first * COLS, n, COLS, lay->group);
                if (memcmp(got, want, sizeof *got) != 0)
                    fail_msg("%s, groups of %zu%s, scales of %zu: rows %zu, "
                             "%zu of them",
                             k->name, lay->sizes[0],
                             lay->by_token ? ", by token" : "", lay->group,
                             first, n);
            }
    }
    mem_free(want), mem_free(got);
}

static void rows_lie_where_they_should(void **state)
{
    (void)state;
    static const size_t sizes[][TOKENS] = {
        {6, 5, 5}, {4, 4, 4, 4}, {6, 6, 2, 1, 1}, {9, 7}, {1, 1, 8, 6}, {16}};
    uint64_t seed = 1;
    float *x = random_floats(TOKENS * COLS, &seed);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int by_token = 0; by_token < 2; by_token++)
            for (int g = 0; g < 2; g++) {
                struct lay lay = {.by_token = by_token,
                                  .group = g ? COLS : RUN};
                memcpy(lay.sizes, sizes[i], sizeof lay.sizes);
                compare(&lay, x);
            }
    mem_free(x);
}

TESTS(T(rows_lie_where_they_should))
