#include "base/log.h"
#include "base/err.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int max_level = LOG_INFO;
static const char *role = "";
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink_call)(void *, enum log_level, const char *);
static void *sink_arg;

static const char *const words[] = {"error", "warn", "info", "debug", "trace"};

void log_init(enum log_level level, const char *process_role)
{
    atomic_store(&max_level, (int)level);
    role = process_role;
}

int log_level_parse(const char *word, enum log_level *out)
{
    if (strcmp(word, "warning") == 0) word = "warn";
    for (int i = 0; i < 5; i++) {
        if (strcmp(word, words[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return ERR_INVALID;
}

int log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

void log_sink(void (*sink)(void *, enum log_level, const char *), void *arg)
{
    pthread_mutex_lock(&sink_lock);
    sink_call = sink;
    sink_arg = arg;
    pthread_mutex_unlock(&sink_lock);
}

void log_line(enum log_level level, const char *subsystem, const char *fmt, ...)
{
    if (!log_enabled(level)) return;
    char line[2048];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    int n = snprintf(line, sizeof line,
                     "%02d:%02d:%02d.%03d %s %s%s%s: ", tm.tm_hour, tm.tm_min,
                     tm.tm_sec, (int)(now.tv_nsec / 1000000), words[level],
                     role, role[0] ? " " : "", subsystem);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    size_t len = (size_t)n + (m > 0 ? (size_t)m : 0);
    if (len > sizeof line - 2) len = sizeof line - 2;
    for (size_t i = (size_t)n; i < len; i++) /* foreign text: one line stays */
        if ((unsigned char)line[i] < 32 || line[i] == 127) line[i] = ' ';
    pthread_mutex_lock(&sink_lock);
    if (sink_call) {
        line[len] = 0;
        sink_call(sink_arg, level, line);
    } else {
        line[len] = '\n';
        ssize_t done = write(STDERR_FILENO, line, len + 1);
        (void)done; /* a closed stderr is no reason to stop serving */
    }
    pthread_mutex_unlock(&sink_lock);
}
