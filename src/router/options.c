#include "router/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int add_worker(struct router_worker_option *list, size_t *count,
                      const char *url, int port, struct why *why)
{
    if (*count == ROUTER_WORKERS_MAX)
        return err_set(why, ERR_INVALID, "more than %d workers of a kind",
                       ROUTER_WORKERS_MAX);
    list[(*count)++] = (struct router_worker_option){url, port};
    return 0;
}

/* URL [PORT|none] */
static int add_prefill(void *into, int count, char **values, struct why *why)
{
    struct router_options *o = into;
    int port = -1;
    if (count == 2 && strcasecmp(values[1], "none") != 0) {
        char *end;
        long n = strtol(values[1], &end, 10);
        if (end == values[1] || *end || n < 1 || n > 65535)
            return err_set(why, ERR_INVALID,
                           "--prefill %s %s: the bootstrap port must be 1 to "
                           "65535, or none",
                           values[0], values[1]);
        port = (int)n;
    }
    return add_worker(o->prefill, &o->prefill_count, values[0], port, why);
}

static int add_decode(void *into, int count, char **values, struct why *why)
{
    (void)count;
    struct router_options *o = into;
    return add_worker(o->decode, &o->decode_count, values[0], -1, why);
}

#define AT(f) offsetof(struct router_options, f)
#define POLICIES                                                 \
    "random|round_robin|power_of_two|cache_aware|bucket|manual|" \
    "consistent_hashing|prefix_hash"
#define NO_RUST  "belongs to parts of the Rust router that are not here"
#define NO_K8S   "there is no Kubernetes service discovery yet"
#define NO_QUEUE "requests over the limit are answered 429, not queued"
#define ONE_PORT "/metrics is served on the router's own port"

