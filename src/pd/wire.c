#include "pd/wire.h"

#include "base/map.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- small readers over frames ------------------------------------------ */

static bool frame_is(const struct pd_frame *f, const char *word)
{
    return f->len == strlen(word) && !memcmp(f->data, word, f->len);
}

/* ASCII decimal, no sign, no space. */
static int read_number(const struct pd_frame *f, uint64_t max, const char *name,
                       uint64_t *out, struct why *why)
{
    const char *s = f->data;
    uint64_t n = 0;
    bool fine = f->len >= 1 && f->len <= 20;
    for (size_t i = 0; fine && i < f->len; i++) {
        uint64_t digit = (uint64_t)(unsigned char)s[i] - '0';
        fine = digit <= 9 && n <= (UINT64_MAX - digit) / 10;
        if (fine) n = n * 10 + digit;
    }
    if (!fine || n > max)
        return err_set(why, ERR_FORMAT,
                       "%s: not a number in 0 .. %" PRIu64 " (%zu bytes)", name,
                       max, f->len);
    *out = n;
    return 0;
}

static int read_u32(const struct pd_frame *f, uint32_t max, const char *name,
                    uint32_t *out, struct why *why)
{
    uint64_t n = 0;
    int rc = read_number(f, max, name, &n, why);
    if (!rc) *out = (uint32_t)n;
    return rc;
}

static int read_room(const struct pd_frame *f, uint64_t *out, struct why *why)
{
    return read_number(f, INT64_MAX, "room", out, why);
}

bool pd_host_valid(const char *host, size_t n)
{
    if (n < 1 || n > PD_HOST_MAX) return false;
    for (size_t i = 0; i < n; i++) {
        char c = host[i];
        bool fine = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                    (c >= 'A' && c <= 'Z') || (c && strchr(".:-_%", c));
        if (!fine) return false;
    }
    return true;
}

bool pd_address_same(const struct pd_address *a, const struct pd_address *b)
{
    return a->port == b->port && !strcmp(a->host, b->host);
}

/* host may come as "[v6]" */
static int read_address(const struct pd_frame *host,
                        const struct pd_frame *port, struct pd_address *out,
                        struct why *why)
{
    const char *s = host->data;
    size_t n = host->len;
    if (n > 2 && s[0] == '[' && s[n - 1] == ']') {
        s++;
        n -= 2;
    }
    if (!pd_host_valid(s, n))
        return err_set(why, ERR_FORMAT, "host: not an address (%zu bytes)",
                       host->len);
    uint32_t number = 0;
    int rc = read_u32(port, UINT16_MAX, "port", &number, why);
    if (rc) return rc;
    if (!number) return err_set(why, ERR_FORMAT, "port: 0");
    memcpy(out->host, s, n);
    out->host[n] = 0;
    out->port = (uint16_t)number;
    return 0;
}

/* "host:port" as xfer names engines: visible characters alone. */
static bool engine_name_copy(const char *s, size_t n, char *out)
{
    if (n < 3 || n > PD_NAME_MAX || !memchr(s, ':', n)) return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~') return false;
    memcpy(out, s, n);
    out[n] = 0;
    return true;
}

static int read_session(const struct pd_frame *f, char *out, struct why *why)
{
    if (engine_name_copy(f->data, f->len, out)) return 0;
    return err_set(why, ERR_FORMAT, "session: not host:port (%zu bytes)",
                   f->len);
}

static int read_array(const struct pd_frame *f, size_t size, uint32_t max,
                      const char *name, const void **out, uint32_t *count,
                      struct why *why)
{
    if (f->len % size || f->len / size > max)
        return err_set(why, ERR_FORMAT,
                       "%s: %zu bytes are no array of %zu-byte elements (at "
                       "most %u)",
                       name, f->len, size, max);
    *out = f->data;
    *count = (uint32_t)(f->len / size);
    return 0;
}

static uint32_t u32_at(const void *array, uint32_t i)
{
    uint32_t v;
    memcpy(&v, (const char *)array + 4u * i, 4);
    return v;
}

