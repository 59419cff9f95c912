/* router/members.h - workers that come and go while the router runs.
 *
 *     GET    /workers         all, with their state
 *     POST   /workers         {"url", "worker_type": "prefill" | "decode",
 *                             "bootstrap_port"}: 202; requests go to it once
 *                             it has answered a probe
 *     GET    /workers/URL     one
 *     DELETE /workers/URL     202; it gets nothing new, what it has may end
 *
 * A worker's id is its URL, as it stands or percent-encoded. To add and to
 * remove is refused (403) unless the router has --api-key: who may add a
 * worker reads what clients ask. Bodies and statuses: sglang_router's; other
 * members of its worker description are not looked at.
 *
 * All in the loop's thread. */
#ifndef BATON_ROUTER_MEMBERS_H
#define BATON_ROUTER_MEMBERS_H

#include <stdbool.h>

struct http_request;
struct pool;

struct members {
    struct pool *prefill, *decode;
    bool guarded; /* there is an API key */
};

void members_list(const struct members *members, struct http_request *request);
void members_add(const struct members *members, struct http_request *request);
/* GET and DELETE of /workers/URL. */
void members_one(const struct members *members, struct http_request *request);

#endif