static const struct opt table[] = {
    {"host", OPT_STRING, AT(host), "0.0.0.0", .help = "address to listen on"},
    {"port", OPT_INT, AT(port), "30000", .min = 0, .max = 65535,
     .help = "port to listen on; 0: any free one"},
    {"pd-disaggregation", OPT_FLAG, AT(pd_disaggregation),
     .help = "prefill and decode workers (the only mode)"},
    {"mini-lb", OPT_FLAG, AT(mini_lb),
     .help = "taken for SGLang's sake: there is one router here"},
    {"prefill", OPT_CALL, 0, .min = 1, .max = 2, .call = add_prefill,
     .help = "URL [BOOTSTRAP_PORT|none] of a prefill server; repeatable"},
    {"decode", OPT_CALL, 0, .min = 1, .max = 1, .call = add_decode,
     .help = "URL of a decode server; repeatable"},
    {"policy", OPT_CHOICE, AT(policy), NULL, .choices = POLICIES,
     .help = "how a worker is picked; by default cache_aware, with --mini-lb "
             "random; others than the first four: random"},
    {"prefill-policy", OPT_CHOICE, AT(prefill_policy), NULL,
     .choices = POLICIES, .help = "for prefill workers alone"},
    {"decode-policy", OPT_CHOICE, AT(decode_policy), NULL, .choices = POLICIES,
     .help = "for decode workers alone"},
    {"cache-threshold", OPT_DOUBLE, AT(cache_threshold), "0.3", .min = 0,
     .max = 1,
     .help = "cache_aware: share of a prompt that a worker must know"},
    {"balance-abs-threshold", OPT_INT, AT(balance_abs_threshold), "64",
     .min = 0, .max = 1e6,
     .help = "cache_aware: requests between the most and the least loaded "
             "from which on load decides, if it is also"},
    {"balance-rel-threshold", OPT_DOUBLE, AT(balance_rel_threshold), "1.5",
     .min = 1, .max = 1000, .help = "cache_aware: so many times the least"},
    {"max-tree-size", OPT_INT, AT(max_tree_size), "67108864", .min = 1,
     .max = 1e11,
     .help = "cache_aware: bytes of prompts known of a worker (1/16 of it is "
             "memory)"},
    {"request-timeout-secs", OPT_INT, AT(request_timeout_secs), "1800",
     .min = 1, .max = 1e6, .help = "limit of one request, stream included"},
    {"api-key", OPT_STRING, AT(api_key), "",
     .help = "asked of clients and shown to workers (Bearer)"},
    {"log-level", OPT_CHOICE, AT(log_level), "info",
     .choices = "error|warn|warning|info|debug|trace", .help = "least shown"},
    {"max-payload-size", OPT_INT, AT(max_payload_size), "536870912", .min = 1,
     .max = 1e12, .help = "bytes of a request or answer"},
    {"max-concurrent-requests", OPT_INT, AT(max_concurrent_requests), "-1",
     .min = -1, .max = 1e9, .help = "over it: 429; -1: no limit"},
    {"disable-retries", OPT_FLAG, AT(disable_retries),
     .help = "one pair per request"},
    {"retry-max-retries", OPT_INT, AT(retry_max_retries), "5", .min = 1,
     .max = 100, .help = "pairs tried per request"},
    {"retry-initial-backoff-ms", OPT_INT, AT(retry_initial_backoff_ms), "50",
     .min = 0, .max = 1e6, .help = "wait before the second pair"},
    {"retry-max-backoff-ms", OPT_INT, AT(retry_max_backoff_ms), "30000",
     .min = 0, .max = 1e7, .help = "longest wait"},
    {"retry-backoff-multiplier", OPT_DOUBLE, AT(retry_backoff_multiplier),
     "1.5", .min = 1, .max = 100, .help = "growth of the wait"},
    {"retry-jitter-factor", OPT_DOUBLE, AT(retry_jitter_factor), "0.2",
     .min = 0, .max = 1, .help = "random part of the wait"},
    {"disable-circuit-breaker", OPT_FLAG, AT(disable_circuit_breaker),
     .help = "failed requests alone make no worker unhealthy"},
    {"cb-failure-threshold", OPT_INT, AT(cb_failure_threshold), "10", .min = 1,
     .max = 1e6, .help = "failed requests in a row that do"},
    {"health-failure-threshold", OPT_INT, AT(health_failure_threshold), "3",
     .min = 1, .max = 1e6, .help = "failed health checks that do"},
    {"health-success-threshold", OPT_INT, AT(health_success_threshold), "1",
     .min = 1, .max = 1e6, .help = "good probes in a row that end it"},
    {"health-check-timeout-secs", OPT_INT, AT(health_check_timeout_secs), "5",
     .min = 1, .max = 1e5, .help = "limit of one check or probe"},
    {"health-check-interval-secs", OPT_INT, AT(health_check_interval_secs),
     "60", .min = 0, .max = 1e6, .help = "between checks; 0: none"},
    {"health-check-endpoint", OPT_STRING, AT(health_check_endpoint), "/health",
     .help = "path that is checked"},
    {"shutdown-grace-period-secs", OPT_INT, AT(shutdown_grace_period_secs), "5",
     .min = 0, .max = 1e5, .help = "for live requests after SIGTERM"},
    {"probe-ms", OPT_INT, AT(probe_ms), "200", .min = 1, .max = 1e6,
     .help = "between probes of an unhealthy worker"},
    {"silent-ms", OPT_INT, AT(silent_ms), "2000", .min = 0, .max = 1e6,
     .help = "a worker with requests that says nothing is asked if it runs"},
    {"verdict-ms", OPT_INT, AT(verdict_ms), "200", .min = 0, .max = 1e6,
     .help = "after decode's 5xx: wait for prefill's own error"},
    {"linger-ms", OPT_INT, AT(linger_ms), "5000", .min = 0, .max = 1e6,
     .help = "after decode's answer: wait for prefill's"},

    {"worker-urls", OPT_IGNORED_VALUE, .help = "give --prefill and --decode"},
    {"eviction-interval-secs|eviction-interval", OPT_IGNORED_VALUE,
     .help = "what is known of a worker never outgrows --max-tree-size"},
    {"bucket-adjust-interval-secs", OPT_IGNORED_VALUE,
     .help = "there is no bucket policy"},
    {"dp-aware", OPT_IGNORED_FLAG, .help = "workers here have one DP rank"},
    {"log-dir", OPT_IGNORED_VALUE, .help = "the log goes to stderr"},
    {"prometheus-port", OPT_IGNORED_VALUE, .help = ONE_PORT},
    {"prometheus-host", OPT_IGNORED_VALUE, .help = ONE_PORT},
    {"cors-allowed-origins", OPT_IGNORED_VALUE,
     .help = "every origin is allowed"},
    {"request-id-headers", OPT_IGNORED_VALUE,
     .help = "x-request-id and its kin are always passed on"},
    {"queue-size", OPT_IGNORED_VALUE, .help = NO_QUEUE},
    {"queue-timeout-secs", OPT_IGNORED_VALUE, .help = NO_QUEUE},
    {"rate-limit-tokens-per-second", OPT_IGNORED_VALUE, .help = NO_QUEUE},
    {"cb-success-threshold", OPT_IGNORED_VALUE,
     .help = "see --health-success-threshold"},
    {"cb-timeout-duration-secs", OPT_IGNORED_VALUE, .help = "see --probe-ms"},
    {"cb-window-duration-secs", OPT_IGNORED_VALUE,
     .help = "failures are counted in a row"},
    {"worker-startup-timeout-secs", OPT_IGNORED_VALUE,
     .help = "the router starts at once and probes"},
    {"worker-startup-check-interval", OPT_IGNORED_VALUE,
     .help = "the router starts at once and probes"},
    {"connect-timeout-secs", OPT_IGNORED_VALUE, .help = "always 10"},
    {"pool-idle-timeout-secs", OPT_IGNORED_VALUE, .help = "always 118"},
    {"service-discovery", OPT_IGNORED_FLAG, .help = NO_K8S},
    {"selector", OPT_IGNORED_VALUE, .help = NO_K8S},
    {"prefill-selector", OPT_IGNORED_VALUE, .help = NO_K8S},
    {"decode-selector", OPT_IGNORED_VALUE, .help = NO_K8S},
    {"service-discovery-port", OPT_IGNORED_VALUE, .help = NO_K8S},
    {"service-discovery-namespace", OPT_IGNORED_VALUE, .help = NO_K8S},
    {"bootstrap-port-annotation", OPT_IGNORED_VALUE, .help = NO_K8S},
    {"enable-trace", OPT_IGNORED_FLAG,
     .help = "traceparent is passed on, no spans are made"},
    {"otlp-traces-endpoint", OPT_IGNORED_VALUE, .help = "no spans are made"},
    {"model-path|model", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"tokenizer-path", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"chat-template", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"reasoning-parser", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"tool-call-parser", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"backend", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"history-backend", OPT_IGNORED_VALUE, .help = NO_RUST},
    {"test-external-dp-routing", OPT_IGNORED_FLAG, .help = NO_RUST},
};
enum { TABLE = sizeof table / sizeof *table };

