#include "xfer/tls.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of OpenSSL's interface, which is the same in 1.1 and 3: numbers and types
 * behind opaque pointers. */
enum {
    OSSL_FILETYPE_PEM = 1,
    OSSL_CTRL_MIN_PROTO = 123,
    OSSL_TLS_1_3 = 0x0304,
    OSSL_VERIFY_BOTH = 1 | 2, /* ask for a certificate, insist on it */
    OSSL_ERROR_WANT_READ = 2,
    OSSL_ERROR_WANT_WRITE = 3,
    OSSL_ERROR_ZERO_RETURN = 6,
    OSSL_BIO_PENDING = 10,
};
enum {
    RECORD = 16 << 10,    /* most plain bytes of one */
    OUT_MAX = 4 * RECORD, /* encrypted, not yet in the kernel */
    FIRST = 20,
    LAST = 23, /* types of record that begin a TLS stream */
};

/* Writes a password and returns its length. */
typedef int password_fn(char *to, int room, int writing, void *arg);

struct openssl {
    int (*init)(uint64_t options, const void *settings);
    void *(*tls_method)(void);
    void *(*ctx_new)(const void *method);
    void (*ctx_free)(void *ctx);
    long (*ctx_ctrl)(void *ctx, int what, long number, void *pointer);
    int (*ctx_cert)(void *ctx, const char *file);
    int (*ctx_key)(void *ctx, const char *file, int type);
    int (*ctx_key_take)(void *ctx, void *key);
    int (*ctx_key_check)(const void *ctx);
    void (*ctx_password)(void *ctx, password_fn *ask);
    void (*ctx_password_of)(void *ctx, void *arg);
    int (*ctx_ca)(void *ctx, const char *file, const char *folder);
    void (*ctx_verify)(void *ctx, int mode, void *callback);
    int (*ctx_tickets)(void *ctx, size_t count);
    void *(*ssl_new)(void *ctx);
    void (*ssl_free)(void *ssl);
    void (*ssl_bio)(void *ssl, void *in, void *out);
    void (*ssl_connect)(void *ssl);
    void (*ssl_accept)(void *ssl);
    int (*ssl_read)(void *ssl, void *to, int n);
    int (*ssl_write)(void *ssl, const void *from, int n);
    int (*ssl_error)(const void *ssl, int rc);
    int (*ssl_done)(const void *ssl);
    long (*ssl_verified)(const void *ssl);
    const char *(*cert_text)(long error);
    void *(*bio_new)(const void *method);
    void *(*bio_text)(const void *text, int n);
    int (*bio_free)(void *bio);
    void *(*key_read)(void *bio, void **out, password_fn *ask, void *arg);
    void (*key_free)(void *key);
    const void *(*bio_mem)(void);
    int (*bio_read)(void *bio, void *to, int n);
    int (*bio_write)(void *bio, const void *from, int n);
    long (*bio_ctrl)(void *bio, int what, long number, void *pointer);
    unsigned long (*error_get)(void);
    void (*error_clear)(void);
    const char *(*error_text)(unsigned long error);
};

struct tls_setup {
    void *ctx;
};

struct tls {
    void *ssl, *in, *out; /* the memory that ssl reads, writes */
    int fd;
    bool heard, ended; /* any byte of the peer; its end */
    uint8_t *waits;    /* [OUT_MAX * 2] encrypted, from .. to */
    size_t from, to;
    char text[160];
};

static struct openssl ossl;
static const char *ossl_missing;
static pthread_once_t ossl_once = PTHREAD_ONCE_INIT;

/* A process may exit while threads of ours run; a handler of the library's own
 * then frees what they use. Ours runs before it and shuts this door. */
enum { LEAVE_MS = 1000 }; /* a fork may have copied a count of who is inside */
static atomic_int inside;
static atomic_bool door_shut;
static const char exits[] = "the process exits";

/* Whether the library may be called until leave(). */
static bool enter(void)
{
    atomic_fetch_add(&inside, 1);
    if (!atomic_load(&door_shut)) return true;
    atomic_fetch_sub(&inside, 1);
    return false;
}

static void leave(void)
{
    atomic_fetch_sub(&inside, 1);
}

/* A child of a fork has no threads of ours until it begins with us itself. */
static atomic_int door_keeper;

static void at_exit(void)
{
    if (getpid() != atomic_load(&door_keeper)) return;
    atomic_store(&door_shut, true);
    for (int ms = 0; ms < LEAVE_MS && atomic_load(&inside) > 0; ms++)
        poll(NULL, 0, 1);
}

