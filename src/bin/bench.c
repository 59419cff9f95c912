/* bin/bench.c - what this machine can do, and what Baton makes of it: the
 * commands of `baton bench`. */
#include "bin/commands.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} benches[] = {
    {"engine", bench_engine_main,
     "prompts and decode steps of a model (--model M)"},
    {"attention", bench_attention_main, "attention alone, over random KV"},
    {"tokenizer", bench_tokenizer_main, "text to tokens and back (--model M)"},
    {"xfer", bench_xfer_main, "transfers between two processes' memory"},
    {"roofline", bench_roofline_main, "what the machine can do at most"},
};
enum { BENCHES = sizeof benches / sizeof *benches };

static int usage(FILE *to)
{
    fprintf(to, "usage: baton bench WHAT [options]\n\n");
    for (size_t i = 0; i < BENCHES; i++)
        fprintf(to, "  %-14s %s\n", benches[i].name, benches[i].help);
    return to == stdout ? 0 : 2;
}

int bench_main(int argc, char **argv)
{
    if (argc < 2) return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout);
    for (size_t i = 0; i < BENCHES; i++)
        if (strcmp(argv[1], benches[i].name) == 0)
            return benches[i].run(argc - 1, argv + 1);
    fprintf(stderr, "baton bench: nothing is called \"%s\"\n\n", argv[1]);
    return usage(stderr);
}
