/* dropin/smem.h - MemFabric's process-wide functions, over xfer/binding.h.
 * Link libmf_smem.so. All return 0 or a negative number of smem_trans_def.h
 * unless they say otherwise; any thread. */
#ifndef BATON_DROPIN_SMEM_H
#define BATON_DROPIN_SMEM_H

#include <stdbool.h>
#include <stddef.h>
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

/* TLS 1.3 for config stores that this process serves or joins from now on; both
 * sides show a certificate. tls_info is "name: value; name: value ...":
 *   tlsCert      file: our certificate (PEM, as all)
 *   tlsCaPath    folder of tlsCaFile
 *   tlsCaFile    names, with commas between, of the CAs that we accept
 *   tlsPk        file of our key, when it has no password and the next call is
 *                not made
 *   tlsCrlPath, packagePath   not looked at
 * tlsCrlFile and tlsPkPwd are SMEM_UNSUPPORTED: revoked certificates are not
 * known here. The files are read at once, if the key is known: a bad one is
 * SMEM_INVALID_PARAM, and stores fail until TLS is set well or switched off.
 * enable false: what BATON_TLS_CERT, _KEY, _CA say, or no TLS. */
int32_t smem_set_conf_store_tls(bool enable, const char *tls_info,
                                const uint32_t tls_info_len);
/* Writes the password and its length (at most what *plain_text_len was); not 0
 * when it cannot. C++ has a reference for the last. */
typedef int (*smem_decrypt_handler)(const char *cipher_text,
                                    size_t cipher_text_len, char *plain_text,
                                    size_t *plain_text_len);
/* The PEM text of our key; its password, if it has one, which h decrypts during
 * the call (NULL: it is plain). */
int32_t smem_set_config_store_tls_key(const char *tls_pk,
                                      const uint32_t tls_pk_len,
                                      const char *tls_pk_pw,
                                      const uint32_t tls_pk_pw_len,
                                      const smem_decrypt_handler h);

/* Why the last call on this thread that failed did; "" when none did. Valid
 * until the next call on this thread. */
const char *smem_get_last_err_msg(void);
const char *smem_get_and_clear_last_err_msg(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
