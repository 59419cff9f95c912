#define VEC_NEON 1
#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_neondot =
    KERNELS("neondot", VECTOR_PRODUCTS, attention_neondot);
