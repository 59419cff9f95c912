/* Walking over the local bytes of pieces, row by row. */
#include "xfer/conn.h"

#include <string.h>

uint64_t cursor_piece_left(const struct cursor *at)
{
    const struct xfer_piece *p = &at->pieces[at->at];
    return p->bytes * p->rows - at->offset;
}

static bool rows_touch(const struct xfer_piece *p)
{
    return p->rows == 1 || p->local_pitch == p->bytes;
}

/* The next run of bytes without a gap. */
static struct iovec cursor_run(const struct cursor *at)
{
    const struct xfer_piece *p = &at->pieces[at->at];
    uint64_t row = at->offset / p->bytes, within = at->offset % p->bytes;
    if (rows_touch(p))
        return (struct iovec){p->local + at->offset, cursor_piece_left(at)};
    return (struct iovec){p->local + row * p->local_pitch + within,
                          p->bytes - within};
}

void cursor_advance(struct cursor *at, uint64_t n)
{
    while (n) {
        uint64_t left = cursor_piece_left(at), take = n < left ? n : left;
        at->offset += take;
        n -= take;
        if (take < left) return;
        at->at++;
        at->offset = 0;
    }
}

int cursor_iov(const struct cursor *from, struct iovec *iov, int max,
               uint64_t bytes_max, size_t *pieces)
{
    struct cursor at = *from;
    int n = 0;
    while (n < max && bytes_max && at.at < at.count) {
        struct iovec run = cursor_run(&at);
        if (run.iov_len > bytes_max) run.iov_len = bytes_max;
        iov[n++] = run;
        bytes_max -= run.iov_len;
        cursor_advance(&at, run.iov_len);
    }
    if (pieces) *pieces = at.at - from->at + (at.offset != 0);
    return n;
}

bool cursor_small(const struct cursor *at)
{
    const struct xfer_piece *p = &at->pieces[at->at];
    return (rows_touch(p) ? p->bytes * p->rows : p->bytes) < ROW_SMALL;
}

size_t cursor_copy(struct cursor *at, uint8_t *buffer, size_t n, bool out)
{
    size_t done = 0;
    while (done < n && at->at < at->count) {
        struct iovec run = cursor_run(at);
        size_t take = run.iov_len < n - done ? run.iov_len : n - done;
        if (out)
            memcpy(run.iov_base, buffer + done, take);
        else
            memcpy(buffer + done, run.iov_base, take);
        done += take;
        cursor_advance(at, take);
    }
    return done;
}
