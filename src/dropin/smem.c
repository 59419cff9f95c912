/* MemFabric's C functions: arguments checked, codes translated. */
#include "dropin/smem.h"
#include "dropin/smem_trans.h"

#include "xfer/binding.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(size_t) == 8 && sizeof(void *) == 8,
               "arrays of pointers and sizes are read as arrays of u64");

enum { COPY_EXTEND_FLAG = 2, JOIN_MS = 200 };

static atomic_bool initialized;
static _Thread_local struct why last;

static int32_t code(int rc)
{
    switch (rc) {
    case 0: return 0;
    case ERR_INVALID: return SMEM_INVALID_PARAM;
    case ERR_NOMEM: return SMEM_MALLOC_FAILED;
    case ERR_TIMEOUT: return SMEM_TIMEOUT;
    case ERR_EXISTS: return SMEM_DUPLICATED_OBJECT;
    case ERR_NOT_FOUND: return SMEM_NO_SUCH_PEER;
    case ERR_RANGE: return SMEM_OUT_OF_RANGE;
    case ERR_PEER:
    case ERR_STALE: return SMEM_PEER_DEAD;
    case ERR_CANCELED: return SMEM_CANCELED;
    case ERR_AUTH: return SMEM_UNAUTHORIZED;
    case ERR_AGAIN: return SMEM_RESOURCE_IN_USE;
    case ERR_UNSUPPORTED: return SMEM_UNSUPPORTED;
    default: return SMEM_ERROR;
    }
}

static int32_t bad(const char *text)
{
    snprintf(last.text, sizeof last.text, "%s", text);
    return SMEM_INVALID_PARAM;
}

/* ---- the process ---- */

int32_t smem_init(uint32_t flags)
{
    (void)flags;
    return 0;
}

void smem_uninit(void)
{
}

int32_t smem_create_config_store(const char *storeUrl)
{
    if (!storeUrl) return bad("storeUrl is NULL");
    return code(xfer_binding_serve_store(storeUrl, &last));
}

int32_t smem_set_extern_logger(void (*func)(int level, const char *msg))
{
    xfer_log_sink(func);
    return 0;
}

int32_t smem_set_log_level(int level)
{
    return xfer_log_level(level) ? bad("log level is not 0 to 3") : 0;
}

int32_t smem_set_conf_store_tls(bool enable, const char *tls_info,
                                const uint32_t tls_info_len)
{
    if (enable && !tls_info) return bad("tls_info is NULL");
    return code(
        xfer_binding_store_tls(enable ? tls_info : NULL, tls_info_len, &last));
}

int32_t smem_set_config_store_tls_key(const char *tls_pk,
                                      const uint32_t tls_pk_len,
                                      const char *tls_pk_pw,
                                      const uint32_t tls_pk_pw_len,
                                      const smem_decrypt_handler h)
{
    char plain[4096];
    size_t n = sizeof plain;
    bool secret = h && tls_pk_pw && tls_pk_pw_len;
    if (secret && (h(tls_pk_pw, tls_pk_pw_len, plain, &n) || n > sizeof plain))
        return bad("the handler did not decrypt the password");
    int rc = xfer_binding_store_tls_key(tls_pk, tls_pk_len,
                                        secret ? plain : tls_pk_pw,
                                        secret ? n : tls_pk_pw_len, &last);
    explicit_bzero(plain, sizeof plain);
    return code(rc);
}

const char *smem_get_last_err_msg(void)
{
    return last.text;
}

const char *smem_get_and_clear_last_err_msg(void)
{
    static _Thread_local char text[sizeof last.text];
    memcpy(text, last.text, sizeof text);
    last.text[0] = 0;
    return text;
}

/* ---- engines ---- */

int32_t smem_trans_config_init(smem_trans_config_t *config)
{
    if (!config) return bad("config is NULL");
    *config = (smem_trans_config_t){.initTimeout = 120,
                                    .dataOpType = SMEMB_DATA_OP_SDMA};
    return 0;
}

int32_t smem_trans_init(const smem_trans_config_t *config)
{
    if (!config) return bad("config is NULL");
    atomic_store(&initialized, true);
    return 0;
}

void smem_trans_uninit(uint32_t flags)
{
    (void)flags;
    atomic_store(&initialized, false);
}

smem_trans_t smem_trans_create(const char *storeUrl, const char *uniqueId,
                               const smem_trans_config_t *config)
{
    struct xfer_binding *b = NULL;
    struct why why = {0};
    if (!atomic_load(&initialized)) {
        bad("smem_trans_init was not called");
    } else if (!storeUrl || !uniqueId || !config) {
        bad("storeUrl, uniqueId or config is NULL");
    } else if (config->role != SMEM_TRANS_SENDER &&
               config->role != SMEM_TRANS_RECEIVER &&
               config->role != SMEM_TRANS_BOTH) {
        bad("role is neither sender nor receiver");
    } else if (xfer_binding_open(&b, XFER_WORLD_MEMFABRIC, uniqueId, &last)) {
        return NULL;
    }
    if (!b) return NULL;
    /* Whose address the store's is not cannot serve it, which is fine. */
    if (config->startConfigServer) xfer_binding_serve_store(storeUrl, &why);
    int rc = xfer_binding_join(b, storeUrl, uniqueId, JOIN_MS, &last);
    if (rc == 0 || rc == ERR_PEER) return b; /* it may come later */
    xfer_binding_close(b);
    return NULL;
}

void smem_trans_destroy(smem_trans_t handle, uint32_t flags)
{
    (void)flags;
    xfer_binding_close(handle);
}