uint64_t pd_u64_at(const void *array, uint32_t i)
{
    uint64_t v;
    memcpy(&v, (const char *)array + 8u * (size_t)i, 8);
    return v;
}

int32_t pd_i32_at(const void *array, uint32_t i)
{
    return (int32_t)u32_at(array, i);
}

/* Nested lists (W4): their form is checked; only whether there are elements
 * matters, since no model here has state buffers. */
static int read_nested(const struct pd_frame *f, size_t size, const char *name,
                       bool *any, struct why *why)
{
    *any = false;
    if (!f->len) return 0;
    size_t rest = f->len - 4;
    uint32_t n = f->len >= 4 ? u32_at(f->data, 0) : 0;
    if (f->len < 4 || n > rest / 4)
        return err_set(why, ERR_FORMAT, "%s: nested list cut off", name);
    rest -= 4u * (size_t)n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len = u32_at(f->data, 1 + i);
        if (len > rest || len % size)
            return err_set(why, ERR_FORMAT, "%s: list %u has %u bytes", name, i,
                           len);
        rest -= len;
        *any |= len > 0;
    }
    if (rest)
        return err_set(why, ERR_FORMAT, "%s: %zu bytes left over", name, rest);
    return 0;
}

uint64_t pd_prompt_hash(const int32_t *tokens, uint32_t count)
{
    return hash_bytes(tokens, count * sizeof *tokens, 0);
}

/* ---- layout ------------------------------------------------------------- */

/* The types that a KV cache may have, by their names on the wire. */
static const struct {
    enum dtype type;
    const char *name;
} kv_types[] = {{DTYPE_F32, "f32"},
                {DTYPE_F16, "f16"},
                {DTYPE_BF16, "bf16"},
                {DTYPE_KV8, "int8"}};
enum { KV_TYPES = sizeof kv_types / sizeof *kv_types };

static const char *type_name(enum dtype type)
{
    for (int i = 0; i < KV_TYPES; i++)
        if (kv_types[i].type == type) return kv_types[i].name;
    assert(!"a KV cache of this type");
    return "";
}

static void hex(const uint8_t *bytes, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static bool hex_u64(const char *s, size_t n, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (hex_digit(s[i]) < 0) return false;
        *out = *out << 4 | (uint64_t)hex_digit(s[i]);
    }
    return n == 16;
}

void pd_layout_encode(const struct pd_layout *layout,
                      char out[static PD_LAYOUT_TEXT])
{
    const struct kv_shape *s = &layout->shape;
    int n = snprintf(out, PD_LAYOUT_TEXT,
                     "baton=1 model=%016" PRIx64
                     " layers=%u kv_heads=%u head_dim=%u page=%u dtype=%s",
                     layout->model, s->layers, s->kv_heads, s->head_dim,
                     s->page_tokens, type_name(s->type));
    if (layout->xfer[0])
        n += snprintf(out + n, (size_t)(PD_LAYOUT_TEXT - n), " xfer=%s",
                      layout->xfer);
    if (layout->has_epoch) {
        n += snprintf(out + n, (size_t)(PD_LAYOUT_TEXT - n), " epoch=");
        hex(layout->epoch, sizeof layout->epoch, out + n);
    }
}

/* One word "key=value" of a layout. */
struct word {
    const char *key, *value;
    size_t key_len, value_len;
};

static bool word_is(const struct word *w, const char *key)
{
    return w->key_len == strlen(key) && !memcmp(w->key, key, w->key_len);
}

