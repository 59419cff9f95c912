/* model/config_parts.h - what the two readers of a configuration share.
 * Internal to model/config*.c. */
#ifndef BATON_MODEL_CONFIG_PARTS_H
#define BATON_MODEL_CONFIG_PARTS_H

#include "model/arch.h"
#include "model/config.h"

#define MAX_COUNT (1u << 24) /* of anything: rows, columns, positions */

/* What a configuration has before a field is read. */
void config_begin(struct model_config *c, const struct arch *arch);
/* Derives what is derived, and checks what is true of a configuration
 * whatever file it came from. */
int config_finish(struct model_config *c, const char *name, struct why *why);
/* Adds a token at which generation stops, once. */
int config_add_eos(struct model_config *c, int64_t id, const char *name,
                   struct why *why);
/* The attention factor that YaRN proposes for a stretch by scale. */
double config_yarn_mscale(double scale, double mscale);

#endif
