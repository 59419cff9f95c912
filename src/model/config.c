/* What holds for a configuration whatever file it came from, and the rotary
 * frequencies that follow from it. The two readers, of config.json and of GGUF
 * metadata, are config_json.c and config_gguf.c. */
#include "model/config_parts.h"

#include <math.h>
#include <stdio.h>

#define MAX_EXPERTS 4096u

/* What is true of the configuration whatever file it came from. */
static int check(const struct model_config *c, const char *name,
                 struct why *why)
{
    const struct {
        const char *what;
        uint64_t value, max;
    } sizes[] = {
        {"vocabulary", c->vocab, MAX_COUNT},
        {"hidden size", c->hidden, MAX_COUNT},
        {"layer count", c->layers, MODEL_MAX_LAYERS},
        {"head count", c->heads, MAX_COUNT},
        {"kv head count", c->kv_heads, c->heads},
        {"head size", c->head_dim, OP_HEAD_DIM_MAX},
        {"feed-forward size", c->ffn, MAX_COUNT},
        {"context", c->context, MAX_COUNT},
        {"heads times head size", (uint64_t)c->heads * c->head_dim, MAX_COUNT},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].max)
            return err_set(why, ERR_FORMAT, "%s: %s %llu is not in 1 .. %llu",
                           name, sizes[i].what,
                           (unsigned long long)sizes[i].value,
                           (unsigned long long)sizes[i].max);
    if (c->heads % c->kv_heads)
        return err_set(why, ERR_FORMAT,
                       "%s: %u heads cannot share %u kv heads evenly", name,
                       c->heads, c->kv_heads);
    if (c->rope.rotary % 2 || c->rope.rotary > c->head_dim)
        return err_set(why, ERR_FORMAT,
                       "%s: %u rotated elements of a head of %u: no even part",
                       name, c->rope.rotary, c->head_dim);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return err_set(why, ERR_FORMAT,
                       "%s: rms norm epsilon %g is not in 0 .. 1", name,
                       (double)c->norm_eps);
    if (!(c->rope.theta > 1 && c->rope.theta < 1e12) ||
        !(c->rope.factor > 0 && c->rope.factor < 1e6) ||
        !(c->rope.attention_factor > 0 && c->rope.attention_factor < 1e3))
        return err_set(why, ERR_FORMAT,
                       "%s: rope theta %g, factor %g or attention factor %g is "
                       "out of range",
                       name, c->rope.theta, c->rope.factor,
                       c->rope.attention_factor);
    return 0;
}

static int check_scaling(const struct model_config *c, const char *name,
                         struct why *why)
{
    if (c->rope.kind == ROPE_LLAMA3 &&
        !(c->rope.low_freq_factor > 0 &&
          c->rope.high_freq_factor > c->rope.low_freq_factor))
        return err_set(why, ERR_FORMAT,
                       "%s: rope low_freq_factor %g and high_freq_factor %g "
                       "are no range",
                       name, c->rope.low_freq_factor, c->rope.high_freq_factor);
    if (c->rope.kind == ROPE_YARN &&
        !(c->rope.beta_slow > 0 && c->rope.beta_fast > c->rope.beta_slow))
        return err_set(why, ERR_FORMAT,
                       "%s: rope beta_slow %g and beta_fast %g are no range",
                       name, c->rope.beta_slow, c->rope.beta_fast);
    if (c->rope.original_context < 1 || c->rope.original_context > MAX_COUNT)
        return err_set(why, ERR_FORMAT,
                       "%s: rope original context %u is not in 1 .. %u", name,
                       c->rope.original_context, MAX_COUNT);
    return 0;
}

