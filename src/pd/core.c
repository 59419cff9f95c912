#include "pd/core.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/loop.h"

#include <assert.h>
#include <string.h>

/* ---- rooms -------------------------------------------------------------- */

const char *pd_state_name(enum pd_state state)
{
    static const char *const names[] = {
#define X(name, word, deadline) word,
        PD_STATES(X)
#undef X
    };
    return names[state];
}

uint32_t pd_room_limit_ms(const struct pd_room *room)
{
    static const enum pd_deadline deadlines[] = {
#define X(name, word, deadline) deadline,
        PD_STATES(X)
#undef X
    };
    const struct pd_options *o = &room->core->options;
    switch (deadlines[room->state]) {
    case PD_BOOTSTRAP_TIMEOUT: return o->bootstrap_timeout_ms;
    case PD_WAITING_TIMEOUT: return o->waiting_timeout_ms;
    case PD_NEVER: break;
    }
    return 0;
}

static void enter(struct pd_room *room, enum pd_state state)
{
    room->state = state;
    room->since_ms = clock_ms();
    room->core->stats.by_state[state]++;
    uint32_t limit = pd_room_limit_ms(room);
    if (limit)
        loop_timer_set(room->timer, limit, 0);
    else
        loop_timer_unset(room->timer);
    log_debug("pd", "room %llu %s", (unsigned long long)room->number,
              pd_state_name(state));
}

void pd_room_init(struct pd_room *room, struct pd_core *core, uint64_t number,
                  enum pd_state state, void (*on_deadline)(void *arg),
                  void *arg)
{
    room->core = core;
    room->number = number;
    room->timer = loop_timer_create(core->options.loop, on_deadline, arg);
    core->stats.rooms++;
    enter(room, state);
}

void pd_room_fini(struct pd_room *room)
{
    room->core->stats.by_state[room->state]--;
    room->core->stats.rooms--;
    loop_timer_destroy(room->timer);
}

void pd_room_enter(struct pd_room *room, enum pd_state state)
{
    room->core->stats.by_state[room->state]--;
    enter(room, state);
}

/* ---- clients ------------------------------------------------------------ */

static void client_free(struct pd_client *client)
{
    assert(!client->room);
    map_remove(&client->core->clients, client->id);
    mem_free(client->message);
    mem_free(client);
}

void pd_client_event(struct pd_client *client, const struct engine_event *event)
{
    if (event->kind == EVENT_TOKEN || event->kind == EVENT_RESUMED)
        client->on_event(client->arg, event);
    if (event->kind != EVENT_DONE) return;
    void (*on_event)(void *, const struct engine_event *) = client->on_event;
    void *arg = client->arg;
    /* The node forgets it first: its id is nobody's when the event comes. */
    struct pd_client gone = *client;
    client->message = NULL;
    client_free(client);
    on_event(arg, event);
    mem_free(gone.message);
}

void pd_client_end(struct pd_client *client, int status, const char *message)
{
    struct pd_core *core = client->core;
    assert(!client->engaged && !client->message);
    client->room = NULL;
    client->status = status;
    client->message = mem_dup(message);
    client->next_ended = NULL;
    *core->ended_tail = client;
    core->ended_tail = &client->next_ended;
    loop_timer_set(core->ended_timer, 0, 0);
}

void pd_one_token(struct request_spec *spec)
{
    struct sampling *s = &spec->sampling;
    s->max_new_tokens = spec->output_count + 1;
    if (s->min_new_tokens > s->max_new_tokens)
        s->min_new_tokens = s->max_new_tokens;
}

/* ---- aux rows ----------------------------------------------------------- */

bool pd_aux_take(struct pd_core *core, uint32_t *row)
{
    if (!core->aux_free_count) return false;
    *row = core->aux_free[--core->aux_free_count];
    pd_aux_clear(&core->aux, *row);
    return true;
}

void pd_aux_give(struct pd_core *core, uint32_t row)
{
    assert(core->aux_free_count < core->aux.rows);
    core->aux_free[core->aux_free_count++] = row;
}

/* ---- the rest ----------------------------------------------------------- */

void pd_core_send(struct pd_core *core, const struct pd_address *to)
{
    struct why why = {0};
    if (pd_mail_send(core->mail, to, &core->message, &why))
        log_warn("pd", "message to %s:%u not sent: %s", to->host, to->port,
                 why.text);
}

int pd_http_status(int rc)
{
    if (rc == ERR_INVALID || rc == ERR_EXISTS) return 400;
    if (rc == ERR_AGAIN) return 503;
    return 500;
}
