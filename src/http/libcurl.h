/* http/libcurl.h - libcurl, loaded when the first client opens: it brings
 * thirty libraries, which cost each process 5 MB and several ms, and a server
 * that stands alone asks nobody. What the calls do is in its own header, which
 * has them with curl_ before their names. */
#ifndef BATON_HTTP_LIBCURL_H
#define BATON_HTTP_LIBCURL_H

#include "base/err.h"

#include <curl/curl.h>

#define LIBCURL_CALLS(CALL)   \
    CALL(global_init)         \
    CALL(multi_init)          \
    CALL(multi_cleanup)       \
    CALL(multi_setopt)        \
    CALL(multi_add_handle)    \
    CALL(multi_remove_handle) \
    CALL(multi_socket_action) \
    CALL(multi_info_read)     \
    CALL(easy_init)           \
    CALL(easy_cleanup)        \
    CALL(easy_setopt)         \
    CALL(easy_getinfo)        \
    CALL(easy_strerror)       \
    CALL(slist_append)        \
    CALL(slist_free_all)

struct libcurl {
#define LIBCURL_MEMBER(NAME) __typeof__(curl_##NAME) *NAME;
    LIBCURL_CALLS(LIBCURL_MEMBER)
#undef LIBCURL_MEMBER
};

/* Set by the first libcurl_load that returns 0, which any thread may call. */
extern struct libcurl libcurl;

/* ERR_UNSUPPORTED: the library is not there, or lacks a call. */
int libcurl_load(struct why *why);

#endif
