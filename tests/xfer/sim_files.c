/* Descriptors of the simulated machine room: sockets, epoll, eventfd, memfd,
 * pidfd. Each is a file, a descriptor is its number in one process; all
 * numbers come from one table, so that a descriptor closed twice hits
 * somebody. */
#include "tests/xfer/sim_file.h"
#include "tests/xfer/sim_real.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 1024, FD_FIRST = 2000 };

static struct {
    struct {
        struct file *file;
        struct sim_proc *proc;
    } fds[FDS];
    TAILQ_HEAD(file_list, file) files;
    uint64_t cut_until, delay_ns, lose_one_in;
    uint16_t ports;
} net;

void files_begin(void)
{
    memset(&net, 0, sizeof net);
    TAILQ_INIT(&net.files);
    net.delay_ns = 50 * US;
    net.ports = 40000;
}

void files_cut(uint64_t until_ns)
{
    net.cut_until = until_ns;
}

void files_delay(uint64_t ns)
{
    net.delay_ns = ns;
}

void files_lose(uint64_t one_in)
{
    net.lose_one_in = one_in;
}

/* ---- files and their numbers ---- */

struct file *file_new(enum kind kind)
{
    struct file *f = sim_alloc(sizeof *f);
    f->kind = kind;
    f->proc = sim_self();
    f->connected_at = f->over_at = UINT64_MAX;
    TAILQ_INIT(&f->backlog);
    TAILQ_INIT(&f->in);
    TAILQ_INSERT_TAIL(&net.files, f, next);
    return f;
}

int fd_new(struct file *f)
{
    for (int i = 0; i < FDS; i++) {
        if (net.fds[i].file) continue;
        net.fds[i].file = f;
        net.fds[i].proc = sim_self();
        sim_self()->files++;
        f->refs++;
        return FD_FIRST + i;
    }
    errno = EMFILE;
    return -1;
}

bool is_simulated(int fd)
{
    return sim_self() && fd >= FD_FIRST && fd < FD_FIRST + FDS;
}

struct file *file_of(int fd)
{
    struct file *f = is_simulated(fd) ? net.fds[fd - FD_FIRST].file : NULL;
    if (!f || net.fds[fd - FD_FIRST].proc != sim_self())
        sim_fail("descriptor %d is not of this process", fd);
    return f;
}

/* Bytes between two hosts may be late; within one, hardly. */
static bool between_hosts(const struct file *f)
{
    return f->mine.ss_family != AF_UNIX;
}

static uint64_t arrival(const struct file *from, uint64_t not_before)
{
    uint64_t at = sim_now() + 1 +
                  sim_random(between_hosts(from) ? net.delay_ns + 1 : 5 * US);
    if (between_hosts(from) && at < net.cut_until)
        at = net.cut_until + sim_random(net.delay_ns + 1);
    if (between_hosts(from) && sim_chance(net.lose_one_in)) at += 200 * MS;
    if (from->choked) at += 1000000ull * MS;
    return at > not_before ? at : not_before;
}

static void file_drop(struct file *f);

static void stream_end(struct file *f)
{
    struct file *other = f->other;
    if (other) {
        other->over = true;
        other->over_at = arrival(f, other->last_at);
        other->reset |= f->unread > 0;
        other->other = NULL;
    }
    for (struct segment *s; (s = TAILQ_FIRST(&f->in));) {
        TAILQ_REMOVE(&f->in, s, next);
        if (s->passed) file_drop(s->passed);
        sim_return(s);
    }
}

static void file_drop(struct file *f)
{
    struct file *g;
    if (--f->refs) return;
    TAILQ_FOREACH(g, &net.files, next)
    for (size_t i = 0; g->kind == EPOLL && i < g->watch_count; i++)
        if (g->watches[i].file == f)
            g->watches[i--] = g->watches[--g->watch_count];
    TAILQ_REMOVE(&net.files, f, next);
    stream_end(f);
    while ((g = TAILQ_FIRST(&f->backlog))) {
        TAILQ_REMOVE(&f->backlog, g, coming);
        file_drop(g);
    }
}

void files_end_of(struct sim_proc *p)
{
    for (int i = 0; i < FDS; i++) {
        struct file *f = net.fds[i].file;
        if (!f || net.fds[i].proc != p) continue;
        net.fds[i].file = NULL;
        file_drop(f);
    }
}

