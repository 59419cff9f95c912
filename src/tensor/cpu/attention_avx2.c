#include "tensor/cpu/attention_body.h"

const struct attention attention_avx2 = {attend, attend_merge};
