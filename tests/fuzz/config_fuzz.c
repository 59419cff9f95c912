/* A config.json of any bytes: a configuration whose frequencies can be
 * computed, or a refusal with a text. */
#include "model/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *value;
    struct model_config config;
    struct why why = {0};
    float freqs[OP_HEAD_DIM_MAX / 2];
    if (json_parse(&value, (const char *)data, size, NULL)) return 0;
    if (!config_from_json(&config, value, value, "fuzz", &why))
        config_rope_freqs(&config, NULL, freqs);
    else if (!why.text[0])
        abort();
    json_decref(value);
    return 0;
}
