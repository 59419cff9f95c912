#define AMX_TILES   1
#define PAIRS_TILES 1
#define AMX_VECTORS kernels_avx512bf16
#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_amxbf16 =
    KERNELS("amxbf16", AMX_PRODUCTS, attention_avx512bf16);
