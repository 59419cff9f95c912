#include "xfer/store_link.h"

#include "xfer/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *env(const char *name)
{
    const char *text = getenv(name);
    return text && *text ? text : NULL;
}

void xfer_store_auth_env(struct xfer_store_auth *out)
{
    *out = (struct xfer_store_auth){.token = env("BATON_TRANSFER_TOKEN"),
                                    .tls_cert = env("BATON_TLS_CERT"),
                                    .tls_key = env("BATON_TLS_KEY"),
                                    .tls_ca = env("BATON_TLS_CA")};
}

int store_link_setup(struct tls_setup **out, const struct xfer_store_auth *auth,
                     struct why *why)
{
    *out = NULL;
    if (!auth || !(auth->tls_cert || auth->tls_key || auth->tls_ca)) return 0;
    const struct tls_files files = {.cert = auth->tls_cert,
                                    .key = auth->tls_key,
                                    .ca = auth->tls_ca,
                                    .password = auth->tls_password};
    return tls_setup_create(out, &files, why);
}

void store_link_open(struct store_link *l, int fd, struct tls_setup *setup,
                     bool inbound)
{
    *l = (struct store_link){.fd = fd};
    if (setup) l->tls = tls_create(setup, fd, inbound);
}

void store_link_close(struct store_link *l)
{
    tls_destroy(l->tls);
    if (l->fd >= 0) close(l->fd);
    *l = (struct store_link){.fd = -1};
}

/* After a call that gave -1 and errno. */
static int failed(const struct store_link *l, struct why *why)
{
    if (errno == EAGAIN || errno == EINTR) return 0;
    if (l->tls && *tls_text(l->tls))
        return err_set(why, ERR_AUTH, "%s", tls_text(l->tls));
    return err_sys(why, ERR_PEER, errno, "connection lost");
}

ssize_t store_link_recv(struct store_link *l, void *to, size_t n,
                        struct why *why)
{
    struct iovec iov = {to, n};
    ssize_t got =
        l->tls ? tls_recv(l->tls, &iov, 1) : recv(l->fd, to, n, MSG_DONTWAIT);
    l->unread = l->tls && got > 0;
    if (got == 0) return err_set(why, ERR_PEER, "connection closed");
    return got > 0 ? got : failed(l, why);
}

ssize_t store_link_send(struct store_link *l, const void *from, size_t n,
                        struct why *why)
{
    struct iovec iov = {(void *)(uintptr_t)from, n};
    ssize_t took = 0;
    if (l->tls)
        took = tls_send(l->tls, &iov, n ? 1 : 0);
    else if (n)
        took = send(l->fd, from, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return took >= 0 ? took : failed(l, why);
}

bool store_link_wants_out(const struct store_link *l, bool more)
{
    return l->tls ? tls_wants_out(l->tls, more) : more;
}
