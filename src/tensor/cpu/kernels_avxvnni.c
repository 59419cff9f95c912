#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_avxvnni =
    KERNELS("avxvnni", VECTOR_PRODUCTS, attention_avxvnni);
