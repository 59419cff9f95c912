#include "bin/server_options.h"
#include "bin/cpu_isa.h"
#include "bin/kv_type.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/opt.h"
#include "text/reply.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT(f) offsetof(struct server_options, f)

#define TEXT(name, field, fallback, help_)                             \
    {                                                                  \
        name, OPT_STRING, AT(field), fallback, 0, 0, NULL, NULL, help_ \
    }
#define NUM(name, field, fallback, lo, hi, help_)                     \
    {                                                                 \
        name, OPT_INT, AT(field), fallback, lo, hi, NULL, NULL, help_ \
    }
#define REAL(name, field, fallback, lo, hi, help_)                       \
    {                                                                    \
        name, OPT_DOUBLE, AT(field), fallback, lo, hi, NULL, NULL, help_ \
    }
#define FLAG(name, field, help_)                                 \
    {                                                            \
        name, OPT_FLAG, AT(field), NULL, 0, 0, NULL, NULL, help_ \
    }
#define PICK(name, field, fallback, choices_, help_)                       \
    {                                                                      \
        name, OPT_CHOICE, AT(field), fallback, 0, 0, choices_, NULL, help_ \
    }
#define NO_FLAG(name, help_)                                     \
    {                                                            \
        name, OPT_IGNORED_FLAG, 0, NULL, 0, 0, NULL, NULL, help_ \
    }
#define NO_VALUE(name, help_)                                     \
    {                                                             \
        name, OPT_IGNORED_VALUE, 0, NULL, 0, 0, NULL, NULL, help_ \
    }
#define REFUSED(name, help_)                                \
    {                                                       \
        name, OPT_REFUSED, 0, NULL, 0, 0, NULL, NULL, help_ \
    }