static void ossl_load(void)
{
    void *lib = dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!lib) lib = dlopen("libssl.so.1.1", RTLD_NOW | RTLD_LOCAL);
    const struct {
        void *at;
        const char *name;
    } all[] = {
        {&ossl.init, "OPENSSL_init_ssl"},
        {&ossl.tls_method, "TLS_method"},
        {&ossl.ctx_new, "SSL_CTX_new"},
        {&ossl.ctx_free, "SSL_CTX_free"},
        {&ossl.ctx_ctrl, "SSL_CTX_ctrl"},
        {&ossl.ctx_cert, "SSL_CTX_use_certificate_chain_file"},
        {&ossl.ctx_key, "SSL_CTX_use_PrivateKey_file"},
        {&ossl.ctx_key_take, "SSL_CTX_use_PrivateKey"},
        {&ossl.ctx_password, "SSL_CTX_set_default_passwd_cb"},
        {&ossl.ctx_password_of, "SSL_CTX_set_default_passwd_cb_userdata"},
        {&ossl.ctx_key_check, "SSL_CTX_check_private_key"},
        {&ossl.ctx_ca, "SSL_CTX_load_verify_locations"},
        {&ossl.ctx_verify, "SSL_CTX_set_verify"},
        {&ossl.ctx_tickets, "SSL_CTX_set_num_tickets"},
        {&ossl.ssl_new, "SSL_new"},
        {&ossl.ssl_free, "SSL_free"},
        {&ossl.ssl_bio, "SSL_set_bio"},
        {&ossl.ssl_connect, "SSL_set_connect_state"},
        {&ossl.ssl_accept, "SSL_set_accept_state"},
        {&ossl.ssl_read, "SSL_read"},
        {&ossl.ssl_write, "SSL_write"},
        {&ossl.ssl_error, "SSL_get_error"},
        {&ossl.ssl_done, "SSL_is_init_finished"},
        {&ossl.ssl_verified, "SSL_get_verify_result"},
        {&ossl.cert_text, "X509_verify_cert_error_string"},
        {&ossl.bio_new, "BIO_new"},
        {&ossl.bio_text, "BIO_new_mem_buf"},
        {&ossl.bio_free, "BIO_free"},
        {&ossl.key_read, "PEM_read_bio_PrivateKey"},
        {&ossl.key_free, "EVP_PKEY_free"},
        {&ossl.bio_mem, "BIO_s_mem"},
        {&ossl.bio_read, "BIO_read"},
        {&ossl.bio_write, "BIO_write"},
        {&ossl.bio_ctrl, "BIO_ctrl"},
        {&ossl.error_get, "ERR_get_error"},
        {&ossl.error_clear, "ERR_clear_error"},
        {&ossl.error_text, "ERR_reason_error_string"},
    };
    ossl_missing = lib ? NULL : "libssl.so.3";
    for (size_t i = 0; lib && i < sizeof all / sizeof *all; i++) {
        void *found = dlsym(lib, all[i].name);
        if (!found) ossl_missing = all[i].name;
        memcpy(all[i].at, &found, sizeof found);
    }
    /* It registers its handler, then we ours, which runs before. */
    if (!ossl_missing && ossl.init(0, NULL) == 1 && atexit(at_exit))
        ossl_missing = "place for an exit handler";
}

static const char *last_error(void)
{
    unsigned long error = ossl.error_get();
    const char *text = error ? ossl.error_text(error) : NULL;
    return text ? text : "unknown error";
}

static int password_give(char *to, int room, int writing, void *arg)
{
    const char *password = arg;
    (void)writing;
    size_t n = password ? strlen(password) : 0;
    if (n > (size_t)room) return 0;
    memcpy(to, password ? password : "", n);
    return (int)n;
}

/* The key itself, not the name of its file. */
static bool is_pem(const char *key)
{
    return strncmp(key, "-----BEGIN", 10) == 0;
}

