#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *text;
} table[] = {{"OK", "success"},
#define X(name, text) {#name, text},
             ERR_LIST(X)
#undef X
};

static void set(struct why *why, int code, const char *fmt, va_list ap)
{
    why->code = code;
    vsnprintf(why->text, sizeof why->text, fmt, ap);
}

int err_set(struct why *why, int code, const char *fmt, ...)
{
    if (why) {
        va_list ap;
        va_start(ap, fmt);
        set(why, code, fmt, ap);
        va_end(ap);
    }
    return code;
}

int err_sys(struct why *why, int code, int errno_value, const char *fmt, ...)
{
    if (why) {
        va_list ap;
        va_start(ap, fmt);
        set(why, code, fmt, ap);
        va_end(ap);
        size_t n = strlen(why->text);
        char buf[128];
        snprintf(why->text + n, sizeof why->text - n, ": %s",
                 strerror_r(errno_value, buf, sizeof buf));
    }
    return code;
}

const char *err_name(int code)
{
    return code <= 0 && -code < ERR_COUNT_ ? table[-code].name : "ERR_UNKNOWN";
}

const char *err_text(int code)
{
    return code <= 0 && -code < ERR_COUNT_ ? table[-code].text
                                           : "unknown error";
}

const char *why_text(const struct why *why, int code)
{
    return why && why->text[0] ? why->text : err_text(code);
}
