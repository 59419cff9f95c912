/* bin/main.c - the one program: a table of commands. */
#include "bin/commands.h"
#include "router/router.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"launch_server", launch_server_main, "serve a model (see --help there)"},
    {"launch_router", router_run, "route to prefill/decode pairs"},
    {"up", up_main, "run a whole local PD cluster, supervised"},
    {"bench", bench_main,
     "measure: baton bench engine|attention|tokenizer|xfer|roofline"},
    {"doctor", doctor_main, "what this machine can do, and what would bite"},
    {"inspect", inspect_main, "what a model is and what it would take"},
    {"quantize", quantize_main, "round a model's weights into another folder"},
    {"store", store_main, "run a config store alone"},
};

static int usage(FILE *to)
{
    fprintf(to, "baton " BATON_VERSION
                " - LLM serving with prefill and decode apart\n\n"
                "usage: baton COMMAND [options]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-14s %s\n", commands[i].name, commands[i].help);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a peer that left is an error code */
    if (argc < 2) return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        puts("baton " BATON_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "baton: unknown command \"%s\"\n\n", argv[1]);
    return usage(stderr);
}
