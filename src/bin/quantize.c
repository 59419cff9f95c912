/* bin/quantize.c - baton quantize IN OUT: rounds a model's weights once, so
 * that servers need not do it at every start. */
#include "base/clock.h"
#include "base/opt.h"
#include "bin/commands.h"
#include "model/quantize.h"

#include <stdio.h>
#include <unistd.h>

struct quantize_args {
    const char *in, *out, *kind;
};

static const struct opt options[] = {
    {"IN", OPT_WORD, offsetof(struct quantize_args, in),
     .help = "a model's folder"},
    {"OUT", OPT_WORD, offsetof(struct quantize_args, out),
     .help = "the folder to make"},
    {"quantization", OPT_CHOICE, offsetof(struct quantize_args, kind),
     .fallback = "w8a8_int8", .choices = "w8a8_int8|int8|int4",
     .help = "int8 a row with activations rounded too; int8 or int4 in groups"},
};
enum { OPTIONS = sizeof options / sizeof *options };

static void on_progress(void *arg, size_t done, size_t total)
{
    uint64_t *last = arg, now = clock_us();
    if (now - *last < 500000 && done < total) return;
    *last = now;
    fprintf(stderr, "baton quantize: %.2f of %.2f GB%s", (double)done * 1e-9,
            (double)total * 1e-9, isatty(2) && done < total ? "\r" : "\n");
}

int quantize_main(int argc, char **argv)
{
    struct quantize_args args = {0};
    struct why why = {0};
    uint64_t last = 0;
    int rc = opt_parse(options, OPTIONS, &args, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, OPTIONS,
                 "baton quantize IN OUT [--quantization KIND]");
        return 0;
    }
    if (!rc && !args.out)
        rc = err_set(&why, ERR_INVALID, "two folders are wanted: IN OUT");
    if (rc) {
        fprintf(stderr, "baton quantize: %s\n", why_text(&why, rc));
        return 2;
    }
    struct quantize_options o = {
        .in = args.in, .out = args.out, .progress = on_progress, .arg = &last};
    rc = model_quantize_parse(&o.kind, args.kind, &why);
    if (!rc) rc = model_quantize(&o, &why);
    if (rc) fprintf(stderr, "baton quantize: %s\n", why_text(&why, rc));
    return rc ? 1 : 0;
}
