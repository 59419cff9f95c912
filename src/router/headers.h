/* router/headers.h - which headers pass a router. */
#ifndef BATON_ROUTER_HEADERS_H
#define BATON_ROUTER_HEADERS_H

#include <stdbool.h>
#include <stddef.h>

struct http_header;
struct http_request;

/* Which headers of a client's request go to workers, which of a worker's
 * answer go to clients. */
bool headers_pass_up(const char *name);
bool headers_pass_down(const char *name);

/* The headers of a request that pass up, into list (at most cap, with the
 * closing NULL), in front of them Content-Type: application/json; borrowed
 * from the request. */
void headers_up(struct http_request *request, struct http_header *list,
                size_t cap);

#endif
