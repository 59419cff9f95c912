/* Replays a corpus folder through a fuzz target, with every prefix of each
 * short input and a fixed series of mutations, so that each `make test` under
 * the sanitizers covers what the fuzzer once found. Prints cmocka's line. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of the exact size, so that ASan sees one byte too far. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void mutate(uint8_t *data, size_t size, uint64_t seed)
{
    for (int round = 0; round < 200 && size; round++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (seed >> 33) % size;
        uint8_t was = data[at];
        data[at] = (uint8_t)(seed >> 25);
        run(data, size);
        if (round % 3) data[at] = was;
    }
}

static void replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    struct stat st;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) {
        fclose(f);
        return;
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, f) != size) abort();
    fclose(f);
    run(data, size);
    size_t step = size < 512 ? 1 : size / 256;
    for (size_t n = 0; n < size; n += step)
        run(data, n);
    mutate(data, size, size);
    free(data);
}

int main(int argc, char **argv)
{
    int count = 0;
    run((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (!dir) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(dir));) {
            if (e->d_name[0] == '.') continue;
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            replay(path);
            count++;
        }
        closedir(dir);
    }
    printf("[  PASSED  ] %d test(s).\n", count);
    return count ? 0 : 1;
}
