#define VEC_NEON 1
#include "tensor/cpu/attention_body.h"

const struct attention attention_neon = {attend, attend_merge};
