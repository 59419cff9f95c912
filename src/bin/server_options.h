/* bin/server_options.h - the command line and environment of launch_server.
 *
 * Names, meanings and defaults are SGLang's wherever a flag of it is served
 * here; each difference is said in the flag's help. */
#ifndef BATON_BIN_SERVER_OPTIONS_H
#define BATON_BIN_SERVER_OPTIONS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct server_options {
    const char *model_path, *tokenizer_path, *served_model_name;
    const char *reasoning_parser, *tool_call_parser;
    const char *chat_template, *api_key, *device, *cpu_isa, *attention_backend;
    const char *kv_cache_dtype, *quantization, *weight_cache,
        *sampling_defaults, *log_level;
    const char *host, *dist_init_addr;
    int64_t port, threads, tp_size, dp_size, nnodes, node_rank;
    double mem_fraction;
    int64_t max_total_tokens, context_length, page_size, chunked_prefill_size;
    int64_t max_running_requests, max_queued_requests, stream_interval;
    int64_t num_reserved_decode_tokens;
    bool disable_radix_cache, decode_radix_cache, stream_output;
    bool enable_metrics, enable_cache_report, skip_warmup;

    const char *mode;             /* null, prefill, decode */
    const char *transfer_backend; /* ascend, mooncake, ... */
    const char *transfer_way;     /* auto, or a way of xfer/xfer.h */
    const char *rdma_device;      /* NULL: no RDMA unless the way or
                                   * BATON_TRANSFER_VIA asks for it */
    int64_t bootstrap_port;
    const char *pdlb_url; /* NULL: it joins no router by itself */

    /* From the environment. */
    const char *store_url; /* ASCEND_MF_STORE_URL                  */
    const char *host_ip;   /* SGLANG_HOST_IP, HOST_IP              */
    int64_t bootstrap_timeout_ms, waiting_timeout_ms;
    int64_t heartbeat_interval_ms, heartbeat_max_failure;
    int64_t health_timeout_ms;
    bool plain_health; /* SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0 */
};

/* Fills *out, starts the log (level, role), then logs, once each, what was
 * given and has no effect here. Returns 0, 1 (--help was printed) or an ERR_
 * code. Strings are borrowed from argv and the environment. */
int server_options_read(struct server_options *out, int argc, char **argv,
                        struct why *why);

/* The options as one JSON object, for /get_server_info; caller mem_frees. */
char *server_options_json(const struct server_options *o);

#endif
