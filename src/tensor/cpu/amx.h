/* tensor/cpu/amx.h - whether this process may use the tile registers of AMX.
 * x86-64 only. */
#ifndef BATON_TENSOR_CPU_AMX_H
#define BATON_TENSOR_CPU_AMX_H

#include <stdbool.h>

/* Whether products of bytes, of bf16 by tiles can be used: the processor has
 * them, the kernel keeps them and gave this process its permission (asked for
 * once, for all of its threads), and they compute what they should. */
bool amx_has_int8(void);
bool amx_has_bf16(void);

/* Why not, where the processor has them; otherwise NULL. */
const char *amx_refusal(void);

#endif
