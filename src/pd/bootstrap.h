/* pd/bootstrap.h - where decodes learn how to reach this prefill.
 *
 * The HTTP server of docs/wire.md, "Bootstrap HTTP": a table of the ranks
 * that registered themselves, this process among them, and of the DP ranks
 * that rooms are on. Nothing in it is trusted but as an address.
 *
 * Everything belongs to the loop thread. */
#ifndef BATON_PD_BOOTSTRAP_H
#define BATON_PD_BOOTSTRAP_H

#include "base/err.h"

#include <stdint.h>

struct loop; /* http/loop.h */
struct pd_bootstrap;

#define PD_HEADER_INSTANCE "X-SGLang-Disaggregation-Instance-ID"
#define PD_HEADER_LAYOUT   "X-Baton-KV-Layout"

/* layout: text of pd_layout_encode for the answers' header, copied. port 0:
 * any free one. ERR_IO: the address cannot be bound. */
int pd_bootstrap_open(struct pd_bootstrap **out, struct loop *loop,
                      const char *bind, uint16_t port, const char *layout,
                      struct why *why);
void pd_bootstrap_close(struct pd_bootstrap *bootstrap); /* NULL is fine */
uint16_t pd_bootstrap_port(const struct pd_bootstrap *bootstrap);

#endif
