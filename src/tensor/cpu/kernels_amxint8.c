#define AMX_TILES   1
#define PAIRS_TILES 0
#define AMX_VECTORS kernels_avx512bf16
#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_amxint8 =
    KERNELS("amxint8", AMX_PRODUCTS, attention_avx512bf16);
