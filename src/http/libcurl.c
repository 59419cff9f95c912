#include "http/libcurl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libcurl.so.4" /* the name of its interface since 2006 */

struct libcurl libcurl;

static char missing[256]; /* what is, or "" */

static void load(void)
{
    static const struct {
        void *at;
        const char *name;
    } calls[] = {
#define LIBCURL_ROW(NAME) {&libcurl.NAME, "curl_" #NAME},
        LIBCURL_CALLS(LIBCURL_ROW)
#undef LIBCURL_ROW
    };
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(missing, sizeof missing, "%s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *found = dlsym(library, calls[i].name);
        if (!found)
            snprintf(missing, sizeof missing, LIBRARY " has no %s",
                     calls[i].name);
        memcpy(calls[i].at, &found, sizeof found);
    }
    if (!*missing && libcurl.global_init(CURL_GLOBAL_DEFAULT))
        snprintf(missing, sizeof missing, LIBRARY " does not start");
}

int libcurl_load(struct why *why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (!*missing) return 0;
    return err_set(why, ERR_UNSUPPORTED, "%s", missing);
}
