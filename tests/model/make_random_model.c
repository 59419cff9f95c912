/* make-random-model SPEC.json OUT [SHARDS | TYPE]: writes a model of random
 * weights (tests/model/random_model.h) as a Hugging Face folder OUT of SHARDS
 * files (1), or, where OUT ends in .gguf, as a GGUF file of TYPE (f32). For
 * end-to-end scripts. */
#include "tests/model/random_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int write_gguf(const struct random_model *m, const char *path,
                      const char *type)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (!strcmp(type, dtype_name((enum dtype)i))) {
            random_model_write_gguf(m, path, (enum dtype)i, false);
            return 0;
        }
    fprintf(stderr, "make-random-model: no type %s\n", type);
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: make-random-model SPEC.json FOLDER [SHARDS]\n"
                        "       make-random-model SPEC.json X.gguf [TYPE]\n");
        return 2;
    }
    struct random_model *m = random_model_read(argv[1]);
    size_t n = strlen(argv[2]);
    int rc = 0;
    if (n > 5 && !strcmp(argv[2] + n - 5, ".gguf")) {
        rc = write_gguf(m, argv[2], argc == 4 ? argv[3] : "f32");
    } else {
        int shards = argc == 4 ? atoi(argv[3]) : 1;
        random_model_write_folder(m, argv[2],
                                  shards > 0 ? (unsigned)shards : 1);
    }
    random_model_free(m);
    return rc;
}
