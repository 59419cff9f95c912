#define VEC_NEON 1
#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_neoni8mm =
    KERNELS("neoni8mm", VECTOR_PRODUCTS, attention_neoni8mm);
