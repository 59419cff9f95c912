#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_generic =
    KERNELS("generic", VECTOR_PRODUCTS, attention_generic);
