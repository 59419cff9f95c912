/* serve/health.h - is the server alive: a probe through the whole of it.
 *
 * /health_generate (and /health, unless options.plain_health) sends a request
 * of one token through the node, behind the fake peer in PD mode, and answers
 * 200 as soon as any event at all comes from the engine, also another
 * request's: a busy engine is a healthy one. 503 while starting, closing, or
 * when nothing came for health_timeout_ms. All who ask meanwhile share one
 * probe. The warm-up is a probe, too. The loop thread's. */
#ifndef BATON_SERVE_HEALTH_H
#define BATON_SERVE_HEALTH_H

#include "base/err.h"

struct health;
struct serve;

struct health *health_create(struct serve *serve);
/* Waiting requests are dropped by the HTTP server's close before. */
void health_destroy(struct health *health); /* NULL is fine */

/* The engine gave a sign of life. */
void health_note_event(struct health *health);

#endif
