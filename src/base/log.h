/* base/log.h - one line an event, to stderr.
 *
 * A line reads: time level role subsystem: id verb facts-with-units, as in
 *     12:00:01.123 info prefill pd: room 8812 sent: pages 34 bytes 9437184
 * error: someone must act; warn: we coped; info: the life of the process
 * (tens of lines); debug: per request; trace: per operation. Nothing is
 * logged twice, and libraries below the edge (base xfer tensor kv model
 * engine) do not log errors: they return them. Any thread. */
#ifndef BATON_BASE_LOG_H
#define BATON_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

/* Lines above level are dropped. role is a short word for this process
 * ("prefill", "decode", "router"), borrowed for ever. Default: LOG_INFO, "". */
void log_init(enum log_level level, const char *role);
int log_level_parse(const char *word, enum log_level *out);
int log_enabled(enum log_level level);

void log_line(enum log_level level, const char *subsystem, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Every finished line goes to sink instead of stderr; NULL restores stderr.
 * sink runs under the log's lock: it must not log. */
void log_sink(void (*sink)(void *arg, enum log_level, const char *line),
              void *arg);

#define log_error(subsystem, ...) log_line(LOG_ERROR, subsystem, __VA_ARGS__)
#define log_warn(subsystem, ...)  log_line(LOG_WARN, subsystem, __VA_ARGS__)
#define log_info(subsystem, ...)  log_line(LOG_INFO, subsystem, __VA_ARGS__)
#define log_debug(subsystem, ...)                        \
    do {                                                 \
        if (log_enabled(LOG_DEBUG))                      \
            log_line(LOG_DEBUG, subsystem, __VA_ARGS__); \
    } while (0)

#endif
