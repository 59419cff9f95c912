#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_avx2 =
    KERNELS("avx2", VECTOR_PRODUCTS, attention_avx2);
