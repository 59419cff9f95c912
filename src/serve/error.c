#include "serve/error.h"
#include "http/server.h"

#include <string.h>

/* Schema errors carry FastAPI's type, whatever the route. */
static const char schema_type[] = "Bad Request";

struct fault fault_of(int code, const char *message)
{
    static const struct {
        int code, status;
        const char *type;
    } table[] = {
        {ERR_FORMAT, 400, schema_type}, {ERR_INVALID, 400, NULL},
        {ERR_UNSUPPORTED, 400, NULL},   {ERR_RANGE, 400, NULL},
        {ERR_EXISTS, 400, NULL},        {ERR_AUTH, 401, NULL},
        {ERR_NOT_FOUND, 404, NULL},     {ERR_AGAIN, 503, NULL},
        {ERR_CANCELED, 503, NULL},      {ERR_TIMEOUT, 504, NULL},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].code == code)
            return (struct fault){table[i].status, table[i].type, message};
    }
    return (struct fault){500, NULL, message};
}

struct fault fault_of_status(int status, const char *message)
{
    return (struct fault){status, NULL, message};
}

static void object(struct buf *out, enum api_style style,
                   const struct fault *fault)
{
    buf_puts(out, "{\"object\":\"error\",\"message\":\"");
    buf_json(out, fault->message, strlen(fault->message));
    buf_puts(out, "\",\"type\":\"");
    if (fault->type)
        buf_puts(out, fault->type);
    else if (style == API_OPENAI && fault->status == 400)
        buf_puts(out, "BadRequestError");
    else if (style == API_OPENAI && fault->status == 404)
        buf_puts(out, "NotFoundError");
    else if (style == API_OPENAI && fault->status == 500)
        buf_puts(out, "InternalServerError");
    else
        buf_printf(out, "%d", fault->status);
    buf_printf(out, "\",\"param\":null,\"code\":%d}", fault->status);
}

static void native(struct buf *out, const struct fault *fault)
{
    buf_puts(out, "{\"error\":{\"message\":\"");
    buf_json(out, fault->message, strlen(fault->message));
    buf_puts(out, "\"}}");
}

void fault_body(struct buf *out, enum api_style style,
                const struct fault *fault)
{
    if (style == API_GENERATE && fault->status == 400 && !fault->type)
        native(out, fault);
    else
        object(out, style, fault);
}

void fault_event(struct buf *out, enum api_style style,
                 const struct fault *fault)
{
    if (style == API_GENERATE) {
        native(out, fault);
        return;
    }
    buf_puts(out, "{\"error\":");
    object(out, style, fault);
    buf_putc(out, '}');
}

void fault_reply(struct http_request *request, enum api_style style,
                 const struct fault *fault)
{
    struct buf body;
    buf_init(&body, 1 << 16);
    fault_body(&body, style, fault);
    http_reply(request, fault->status, "application/json", NULL, body.data,
               body.len);
    buf_fini(&body);
}
