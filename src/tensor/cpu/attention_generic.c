#include "tensor/cpu/attention_body.h"

const struct attention attention_generic = {attend, attend_merge};
