/* xfer/env.h - environment variables that users of MemFabric, Mooncake and
 * Baton have set already. What makes sense here is honoured; what does not is
 * explained, one line in the log, once a process. */
#ifndef BATON_XFER_ENV_H
#define BATON_XFER_ENV_H

#include "xfer/binding.h"

struct xfer_settings {
    struct xfer_options xfer;    /* strings lie in the environment */
    const char *bind;            /* address to bind; NULL: that of the name */
    uint16_t port_min, port_max; /* where the name has no port; 0: any */
    int timeout_ms;              /* of a transfer that waits */
};

/* ERR_INVALID names the variable and what it may be. */
int xfer_env_read(struct xfer_settings *out, enum xfer_world world,
                  struct why *why);

/* xfer_open as s says, for an engine that peers reach at host: at port, or,
 * where that is 0, at a free one of its range. Errors: xfer_open's. */
int xfer_env_open(struct xfer **out, const struct xfer_settings *s,
                  const char *host, uint16_t port, struct why *why);

#endif
