#include "bin/kv_type.h"

#include <string.h>

enum dtype kv_type_of(const char *choice, const struct model_config *config)
{
    if (strstr(choice, "32")) return DTYPE_F32;
    if (strncmp(choice, "bf", 2) == 0) return DTYPE_BF16;
    if (strstr(choice, "16")) return DTYPE_F16;
    if (strcmp(choice, "int8") == 0) return DTYPE_KV8;
    return config->dtype <= DTYPE_BF16 ? config->dtype : DTYPE_BF16;
}