static bool take_key(void *ctx, const struct tls_files *f)
{
    void *password = (void *)(uintptr_t)f->password;
    ossl.ctx_password(ctx, password_give);
    ossl.ctx_password_of(ctx, password);
    int rc;
    if (is_pem(f->key)) {
        void *bio = ossl.bio_text(f->key, -1);
        void *key =
            bio ? ossl.key_read(bio, NULL, password_give, password) : NULL;
        rc = key ? ossl.ctx_key_take(ctx, key) : 0;
        if (key) ossl.key_free(key);
        if (bio) ossl.bio_free(bio);
    } else {
        rc = ossl.ctx_key(ctx, f->key, OSSL_FILETYPE_PEM);
    }
    ossl.ctx_password_of(ctx, NULL);
    return rc == 1 && ossl.ctx_key_check(ctx) == 1;
}

/* Each of the files between the commas; file gets the one that is bad. */
static bool take_ca(void *ctx, const char *files, char *file, size_t n)
{
    while (*files) {
        size_t bytes = strcspn(files, ",");
        snprintf(file, n, "%.*s", (int)bytes, files);
        if (bytes >= n || ossl.ctx_ca(ctx, file, NULL) != 1) return false;
        files += bytes;
        files += *files == ',';
    }
    return true;
}

static int setup_fill(void *ctx, const struct tls_files *f, struct why *why)
{
    char file[1024];
    if (ossl.ctx_ctrl(ctx, OSSL_CTRL_MIN_PROTO, OSSL_TLS_1_3, NULL) != 1 ||
        ossl.ctx_tickets(ctx, 0) != 1)
        return err_set(why, ERR_UNSUPPORTED, "TLS 1.3: %s", last_error());
    snprintf(file, sizeof file, "%s", f->cert);
    bool good = ossl.ctx_cert(ctx, f->cert) == 1;
    if (good) {
        snprintf(file, sizeof file, "%s", is_pem(f->key) ? "the key" : f->key);
        good = take_key(ctx, f);
    }
    if (good) good = take_ca(ctx, f->ca, file, sizeof file);
    if (!good)
        return err_set(why, ERR_INVALID, "TLS: %s: %s", file, last_error());
    ossl.ctx_verify(ctx, OSSL_VERIFY_BOTH, NULL);
    return 0;
}

int tls_setup_create(struct tls_setup **out, const struct tls_files *files,
                     struct why *why)
{
    *out = NULL;
    if (!files->cert || !files->key || !files->ca || !*files->ca)
        return err_set(why, ERR_INVALID,
                       "TLS needs a certificate, its key and a CA");
    pthread_once(&ossl_once, ossl_load);
    if (ossl_missing)
        return err_set(why, ERR_UNSUPPORTED, "TLS: no %s on this machine",
                       ossl_missing);
    if (!enter()) return err_set(why, ERR_CANCELED, "TLS: %s", exits);
    atomic_store(&door_keeper, getpid());
    ossl.error_clear();
    void *ctx = ossl.ctx_new(ossl.tls_method());
    int rc = ctx ? setup_fill(ctx, files, why)
                 : err_set(why, ERR_NOMEM, "TLS: %s", last_error());
    if (rc && ctx) ossl.ctx_free(ctx);
    leave();
    if (rc) return rc;
    *out = mem_must(1, sizeof **out);
    (*out)->ctx = ctx;
    return 0;
}

void tls_setup_destroy(struct tls_setup *setup)
{
    if (!setup) return;
    if (enter()) {
        ossl.ctx_free(setup->ctx);
        leave();
    }
    mem_free(setup);
}

static int failed(struct tls *t, const char *what)
{
    if (!t->text[0]) snprintf(t->text, sizeof t->text, "TLS: %s", what);
    errno = EPROTO;
    return -1;
}

struct tls *tls_create(struct tls_setup *setup, int fd, bool inbound)
{
    struct tls *t = mem_must(1, sizeof *t);
    t->fd = fd;
    t->waits = mem_must(OUT_MAX, 2);
    if (!enter()) {
        failed(t, exits);
        return t;
    }
    t->ssl = ossl.ssl_new(setup->ctx);
    t->in = ossl.bio_new(ossl.bio_mem());
    t->out = ossl.bio_new(ossl.bio_mem());
    if (!t->ssl || !t->in || !t->out) {
        failed(t, "out of memory");
    } else {
        ossl.ssl_bio(t->ssl, t->in, t->out); /* they are its own now */
        if (inbound)
            ossl.ssl_accept(t->ssl);
        else
            ossl.ssl_connect(t->ssl);
    }
    leave();
    return t;
}

void tls_destroy(struct tls *t)
{
    if (!t) return;
    if (t->ssl && enter()) {
        ossl.ssl_free(t->ssl);
        leave();
    }
    mem_free(t->waits);
    mem_free(t);
}

