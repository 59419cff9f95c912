/* The tiles in plain C: for tests on processors without them. */
#define AMX_TILES   0
#define PAIRS_TILES 1
#include "tensor/cpu/kernels_body.h"

const struct kernels kernels_amxplain =
    KERNELS("amxplain", AMX_PRODUCTS, attention_generic);
