#include "tensor/cpu/attention_body.h"

const struct attention attention_avxvnni = {attend, attend_merge};
