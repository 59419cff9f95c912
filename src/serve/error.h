/* serve/error.h - the one place where an ERR_ code becomes an HTTP answer.
 *
 * Three shapes of error body exist, SGLang's (docs/api.md, "Errors"):
 *   native   {"error":{"message":"..."}}               /generate, status 400
 *   object   {"object":"error","message":"...","type":"...","param":null,
 *             "code":N}                                everything else
 *   wrapped  {"error":{...that object...}}             inside OpenAI streams
 * Any thread. */
#ifndef BATON_SERVE_ERROR_H
#define BATON_SERVE_ERROR_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

struct http_request;

/* Which family of routes answers. */
enum api_style { API_GENERATE, API_OPENAI };

/* What went wrong with a request, before it became an answer. */
struct fault {
    int status;       /* HTTP */
    const char *type; /* NULL: by status, as the style has it */
    const char *message;
};

/* The fault of code: ERR_FORMAT is a schema error ("Bad Request"), ERR_INVALID
 * a value error, and so on. message is borrowed. */
struct fault fault_of(int code, const char *message);
/* The fault of a finish with FINISH_ABORT and an HTTP status. */
struct fault fault_of_status(int status, const char *message);

/* Appends the body of a whole answer; of an event inside a stream. */
void fault_body(struct buf *out, enum api_style style,
                const struct fault *fault);
void fault_event(struct buf *out, enum api_style style,
                 const struct fault *fault);

/* Answers request with it. */
void fault_reply(struct http_request *request, enum api_style style,
                 const struct fault *fault);

#endif
