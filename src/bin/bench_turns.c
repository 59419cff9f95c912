/* For tools/compare_peers.py, which gives several programs turns on one
 * machine. */
#include "bin/bench_turns.h"

#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct turns {
    struct rig *rig;
    const struct bench *b;
    int32_t *next;
    uint32_t position; /* of the next step */
};

static int turn_steps(struct turns *t, int64_t n, struct why *why)
{
    if (n < 1 || n + 1 > t->b->gen)
        return err_set(why, ERR_INVALID, "1 to %" PRId64 " steps a turn",
                       t->b->gen - 1);
    if (t->position + n + 1 > t->b->prompt + t->b->gen)
        t->position = (uint32_t)t->b->prompt;
    uint64_t begin = 0;
    for (int64_t i = -1; i < n; i++) {
        if (i == 0) begin = clock_ns();
        int rc = rig_decode(t->rig, t->position++, t->next, why);
        if (rc) return rc;
    }
    printf("%.9f\n", (double)(clock_ns() - begin) * 1e-9);
    return 0;
}

static int turn_prompt(struct turns *t, struct why *why)
{
    uint64_t begin = clock_ns();
    int rc = rig_prefill(t->rig, t->b, 0, &t->next[0], why);
    if (!rc) printf("%.9f\n", (double)(clock_ns() - begin) * 1e-9);
    return rc;
}

static int turn_take(struct turns *t, const char *line, struct why *why)
{
    int64_t n;
    if (sscanf(line, "steps %" SCNd64, &n) == 1) return turn_steps(t, n, why);
    if (strcmp(line, "prompt\n") == 0) return turn_prompt(t, why);
    if (strcmp(line, "read\n") == 0) {
        reader_read(t->rig->reader);
        printf("%.3f\n", reader_rate(t->rig->reader));
        return 0;
    }
    if (strcmp(line, "limits\n") == 0) {
        struct roofline r;
        int threads = device_threads(t->rig->device);
        int rc = roofline_measure(threads, NULL, &r, why);
        if (!rc) printf("%.1f %.1f\n", r.int8_gop_s, r.bf16_gflop_s);
        return rc;
    }
    return err_set(why, ERR_INVALID,
                   "a turn is \"steps N\", \"prompt\", \"read\" or \"limits\"");
}

int bench_turns_take(struct rig *r, const struct bench *b, struct why *why)
{
    struct turns t = {r, b, mem_must(r->batch, sizeof *t.next),
                      (uint32_t)b->prompt};
    int rc = reader_create(&r->reader, device_threads(r->device), NULL, why);
    for (uint32_t s = 0; s < r->batch && !rc; s++)
        rc = rig_prefill(r, b, s, &t.next[s], why);
    if (!rc)
        printf("{\"weights\":\"%s\",\"step_bytes\":%.0f,"
               "\"step_ops\":%.0f,\"prompt_ops\":%.0f}\n",
               dtype_name(model_weight_type(r->model)), rig_step_bytes(b, r),
               rig_step_ops(r), rig_token_ops(r) * (double)b->prompt);
    char line[64];
    while (!rc && fflush(stdout) == 0 && fgets(line, sizeof line, stdin))
        rc = turn_take(&t, line, why);
    mem_free(t.next);
    return rc;
}
