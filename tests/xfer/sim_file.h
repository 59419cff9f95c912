/* tests/xfer/sim_file.h - a file of the simulated machine room, between
 * sim_files.c (descriptors, sockets, epoll) and sim_maps.c (memory that is
 * reached through them). */
#ifndef BATON_TESTS_XFER_SIM_FILE_H
#define BATON_TESTS_XFER_SIM_FILE_H

#include "tests/xfer/sim_inside.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>

enum { WATCHES = 64 };

enum kind { SOCKET, LISTENER, STREAM, EVENT, EPOLL, MEMFD, PIDFD };

struct segment {
    TAILQ_ENTRY(segment) next;
    uint64_t at; /* when it is here */
    size_t bytes, from;
    struct file *passed;
    uint8_t data[];
};

struct watch {
    struct file *file;
    struct epoll_event ev;
};

struct file {
    TAILQ_ENTRY(file) next;
    enum kind kind;
    int refs;
    struct sim_proc *proc; /* that made it */
    struct sockaddr_storage mine, theirs;
    socklen_t mine_bytes, theirs_bytes;
    /* LISTENER: those that came; of a STREAM in it: when */
    TAILQ_HEAD(, file) backlog;
    TAILQ_ENTRY(file) coming;
    uint64_t came_at;
    /* STREAM */
    struct file *other;
    TAILQ_HEAD(, segment) in;
    size_t unread, window;
    uint64_t last_at, connected_at, over_at; /* over: the other side closed */
    bool over, reset, choked;
    int error;
    /* EVENT */
    uint64_t count;
    /* EPOLL */
    struct watch watches[WATCHES];
    size_t watch_count;
    /* MEMFD */
    char *block;
    size_t bytes;
    int seals;
    /* PIDFD */
    struct sim_proc *of;
};

struct file *file_new(enum kind kind);
int fd_new(struct file *f); /* -1: errno */
bool is_simulated(int fd);
struct file *file_of(int fd); /* ends the run when it is not ours */

#endif
