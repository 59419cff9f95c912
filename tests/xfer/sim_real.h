/* tests/xfer/sim_real.h - libc's own, behind the machine room's: what runs
 * outside of a simulation gets them. */
#ifndef BATON_TESTS_XFER_SIM_REAL_H
#define BATON_TESTS_XFER_SIM_REAL_H

#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

void *__real_memcpy(void *to, const void *from, size_t n);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
void __real_free(void *p);
int __real_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int __real_pthread_mutex_destroy(pthread_mutex_t *m);
int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *a);
int __real_pthread_cond_destroy(pthread_cond_t *c);
int __real_pthread_cond_broadcast(pthread_cond_t *c);
int __real_pthread_cond_signal(pthread_cond_t *c);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __real_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attr,
                          void *(*run)(void *), void *arg);
int __real_pthread_join(pthread_t thread, void **out);
int __real_pthread_detach(pthread_t thread);
int __real_pthread_setname_np(pthread_t thread, const char *name);
int __real_pthread_sigmask(int how, const void *set, void *old);
int __real_sched_yield(void);
int __real_close(int fd);
ssize_t __real_read(int fd, void *to, size_t n);
ssize_t __real_write(int fd, const void *from, size_t n);
int __real_poll(struct pollfd *fds, nfds_t n, int ms);
int __real_munmap(void *at, size_t n);
int __real_eventfd(unsigned count, int flags);
int __real_epoll_create1(int flags);
int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev);
int __real_epoll_wait(int epoll, struct epoll_event *out, int cap, int ms);
int __real_socket(int family, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *addr, socklen_t n);
int __real_listen(int fd, int backlog);
int __real_connect(int fd, const struct sockaddr *addr, socklen_t n);
int __real_accept4(int fd, struct sockaddr *addr, socklen_t *n, int flags);
int __real_getsockname(int fd, struct sockaddr *addr, socklen_t *n);
int __real_getpeername(int fd, struct sockaddr *addr, socklen_t *n);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
int __real_setsockopt(int fd, int level, int name, const void *value,
                      socklen_t n);
ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
int __real_shutdown(int fd, int how);
int __real_memfd_create(const char *name, unsigned flags);
int __real_ftruncate(int fd, off_t n);
int __real_fcntl(int fd, int command, ...);
off_t __real_lseek(int fd, off_t off, int whence);
long __real_syscall(long number, ...);
ssize_t __real_process_vm_readv(pid_t pid, const struct iovec *here,
                                unsigned long here_count,
                                const struct iovec *there,
                                unsigned long there_count, unsigned long flags);
ssize_t __real_process_vm_writev(pid_t pid, const struct iovec *here,
                                 unsigned long here_count,
                                 const struct iovec *there,
                                 unsigned long there_count,
                                 unsigned long flags);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);

#endif
