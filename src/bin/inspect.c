/* bin/inspect.c - baton inspect MODEL: what a model is and what it would take,
 * from the headers of its files alone; and which tokenizer it has. */
#include "base/opt.h"
#include "bin/commands.h"
#include "bin/kv_type.h"
#include "json/json.h"
#include "model/model.h"
#include "serve/assets.h"
#include "text/tokenizer.h"

#include <stdio.h>

struct inspect_args {
    const char *model, *quantization, *kv_type;
    bool json;
};

static const struct opt options[] = {
    {"MODEL", OPT_WORD, offsetof(struct inspect_args, model),
     .help = "GGUF file, or folder in Hugging Face's form"},
    {"quantization", OPT_STRING, offsetof(struct inspect_args, quantization),
     .fallback = "none",
     .help = "as launch_server's: what it would make of the weights"},
    {"kv-cache-dtype", OPT_CHOICE, offsetof(struct inspect_args, kv_type),
     .fallback = "auto", .choices = KV_TYPE_CHOICES,
     .help = "of the KV cache; auto: the model's own, bf16 for quantized ones"},
    {"json", OPT_FLAG, offsetof(struct inspect_args, json),
     .help = "one JSON object instead of lines"},
};
enum { OPTIONS = sizeof options / sizeof *options };

static size_t kv_token_bytes(const struct model_config *c, enum dtype type)
{
    const struct kv_shape shape = {c->layers, c->kv_heads, c->head_dim, 1,
                                   type};
    return kv_shape_token_bytes(&shape);
}

static const char *rope_name(const struct model_config *c)
{
    static const char *const names[] = {"plain", "linear", "llama3", "yarn",
                                        "divisors in the file"};
    return names[c->rope.kind];
}

static const char *method_name(const struct model_config *c)
{
    static const char *const names[] = {"none", "fp8", "integers", "awq",
                                        "gptq"};
    return names[c->quant.method];
}

static uint32_t layer_count(const struct layer_set *set,
                            const struct model_config *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->layers; i++)
        n += layer_set_has(set, i);
    return n;
}

