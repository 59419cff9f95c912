/* dropin/smem.h - MemFabric's process-wide functions, over xfer/binding.h.
 * Link libmf_smem.so. All return 0 or a negative number of smem_trans_def.h
 * unless they say otherwise; any thread. */
#ifndef BATON_DROPIN_SMEM_H
#define BATON_DROPIN_SMEM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Both do nothing; flags is not looked at. */
int32_t smem_init(uint32_t flags);
void smem_uninit(void);

/* Serves a config store at "tcp://host:port" in this process until it ends.
 * 0 also when one is served there already. BATON_TRANSFER_TOKEN, where set, is
 * asked of its clients. */
int32_t smem_create_config_store(const char *storeUrl);

/* Lines of the log go to func (0 debug, 1 info, 2 warn, 3 error) instead of
 * stderr; NULL: stderr again. */
int32_t smem_set_extern_logger(void (*func)(int level, const char *msg));
int32_t smem_set_log_level(int level);

/* There is no TLS in this build: enabling it fails with SMEM_UNSUPPORTED (and
 * is not answered with a success that means plain text); switching it off is
 * 0. What there is instead: BATON_TRANSFER_TOKEN. */
int32_t smem_set_conf_store_tls(bool enable, const char *tls_info,
                                const uint32_t tls_info_len);
int32_t smem_set_config_store_tls_key(
    const char *tls_pk, const uint32_t tls_pk_len, const char *tls_pk_pw,
    const uint32_t tls_pk_pw_len,
    int (*decrypt)(const char *cipher_text, const uint32_t cipher_text_len,
                   char *plain_text, const uint32_t *plain_text_len));

/* Why the last call on this thread that failed did; "" when none did. Valid
 * until the next call on this thread. */
const char *smem_get_last_err_msg(void);
const char *smem_get_and_clear_last_err_msg(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
