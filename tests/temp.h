/* tests/temp.h - a folder for one test's files. Any failure ends the test. */
#ifndef BATON_TESTS_TEMP_H
#define BATON_TESTS_TEMP_H

#include "tests/test.h"

#include <ftw.h>

/* A new empty folder, for temp_remove. */
static inline char *temp_dir(void)
{
    char *dir = strdup("/tmp/baton-test-XXXXXX");
    assert_non_null(dir);
    assert_non_null(mkdtemp(dir));
    return dir;
}

static inline void temp_write(const char *dir, const char *name,
                              const void *bytes, size_t n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline int temp_unlink_(const char *path, const struct stat *st,
                               int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

/* Removes dir with all that is in it, and frees its name. */
static inline void temp_remove(char *dir)
{
    assert_int_equal(nftw(dir, temp_unlink_, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(dir);
}

#endif