/* ---- memory ---- */

void *smem_trans_malloc(smem_trans_t handle, size_t size)
{
    if (!size) {
        bad("size is 0");
        return NULL;
    }
    return xfer_binding_alloc(handle, size, &last);
}

int32_t smem_trans_free(smem_trans_t handle, void *ptr)
{
    int rc = xfer_binding_free(handle, ptr, &last);
    return rc == ERR_NOT_FOUND ? SMEM_OBJECT_NOT_EXISTS : code(rc);
}

int32_t smem_trans_batch_register_mem(smem_trans_t handle, void *addresses[],
                                      size_t capacities[], uint32_t count,
                                      uint32_t flags)
{
    (void)flags;
    if (!addresses || !capacities || !count)
        return bad("addresses, capacities or count is nothing");
    return code(xfer_binding_register(handle, (const uint64_t *)addresses,
                                      (const uint64_t *)capacities, count, NULL,
                                      0, &last));
}

int32_t smem_trans_register_mem(smem_trans_t handle, void *address,
                                size_t capacity, uint32_t flags)
{
    return smem_trans_batch_register_mem(handle, &address, &capacity, 1, flags);
}

int32_t smem_trans_deregister_mem(smem_trans_t handle, void *address)
{
    uint64_t addr = (uintptr_t)address;
    int rc = xfer_binding_unregister(handle, &addr, 1, &last);
    return rc == ERR_NOT_FOUND ? SMEM_OBJECT_NOT_EXISTS : code(rc);
}

/* ---- transfers ---- */

/* stream: NULL, or what only an NPU has. */
static int32_t move(smem_trans_t handle, enum xfer_kind kind,
                    const char *remote_id, const void *local,
                    const void *remote, const size_t *sizes, uint32_t count,
                    const void *stream, uint32_t flags)
{
    if (flags & ~(uint32_t)COPY_EXTEND_FLAG) return bad("unknown flags");
    if (!remote_id || !local || !remote || !sizes || !count)
        return bad("an address, a size, a list or remoteUniqueId is nothing");
    if (stream) {
        snprintf(last.text, sizeof last.text,
                 "no ACL streams in this build; use the calls without one");
        return SMEM_UNSUPPORTED;
    }
    return code(xfer_binding_transfer(handle, remote_id, kind, count, local,
                                      remote, (const uint64_t *)sizes, NULL, -1,
                                      &last));
}

int32_t smem_trans_write_submit(smem_trans_t handle, const void *localAddr,
                                const char *remoteUniqueId, void *remoteAddr,
                                size_t dataSize, void *stream, uint32_t flags)
{
    return move(handle, XFER_WRITE, remoteUniqueId, &localAddr, &remoteAddr,
                &dataSize, 1, stream, flags);
}

int32_t smem_trans_read_submit(smem_trans_t handle, void *localAddr,
                               const char *remoteUniqueId,
                               const void *remoteAddr, size_t dataSize,
                               void *stream, uint32_t flags)
{
    return move(handle, XFER_READ, remoteUniqueId, &localAddr, &remoteAddr,
                &dataSize, 1, stream, flags);
}

int32_t smem_trans_batch_write_submit(smem_trans_t handle,
                                      const void *localAddrs[],
                                      const char *remoteUniqueId,
                                      void *remoteAddrs[], size_t dataSizes[],
                                      uint32_t batchSize, void *stream,
                                      uint32_t flags)
{
    return move(handle, XFER_WRITE, remoteUniqueId, localAddrs, remoteAddrs,
                dataSizes, batchSize, stream, flags);
}

int32_t smem_trans_batch_read_submit(smem_trans_t handle, void *localAddrs[],
                                     const char *remoteUniqueId,
                                     const void *remoteAddrs[],
                                     size_t dataSizes[], uint32_t batchSize,
                                     void *stream, uint32_t flags)
{
    return move(handle, XFER_READ, remoteUniqueId, localAddrs, remoteAddrs,
                dataSizes, batchSize, stream, flags);
}

int32_t smem_trans_write(smem_trans_t handle, const void *localAddr,
                         const char *remoteUniqueId, void *remoteAddr,
                         size_t dataSize, uint32_t flags)
{
    return smem_trans_write_submit(handle, localAddr, remoteUniqueId,
                                   remoteAddr, dataSize, NULL, flags);
}

int32_t smem_trans_read(smem_trans_t handle, void *localAddr,
                        const char *remoteUniqueId, const void *remoteAddr,
                        size_t dataSize, uint32_t flags)
{
    return smem_trans_read_submit(handle, localAddr, remoteUniqueId, remoteAddr,
                                  dataSize, NULL, flags);
}

int32_t smem_trans_batch_write(smem_trans_t handle, const void *localAddrs[],
                               const char *remoteUniqueId, void *remoteAddrs[],
                               size_t dataSizes[], uint32_t batchSize,
                               uint32_t flags)
{
    return smem_trans_batch_write_submit(handle, localAddrs, remoteUniqueId,
                                         remoteAddrs, dataSizes, batchSize,
                                         NULL, flags);
}

int32_t smem_trans_batch_read(smem_trans_t handle, void *localAddrs[],
                              const char *remoteUniqueId,
                              const void *remoteAddrs[], size_t dataSizes[],
                              uint32_t batchSize, uint32_t flags)
{
    return smem_trans_batch_read_submit(handle, localAddrs, remoteUniqueId,
                                        remoteAddrs, dataSizes, batchSize, NULL,
                                        flags);
}