uint64_t files_next_ns(void)
{
    uint64_t next = UINT64_MAX, now = sim_now();
    struct file *f;
    TAILQ_FOREACH(f, &net.files, next)
    {
        struct segment *s = TAILQ_FIRST(&f->in);
        uint64_t at[] = {s ? s->at : 0, f->connected_at, f->over_at,
                         f->came_at};
        for (int i = 0; i < 4; i++)
            if (at[i] > now && at[i] < next) next = at[i];
    }
    return next;
}

/* ---- what can be done with a file now ---- */

static bool is_over(const struct file *f)
{
    return f->over && f->over_at <= sim_now();
}

static struct segment *arrived(const struct file *f)
{
    struct segment *s = TAILQ_FIRST(&f->in);
    return s && s->at <= sim_now() ? s : NULL;
}

static struct file *came(const struct file *f)
{
    struct file *s = TAILQ_FIRST(&f->backlog);
    return s && s->came_at <= sim_now() ? s : NULL;
}

static uint32_t file_events(const struct file *f)
{
    uint32_t events = 0;
    if (f->kind == LISTENER) return came(f) ? EPOLLIN : 0;
    if (f->kind == EVENT) return EPOLLOUT | (f->count ? EPOLLIN : 0);
    if (f->kind == PIDFD) return sim_alive(f->of) ? 0 : EPOLLIN;
    if (f->kind != STREAM || f->connected_at > sim_now()) return 0;
    if (f->error) return EPOLLERR | EPOLLHUP | EPOLLOUT | EPOLLIN;
    if (arrived(f)) events |= EPOLLIN;
    if (is_over(f)) events |= EPOLLIN | EPOLLRDHUP | EPOLLOUT;
    if (is_over(f) && f->reset) events |= EPOLLERR | EPOLLHUP;
    if (f->other && f->other->unread < f->window) events |= EPOLLOUT;
    return events;
}

/* ---- descriptors in general ---- */

int __wrap_close(int fd);
ssize_t __wrap_read(int fd, void *to, size_t n);
ssize_t __wrap_write(int fd, const void *from, size_t n);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);

int __wrap_close(int fd)
{
    if (!is_simulated(fd)) return __real_close(fd);
    sim_point();
    struct file *f = file_of(fd);
    net.fds[fd - FD_FIRST].file = NULL;
    sim_self()->files--;
    file_drop(f);
    return 0;
}

int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags)
{
    if (!sim_self()) return __real_eventfd(count, flags);
    (void)flags;
    struct file *f = file_new(EVENT);
    f->count = count;
    return fd_new(f);
}

ssize_t __wrap_read(int fd, void *to, size_t n)
{
    if (!is_simulated(fd)) return __real_read(fd, to, n);
    sim_point();
    struct file *f = file_of(fd);
    if (f->kind != EVENT || n < sizeof f->count) sim_fail("read of %d", fd);
    if (!f->count) {
        errno = EAGAIN;
        return -1;
    }
    sim_copy(to, &f->count, sizeof f->count);
    f->count = 0;
    return sizeof f->count;
}

ssize_t __wrap_write(int fd, const void *from, size_t n)
{
    uint64_t count;
    if (!is_simulated(fd)) return __real_write(fd, from, n);
    sim_point();
    struct file *f = file_of(fd);
    if (f->kind != EVENT || n != sizeof count) sim_fail("write to %d", fd);
    sim_copy(&count, from, sizeof count);
    f->count += count;
    return sizeof count;
}

enum { POLLS = 8 };
struct poll_arg {
    struct pollfd *fds;
    struct file *files[POLLS];
    nfds_t n;
};

static bool poll_ready(void *arg)
{
    struct poll_arg *p = arg;
    bool any = false;
    for (nfds_t i = 0; i < p->n; i++) {
        p->fds[i].revents = 0;
        if (!p->files[i]) continue;
        uint32_t now = file_events(p->files[i]);
        p->fds[i].revents =
            (short)(now & ((unsigned)p->fds[i].events | EPOLLERR | EPOLLHUP));
        any |= p->fds[i].revents != 0;
    }
    return any;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    struct poll_arg arg = {.fds = fds, .n = n};
    int count = 0;
    if (!sim_self()) return __real_poll(fds, n, ms);
    if (n > POLLS) sim_fail("poll of %d", (int)n);
    for (nfds_t i = 0; i < n; i++)
        arg.files[i] = fds[i].fd < 0 ? NULL : file_of(fds[i].fd);
    sim_point();
    if (!poll_ready(&arg) && ms)
        sim_block(poll_ready, &arg,
                  ms < 0 ? UINT64_MAX : sim_now() + (uint64_t)ms * MS);
    for (nfds_t i = 0; i < n; i++)
        count += fds[i].revents != 0;
    return count;
}

