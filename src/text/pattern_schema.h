/* text/pattern_schema.h - JSON Schema as a pattern of JSON texts.
 *
 * Done: type (one or a list), enum, const, anyOf and oneOf (as anyOf), allOf
 * of one, $ref within the document, also recursive; of strings minLength,
 * maxLength, pattern and the formats date, time, date-time and uuid (others
 * are annotations); of integers minimum, maximum and their exclusive kind; of
 * arrays items, prefixItems, minItems, maxItems; of objects properties,
 * required, additionalProperties. Annotations mean nothing. Any other keyword
 * is refused with its name.
 *
 * The texts: members of an object in the schema's order, and none that it does
 * not name unless additionalProperties allows them (xgrammar's strict mode); a
 * bare object takes any. Between tokens nothing, a space, or a new line and up
 * to 24 blanks; numbers have at most 18 digits before the point, 16 behind, 2
 * in a power. So no model can write blanks or digits for ever.
 *
 * Source: JSON Schema 2020-12, and what xgrammar makes of it. */
#ifndef BATON_TEXT_PATTERN_SCHEMA_H
#define BATON_TEXT_PATTERN_SCHEMA_H

#include "json/json.h"
#include "text/pattern_json.h"

/* Defines rule 0 of an empty pattern. ERR_INVALID, ERR_UNSUPPORTED,
 * ERR_RANGE. */
int pattern_schema(struct pattern *p, const json_t *schema, struct why *why);
/* The tree of a schema within root, of a pattern that has rules already. */
int pattern_schema_part(struct pattern_json *j, const json_t *root,
                        const json_t *schema, pattern_node *out,
                        struct why *why);

#endif
