/* dropin/smem_trans.h - MemFabric's transfer functions, over xfer/binding.h.
 * Link libmf_smem.so. What differs from MemFabric on purpose: no call sleeps
 * (its init sleeps 10 s, each registration 8 s); deregister deregisters;
 * errors have codes of their own; host memory is moved, without an NPU.
 *
 * Any thread; a handle that was destroyed is SMEM_INVALID_PARAM. Results: see
 * smem_trans_def.h; smem_get_last_err_msg says why. */
#ifndef BATON_DROPIN_SMEM_TRANS_H
#define BATON_DROPIN_SMEM_TRANS_H

#include <stddef.h>

#include "smem_trans_def.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Fills defaults: no role, 120 s, SDMA, no server. */
int32_t smem_trans_config_init(smem_trans_config_t *config);
/* Allows smem_trans_create; once a process is enough, more is fine. */
int32_t smem_trans_init(const smem_trans_config_t *config);
void smem_trans_uninit(uint32_t flags);

/* An engine that peers reach as uniqueId, "ip:port". storeUrl: the config
 * store that it announces itself in; peers with addresses for names do not
 * need it, and it may come later. NULL on error. */
smem_trans_t smem_trans_create(const char *storeUrl, const char *uniqueId,
                               const smem_trans_config_t *config);
void smem_trans_destroy(smem_trans_t handle, uint32_t flags);

/* Zeroed registered memory that peers of this host map. */
void *smem_trans_malloc(smem_trans_t handle, size_t size);
int32_t smem_trans_free(smem_trans_t handle, void *ptr);

/* Offers memory to peers, who may use it when this returns. A range inside a
 * registered one is counted. */
int32_t smem_trans_register_mem(smem_trans_t handle, void *address,
                                size_t capacity, uint32_t flags);
int32_t smem_trans_batch_register_mem(smem_trans_t handle, void *addresses[],
                                      size_t capacities[], uint32_t count,
                                      uint32_t flags);
/* Waits until no peer touches it. */
int32_t smem_trans_deregister_mem(smem_trans_t handle, void *address);

/* Wait until the bytes are in place. flags: 0 or 2. */
int32_t smem_trans_write(smem_trans_t handle, const void *localAddr,
                         const char *remoteUniqueId, void *remoteAddr,
                         size_t dataSize, uint32_t flags);
int32_t smem_trans_read(smem_trans_t handle, void *localAddr,
                        const char *remoteUniqueId, const void *remoteAddr,
                        size_t dataSize, uint32_t flags);
int32_t smem_trans_batch_write(smem_trans_t handle, const void *localAddrs[],
                               const char *remoteUniqueId, void *remoteAddrs[],
                               size_t dataSizes[], uint32_t batchSize,
                               uint32_t flags);
int32_t smem_trans_batch_read(smem_trans_t handle, void *localAddrs[],
                              const char *remoteUniqueId,
                              const void *remoteAddrs[], size_t dataSizes[],
                              uint32_t batchSize, uint32_t flags);

/* In MemFabric these queue on an ACL stream. Host memory has no streams: with
 * stream NULL they wait as the others do, else SMEM_UNSUPPORTED. */
int32_t smem_trans_write_submit(smem_trans_t handle, const void *localAddr,
                                const char *remoteUniqueId, void *remoteAddr,
                                size_t dataSize, void *stream, uint32_t flags);
int32_t smem_trans_read_submit(smem_trans_t handle, void *localAddr,
                               const char *remoteUniqueId,
                               const void *remoteAddr, size_t dataSize,
                               void *stream, uint32_t flags);
int32_t smem_trans_batch_write_submit(smem_trans_t handle,
                                      const void *localAddrs[],
                                      const char *remoteUniqueId,
                                      void *remoteAddrs[], size_t dataSizes[],
                                      uint32_t batchSize, void *stream,
                                      uint32_t flags);
int32_t smem_trans_batch_read_submit(smem_trans_t handle, void *localAddrs[],
                                     const char *remoteUniqueId,
                                     const void *remoteAddrs[],
                                     size_t dataSizes[], uint32_t batchSize,
                                     void *stream, uint32_t flags);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