static json_t *to_json(const struct model_survey *s, enum dtype kv)
{
    const struct model_config *c = &s->config;
    json_t *types = json_object(), *eos = json_array();
    for (enum dtype t = 0; t < DTYPE_COUNT; t++)
        if (s->types[t].count)
            json_object_set_new(
                types, dtype_name(t),
                json_pack("{sI sI}", "count", (json_int_t)s->types[t].count,
                          "bytes", (json_int_t)s->types[t].bytes));
    for (uint32_t i = 0; i < c->eos_count; i++)
        json_array_append_new(eos, json_integer(c->eos[i]));
    json_t *o = json_pack(
        "{ss sI sI sI sI sI sI sI sI sb ss sf sf sI sI sI ss}", "architecture",
        c->arch, "layers", (json_int_t)c->layers, "hidden",
        (json_int_t)c->hidden, "heads", (json_int_t)c->heads, "kv_heads",
        (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->head_dim,
        "feed_forward", (json_int_t)c->ffn, "vocabulary", (json_int_t)c->vocab,
        "context", (json_int_t)c->context, "tied", c->tied, "rope",
        rope_name(c), "rope_theta", c->rope.theta, "rope_factor",
        c->rope.factor, "rotary", (json_int_t)c->rope.rotary, "window",
        (json_int_t)c->window, "window_layers",
        (json_int_t)layer_count(&c->sliding, c), "quantization",
        method_name(c));
    json_object_update_new(
        o, json_pack("{so s{sI sI sI sI} sI sI sI so sI ss}", "eos", eos,
                     "experts", "count", (json_int_t)c->experts.count, "used",
                     (json_int_t)c->experts.used, "feed_forward",
                     (json_int_t)c->experts.ffn, "layers",
                     (json_int_t)layer_count(&c->experts.layers, c),
                     "stored_bytes", (json_int_t)s->stored_bytes,
                     "weight_bytes", (json_int_t)s->weight_bytes, "step_bytes",
                     (json_int_t)s->step_bytes, "types", types,
                     "kv_bytes_per_token", (json_int_t)kv_token_bytes(c, kv),
                     "kv_dtype", dtype_name(kv)));
    return o;
}

/* The tokenizer, and why it or the chat template would be refused. */
struct text_survey {
    struct assets *assets; /* NULL: refused */
    int rc;
    struct why why;
};

static json_t *text_json(const struct text_survey *text)
{
    if (!text->assets)
        return json_pack("{ss}", "refused", why_text(&text->why, text->rc));
    return json_pack(
        "{ss sI sb sn}", "source", assets_tokenizer_source(text->assets),
        "tokens", (json_int_t)tokenizer_vocab(assets_tokenizer(text->assets)),
        "chat_template", assets_has_chat(text->assets), "refused");
}

static void print_tokenizer(const struct text_survey *text)
{
    if (!text->assets)
        printf("tokenizer     refused: %s\n", why_text(&text->why, text->rc));
    else
        printf("tokenizer     %s, %zu tokens, %s\n",
               assets_tokenizer_source(text->assets),
               tokenizer_vocab(assets_tokenizer(text->assets)),
               assets_has_chat(text->assets) ? "chat template"
                                             : "no chat template");
}

static void print_shape(const struct model_config *c)
{
    printf("architecture  %s\n", c->arch);
    printf("layers        %u, hidden %u, %u heads of %u (%u kv), feed-forward "
           "%u\n",
           c->layers, c->hidden, c->heads, c->head_dim, c->kv_heads, c->ffn);
    if (c->experts.count)
        printf("experts       %u, %u a token, feed-forward %u, in %u layers\n",
               c->experts.count, c->experts.used, c->experts.ffn,
               layer_count(&c->experts.layers, c));
    printf("vocabulary    %u, head %s\n", c->vocab,
           c->tied ? "tied to the embedding" : "of its own");
    printf("context       %u, rope %s, theta %g", c->context, rope_name(c),
           c->rope.theta);
    if (c->rope.factor != 1)
        printf(", factor %g over %u", c->rope.factor, c->rope.original_context);
    if (c->rope.rotary != c->head_dim)
        printf(", %u elements of a head", c->rope.rotary);
    printf("\n");
    if (c->window)
        printf("window        %u tokens, in %u layers\n", c->window,
               layer_count(&c->sliding, c));
}

static void print_text(const struct model_survey *s, enum dtype kv, int rc,
                       const struct why *why)
{
    const struct model_config *c = &s->config;
    if (c->layers) print_shape(c);
    if (rc) {
        printf("refused       %s\n", why_text(why, rc));
        return;
    }
    printf("stored        %.3f GB, quantization %s\n",
           (double)s->stored_bytes * 1e-9, method_name(c));
    printf("weights       %.3f GB\n", (double)s->weight_bytes * 1e-9);
    for (enum dtype t = 0; t < DTYPE_COUNT; t++)
        if (s->types[t].count)
            printf("  %-11s %zu, %.3f GB\n", dtype_name(t), s->types[t].count,
                   (double)s->types[t].bytes * 1e-9);
    printf("step reads    %.3f GB%s\n", (double)s->step_bytes * 1e-9,
           c->experts.count ? " at most: of experts those chosen" : "");
    size_t token = kv_token_bytes(c, kv);
    printf("KV            %zu bytes a token in %s: 1 GB holds %.0f, the whole "
           "context takes %.3f GB\n",
           token, dtype_name(kv), 1e9 / (double)token,
           (double)token * c->context * 1e-9);
}

int inspect_main(int argc, char **argv)
{
    struct inspect_args args = {0};
    struct why why = {0};
    struct model_survey survey = {0};
    int rc = opt_parse(options, OPTIONS, &args, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, OPTIONS, "baton inspect MODEL [options]");
        return 0;
    }
    struct model_options o = {.path = args.model};
    if (!rc && !o.path)
        rc = err_set(&why, ERR_INVALID, "which model? baton inspect MODEL");
    if (!rc) rc = model_quantize_parse(&o.quantize, args.quantization, &why);
    if (rc) {
        fprintf(stderr, "baton inspect: %s\n", why_text(&why, rc));
        return 2;
    }
    rc = model_survey(&survey, &o, &why);
    struct text_survey text = {0};
    text.rc =
        assets_open(&text.assets,
                    &(struct assets_options){.model_path = o.path}, &text.why);
    enum dtype kv = kv_type_of(args.kv_type, &survey.config);
    if (args.json) {
        json_t *object =
            survey.config.layers ? to_json(&survey, kv) : json_object();
        json_object_set_new(object, "tokenizer", text_json(&text));
        json_object_set_new(object, "refused",
                            rc ? json_string(why_text(&why, rc)) : json_null());
        json_dumpf(object, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(object);
    } else {
        print_text(&survey, kv, rc, &why);
        print_tokenizer(&text);
    }
    assets_close(text.assets);
    return rc ? 1 : 0;
}