int router_options_parse(struct router_options *o, int argc, char **argv,
                         void (*ignored)(void *arg, const struct opt *),
                         void *arg, struct why *why)
{
    *o = (struct router_options){
        .policy = "", .prefill_policy = "", .decode_policy = ""};
    int rc = opt_parse(table, TABLE, o, argc, argv, ignored, arg, why);
    if (rc == 1)
        opt_help(table, TABLE,
                 "baton launch_router --pd-disaggregation --prefill URL [PORT] "
                 "--decode URL [options]");
    if (rc) return rc;
    /* As with SGLang's, whose mini_lb knows no other. */
    if (!o->policy[0]) o->policy = o->mini_lb ? "random" : "cache_aware";
    if (!o->pd_disaggregation)
        return err_set(why, ERR_INVALID,
                       "the router only knows prefill/decode disaggregation: "
                       "add --pd-disaggregation");
    bool may_come = o->api_key[0]; /* router/members.h */
    if ((!o->prefill_count || !o->decode_count) && !may_come)
        return err_set(why, ERR_INVALID,
                       "--pd-disaggregation needs at least one --prefill URL "
                       "[PORT] and one --decode URL, or --api-key so that "
                       "workers can be added later; no --%s was given",
                       o->prefill_count ? "decode" : "prefill");
    return 0;
}
