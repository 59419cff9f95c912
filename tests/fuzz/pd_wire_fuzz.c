/* Frames of both directions. Input: u16 length before each frame; the first
 * byte of all tells the direction. What decodes must encode, and the encoded
 * message must decode to the same bytes again. */
#include "pd/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok) abort();
}

static void encode(struct pd_message *out, const struct pd_note *note)
{
    switch (note->kind) {
    case PD_REGISTER: pd_register_encode(out, &note->reg); break;
    case PD_REQUEST: pd_request_encode(out, &note->request); break;
    case PD_ABORT: pd_abort_encode(out, &note->abort); break;
    case PD_STATUS: pd_status_encode(out, &note->status); break;
    case PD_ABORT_ACK: pd_abort_ack_encode(out, note->acked_room); break;
    case PD_OTHER: break;
    }
}

static void again(const struct pd_note *note, bool prefill)
{
    struct pd_message once, twice;
    struct pd_frame frames[PD_FRAMES_MAX];
    pd_message_init(&once);
    pd_message_init(&twice);
    encode(&once, note);
    for (uint32_t i = 0; i < once.count; i++)
        frames[i] = pd_message_frame(&once, i);
    struct pd_note back;
    int rc = prefill ? pd_prefill_decode(frames, once.count, &back, NULL)
                     : pd_decode_decode(frames, once.count, &back, NULL);
    check(rc == 0 && back.kind == note->kind);
    encode(&twice, &back);
    check(twice.count == once.count && twice.bytes.len == once.bytes.len);
    check(!memcmp(twice.bytes.data, once.bytes.data, once.bytes.len));
    pd_message_fini(&once);
    pd_message_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    bool prefill = data[0] & 1;
    struct pd_frame frames[PD_FRAMES_MAX + 1];
    size_t count = 0, at = 1;
    while (count <= PD_FRAMES_MAX && size - at >= 2) {
        size_t len = data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        if (len > size - at) len = size - at;
        frames[count++] = (struct pd_frame){data + at, len};
        at += len;
    }
    struct pd_note note;
    struct why why = {0};
    int rc = prefill ? pd_prefill_decode(frames, count, &note, &why)
                     : pd_decode_decode(frames, count, &note, &why);
    check(rc == 0 || (rc == ERR_FORMAT && why.code == rc && why.text[0]));
    bool has_state = note.kind == PD_REGISTER && note.reg.has_state;
    if (!rc && note.kind != PD_OTHER && !has_state) again(&note, prefill);
    return 0;
}