static const struct opt table[] = {
    TEXT("model-path|model", model_path, NULL,
         "GGUF file or Hugging Face folder"),
    TEXT("tokenizer-path", tokenizer_path, NULL,
         "folder or GGUF with the tokenizer, if not the model's"),
    TEXT("served-model-name", served_model_name, NULL,
         "name in /v1/models; the model path if not given"),
    TEXT("chat-template", chat_template, NULL,
         "file with a Jinja chat template, if not the model's"),
    TEXT("reasoning-parser", reasoning_parser, NULL,
         "how chats tell reasoning from the answer: qwen3, deepseek-r1, ..."),
    TEXT("tool-call-parser", tool_call_parser, NULL,
         "how chats tell calls of tools: qwen25, llama3, deepseekv3, ..."),
    TEXT("host", host, "127.0.0.1", "address to listen on and to tell peers"),
    NUM("port", port, "30000", 0, 65535, "HTTP port, 0 picks one"),
    TEXT("api-key", api_key, NULL,
         "every request but health and metrics must carry it as Bearer"),
    PICK("device", device, "auto", "auto|cpu|ref|cuda|ascend|npu",
         "where to compute; auto takes the best device found"),
    NUM("threads", threads, "0", 0, 1024,
        "CPU compute workers; 0: --tp-size of them, but one a core"),
    PICK("cpu-isa", cpu_isa, "best", CPU_ISA_CHOICES,
         "most instruction set the CPU kernels may use"),
    TEXT("attention-backend", attention_backend, "auto",
         "ascend sets the page size to 128; the device decides the kernels"),
    PICK("quantization", quantization, "none",
         "none|w8a8_int8|int8|int4|fp8|awq|awq_marlin|gptq|gptq_marlin|"
         "compressed-tensors|modelslim",
         "w8a8_int8, int8, int4: round float weights so while loading; the "
         "others name how the files are stored, which is seen from them"),
    TEXT("weight-cache", weight_cache, NULL,
         "folder for the weights as they are computed with: written at the "
         "first start, mapped and shared by servers at the next ones"),
    PICK("kv-cache-dtype", kv_cache_dtype, "auto", KV_TYPE_CHOICES,
         "auto: the model's own (bf16 for quantized files)"),
    REAL("mem-fraction-static", mem_fraction, "0.8", 0.01, 0.99,
         "weights + KV cache, of the memory available at start"),
    NUM("max-total-tokens", max_total_tokens, "0", 0, 1e12,
        "tokens in the KV cache; 0: as --mem-fraction-static allows"),
    NUM("context-length", context_length, "0", 0, 1e9, "0: the model's"),
    NUM("page-size", page_size, "0", 0, 4096,
        "tokens a KV page, equal on both sides; 0: 128 with ascend, else 16"),
    NUM("chunked-prefill-size", chunked_prefill_size, "512", -1, 1e9,
        "prompt tokens a step; -1: up to 8192 (SGLang goes by GPU memory)"),
    NUM("max-running-requests", max_running_requests, "64", 1, 4096,
        "sequences in a step (SGLang goes by GPU memory)"),
    NUM("max-queued-requests", max_queued_requests, "0", 0, 1e9,
        "beyond it: 503; 0: no limit"),
    NUM("num-reserved-decode-tokens", num_reserved_decode_tokens, "512", 1, 1e9,
        "KV kept free for each running request's output"),
    NUM("stream-interval", stream_interval, "1", 1, 1e6, "tokens an event"),
    FLAG("stream-output|incremental-streaming-output", stream_output,
         "/generate streams deltas, not the text so far"),
    FLAG("disable-radix-cache", disable_radix_cache, "no prefix reuse"),
    FLAG("enable-metrics", enable_metrics,
         "/metrics is always served; taken for compatibility"),
    FLAG("enable-cache-report", enable_cache_report,
         "usage tells cached prompt tokens"),
    FLAG("skip-server-warmup", skip_warmup, "ready without a first request"),
    PICK("sampling-defaults", sampling_defaults, "model", "model|openai",
         "chat defaults from generation_config.json or OpenAI's"),
    PICK("log-level", log_level, "info", "error|warning|warn|info|debug|trace",
         "lines to standard error"),
    NUM("tp-size|tensor-parallel-size", tp_size, "1", 1, 64,
        "on a CPU: one process with that many compute workers"),
    NUM("dp-size|data-parallel-size", dp_size, "1", 1, 1,
        "data parallel: start more servers behind the router"),
    NUM("nnodes", nnodes, "1", 1, 1, "one host"),
    NUM("node-rank", node_rank, "0", 0, 0, "of one host"),
    TEXT("dist-init-addr|nccl-init-addr", dist_init_addr, NULL,
         "its host is where a prefill registers; nothing listens there on one "
         "host"),
    PICK("disaggregation-mode", mode, "null", "null|prefill|decode",
         "which half of a pair this is; null: both"),
    PICK("disaggregation-transfer-backend", transfer_backend, "mooncake",
         "ascend|mooncake|nixl|mooncake_tcp|fake",
         "all name Baton's own engine; ascend with the config store"),
    PICK("disaggregation-transfer-transport", transfer_way, "auto",
         "auto|memfd|cma|unix|tcp|rdma|ucx",
         "auto picks the fastest that reaches the peer"),
    TEXT("disaggregation-ib-device", rdma_device, NULL,
         "moves KV by RDMA too, by this device (name, name:port or "
         "name:port:gid); both servers need it"),
    NUM("disaggregation-bootstrap-port", bootstrap_port, "8998", 1, 65535,
        "prefill: listens there; decode: for requests without one"),
    TEXT("pdlb-url", pdlb_url, NULL,
         "router to join when ready, by its /workers, and to leave at the end; "
         "--api-key must be the router's"),
    FLAG("disaggregation-decode-enable-radix-cache", decode_radix_cache,
         "decode keeps finished sequences; what it has of a prompt's KV is "
         "not sent again"),

    NO_FLAG("trust-remote-code",
            "models are read, never run: there is no Python in here"),
    NO_VALUE("model-impl", "there is one implementation, Baton's own"),
    NO_VALUE("tokenizer-mode",
             "there is one tokenizer, and it is the fast one"),
    NO_VALUE("load-format", "the format is seen from the files"),
    NO_VALUE("dtype",
             "weights are served as they are stored, activations are float32"),
    NO_VALUE("random-seed", "unseeded requests draw from the system; give "
                            "sampling_seed to repeat one"),
    NO_VALUE("schedule-conservativeness",
             "admission reserves --num-reserved-decode-tokens"),
    NO_VALUE("schedule-policy", "first come, first served"),
    NO_VALUE("max-prefill-tokens", "--chunked-prefill-size bounds a step"),
    NO_FLAG("disable-cuda-graph",
            "there are no graphs to capture on this device"),
    NO_VALUE("cuda-graph-max-bs",
             "there are no graphs to capture on this device"),
    NO_FLAG("disable-overlap-schedule",
            "host work of a step is microseconds here"),
    NO_FLAG("enable-mixed-chunk",
            "prompt chunks and decode rows always share a step"),
    NO_VALUE("watchdog-timeout", "a step cannot outlive its process here"),
    NO_VALUE("decode-log-interval", "rates are in /metrics"),
    NO_VALUE("nccl-port", "no collective library is used on one host"),
    NO_VALUE("base-gpu-id", "the device is chosen by --device"),
    NO_VALUE("disaggregation-decode-tp",
             "the pair tells each other their sizes"),
    NO_VALUE("disaggregation-decode-dp",
             "the pair tells each other their sizes"),
    NO_VALUE("disaggregation-prefill-pp",
             "the pair tells each other their sizes"),
    NO_VALUE("disaggregation-decode-polling-interval",
             "events, not polls, move requests"),
    NO_VALUE("log-level-http", "--log-level is for all"),
    NO_VALUE("download-dir", "nothing is downloaded"),
    NO_FLAG("prefill-round-robin-balance", "one data-parallel rank"),
    NO_VALUE("load-balance-method", "one data-parallel rank"),

    REFUSED("enable-lora", "LoRA adapters are not served"),
    REFUSED("lora-paths", "LoRA adapters are not served"),
    REFUSED("speculative-algorithm", "speculative decoding is not done yet"),
    REFUSED("pp-size|pipeline-parallel-size",
            "pipeline parallelism is not done"),
    REFUSED("ep-size|expert-parallel-size", "one process serves all experts"),
    REFUSED("enable-dp-attention", "data-parallel attention is not done"),
    REFUSED("enable-hierarchical-cache", "there is no host or disk tier yet"),
    REFUSED("skip-tokenizer-init", "requests with input_ids need no flag here"),
    REFUSED("is-embedding", "embedding models are not served"),
};

