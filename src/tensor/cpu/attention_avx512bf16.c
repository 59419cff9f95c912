#include "tensor/cpu/attention_body.h"

const struct attention attention_avx512bf16 = {attend, attend_merge};
