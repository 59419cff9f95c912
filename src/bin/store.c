/* bin/store.c - a config store alone, for clusters whose prefill servers come
 * and go. */
#include "base/log.h"
#include "base/opt.h"
#include "bin/commands.h"
#include "http/loop.h"
#include "xfer/store.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct store_options {
    const char *url;
};

static const struct opt options[] = {
    {"url", OPT_STRING, offsetof(struct store_options, url),
     .help = "tcp://address:port; ASCEND_MF_STORE_URL if not given"},
};

static void on_signal(void *loop, int signal)
{
    (void)signal;
    loop_stop(loop);
}

static int serve_until_signal(const char *url, struct why *why)
{
    static const int signals[] = {SIGINT, SIGTERM};
    struct loop *loop = NULL;
    struct xfer_store *store = NULL;
    struct xfer_store_auth auth;
    xfer_store_auth_env(&auth);
    int rc = loop_create(&loop, why);
    if (!rc) rc = loop_signals(loop, signals, 2, on_signal, loop, why);
    if (!rc) rc = xfer_store_serve(url, &auth, &store, why);
    if (!rc) {
        log_info("store", "config store at %s", url);
        loop_run(loop);
    }
    xfer_store_stop(store);
    loop_destroy(loop);
    return rc;
}

int store_main(int argc, char **argv)
{
    struct store_options o = {.url = getenv("ASCEND_MF_STORE_URL")};
    struct why why = {0};
    int rc = opt_parse(options, 1, &o, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, 1, "baton store [--url tcp://127.0.0.1:6650]");
        return 0;
    }
    if (!rc && (!o.url || !*o.url))
        rc = err_set(&why, ERR_INVALID, "--url tcp://address:port is required");
    if (rc) {
        fprintf(stderr, "baton store: %s\n", why_text(&why, rc));
        return 2;
    }
    log_init(LOG_INFO, "");
    rc = serve_until_signal(o.url, &why);
    if (rc) fprintf(stderr, "baton store: %s\n", why_text(&why, rc));
    return rc ? 1 : 0;
}
