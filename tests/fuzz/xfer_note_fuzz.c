/* Notes of bindings of any bytes, as an engine delivers them. */
#include "xfer/binding_core.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool fact)
{
    if (!fact) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct note_view v;
    struct why why = {0};
    if (size > XFER_NOTE_MAX) return 0;
    if (note_decode(&v, data, size, &why)) {
        must(why.code == ERR_FORMAT && why.text[0]);
        return 0;
    }
    if (v.kind != NOTE_WORD) return 0;
    /* Texts without a 0 inside come out of the encoder as they went in. */
    char *name = strndup(v.name, v.name_bytes);
    char *msg = strndup(v.msg, v.msg_bytes);
    struct xfer_binding_note note = {name, msg};
    uint8_t out[XFER_NOTE_MAX];
    size_t n;
    must(!note_encode(&note, out, &n, &why));
    if (strlen(name) == v.name_bytes && strlen(msg) == v.msg_bytes)
        must(n == size && !memcmp(out, data, n));
    free(name);
    free(msg);
    return 0;
}