/* ---- epoll ---- */

int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_wait(int epoll, struct epoll_event *out, int cap, int ms);

int __wrap_epoll_create1(int flags)
{
    if (!sim_self()) return __real_epoll_create1(flags);
    (void)flags;
    return fd_new(file_new(EPOLL));
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev)
{
    if (!sim_self()) return __real_epoll_ctl(epoll, op, fd, ev);
    struct file *e = file_of(epoll), *f = file_of(fd);
    size_t i = 0;
    sim_point();
    while (i < e->watch_count && e->watches[i].file != f)
        i++;
    if ((op == EPOLL_CTL_ADD) != (i == e->watch_count)) {
        errno = op == EPOLL_CTL_ADD ? EEXIST : ENOENT;
        return -1;
    }
    if (op == EPOLL_CTL_DEL) {
        e->watches[i] = e->watches[--e->watch_count];
        return 0;
    }
    if (i == WATCHES) sim_fail("too many watches");
    e->watches[i] = (struct watch){f, *ev};
    if (op == EPOLL_CTL_ADD) e->watch_count++;
    return 0;
}

static bool epoll_ready(void *arg)
{
    const struct file *e = arg;
    for (size_t i = 0; i < e->watch_count; i++) {
        const struct watch *w = &e->watches[i];
        if (file_events(w->file) & (w->ev.events | EPOLLERR | EPOLLHUP))
            return true;
    }
    return false;
}

int __wrap_epoll_wait(int epoll, struct epoll_event *out, int cap, int ms)
{
    if (!sim_self()) return __real_epoll_wait(epoll, out, cap, ms);
    struct file *e = file_of(epoll);
    int count = 0;
    sim_point();
    if (ms)
        sim_block(epoll_ready, e,
                  ms < 0 ? UINT64_MAX : sim_now() + (uint64_t)ms * MS);
    size_t first = e->watch_count ? sim_random(e->watch_count) : 0;
    for (size_t i = 0; i < e->watch_count && count < cap; i++) {
        const struct watch *w = &e->watches[(first + i) % e->watch_count];
        uint32_t now =
            file_events(w->file) & (w->ev.events | EPOLLERR | EPOLLHUP);
        if (!now) continue;
        out[count] = w->ev;
        out[count++].events = now;
    }
    return count;
}

/* ---- sockets ---- */

int __wrap_socket(int family, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *addr, socklen_t n);
int __wrap_listen(int fd, int backlog);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t n);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *n, int flags);
int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *n);
int __wrap_getpeername(int fd, struct sockaddr *addr, socklen_t *n);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
int __wrap_setsockopt(int fd, int level, int name, const void *value,
                      socklen_t n);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);

int __wrap_socket(int family, int type, int protocol)
{
    if (!sim_self()) return __real_socket(family, type, protocol);
    (void)type;
    (void)protocol;
    struct file *f = file_new(SOCKET);
    f->mine.ss_family = (sa_family_t)family;
    return fd_new(f);
}

static uint16_t *port_of(struct sockaddr_storage *ss)
{
    return &((struct sockaddr_in *)ss)->sin_port;
}

static struct file *listener_at(const struct sockaddr *addr, socklen_t n)
{
    struct file *f;
    TAILQ_FOREACH(f, &net.files, next)
    if (f->kind == LISTENER && f->mine_bytes == n && !memcmp(&f->mine, addr, n))
        return f;
    return NULL;
}

int __wrap_bind(int fd, const struct sockaddr *addr, socklen_t n)
{
    if (!sim_self()) return __real_bind(fd, addr, n);
    struct file *f = file_of(fd);
    sim_point();
    if (listener_at(addr, n)) {
        errno = EADDRINUSE;
        return -1;
    }
    sim_copy(&f->mine, addr, n);
    f->mine_bytes = n;
    if (addr->sa_family == AF_INET && !*port_of(&f->mine))
        *port_of(&f->mine) = htons(net.ports++);
    return 0;
}

int __wrap_listen(int fd, int backlog)
{
    if (!sim_self()) return __real_listen(fd, backlog);
    (void)backlog;
    file_of(fd)->kind = LISTENER;
    return 0;
}

