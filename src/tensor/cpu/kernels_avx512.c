#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_avx512 =
    KERNELS("avx512-vnni", VECTOR_PRODUCTS, attention_avx512);
