/* base/err.h - one way to say what went wrong.
 *
 * A fallible function returns 0 or a negative ERR_ code. Codes say what the
 * caller can do about it; the text for a human is written once, into a
 * struct why, by the function that first knows the reason. Above it only the
 * code travels; the edge of the program logs. */
#ifndef BATON_BASE_ERR_H
#define BATON_BASE_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

/* Append only: the numbers cross the wire (docs/wire.md). */
#define ERR_LIST(X)                                                  \
    X(ERR_INVALID, "invalid argument")                               \
    X(ERR_NOMEM, "out of memory")                                    \
    X(ERR_FORMAT, "malformed input")                                 \
    X(ERR_AGAIN, "no room now, try again")                           \
    X(ERR_PEER, "peer failed or went away")                          \
    X(ERR_IO, "input or output failed")                              \
    X(ERR_TIMEOUT, "timed out")                                      \
    X(ERR_CANCELED, "canceled")                                      \
    X(ERR_UNSUPPORTED, "not supported")                              \
    X(ERR_NOT_FOUND, "not found")                                    \
    X(ERR_RANGE, "outside of what was registered or allowed")        \
    X(ERR_AUTH, "not authorized")                                    \
    X(ERR_STALE, "peer restarted, descriptor is of its former life") \
    X(ERR_EXISTS, "exists already")

enum {
    ERR_NONE_ = 0,
#define X(name, text) name##_ORDINAL_,
    ERR_LIST(X)
#undef X
        ERR_COUNT_
};
enum {
#define X(name, text) name = -name##_ORDINAL_,
    ERR_LIST(X)
#undef X
};

/* Why a call failed, for a human. Filled once, by the function that decided;
 * zero it before the call. */
struct why {
    int code;
    char text[512];
};

/* Records the reason (why may be NULL) and returns code, so that a failing
 * line reads: return err_set(why, ERR_FORMAT, "%s: no header", path); */
int err_set(struct why *why, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and the text of errno_value behind it. */
int err_sys(struct why *why, int code, int errno_value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* libbaton-xfer exports these, so their symbols carry a prefix. */
#define ERR_EXPORT(symbol) \
    __asm__("baton_" #symbol) __attribute__((visibility("default")))

/* "ERR_FORMAT" and "malformed input"; never NULL. */
const char *err_name(int code) ERR_EXPORT(err_name);
const char *err_text(int code) ERR_EXPORT(err_text);

/* The text of why, or of its bare code where nobody filled it. */
const char *why_text(const struct why *why, int code) ERR_EXPORT(why_text);

#ifdef __cplusplus
}
#endif
#endif