static void host_addr(struct sockaddr_storage *ss)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(net.ports++)};
    unsigned n = (unsigned)sim_self()->host[strlen(sim_self()->host) - 1];
    in.sin_addr.s_addr = htonl(0x0a000000u | (n - '0')); /* 10.0.0.n */
    sim_copy(ss, &in, sizeof in);
}

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t n)
{
    if (!sim_self()) return __real_connect(fd, addr, n);
    struct file *f = file_of(fd);
    sim_point();
    bool tcp = addr->sa_family != AF_UNIX;
    struct file *to = listener_at(addr, n);
    if (to && !tcp && strcmp(to->proc->host, sim_self()->host) != 0) to = NULL;
    f->kind = STREAM;
    sim_copy(&f->theirs, addr, n);
    f->theirs_bytes = f->mine_bytes = n;
    f->window = 3000 + sim_random(200000);
    if (tcp) host_addr(&f->mine);
    f->connected_at = tcp ? arrival(f, 0) : 0;
    if (!to) {
        f->error = errno = ECONNREFUSED;
        if (tcp) errno = EINPROGRESS;
        return -1;
    }
    struct file *s = file_new(STREAM);
    s->proc = to->proc;
    s->other = f;
    f->other = s;
    s->mine = f->theirs;
    s->theirs = f->mine;
    s->mine_bytes = s->theirs_bytes = n;
    s->window = f->window;
    s->came_at = f->connected_at;
    s->connected_at = 0;
    s->refs = 1;
    TAILQ_INSERT_TAIL(&to->backlog, s, coming);
    errno = EINPROGRESS;
    return tcp ? -1 : 0;
}

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *n, int flags)
{
    if (!sim_self()) return __real_accept4(fd, addr, n, flags);
    (void)addr;
    (void)n;
    (void)flags;
    sim_point();
    struct file *l = file_of(fd), *s = came(l);
    if (!s) {
        errno = EAGAIN;
        return -1;
    }
    TAILQ_REMOVE(&l->backlog, s, coming);
    s->came_at = 0;
    s->refs = 0; /* the descriptor holds it now */
    return fd_new(s);
}

static int name_out(const struct sockaddr_storage *ss, socklen_t bytes,
                    struct sockaddr *addr, socklen_t *n)
{
    sim_copy(addr, ss, bytes < *n ? bytes : *n);
    *n = bytes;
    return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *n)
{
    if (!sim_self()) return __real_getsockname(fd, addr, n);
    struct file *f = file_of(fd);
    return name_out(&f->mine, f->mine_bytes, addr, n);
}

int __wrap_getpeername(int fd, struct sockaddr *addr, socklen_t *n)
{
    if (!sim_self()) return __real_getpeername(fd, addr, n);
    struct file *f = file_of(fd);
    return name_out(&f->theirs, f->theirs_bytes, addr, n);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
    if (!sim_self()) return __real_getsockopt(fd, level, name, value, n);
    struct file *f = file_of(fd);
    (void)level;
    memset(value, 0, *n);
    if (name == SO_ERROR) sim_copy(value, &f->error, sizeof f->error);
    if (name == SO_PEERCRED && f->other) {
        struct ucred who = {.pid = f->other->proc->pid, .uid = geteuid()};
        sim_copy(value, &who, sizeof who);
    }
    return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value,
                      socklen_t n)
{
    if (!sim_self()) return __real_setsockopt(fd, level, name, value, n);
    (void)level;
    (void)name;
    (void)value;
    (void)n;
    file_of(fd);
    return 0;
}

static int stream_error(int error)
{
    errno = error;
    return -1;
}

static struct file *passed_in(const struct msghdr *m)
{
    struct cmsghdr *cm = m->msg_controllen ? CMSG_FIRSTHDR(m) : NULL;
    int fd;
    if (!cm) return NULL;
    sim_copy(&fd, CMSG_DATA(cm), sizeof fd);
    return file_of(fd);
}

/* Bytes between iovecs and one block; others may run in between, as they do
 * while a kernel copies. */
static void iov_copy(const struct msghdr *m, uint8_t *block, size_t n, bool in)
{
    size_t took = 0;
    for (size_t i = 0; i < m->msg_iovlen && took < n; i++) {
        size_t part = m->msg_iov[i].iov_len;
        if (part > n - took) part = n - took;
        uint8_t *at = m->msg_iov[i].iov_base;
        for (size_t half = part / 2; part; part -= half, half = part) {
            if (!half) half = part;
            sim_copy(in ? at : block + took, in ? block + took : at, half);
            at += half;
            took += half;
            sim_point();
        }
    }
}

