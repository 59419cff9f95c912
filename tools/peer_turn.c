/* tools/peer_turn.c - a peer takes its turns as `baton bench engine --turns`
 * does: llama.cpp, or ik_llama.cpp (HAS_REPACK), behind its own llama.h.
 * tools/compare_peers.py builds it against each and runs it.
 *
 * usage: peer_turn MODEL THREADS BATCH PROMPT GEN; then a line of stdin is
 * "steps N" or "prompt" and is answered with its seconds. */
#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 512 };

struct peer {
    struct llama_context *context;
    struct llama_batch batch;
    int sequences, prompt, gen, position;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void stop(const char *what)
{
    fprintf(stderr, "peer_turn: %s\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)level, (void)text, (void)user;
}

/* Forgets what sequence has from there on. */
static void cut(struct peer *p, int sequence, int from)
{
#ifdef HAS_REPACK
    llama_kv_cache_seq_rm(p->context, sequence, from, -1);
#else
    llama_memory_seq_rm(llama_get_memory(p->context), sequence, from, -1);
#endif
}

static void put(struct peer *p, int sequence, int position, bool logits)
{
    struct llama_batch *b = &p->batch;
    int i = b->n_tokens++;
    b->token[i] = (position * 7919 + sequence + 13) % 49000;
    b->pos[i] = position;
    b->n_seq_id[i] = 1;
    b->seq_id[i][0] = sequence;
    b->logits[i] = logits;
}

static void compute(struct peer *p)
{
    if (llama_decode(p->context, p->batch)) stop("llama_decode fails");
    llama_synchronize(p->context);
    p->batch.n_tokens = 0;
}

static void prompt(struct peer *p, int sequence)
{
    cut(p, sequence, 0);
    for (int i = 0; i < p->prompt; i++) {
        bool last = i + 1 == p->prompt;
        put(p, sequence, i, last);
        if (last || p->batch.n_tokens == CHUNK) compute(p);
    }
}

/* n steps after an untimed one, again from behind the prompts where gen has no
 * room for them. */
static double steps(struct peer *p, int n)
{
    if (p->position + n + 1 > p->prompt + p->gen) {
        for (int s = 0; s < p->sequences; s++)
            cut(p, s, p->prompt);
        p->position = p->prompt;
    }
    double begin = 0;
    for (int i = -1; i < n; i++, p->position++) {
        if (i == 0) begin = seconds();
        for (int s = 0; s < p->sequences; s++)
            put(p, s, p->position, true);
        compute(p);
    }
    return seconds() - begin;
}

int main(int argc, char **argv)
{
    if (argc != 6) stop("usage: peer_turn MODEL THREADS BATCH PROMPT GEN");
    int threads = atoi(argv[2]);
    struct peer p = {.sequences = atoi(argv[3]),
                     .prompt = atoi(argv[4]),
                     .gen = atoi(argv[5])};
    FILE *answers = fdopen(dup(STDOUT_FILENO), "w");
    if (!answers || !freopen("/dev/null", "w", stdout)) stop("no stdout");
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model_params of_model = llama_model_default_params();
#ifdef HAS_REPACK
    of_model.repack_tensors = true;
#endif
    struct llama_model *model = llama_model_load_from_file(argv[1], of_model);
    if (!model) stop("the model does not load");
    struct llama_context_params c = llama_context_default_params();
    c.n_ctx = (uint32_t)(p.sequences * (p.prompt + p.gen + 256));
    c.n_batch = CHUNK;
    c.n_seq_max = (uint32_t)p.sequences;
    c.n_threads = c.n_threads_batch = threads;
#ifdef HAS_REPACK
    c.flash_attn = p.sequences == 1; /* of several it aborts */
#endif
    p.context = llama_init_from_model(model, c);
    if (!p.context) stop("there is no context");
    p.batch = llama_batch_init(CHUNK, 0, 1);
    for (int s = 0; s < p.sequences; s++)
        prompt(&p, s);
    p.position = p.prompt;
    fprintf(answers, "ready\n");
    char line[64];
    int n;
    while (fflush(answers) == 0 && fgets(line, sizeof line, stdin)) {
        double begin = seconds(), took;
        if (sscanf(line, "steps %d", &n) == 1 && n > 0 && n < p.gen) {
            took = steps(&p, n);
        } else if (strcmp(line, "prompt\n") == 0) {
            prompt(&p, 0);
            took = seconds() - begin;
        } else {
            stop("a turn is \"steps N\" or \"prompt\"");
        }
        fprintf(answers, "%.9f\n", took);
    }
    return 0;
}
