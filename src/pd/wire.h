/* pd/wire.h - the messages of SGLang's disaggregation control plane.
 *
 * Pure functions between structs and the frames of docs/wire.md, "ZeroMQ
 * messages". Decoders take foreign bytes of any content: what they accept is
 * within the limits below, everything else is ERR_FORMAT with the reason.
 * Any thread. */
#ifndef BATON_PD_WIRE_H
#define BATON_PD_WIRE_H

#include "base/buf.h"
#include "base/err.h"
#include "kv/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PD_FRAMES_MAX = 32,
    PD_MESSAGE_MAX = 16 << 20, /* bytes of all frames */
    PD_HOST_MAX = 255,         /* characters of a host name */
    PD_NAME_MAX = 280,         /* [PASS@]host:port of a transfer engine */
    PD_BUFFERS_MAX = 8192,     /* KV buffers of a rank */
    PD_PAGES_MAX = 1 << 20,    /* pages of a prompt */
    PD_TEXT_MAX = 480,         /* characters of an error text */
};

/* What a peer speaks; the numbers are the names of docs/wire.md. */
enum pd_generation { PD_W2 = 2, PD_W4 = 4 };

struct pd_address {
    char host[PD_HOST_MAX + 1]; /* letters, digits, ".:-_%" alone; IPv6
                                 * without brackets */
    uint16_t port;              /* not 0 */
};
bool pd_host_valid(const char *host, size_t n);
bool pd_address_same(const struct pd_address *a, const struct pd_address *b);

/* ---- layout: do two caches fit? --------------------------------------- */

struct pd_layout {
    uint64_t model; /* fingerprint */
    struct kv_shape shape;
    char xfer[PD_NAME_MAX + 1]; /* "": not told */
    bool has_epoch;
    uint8_t epoch[16]; /* of that transfer engine */
};
enum { PD_LAYOUT_TEXT = 512 };
void pd_layout_encode(const struct pd_layout *layout,
                      char out[static PD_LAYOUT_TEXT]);
int pd_layout_decode(const char *text, size_t n, struct pd_layout *out,
                     struct why *why);
/* ERR_INVALID with both values when theirs does not fit ours. peer names the
 * other side in the text ("prefill 10.0.0.1:8998"). */
int pd_layout_check(const struct pd_layout *ours,
                    const struct pd_layout *theirs, const char *peer,
                    struct why *why);

/* ---- ZeroMQ messages ---------------------------------------------------- */

struct pd_frame {
    const void *data;
    size_t len;
};

enum pd_kind {
    PD_REGISTER,  /* decode to prefill */
    PD_REQUEST,   /* decode to prefill */
    PD_ABORT,     /* decode to prefill */
    PD_STATUS,    /* prefill to decode */
    PD_ABORT_ACK, /* prefill to decode */
    PD_OTHER,     /* known and of no use here */
};

/* Arrays are borrowed from the frame they came in and may lie unaligned:
 * read element i by pd_u64_at and pd_i32_at. */
struct pd_register {
    enum pd_generation generation;
    struct pd_address from;
    char session[PD_NAME_MAX + 1]; /* its transfer engine */
    const void *kv;                /* [kv_count] u64 */
    uint32_t kv_count;
    const void *aux; /* [aux_count] u64 */
    uint32_t aux_count;
    bool has_state;            /* it has state buffers (hybrid models) */
    uint32_t tp_rank, tp_size; /* attention TP of the decode */
    uint64_t page_bytes;       /* of one page of one KV buffer */
    bool has_layout;           /* a Baton peer */
    struct pd_layout layout;
};

struct pd_request {
    enum pd_generation generation;
    uint64_t room;
    struct pd_address from;
    char session[PD_NAME_MAX + 1];
    bool dummy;
    const void *pages; /* [page_count] i32, each >= 0 */
    uint32_t page_count;
    uint32_t aux_row;
    uint32_t required_dst;
    uint32_t prefix_tokens; /* the decode has these already */
    bool has_prompt;        /* a Baton peer */
    uint32_t prompt_tokens;
    uint64_t prompt_hash; /* pd_prompt_hash */
};

struct pd_abort {
    uint64_t room;
    struct pd_address from;
};

struct pd_status {
    uint64_t room;
    bool success;
    uint32_t rank;
    int http_status;            /* of a failure; 0: not told */
    char text[PD_TEXT_MAX + 1]; /* of a failure; "": not told */
};

struct pd_note {
    enum pd_kind kind;
    union {
        struct pd_register reg;
        struct pd_request request;
        struct pd_abort abort;
        struct pd_status status;
        uint64_t acked_room; /* PD_ABORT_ACK */
    };
};

uint64_t pd_u64_at(const void *array, uint32_t i);
int32_t pd_i32_at(const void *array, uint32_t i);
uint64_t pd_prompt_hash(const int32_t *tokens, uint32_t count);

/* What a prefill receives; what a decode receives. */
int pd_prefill_decode(const struct pd_frame *frames, size_t count,
                      struct pd_note *out, struct why *why);
int pd_decode_decode(const struct pd_frame *frames, size_t count,
                     struct pd_note *out, struct why *why);

/* A message to send: frame i is bytes ends[i-1] .. ends[i]-1. */
struct pd_message {
    struct buf bytes; /* failed: the message passed PD_MESSAGE_MAX */
    uint32_t count;
    size_t ends[PD_FRAMES_MAX];
};
void pd_message_init(struct pd_message *message);
void pd_message_fini(struct pd_message *message);
struct pd_frame pd_message_frame(const struct pd_message *message, uint32_t i);

/* Each fills an initialized message anew. generation and has_layout,
 * has_prompt, http_status choose the frames. */
void pd_register_encode(struct pd_message *out, const struct pd_register *in);
void pd_request_encode(struct pd_message *out, const struct pd_request *in);
void pd_abort_encode(struct pd_message *out, const struct pd_abort *in);
void pd_status_encode(struct pd_message *out, const struct pd_status *in);
void pd_abort_ack_encode(struct pd_message *out, uint64_t room);

#endif