static size_t iov_bytes(const struct msghdr *m)
{
    size_t all = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        all += m->msg_iov[i].iov_len;
    return all;
}

static size_t send_room(const struct file *f)
{
    if (!f->other) return SIZE_MAX; /* it goes to nobody */
    return f->other->unread < f->window ? f->window - f->other->unread : 0;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    if (!sim_self()) return __real_sendmsg(fd, m, flags);
    (void)flags;
    sim_point();
    struct file *f = file_of(fd);
    size_t all = iov_bytes(m);
    if (is_over(f) || f->error)
        return stream_error(f->reset ? ECONNRESET : EPIPE);
    if (all > send_room(f)) all = send_room(f);
    if (!all) return stream_error(EAGAIN);
    if (all > 1 && sim_chance(4)) all = 1 + sim_random(all);
    struct segment *s = sim_borrow(sizeof *s + all);
    iov_copy(m, s->data, all, false);
    s->bytes = all;
    s->from = 0;
    if (!f->other) {
        sim_return(s);
        return (ssize_t)all;
    }
    s->passed = passed_in(m);
    if (s->passed) s->passed->refs++;
    s->at = f->other->last_at = arrival(f, f->other->last_at);
    f->other->unread += all;
    TAILQ_INSERT_TAIL(&f->other->in, s, next);
    return (ssize_t)all;
}

int __wrap_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how)
{
    if (!sim_self()) return __real_shutdown(fd, how);
    (void)how;
    struct file *f = file_of(fd);
    sim_point();
    stream_end(f);
    f->unread = 0;
    f->over = true;
    f->over_at = sim_now();
    return 0;
}

static void fd_out(struct msghdr *m, struct file *passed)
{
    if (!m->msg_control) {
        file_drop(passed);
        return;
    }
    struct cmsghdr *cm = CMSG_FIRSTHDR(m);
    int fd = fd_new(passed);
    passed->refs--; /* the segment's */
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(sizeof fd);
    sim_copy(CMSG_DATA(cm), &fd, sizeof fd);
    m->msg_controllen = CMSG_SPACE(sizeof fd);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
    if (!sim_self()) return __real_recvmsg(fd, m, flags);
    (void)flags;
    sim_point();
    struct file *f = file_of(fd);
    struct segment *s;
    size_t done = 0, room = iov_bytes(m);
    bool passed = false;
    if (room > 1 && sim_chance(8)) room = 1 + sim_random(room);
    if (room > f->unread) room = f->unread;
    uint8_t *block = sim_borrow(room);
    while (done < room && (s = arrived(f)) && !passed) {
        if (s->passed && done) break;
        passed = s->passed;
        size_t n = s->bytes - s->from;
        if (n > room - done) n = room - done;
        sim_copy(block + done, s->data + s->from, n);
        if (passed) fd_out(m, s->passed);
        s->passed = NULL;
        s->from += n;
        done += n;
        f->unread -= n;
        if (s->from < s->bytes) break;
        TAILQ_REMOVE(&f->in, s, next);
        sim_return(s);
    }
    if (!passed) m->msg_controllen = 0;
    iov_copy(m, block, done, true);
    sim_return(block);
    if (done) return (ssize_t)done;
    if (f->error || (is_over(f) && f->reset)) {
        f->reset = false;
        return stream_error(ECONNRESET);
    }
    return is_over(f) ? 0 : stream_error(EAGAIN);
}

static struct file *some_connection(void)
{
    struct file *f, *chosen = NULL;
    uint64_t count = 0;
    TAILQ_FOREACH(f, &net.files, next)
    if (f->kind == STREAM && between_hosts(f) && f->other &&
        sim_random(++count) == 0)
        chosen = f;
    return chosen;
}

bool sim_choke(void)
{
    struct file *chosen = some_connection();
    if (!chosen) return false;
    chosen->choked = chosen->other->choked = true;
    return true;
}

bool sim_reset(void)
{
    struct file *chosen = some_connection();
    if (!chosen) return false;
    struct file *ends[] = {chosen, chosen->other};
    for (int i = 0; i < 2; i++) {
        ends[i]->over = ends[i]->reset = true;
        ends[i]->over_at = sim_now() + 1 + sim_random(net.delay_ns + 1);
        ends[i]->other = NULL;
    }
    return true;
}
