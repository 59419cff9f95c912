#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_avx512bf16 =
    KERNELS("avx512bf16", VECTOR_PRODUCTS, attention_avx512bf16);
