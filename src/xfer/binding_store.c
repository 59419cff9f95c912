/* Bindings: config stores that this process serves and joins, and the
 * certificates that it has for them. */
#include "xfer/binding_core.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "xfer/store_link.h"
#include "xfer/tls.h"

#include <stdio.h>
#include <string.h>

enum { STORES_MAX = 16 };

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER;                /* of all that follows */
static struct xfer_store *stores[STORES_MAX]; /* until the process ends, as
                                               * whoever started it expects */
static size_t store_count;

/* What was said in place of the environment; NULL: nothing. */
static struct told {
    bool tls;
    char *cert, *key_file, *key, *password, *ca;
} told;

/* ---- certificates ---- */

/* Under the lock. */
static void auth_fill(struct xfer_store_auth *out)
{
    xfer_store_auth_env(out);
    if (!told.tls) return;
    out->tls_cert = told.cert ? told.cert : ""; /* no file; an error, then */
    out->tls_ca = told.ca;
    out->tls_key = told.key_file ? told.key_file : told.key;
    out->tls_password = told.key_file ? NULL : told.password;
}

static char *trim(char *text)
{
    static const char blanks[] = " \t\r\n";
    text += strspn(text, blanks);
    size_t n = strlen(text);
    while (n && strchr(blanks, text[n - 1]))
        text[--n] = 0;
    return text;
}

/* "a, b" in folder: "folder/a,folder/b". */
static char *ca_join(const char *folder, char *names)
{
    struct buf out;
    char *rest = NULL;
    buf_init(&out, 64 << 10);
    for (char *name = strtok_r(names, ",", &rest); name;
         name = strtok_r(NULL, ",", &rest))
        buf_printf(&out, "%s%s%s%s", out.len ? "," : "", folder ? folder : "",
                   folder ? "/" : "", trim(name));
    char *all = out.failed ? NULL : mem_dup(out.len ? out.data : "");
    buf_fini(&out);
    return all;
}

/* Takes the entries of text, which is cut to pieces, into t. */
static int told_parse(struct told *t, char *text, struct why *why)
{
    char *rest = NULL, *folder = NULL, *names = NULL, *none = NULL;
    char *cert = NULL, *key_file = NULL;
    for (char *entry = strtok_r(text, ";", &rest); entry;
         entry = strtok_r(NULL, ";", &rest)) {
        char *colon = strchr(entry, ':');
        if (colon) *colon = 0;
        const char *name = trim(entry);
        char *value = colon ? trim(colon + 1) : NULL;
        const struct {
            const char *name;
            char **to;
        } all[] = {{"tlsCert", &cert},     {"tlsPk", &key_file},
                   {"tlsCaPath", &folder}, {"tlsCaFile", &names},
                   {"tlsCrlPath", &none},  {"packagePath", &none},
                   {"tlsCrlFile", NULL},   {"tlsPkPwd", NULL}};
        size_t i = 0, count = sizeof all / sizeof *all;
        while (i < count && strcmp(all[i].name, name) != 0)
            i++;
        if (!*name && !value) continue; /* behind the last ; */
        if (i == count || !value)
            return err_set(why, ERR_INVALID, "TLS: \"%.60s\" is not known",
                           name);
        if (!*value) continue;
        if (!all[i].to)
            return err_set(why, ERR_UNSUPPORTED, "TLS: %s is not supported: %s",
                           name,
                           name[3] == 'C' ? "no lists of revoked certificates"
                                          : "give the key by its own call");
        *all[i].to = value;
    }
    if (cert) t->cert = mem_dup(cert);
    if (key_file) t->key_file = mem_dup(key_file);
    if (names) t->ca = ca_join(folder, names);
    if (t->cert && t->ca && *t->ca) return 0;
    return err_set(why, ERR_INVALID, "TLS: %s is missing",
                   t->cert ? "tlsCaFile" : "tlsCert");
}

/* Under the lock: whether the files are good, once all are known. */
static int told_check(struct why *why)
{
    struct xfer_store_auth auth;
    struct tls_setup *setup;
    auth_fill(&auth);
    if (!told.tls || !auth.tls_key) return 0;
    int rc = store_link_setup(&setup, &auth, why);
    if (!rc) tls_setup_destroy(setup);
    return rc;
}

static void secret_free(char *text)
{
    if (text) explicit_bzero(text, strlen(text));
    mem_free(text);
}

/* Under the lock: as it was before anything was said of files. */
static void told_forget(void)
{
    mem_free(told.cert);
    mem_free(told.key_file);
    mem_free(told.ca);
    told.cert = told.key_file = told.ca = NULL;
    told.tls = false;
}

int xfer_binding_store_tls(const char *info, size_t bytes, struct why *why)
{
    struct told now = {.tls = true};
    int rc = 0;
    char *text = info ? mem_dup_n(info, strnlen(info, bytes)) : NULL;
    if (text) rc = told_parse(&now, text, why);
    mem_free(text);
    pthread_mutex_lock(&lock);
    told_forget();
    if (info) { /* what is bad is not plain text from now on */
        told.tls = true;
        told.cert = now.cert;
        told.key_file = now.key_file;
        told.ca = now.ca;
    }
    if (!rc) rc = told_check(why);
    pthread_mutex_unlock(&lock);
    return rc;
}

int xfer_binding_store_tls_key(const char *key, size_t key_bytes,
                               const char *password, size_t password_bytes,
                               struct why *why)
{
    if (!key || !strnlen(key, key_bytes))
        return err_set(why, ERR_INVALID, "TLS: the key is empty");
    pthread_mutex_lock(&lock);
    secret_free(told.key);
    secret_free(told.password);
    told.key = mem_dup_n(key, strnlen(key, key_bytes));
    told.password = password && password_bytes
                        ? mem_dup_n(password, strnlen(password, password_bytes))
                        : NULL;
    int rc = told_check(why);
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- stores ---- */

int binding_store_open(const char *url, struct xfer_store_client **out,
                       struct why *why)
{
    struct xfer_store_auth auth;
    pthread_mutex_lock(&lock);
    auth_fill(&auth);
    int rc = xfer_store_open(url, &auth, out, why);
    pthread_mutex_unlock(&lock);
    return rc;
}

/* Under the lock. */
static int serve(const char *url, struct why *why)
{
    struct xfer_store_auth auth;
    struct xfer_store *store;
    auth_fill(&auth);
    if (store_count == STORES_MAX)
        return err_set(why, ERR_AGAIN, "a process serves %d stores at most",
                       STORES_MAX);
    int rc = xfer_store_serve(url, &auth, &store, why);
    if (rc) return rc;
    stores[store_count++] = store;
    log_info("store", "config store at %s%s", xfer_store_url(store),
             auth.tls_cert ? ", with TLS" : "");
    return 0;
}

int xfer_binding_serve_store(const char *url, struct why *why)
{
    pthread_mutex_lock(&lock);
    int rc = serve(url, why);
    pthread_mutex_unlock(&lock);
    if (rc != ERR_EXISTS) return rc;
    log_info("store", "%s is served already; being a client of it", url);
    return 0;
}