/* Variables of the systems that Baton replaces which need no effect here. */
static const struct {
    const char *name, *because;
} ignored_env[] = {
    {"PYTORCH_NPU_ALLOC_CONF", "memory is Baton's own, there is no torch"},
    {"HCCL_BUFFSIZE", "no HCCL communicator is made on this device"},
    {"SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK",
     "it sizes the dispatch of experts between cards; here is one process"},
    {"SGLANG_NPU_USE_MLAPO", "it is for MLA models on an NPU"},
    {"SGLANG_DISAGGREGATION_THREAD_POOL_SIZE",
     "the transfer engine sizes its own workers"},
    {"SGLANG_DISAGGREGATION_QUEUE_SIZE",
     "the transfer engine sizes its own queues"},
};

/* Options met that have no effect, kept until the log has its level. */
struct ignored {
    const struct opt *list[sizeof table / sizeof *table];
    size_t count;
};

static void keep_ignored(void *arg, const struct opt *o)
{
    struct ignored *ignored = arg;
    ignored->list[ignored->count++] = o;
}

static void log_ignored(const struct ignored *ignored)
{
    for (size_t i = 0; i < ignored->count; i++) {
        const struct opt *o = ignored->list[i];
        log_info("options", "--%.*s has no effect here: %s",
                 (int)strcspn(o->name, "|"), o->name, o->help);
    }
    for (size_t i = 0; i < sizeof ignored_env / sizeof *ignored_env; i++)
        if (getenv(ignored_env[i].name))
            log_info("options", "%s has no effect here: %s",
                     ignored_env[i].name, ignored_env[i].because);
}

/* A number from the environment, times scale; the default where unset. */
static int env_number(const char *name, double scale, int64_t least,
                      int64_t *out, struct why *why)
{
    const char *text = getenv(name);
    if (!text || !*text) return 0;
    char *end;
    double v = strtod(text, &end) * scale;
    if (*end || !isfinite(v) || v < (double)least || v > 1e12)
        return err_set(why, ERR_INVALID, "%s=%s: not a number in range", name,
                       text);
    *out = (int64_t)v;
    return 0;
}

static int read_env(struct server_options *o, struct why *why)
{
    const struct {
        const char *name;
        double scale;
        int64_t fallback, *field;
    } numbers[] = {
        {"SGLANG_DISAGGREGATION_BOOTSTRAP_TIMEOUT", 1000, 300000,
         &o->bootstrap_timeout_ms},
        {"SGLANG_DISAGGREGATION_WAITING_TIMEOUT", 1000, 300000,
         &o->waiting_timeout_ms},
        {"SGLANG_DISAGGREGATION_HEARTBEAT_INTERVAL", 1000, 5000,
         &o->heartbeat_interval_ms},
        {"SGLANG_DISAGGREGATION_HEARTBEAT_MAX_FAILURE", 1, 2,
         &o->heartbeat_max_failure},
        {"SGLANG_HEALTH_CHECK_TIMEOUT", 1000, 20000, &o->health_timeout_ms},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *numbers[i].field = numbers[i].fallback;
        int rc = env_number(numbers[i].name, numbers[i].scale, 1,
                            numbers[i].field, why);
        if (rc) return rc;
    }
    const char *generate = getenv("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION");
    o->plain_health = generate && (strcmp(generate, "0") == 0 ||
                                   strcasecmp(generate, "false") == 0);
    o->store_url = getenv("ASCEND_MF_STORE_URL");
    o->host_ip = getenv("SGLANG_HOST_IP");
    if (!o->host_ip) o->host_ip = getenv("HOST_IP");
    return 0;
}

