#define VEC_NEON 1
#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_neon =
    KERNELS("neon", VECTOR_PRODUCTS, attention_neon);
