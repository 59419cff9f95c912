/* Memory that simulated processes share (memfd) and that of others
 * (process_vm_readv, process_vm_writev; pidfd tells of their end). */
#include "tests/xfer/sim_file.h"
#include "tests/xfer/sim_real.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_ftruncate(int fd, off_t n);
int __wrap_fcntl(int fd, int command, ...);
off_t __wrap_lseek(int fd, off_t off, int whence);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __wrap_munmap(void *at, size_t n);

int __wrap_memfd_create(const char *name, unsigned flags)
{
    if (!sim_self()) return __real_memfd_create(name, flags);
    (void)name;
    (void)flags;
    sim_point();
    return fd_new(file_new(MEMFD));
}

int __wrap_ftruncate(int fd, off_t n)
{
    if (!sim_self()) return __real_ftruncate(fd, n);
    struct file *f = file_of(fd);
    f->bytes = (size_t)n;
    f->block = sim_alloc(f->bytes);
    return 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
    va_list ap;
    va_start(ap, command);
    long arg = va_arg(ap, long);
    va_end(ap);
    if (!sim_self()) return __real_fcntl(fd, command, arg);
    struct file *f = file_of(fd);
    if (command == F_DUPFD_CLOEXEC) return fd_new(f);
    if (command == F_ADD_SEALS) f->seals |= (int)arg;
    return command == F_GET_SEALS ? f->seals : 0;
}

/* Asked for the end alone. */
off_t __wrap_lseek(int fd, off_t off, int whence)
{
    if (!sim_self()) return __real_lseek(fd, off, whence);
    (void)off;
    (void)whence;
    return (off_t)file_of(fd)->bytes;
}

/* A mapping is the block itself, at the same address in each process. */
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    if (!is_simulated(fd)) return __real_mmap(at, n, prot, flags, fd, off);
    sim_point();
    return file_of(fd)->block;
}

int __wrap_munmap(void *at, size_t n)
{
    if (!sim_self() || !sim_owns(at)) return __real_munmap(at, n);
    sim_point();
    return 0;
}

/* Of two arguments, as pidfd_open is. */
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list ap;
    va_start(ap, number);
    long pid = va_arg(ap, long), flags = va_arg(ap, long);
    va_end(ap);
    if (!sim_self()) return __real_syscall(number, pid, flags);
    if (number != SYS_pidfd_open) sim_fail("system call %ld", number);
    sim_point();
    struct sim_proc *of = sim_proc_of((int)pid);
    if (!of || !sim_alive(of)) {
        errno = ESRCH;
        return -1;
    }
    struct file *f = file_new(PIDFD);
    f->of = of;
    return fd_new(f);
}

static ssize_t vm_copy(int pid, const struct iovec *here,
                       const struct iovec *there, size_t n, bool out)
{
    size_t all = 0;
    for (size_t i = 0; i < n; i++) {
        size_t from = 0, half = here[i].iov_len / 2;
        for (int part = 0; part < 2; part++) {
            sim_point();
            struct sim_proc *p = sim_proc_of(pid);
            if (!p || !sim_alive(p)) {
                errno = ESRCH;
                return all + from ? (ssize_t)(all + from) : -1;
            }
            char *a = (char *)here[i].iov_base + from;
            char *b = (char *)there[i].iov_base + from;
            size_t bytes = part ? here[i].iov_len - half : half;
            sim_copy(out ? b : a, out ? a : b, bytes);
            from += bytes;
        }
        all += from;
    }
    return (ssize_t)all;
}

ssize_t __wrap_process_vm_readv(pid_t pid, const struct iovec *here,
                                unsigned long here_count,
                                const struct iovec *there,
                                unsigned long there_count, unsigned long flags);
ssize_t __wrap_process_vm_writev(pid_t pid, const struct iovec *here,
                                 unsigned long here_count,
                                 const struct iovec *there,
                                 unsigned long there_count,
                                 unsigned long flags);

ssize_t __wrap_process_vm_readv(pid_t pid, const struct iovec *here,
                                unsigned long here_count,
                                const struct iovec *there,
                                unsigned long there_count, unsigned long flags)
{
    if (!sim_self())
        return __real_process_vm_readv(pid, here, here_count, there,
                                       there_count, flags);
    (void)there_count;
    (void)flags;
    return vm_copy(pid, here, there, here_count, false);
}

ssize_t __wrap_process_vm_writev(pid_t pid, const struct iovec *here,
                                 unsigned long here_count,
                                 const struct iovec *there,
                                 unsigned long there_count, unsigned long flags)
{
    if (!sim_self())
        return __real_process_vm_writev(pid, here, here_count, there,
                                        there_count, flags);
    (void)there_count;
    (void)flags;
    return vm_copy(pid, here, there, here_count, true);
}