static int unknown_parser(const char *option, const char *name,
                          void (*list)(struct buf *out), struct why *why)
{
    struct buf names;
    buf_init(&names, 1 << 10);
    list(&names);
    int rc = err_set(why, ERR_INVALID, "--%s %s: known are %s", option, name,
                     names.data);
    buf_fini(&names);
    return rc;
}

static int check_parsers(const struct server_options *o, struct why *why)
{
    if (o->reasoning_parser && !reasoning_find(o->reasoning_parser))
        return unknown_parser("reasoning-parser", o->reasoning_parser,
                              reasoning_list, why);
    if (o->tool_call_parser && !toolcall_find(o->tool_call_parser))
        return unknown_parser("tool-call-parser", o->tool_call_parser,
                              toolcall_list, why);
    return 0;
}

int server_options_read(struct server_options *o, int argc, char **argv,
                        struct why *why)
{
    size_t count = sizeof table / sizeof *table;
    *o = (struct server_options){0};
    struct ignored ignored = {.count = 0};
    int rc =
        opt_parse(table, count, o, argc, argv, keep_ignored, &ignored, why);
    if (rc == 1) {
        opt_help(table, count, "baton launch_server --model-path PATH [...]");
        return 1;
    }
    if (rc) return rc;
    if (!o->model_path)
        return err_set(why, ERR_INVALID, "--model-path is required");
    enum log_level level = LOG_INFO;
    log_level_parse(o->log_level, &level);
    log_init(level, strcmp(o->mode, "null") == 0 ? "server" : o->mode);
    log_ignored(&ignored);
    if (strcmp(o->device, "npu") == 0) o->device = "ascend";
    if (strcmp(o->transfer_backend, "fake") == 0)
        return err_set(why, ERR_UNSUPPORTED,
                       "--disaggregation-transfer-backend fake: the real "
                       "engine runs everywhere here; take ascend or mooncake");
    if (o->rdma_device && strpbrk(o->rdma_device, ",{/"))
        return err_set(why, ERR_UNSUPPORTED,
                       "--disaggregation-ib-device %.60s: one device, as name, "
                       "name:port or name:port:gid",
                       o->rdma_device);
    if (o->pdlb_url && strcmp(o->mode, "null") == 0)
        return err_set(why, ERR_INVALID,
                       "--pdlb-url: prefill and decode servers join a router; "
                       "add --disaggregation-mode");
    if (!o->served_model_name) o->served_model_name = o->model_path;
    bool ascend = strcmp(o->attention_backend, "ascend") == 0;
    if (o->page_size == 0) o->page_size = ascend ? 128 : 16;
    if (o->page_size & (o->page_size - 1))
        return err_set(why, ERR_INVALID,
                       "--page-size %lld: must be a power of two",
                       (long long)o->page_size);
    if (ascend && o->page_size != 128) {
        log_warn("options",
                 "--attention-backend ascend sets the page size to 128");
        o->page_size = 128;
    }
    rc = check_parsers(o, why);
    return rc ? rc : read_env(o, why);
}

static void add_field(struct buf *b, const struct opt *o,
                      const struct server_options *from)
{
    const void *field = (const char *)from + o->offset;
    buf_puts(b, b->len > 1 ? ",\"" : "\"");
    for (const char *c = o->name; *c && *c != '|'; c++)
        buf_putc(b, *c == '-' ? '_' : *c);
    buf_puts(b, "\":");
    if (o->kind == OPT_INT) {
        buf_printf(b, "%lld", (long long)*(const int64_t *)field);
    } else if (o->kind == OPT_DOUBLE) {
        buf_printf(b, "%.17g", *(const double *)field);
    } else if (o->kind == OPT_FLAG) {
        buf_puts(b, *(const bool *)field ? "true" : "false");
    } else {
        const char *text = *(const char *const *)field;
        buf_puts(b, text ? "\"" : "null");
        if (text) {
            buf_json(b, text, strlen(text));
            buf_putc(b, '"');
        }
    }
}

char *server_options_json(const struct server_options *o)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_putc(&b, '{');
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].kind <= OPT_CHOICE && table[i].offset != AT(api_key))
            add_field(&b, &table[i], o);
    buf_putc(&b, '}');
    return buf_detach(&b);
}