static int check_experts(const struct model_config *c, const char *name,
                         struct why *why)
{
    if (c->experts.count == 0) return 0;
    if (c->experts.count > MAX_EXPERTS || c->experts.used < 1 ||
        c->experts.used > c->experts.count)
        return err_set(why, ERR_FORMAT,
                       "%s: %u of %u experts (at most %u) are no choice", name,
                       c->experts.used, c->experts.count, MAX_EXPERTS);
    if (c->experts.ffn < 1 || c->experts.ffn > MAX_COUNT)
        return err_set(why, ERR_FORMAT,
                       "%s: expert feed-forward size %u is not in 1 .. %u",
                       name, c->experts.ffn, MAX_COUNT);
    return 0;
}

void config_begin(struct model_config *c, const struct arch *arch)
{
    snprintf(c->arch, sizeof c->arch, "%s", arch->name);
    c->qk_norm = arch->qk_norm;
    c->attention_bias = arch->qkv_bias;
    c->quant.block_rows = c->quant.block_cols = 128;
    c->rope.theta = 10000;
    c->rope.factor = c->rope.attention_factor = 1;
}

int config_finish(struct model_config *c, const char *name, struct why *why)
{
    if (c->rope.rotary == 0) c->rope.rotary = c->head_dim;
    if (c->rope.original_context == 0) c->rope.original_context = c->context;
    int rc = check(c, name, why);
    if (!rc) rc = check_scaling(c, name, why);
    return rc ? rc : check_experts(c, name, why);
}

int config_add_eos(struct model_config *c, int64_t id, const char *name,
                   struct why *why)
{
    if (id < 0 || id > INT32_MAX)
        return err_set(why, ERR_FORMAT, "%s: eos token %lld is no token", name,
                       (long long)id);
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos[i] == id) return 0;
    if (c->eos_count == sizeof c->eos / sizeof *c->eos)
        return err_set(why, ERR_UNSUPPORTED, "%s: more than %zu eos tokens",
                       name, sizeof c->eos / sizeof *c->eos);
    c->eos[c->eos_count++] = (int32_t)id;
    return 0;
}

double config_yarn_mscale(double scale, double mscale)
{
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

/* --- rope ------------------------------------------------------------- */

static double clamp01(double x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

/* The pair of a head (0 .. rotary/2) that turns rotations times over the
 * original context. */
static double yarn_pair(const struct model_config *c, double rotations)
{
    return c->rope.rotary *
           log(c->rope.original_context / (rotations * 2 * M_PI)) /
           (2 * log(c->rope.theta));
}

/* How far pair i is on the way from its own frequency (0) to the divided one
 * (1): fast pairs stay, slow ones stretch. */
static double yarn_ramp(const struct model_config *c, uint32_t i)
{
    double low = yarn_pair(c, c->rope.beta_fast);
    double high = yarn_pair(c, c->rope.beta_slow);
    if (!c->rope.untruncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)c->rope.rotary - 1);
    if (low == high) high += 0.001;
    return clamp01((i - low) / (high - low));
}

static double llama3_freq(const struct model_config *c, double freq)
{
    double turns = c->rope.original_context * freq / (2 * M_PI);
    double low = c->rope.low_freq_factor, high = c->rope.high_freq_factor;
    double keep = clamp01((turns - low) / (high - low));
    return (1 - keep) * freq / c->rope.factor + keep * freq;
}

void config_rope_freqs(const struct model_config *c, const float *divisors,
                       float *out)
{
    for (uint32_t i = 0; i < c->rope.rotary / 2; i++) {
        double freq = pow(c->rope.theta, -2.0 * i / c->rope.rotary);
        double ramp;
        switch (c->rope.kind) {
        case ROPE_PLAIN: break;
        case ROPE_LINEAR: freq /= c->rope.factor; break;
        case ROPE_LLAMA3: freq = llama3_freq(c, freq); break;
        case ROPE_YARN:
            ramp = yarn_ramp(c, i);
            freq = freq * (1 - ramp) + freq / c->rope.factor * ramp;
            break;
        case ROPE_DIVISORS: freq /= (double)divisors[i]; break;
        }
        out[i] = (float)freq;
    }
}
