/* base/inbox.h - a bounded queue of pointers between threads.
 *
 * Any thread puts, one thread (the owner of the receiving side) takes, in
 * order. A full inbox is back-pressure: put returns ERR_AGAIN and the caller
 * keeps what it has. The descriptor of inbox_fd is readable while something
 * may be waiting, for event loops; inbox_wait blocks without one. */
#ifndef BATON_BASE_INBOX_H
#define BATON_BASE_INBOX_H

#include <stddef.h>

struct inbox;

/* capacity messages at most, >= 1. ERR_NOMEM, ERR_IO (no eventfd). */
int inbox_create(struct inbox **out, size_t capacity);
/* What is still inside is dropped unseen: take it first. NULL is fine. */
void inbox_destroy(struct inbox *inbox);

int inbox_put(struct inbox *inbox, void *message); /* not NULL */
void *inbox_take(struct inbox *inbox);             /* NULL: empty */
/* Waits for a message at most timeout_ms (-1: for ever), then takes it. */
void *inbox_wait(struct inbox *inbox, int timeout_ms);
int inbox_fd(const struct inbox *inbox);
/* Makes inbox_wait return (NULL) and inbox_fd readable once. */
void inbox_wake(struct inbox *inbox);

#endif
