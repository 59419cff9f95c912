#include "tensor/cpu/attention_body.h"

const struct attention attention_avx512 = {attend, attend_merge};
