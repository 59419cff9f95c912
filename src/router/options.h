/* router/options.h - the options of `baton launch_router`, one table.
 * Names and defaults are sglang_router's; what it has and means nothing here
 * is taken and explained once in the log. */
#ifndef BATON_ROUTER_OPTIONS_H
#define BATON_ROUTER_OPTIONS_H

#include "base/opt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROUTER_WORKERS_MAX = 256 };

struct router_worker_option {
    const char *url;
    int bootstrap_port; /* -1: none */
};

struct router_options {
    const char *host;
    int64_t port;
    bool pd_disaggregation, mini_lb;
    struct router_worker_option prefill[ROUTER_WORKERS_MAX];
    struct router_worker_option decode[ROUTER_WORKERS_MAX];
    size_t prefill_count, decode_count;
    const char *policy;
    const char *prefill_policy, *decode_policy; /* "": as policy */
    double cache_threshold, balance_rel_threshold;
    int64_t balance_abs_threshold, max_tree_size;
    int64_t request_timeout_secs;
    const char *api_key; /* "": none */
    const char *log_level;
    int64_t max_payload_size;
    int64_t max_concurrent_requests; /* -1: any number */

    bool disable_retries;
    int64_t retry_max_retries; /* attempts in all */
    int64_t retry_initial_backoff_ms, retry_max_backoff_ms;
    double retry_backoff_multiplier, retry_jitter_factor;

    bool disable_circuit_breaker;
    int64_t cb_failure_threshold;
    int64_t health_failure_threshold, health_success_threshold;
    int64_t health_check_timeout_secs, health_check_interval_secs;
    const char *health_check_endpoint;
    int64_t shutdown_grace_period_secs;

    int64_t probe_ms;   /* between probes of an unhealthy worker */
    int64_t silent_ms;  /* before a quiet worker is asked; 0: never */
    int64_t verdict_ms; /* for prefill's own error, after decode's 5xx */
    int64_t linger_ms;  /* for prefill's answer, after decode's */
};

/* Fills options from defaults and argv[1..], strings borrowed. 1: --help was
 * met and printed. ERR_INVALID: also where the router could not start with
 * them (no --pd-disaggregation, no --prefill, no --decode). ignored as in
 * opt_parse. */
int router_options_parse(struct router_options *options, int argc, char **argv,
                         void (*ignored)(void *arg, const struct opt *),
                         void *arg, struct why *why);

#endif
