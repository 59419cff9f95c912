#include "router/headers.h"
#include "http/resume.h"
#include "http/server.h"

#include <string.h>
#include <strings.h>

static bool listed(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcasecmp(name, *names) == 0) return true;
    return false;
}

bool headers_pass_up(const char *name)
{
    static const char *const names[] = {"authorization",
                                        "x-request-id",
                                        "x-correlation-id",
                                        "traceparent",
                                        "tracestate",
                                        "baggage",
                                        NULL};
    return listed(name, names) || strncasecmp(name, "x-request-id-", 13) == 0;
}

bool headers_pass_down(const char *name)
{
    /* Of one hop, of the framing, or set by our own server. */
    static const char *const names[] = {"connection",
                                        "keep-alive",
                                        "proxy-authenticate",
                                        "proxy-connection",
                                        "te",
                                        "trailer",
                                        "transfer-encoding",
                                        "upgrade",
                                        "content-length",
                                        "date",
                                        "server",
                                        "content-type",
                                        RESUME_HEADER,
                                        NULL};
    return !listed(name, names) &&
           strncasecmp(name, "access-control-", 15) != 0;
}

void headers_up(struct http_request *request, struct http_header *list,
                size_t cap)
{
    size_t n = 0;
    list[n++] = (struct http_header){"Content-Type", "application/json"};
    struct http_header h;
    for (void *at = NULL; http_request_header_next(request, &at, &h);)
        if (n + 1 < cap && headers_pass_up(h.name)) list[n++] = h;
    list[n] = (struct http_header){NULL, NULL};
}
