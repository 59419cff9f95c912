#include "tests/model/gguf_build.h"

#include "tensor/tensor.h"

#include <assert.h>
#include <string.h>

enum { ALIGN = 32, U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

void gguf_build_init(struct gguf_build *b)
{
    *b = (struct gguf_build){0};
    buf_init(&b->keys, (size_t)1 << 30);
    buf_init(&b->infos, (size_t)1 << 30);
    buf_init(&b->data, (size_t)1 << 34);
}

void gguf_build_fini(struct gguf_build *b)
{
    buf_fini(&b->keys);
    buf_fini(&b->infos);
    buf_fini(&b->data);
}

static void add_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof v);
}

static void add_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof v);
}

static void add_string(struct buf *b, const char *s)
{
    add_u64(b, strlen(s));
    buf_puts(b, s);
}

static void add_key(struct gguf_build *b, const char *key, uint32_t type)
{
    b->key_count++;
    add_string(&b->keys, key);
    add_u32(&b->keys, type);
}

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v)
{
    add_key(b, key, U32);
    add_u32(&b->keys, v);
}

void gguf_build_f32(struct gguf_build *b, const char *key, float v)
{
    add_key(b, key, F32);
    buf_add(&b->keys, &v, sizeof v);
}

void gguf_build_bool(struct gguf_build *b, const char *key, bool v)
{
    add_key(b, key, BOOL);
    buf_putc(&b->keys, v);
}

void gguf_build_string(struct gguf_build *b, const char *key, const char *v)
{
    add_key(b, key, STRING);
    add_string(&b->keys, v);
}

void gguf_build_strings(struct gguf_build *b, const char *key,
                        const char *const *list, size_t count)
{
    add_key(b, key, ARRAY);
    add_u32(&b->keys, STRING);
    add_u64(&b->keys, count);
    for (size_t i = 0; i < count; i++)
        add_string(&b->keys, list[i]);
}

void gguf_build_ints(struct gguf_build *b, const char *key, const int32_t *list,
                     size_t count)
{
    add_key(b, key, ARRAY);
    add_u32(&b->keys, I32);
    add_u64(&b->keys, count);
    buf_add(&b->keys, list, count * sizeof *list);
}

void gguf_build_floats(struct gguf_build *b, const char *key, const float *list,
                       size_t count)
{
    add_key(b, key, ARRAY);
    add_u32(&b->keys, F32);
    add_u64(&b->keys, count);
    buf_add(&b->keys, list, count * sizeof *list);
}

uint32_t gguf_build_type(int dtype)
{
    switch (dtype) {
    case DTYPE_F32: return 0;
    case DTYPE_F16: return 1;
    case DTYPE_Q4_0: return 2;
    case DTYPE_Q4_1: return 3;
    case DTYPE_Q8_0: return 8;
    case DTYPE_Q4_K: return 12;
    case DTYPE_Q5_K: return 13;
    case DTYPE_Q6_K: return 14;
    case DTYPE_BF16: return 30;
    default: assert(!"a dtype"); return 0;
    }
}

static void pad(struct buf *b, size_t at)
{
    while ((at + b->len) % ALIGN)
        buf_putc(b, 0);
}

void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type,
                       uint32_t dims, const uint64_t *shape, const void *bytes,
                       size_t n)
{
    b->tensor_count++;
    add_string(&b->infos, name);
    add_u32(&b->infos, dims);
    for (uint32_t i = dims; i-- > 0;)
        add_u64(&b->infos, shape[i]);
    add_u32(&b->infos, type);
    add_u64(&b->infos, b->data.len);
    buf_add(&b->data, bytes, n);
    pad(&b->data, 0);
}

void gguf_build_finish(const struct gguf_build *b, uint32_t version,
                       struct buf *out)
{
    size_t from = out->len;
    buf_puts(out, "GGUF");
    add_u32(out, version);
    add_u64(out, b->tensor_count);
    add_u64(out, b->key_count);
    buf_add(out, b->keys.data, b->keys.len);
    buf_add(out, b->infos.data, b->infos.len);
    pad(out, -from);
    buf_add(out, b->data.data, b->data.len);
    assert(!b->keys.failed && !b->infos.failed && !b->data.failed &&
           !out->failed);
}
