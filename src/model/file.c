#include "model/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int model_file_open(struct model_file *out, const char *path, struct why *why)
{
    *out = (struct model_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno,
                       "%s", path);
    int rc = 0;
    struct stat st;
    if (fstat(fd, &st)) {
        rc = err_sys(why, ERR_IO, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = err_set(why, ERR_FORMAT, "%s: is no regular file", path);
    } else if (st.st_size == 0) {
        rc = err_set(why, ERR_FORMAT, "%s: is empty", path);
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = err_sys(why, ERR_IO, errno, "%s: cannot be mapped", path);
        else
            *out = (struct model_file){p, (size_t)st.st_size};
    }
    close(fd);
    return rc;
}

void model_file_drop(const void *bytes, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)bytes + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)bytes + size) & ~(page - 1);
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

size_t model_file_uncached(const void *bytes, size_t size)
{
    enum { EACH = 256 << 10 };
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    size_t missing = 0;
    for (size_t at = 0; at < size; at += EACH) {
        uintptr_t from = ((uintptr_t)bytes + at) & ~(page - 1);
        unsigned char there;
        if (mincore((void *)from, page, &there) || !(there & 1))
            missing += size - at < EACH ? size - at : EACH;
    }
    return missing;
}

void model_file_close(struct model_file *file)
{
    if (file->bytes) munmap((void *)(uintptr_t)file->bytes, file->size);
    *file = (struct model_file){0};
}