const char *tls_text(const struct tls *t)
{
    return t->text;
}

bool tls_wants_out(const struct tls *t, bool want)
{
    if (t->from < t->to || !want || !enter()) return t->from < t->to;
    bool done = ossl.ssl_done(t->ssl);
    leave();
    return done;
}

/* What waits, into the kernel. 0, or -1 with errno. */
static int flush(struct tls *t)
{
    for (;;) {
        if (t->from == t->to) {
            t->from = t->to = 0;
            int n = ossl.bio_read(t->out, t->waits, OUT_MAX * 2);
            if (n <= 0) return 0;
            t->to = (size_t)n;
        }
        ssize_t n = send(t->fd, t->waits + t->from, t->to - t->from,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EINTR) return -1;
        if (n > 0) t->from += (size_t)n;
    }
}

/* After a call of the library that did not succeed: -1 with errno. */
static int not_done(struct tls *t, int rc)
{
    int error = ossl.ssl_error(t->ssl, rc);
    int e = flush(t) ? errno : EAGAIN; /* an alert may be among it */
    if (error == OSSL_ERROR_WANT_READ || error == OSSL_ERROR_WANT_WRITE) {
        errno = e;
        return -1;
    }
    long bad = ossl.ssl_verified(t->ssl);
    return failed(t, bad ? ossl.cert_text(bad) : last_error());
}

static ssize_t send_inside(struct tls *t, const struct iovec *iov, int count)
{
    ssize_t all = 0;
    if (flush(t)) return -1; /* first what was taken before */
    for (int i = 0; i < count && all < OUT_MAX; i++) {
        size_t done = 0;
        while (done < iov[i].iov_len && all < OUT_MAX) {
            size_t n = iov[i].iov_len - done;
            ossl.error_clear();
            int took = ossl.ssl_write(t->ssl, (char *)iov[i].iov_base + done,
                                      (int)(n < RECORD ? n : RECORD));
            if (took <= 0) return all ? all : not_done(t, took);
            done += (size_t)took;
            all += took;
        }
    }
    if (flush(t) && errno != EAGAIN) return -1;
    return all;
}

ssize_t tls_send(struct tls *t, const struct iovec *iov, int count)
{
    if (t->text[0] || !enter()) return failed(t, exits);
    ssize_t n = send_inside(t, iov, count);
    leave();
    return n;
}

/* Encrypted bytes from the socket. 1, or 0 at its end, or -1. */
static int fill(struct tls *t)
{
    uint8_t bytes[RECORD + 512];
    ssize_t n;
    do
        n = recv(t->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0) return -1;
    if (n == 0) {
        t->ended = true;
        if (ossl.ssl_done(t->ssl)) return 0;
        return failed(t, t->heard ? "the peer broke off the handshake"
                                  : "the peer ended the connection at once; "
                                    "it may not have TLS");
    }
    if (!t->heard && (bytes[0] < FIRST || bytes[0] > LAST)) {
        /* In plain words, that is: a fatal alert. */
        static const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 10};
        send(t->fd, alert, sizeof alert, MSG_NOSIGNAL | MSG_DONTWAIT);
        return failed(t, "the peer does not speak TLS");
    }
    t->heard = true;
    return ossl.bio_write(t->in, bytes, (int)n) == n ? 1
                                                     : failed(t, "no memory");
}

static ssize_t recv_inside(struct tls *t, const struct iovec *iov, int count)
{
    size_t room = 0;
    /* Into one of them at a time: a record rarely fills more. */
    int i = 0;
    while (i < count && !iov[i].iov_len)
        i++;
    room = i < count ? iov[i].iov_len : 0;
    for (;;) {
        ossl.error_clear();
        int n = ossl.ssl_read(t->ssl, iov[i].iov_base,
                              (int)(room < (1 << 30) ? room : 1 << 30));
        if (n > 0) {
            flush(t);
            return n;
        }
        if (ossl.ssl_error(t->ssl, n) == OSSL_ERROR_ZERO_RETURN) return 0;
        not_done(t, n);
        if (t->text[0]) return -1;
        int rc = fill(t);
        if (rc <= 0) return rc;
    }
}

ssize_t tls_recv(struct tls *t, const struct iovec *iov, int count)
{
    if (t->text[0] || !enter()) return failed(t, exits);
    ssize_t n = recv_inside(t, iov, count);
    leave();
    return n;
}
