/* A safetensors file of any bytes, asked for a matrix "x" in every form: found
 * and every row converted, or refused with a text. */
#include "base/mem.h"
#include "model/matrix.h"
#include "model/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void convert(const struct model_files *files, enum quant_method method,
                    uint32_t rows, uint32_t cols)
{
    struct model_config config = {.quant = {method, false, 4, 16}};
    struct why why = {0};
    struct matrix m;
    if (matrix_find(&m, files, &config, "x", rows, cols, 0, 0, &why)) {
        if (!why.text[0]) abort();
        return;
    }
    size_t row = dtype_row_bytes(m.type, cols);
    if (!row) abort(); /* a type that cannot hold the row */
    void *out = mem_must(rows, row);
    float *bias = mem_must(rows, sizeof *bias);
    matrix_rows(&m, 0, rows, out);
    matrix_bias(&m, bias);
    mem_free(bias);
    mem_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[] = "fuzz";
    struct model_files files = {.path = name};
    if (safetensors_parse(&files.shards, "fuzz", data, size, NULL)) return 0;
    for (enum quant_method q = QUANT_NONE; q <= QUANT_GPTQ; q++) {
        convert(&files, q, 8, 32);
        convert(&files, q, 32, 64);
    }
    safetensors_close(files.shards);
    return 0;
}