static bool epoch_read(const struct word *w, uint8_t out[16])
{
    if (w->value_len != 32) return false;
    for (size_t i = 0; i < 16; i++) {
        int high = hex_digit(w->value[2 * i]);
        int low = hex_digit(w->value[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool dtype_read(const struct word *w, enum dtype *out)
{
    for (int i = 0; i < KV_TYPES; i++) {
        const char *name = kv_types[i].name;
        if (w->value_len != strlen(name)) continue;
        if (memcmp(w->value, name, w->value_len)) continue;
        *out = kv_types[i].type;
        return true;
    }
    return false;
}

enum { SEEN_BATON = 1, SEEN_NUMBERS = 2, SEEN_TYPE = 32, SEEN_ALL = 63 };

/* Adds what the word says to out; false: its value is wrong. */
static bool layout_word(struct pd_layout *out, const struct word *w,
                        unsigned *seen)
{
    struct kv_shape *s = &out->shape;
    const struct {
        const char *key;
        uint32_t *to;
    } numbers[] = {{"layers", &s->layers},
                   {"kv_heads", &s->kv_heads},
                   {"head_dim", &s->head_dim},
                   {"page", &s->page_tokens}};
    for (unsigned i = 0; i < 4; i++) {
        if (!word_is(w, numbers[i].key)) continue;
        struct pd_frame f = {w->value, w->value_len};
        *seen |= SEEN_NUMBERS << i;
        return !read_u32(&f, 1 << 24, "", numbers[i].to, NULL) &&
               *numbers[i].to > 0;
    }
    if (word_is(w, "baton")) {
        *seen |= SEEN_BATON;
        return w->value_len == 1 && *w->value == '1';
    }
    if (word_is(w, "model"))
        return hex_u64(w->value, w->value_len, &out->model);
    if (word_is(w, "dtype")) {
        *seen |= SEEN_TYPE;
        return dtype_read(w, &s->type);
    }
    if (word_is(w, "xfer"))
        return engine_name_copy(w->value, w->value_len, out->xfer);
    if (word_is(w, "epoch")) {
        out->has_epoch = true;
        return epoch_read(w, out->epoch);
    }
    return true;
}

int pd_layout_decode(const char *text, size_t n, struct pd_layout *out,
                     struct why *why)
{
    *out = (struct pd_layout){0};
    unsigned seen = 0;
    for (const char *at = text, *end = text + n; at < end;) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        if (!space) space = end;
        const char *equal = memchr(at, '=', (size_t)(space - at));
        if (equal) {
            struct word w = {at, equal + 1, (size_t)(equal - at),
                             (size_t)(space - equal - 1)};
            if (!layout_word(out, &w, &seen))
                return err_set(why, ERR_FORMAT, "KV layout: bad word \"%.*s\"",
                               (int)(space - at > 80 ? 80 : space - at), at);
        }
        at = space < end ? space + 1 : end;
    }
    if (seen != SEEN_ALL)
        return err_set(why, ERR_FORMAT,
                       "KV layout: a required word is missing");
    return 0;
}

static int differ(struct why *why, const char *peer, const char *what,
                  uint64_t theirs, uint64_t ours)
{
    return err_set(why, ERR_INVALID,
                   "%s does not fit: its %s is %" PRIu64 ", ours is %" PRIu64,
                   peer, what, theirs, ours);
}

int pd_layout_check(const struct pd_layout *ours,
                    const struct pd_layout *theirs, const char *peer,
                    struct why *why)
{
    const struct kv_shape *o = &ours->shape, *t = &theirs->shape;
    if (t->page_tokens != o->page_tokens)
        return differ(why, peer, "page size", t->page_tokens, o->page_tokens);
    if (t->layers != o->layers)
        return differ(why, peer, "number of layers", t->layers, o->layers);
    if (t->kv_heads != o->kv_heads)
        return differ(why, peer, "number of KV heads", t->kv_heads,
                      o->kv_heads);
    if (t->head_dim != o->head_dim)
        return differ(why, peer, "head dimension", t->head_dim, o->head_dim);
    if (t->type != o->type)
        return err_set(why, ERR_INVALID,
                       "%s does not fit: its KV cache type is %s, ours is %s",
                       peer, type_name(t->type), type_name(o->type));
    if (theirs->model != ours->model && theirs->model && ours->model)
        return err_set(why, ERR_INVALID,
                       "%s serves another model: its fingerprint is %016" PRIx64
                       ", ours is %016" PRIx64,
                       peer, theirs->model, ours->model);
    return 0;
}

/* ---- decoding ----------------------------------------------------------- */

/* A frame that only a Baton peer sends: SGLang's have no text there. */
static bool frame_is_layout(const struct pd_frame *f)
{
    return f->len >= 6 && memcmp(f->data, "baton=", 6) == 0;
}

static int register_decode(const struct pd_frame *f, size_t count,
                           struct pd_register *out, struct why *why)
{
    if (count != 10 && count < 12)
        return err_set(why, ERR_FORMAT, "REGISTER with %zu frames", count);
    out->has_layout = count == 15 && frame_is_layout(&f[14]);
    bool late = count >= 16; /* frames behind those that we know */
    out->generation = count == 14 || late || out->has_layout ? PD_W4 : PD_W2;
    int rc = read_address(&f[1], &f[2], &out->from, why);
    if (!rc) rc = read_session(&f[3], out->session, why);
    if (!rc)
        rc = read_array(&f[4], 8, PD_BUFFERS_MAX, "KV buffers", &out->kv,
                        &out->kv_count, why);
    if (!rc)
        rc = read_array(&f[5], 8, 64, "aux items", &out->aux, &out->aux_count,
                        why);
    if (!rc && out->generation == PD_W4)
        rc = read_nested(&f[6], 8, "state buffers", &out->has_state, why);
    else
        out->has_state = f[6].len > 0;
    if (!rc) rc = read_u32(&f[7], 65535, "engine_rank", &out->tp_rank, why);
    if (!rc) rc = read_u32(&f[8], 65535, "attn_tp_size", &out->tp_size, why);
    if (!rc)
        rc = read_number(&f[9], UINT32_MAX, "item_len", &out->page_bytes, why);
    if (!rc && out->has_layout)
        rc = pd_layout_decode(f[14].data, f[14].len, &out->layout, why);
    return rc;
}

/* Frame 9 of a Baton REQUEST: "TOKENS HASH". */
static int prompt_decode(const struct pd_frame *f, struct pd_request *out,
                         struct why *why)
{
    const char *s = f->data;
    const char *space = f->len ? memchr(s, ' ', f->len) : NULL;
    if (!space) return err_set(why, ERR_FORMAT, "prompt: not TOKENS HASH");
    struct pd_frame tokens = {s, (size_t)(space - s)};
    size_t rest = f->len - tokens.len - 1;
    int rc = read_u32(&tokens, INT32_MAX, "prompt", &out->prompt_tokens, why);
    if (rc) return rc;
    if (!hex_u64(space + 1, rest, &out->prompt_hash))
        return err_set(why, ERR_FORMAT, "prompt: not TOKENS HASH");
    out->has_prompt = true;
    return 0;
}

static int pages_decode(const struct pd_frame *f, struct pd_request *out,
                        struct why *why)
{
    int rc = read_array(f, 4, PD_PAGES_MAX, "pages", &out->pages,
                        &out->page_count, why);
    if (rc) return rc;
    for (uint32_t i = 0; i < out->page_count; i++)
        if (pd_i32_at(out->pages, i) < 0)
            return err_set(why, ERR_FORMAT, "pages: page %u is %d", i,
                           pd_i32_at(out->pages, i));
    return 0;
}

static int request_decode(const struct pd_frame *f, size_t count,
                          struct pd_request *out, struct why *why)
{
    if (count < 8 || count > 10)
        return err_set(why, ERR_FORMAT, "REQUEST with %zu frames", count);
    out->generation = count >= 9 ? PD_W4 : PD_W2;
    int rc = read_room(&f[0], &out->room, why);
    if (!rc) rc = read_address(&f[1], &f[2], &out->from, why);
    if (!rc) rc = read_session(&f[3], out->session, why);
    out->dummy = !f[4].len && !f[5].len;
    if (!rc) rc = pages_decode(&f[4], out, why);
    if (!rc && !out->dummy)
        rc = read_u32(&f[5], INT32_MAX, "aux row", &out->aux_row, why);
    bool any;
    if (!rc && out->generation == PD_W4)
        rc = read_nested(&f[6], 4, "state indices", &any, why);
    if (!rc)
        rc = read_u32(&f[7], 65535, "required_dst_info_num", &out->required_dst,
                      why);
    if (!rc && count >= 9 && f[8].len)
        rc = read_u32(&f[8], INT32_MAX, "decode_prefix_len",
                      &out->prefix_tokens, why);
    /* SGLang since 0.5.23 has page indices of the device there, or nothing. */
    if (!rc && count == 10 && f[9].len) rc = prompt_decode(&f[9], out, why);
    return rc;
}

static int abort_decode(const struct pd_frame *f, size_t count,
                        struct pd_abort *out, struct why *why)
{
    if (count != 4)
        return err_set(why, ERR_FORMAT, "ABORT with %zu frames", count);
    int rc = read_room(&f[1], &out->room, why);
    if (!rc) rc = read_address(&f[2], &f[3], &out->from, why);
    return rc;
}

int pd_prefill_decode(const struct pd_frame *frames, size_t count,
                      struct pd_note *out, struct why *why)
{
    *out = (struct pd_note){0};
    if (!count || count > PD_FRAMES_MAX)
        return err_set(why, ERR_FORMAT, "message with %zu frames", count);
    if (frame_is(frames, "None")) {
        out->kind = PD_REGISTER;
        return register_decode(frames, count, &out->reg, why);
    }
    if (frame_is(frames, "ABORT")) {
        out->kind = PD_ABORT;
        return abort_decode(frames, count, &out->abort, why);
    }
    if (frame_is(frames, "WATERMARK") || frame_is(frames, "STAGING_RSP")) {
        out->kind = PD_OTHER;
        return 0;
    }
    out->kind = PD_REQUEST;
    return request_decode(frames, count, &out->request, why);
}

/* Foreign text for our log and our client: control characters become spaces;
 * what is not UTF-8 is dropped by whoever writes JSON. */
static void text_copy(char *out, size_t max, const struct pd_frame *f)
{
    size_t n = f->len < max ? f->len : max;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = ((const unsigned char *)f->data)[i];
        out[i] = c < ' ' || c >= 127 ? ' ' : (char)c;
    }
    out[n] = 0;
}

static int status_decode(const struct pd_frame *f, size_t count,
                         struct pd_status *out, struct why *why)
{
    if (count != 3 && count != 5)
        return err_set(why, ERR_FORMAT, "STATUS with %zu frames", count);
    uint32_t status = 0, http = 0;
    int rc = read_room(&f[0], &out->room, why);
    if (!rc) rc = read_u32(&f[1], 4, "status", &status, why);
    if (!rc && status && status != 4)
        rc = err_set(why, ERR_FORMAT, "status: %u is neither 4 nor 0", status);
    if (!rc) rc = read_u32(&f[2], 65535, "prefill rank", &out->rank, why);
    out->success = status == 4;
    if (rc || count == 3) return rc;
    rc = read_u32(&f[3], 599, "HTTP status", &http, why);
    if (!rc && http < 400)
        rc = err_set(why, ERR_FORMAT, "HTTP status: %u is no error", http);
    out->http_status = (int)http;
    text_copy(out->text, PD_TEXT_MAX, &f[4]);
    return rc;
}

int pd_decode_decode(const struct pd_frame *frames, size_t count,
                     struct pd_note *out, struct why *why)
{
    static const char *const unused[] = {"AUX_DATA", "CHUNK_READY",
                                         "STAGING_REQ"};
    *out = (struct pd_note){0};
    if (!count || count > PD_FRAMES_MAX)
        return err_set(why, ERR_FORMAT, "message with %zu frames", count);
    if (frame_is(frames, "ABORT_ACK")) {
        out->kind = PD_ABORT_ACK;
        if (count != 2)
            return err_set(why, ERR_FORMAT, "ABORT_ACK with %zu frames", count);
        return read_room(&frames[1], &out->acked_room, why);
    }
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
        if (!frame_is(frames, unused[i])) continue;
        out->kind = PD_OTHER;
        return 0;
    }
    out->kind = PD_STATUS;
    return status_decode(frames, count, &out->status, why);
}

/* ---- encoding ----------------------------------------------------------- */

void pd_message_init(struct pd_message *message)
{
    *message = (struct pd_message){0};
    buf_init(&message->bytes, PD_MESSAGE_MAX);
}

void pd_message_fini(struct pd_message *message)
{
    buf_fini(&message->bytes);
}

struct pd_frame pd_message_frame(const struct pd_message *message, uint32_t i)
{
    assert(i < message->count);
    size_t start = i ? message->ends[i - 1] : 0;
    return (struct pd_frame){message->bytes.data + start,
                             message->ends[i] - start};
}

static void begin(struct pd_message *m)
{
    buf_reset(&m->bytes);
    m->count = 0;
}

/* What was added since the former end is one frame. */
static void end(struct pd_message *m)
{
    assert(m->count < PD_FRAMES_MAX);
    m->ends[m->count++] = m->bytes.len;
}

static void add_bytes(struct pd_message *m, const void *bytes, size_t n)
{
    if (n) buf_add(&m->bytes, bytes, n);
    end(m);
}

static void add_text(struct pd_message *m, const char *text)
{
    add_bytes(m, text, strlen(text));
}

static void add_number(struct pd_message *m, uint64_t n)
{
    buf_printf(&m->bytes, "%" PRIu64, n);
    end(m);
}

static void add_address(struct pd_message *m, const struct pd_address *a)
{
    add_text(m, a->host);
    add_number(m, a->port);
}

void pd_register_encode(struct pd_message *out, const struct pd_register *in)
{
    assert(!in->has_state);
    begin(out);
    add_text(out, "None");
    add_address(out, &in->from);
    add_text(out, in->session);
    add_bytes(out, in->kv, 8 * (size_t)in->kv_count);
    add_bytes(out, in->aux, 8 * (size_t)in->aux_count);
    add_text(out, "");
    add_number(out, in->tp_rank);
    add_number(out, in->tp_size);
    add_number(out, in->page_bytes);
    if (in->generation < PD_W4) return;
    for (int i = 10; i < 14; i++) /* no state, no staging */
        add_text(out, "");
    if (!in->has_layout) return;
    char text[PD_LAYOUT_TEXT];
    pd_layout_encode(&in->layout, text);
    add_text(out, text);
}

void pd_request_encode(struct pd_message *out, const struct pd_request *in)
{
    begin(out);
    add_number(out, in->room);
    add_address(out, &in->from);
    add_text(out, in->session);
    add_bytes(out, in->pages, 4 * (size_t)in->page_count);
    if (in->dummy)
        add_text(out, "");
    else
        add_number(out, in->aux_row);
    add_text(out, "");
    add_number(out, in->required_dst);
    if (in->generation < PD_W4) return;
    add_number(out, in->prefix_tokens);
    if (!in->has_prompt) return;
    buf_printf(&out->bytes, "%u %016" PRIx64, in->prompt_tokens,
               in->prompt_hash);
    end(out);
}

void pd_abort_encode(struct pd_message *out, const struct pd_abort *in)
{
    begin(out);
    add_text(out, "ABORT");
    add_number(out, in->room);
    add_address(out, &in->from);
}

void pd_status_encode(struct pd_message *out, const struct pd_status *in)
{
    begin(out);
    add_number(out, in->room);
    add_number(out, in->success ? 4 : 0);
    add_number(out, in->rank);
    if (in->success || !in->http_status) return;
    add_number(out, (uint64_t)in->http_status);
    add_text(out, in->text);
}

void pd_abort_ack_encode(struct pd_message *out, uint64_t room)
{
    begin(out);
    add_text(out, "ABORT_ACK");
    add_number(out, room);
}
