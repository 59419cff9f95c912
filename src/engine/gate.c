#include "engine/gate.h"

#include "base/mem.h"

#include <pthread.h>

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct chain commands, events;
    enum gate_wait waiting; /* what the engine sleeps for; GATE_POLL: awake */
    bool quit;
};

void chain_add(struct chain *c, struct link *link)
{
    link->next = NULL;
    *(c->last ? &c->last->next : &c->first) = link;
    c->last = link;
}

struct link *chain_take(struct chain *c)
{
    struct link *link = c->first;
    if (!link) return NULL;
    c->first = link->next;
    if (!c->first) c->last = NULL;
    return link;
}

void chain_put_back(struct chain *c, struct link *link)
{
    link->next = c->first;
    c->first = link;
    if (!c->last) c->last = link;
}

static void chain_move(struct chain *to, struct chain *from)
{
    if (!from->first) return;
    *(to->last ? &to->last->next : &to->first) = from->first;
    to->last = from->last;
    *from = (struct chain){0};
}

struct gate *gate_create(void)
{
    struct gate *gate = mem_must(1, sizeof *gate);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->wake, NULL);
    return gate;
}

void gate_destroy(struct gate *gate)
{
    if (!gate) return;
    pthread_cond_destroy(&gate->wake);
    pthread_mutex_destroy(&gate->lock);
    mem_free(gate);
}

static void put(struct gate *gate, struct chain *into, struct link *link,
                enum gate_wait wakes)
{
    pthread_mutex_lock(&gate->lock);
    chain_add(into, link);
    if (gate->waiting >= wakes) pthread_cond_signal(&gate->wake);
    pthread_mutex_unlock(&gate->lock);
}

void gate_post(struct gate *gate, struct link *command)
{
    put(gate, &gate->commands, command, GATE_COMMANDS);
}

void gate_return(struct gate *gate, struct link *event)
{
    put(gate, &gate->events, event, GATE_EVENTS);
}

void gate_quit(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->quit = true;
    pthread_cond_signal(&gate->wake);
    pthread_mutex_unlock(&gate->lock);
}

static bool must_sleep(const struct gate *gate)
{
    return !gate->quit && !gate->commands.first &&
           (gate->waiting == GATE_COMMANDS ||
            (gate->waiting == GATE_EVENTS && !gate->events.first));
}

bool gate_take(struct gate *gate, enum gate_wait wait, struct chain *commands,
               struct chain *events)
{
    pthread_mutex_lock(&gate->lock);
    gate->waiting = wait;
    while (must_sleep(gate))
        pthread_cond_wait(&gate->wake, &gate->lock);
    gate->waiting = GATE_POLL;
    chain_move(commands, &gate->commands);
    chain_move(events, &gate->events);
    bool quit = gate->quit;
    pthread_mutex_unlock(&gate->lock);
    return !quit;
}
