/* bin/bench_roofline.c - what the machine can do at most, for one thread up to
 * all: what the speeds of the other benches are set against. */
#include "base/opt.h"
#include "bin/commands.h"
#include "bin/cpu_isa.h"
#include "tensor/roofline.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

struct bench {
    const char *isa;
    int64_t threads;
    bool json;
};

#define AT(f) offsetof(struct bench, f)
static const struct opt options[] = {
    {"threads", OPT_INT, AT(threads), "0", 0, 1024,
     .help = "measure 1 up to N threads, 0: up to one a core"},
    {"cpu-isa", OPT_CHOICE, AT(isa), "best", .choices = CPU_ISA_CHOICES,
     .help = "most instructions"},
    {"json", OPT_FLAG, AT(json), .help = "one JSON array on stdout"},
};

/* A line as soon as it is known: with many threads it takes a while. */
static void print_row(const struct roofline *r, bool json)
{
    if (json)
        printf("%s{\"threads\":%d,\"isa\":\"%s\",\"read_bytes\":%zu,"
               "\"read_gb_per_s\":%.2f,\"f32_gflops\":%.1f,"
               "\"bf16_gflops\":%.1f,\"int8_gops\":%.1f}",
               r->threads == 1 ? "[" : ",\n ", r->threads, r->isa,
               r->read_bytes, r->read_gb_s, r->f32_gflop_s, r->bf16_gflop_s,
               r->int8_gop_s);
    else
        printf("%7d  %9.1f  %11.1f  %12.1f  %10.1f  %s\n", r->threads,
               r->read_gb_s, r->f32_gflop_s, r->bf16_gflop_s, r->int8_gop_s,
               r->isa);
    fflush(stdout);
}

int bench_roofline_main(int argc, char **argv)
{
    struct bench b = {0};
    struct why why = {0};
    size_t count = sizeof options / sizeof *options;
    int rc = opt_parse(options, count, &b, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, count, "baton bench roofline [--threads N] [--json]");
        return 0;
    }
    if (rc) {
        fprintf(stderr, "baton bench roofline: %s\n", why_text(&why, rc));
        return 2;
    }
    int most = b.threads ? (int)b.threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int t = 1; t <= most && !rc; t++) {
        struct roofline r;
        rc = roofline_measure(t, cpu_isa_limit(b.isa), &r, &why);
        if (rc) break;
        if (t == 1 && !b.json)
            printf("threads  read GB/s  f32 GFLOP/s  bf16 GFLOP/s  int8 GOP/s "
                   " instructions\n");
        print_row(&r, b.json);
    }
    if (rc)
        fprintf(stderr, "baton bench roofline: %s\n", why_text(&why, rc));
    else if (b.json)
        printf("]\n");
    return rc ? 1 : 0;
}
