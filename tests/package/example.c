/* What somebody who installed libbaton-xfer would write: a target that offers
 * memory, an initiator that writes into it, here as parent and child.
 * cc example.c $(pkg-config --cflags --libs baton-xfer) */
#include <xfer/xfer.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const struct why *why)
{
    fprintf(stderr, "example: %s (%s)\n", why->text, err_name(why->code));
    return 1;
}

/* Opens, offers memory, tells who and where, waits until told to look. */
static int target(int in, int out)
{
    struct why why = {0};
    struct xfer *x;
    struct xfer_mem *mem;
    char line[400], go;
    if (xfer_open(&x, NULL, &why) || xfer_alloc(x, 4096, 0, &mem, &why))
        return fail(&why);
    int n = snprintf(line, sizeof line, "%s %" PRIu64, xfer_name(x),
                     (uint64_t)(uintptr_t)xfer_mem_base(mem));
    if (write(out, line, (size_t)n + 1) < 0 || read(in, &go, 1) < 0) return 1;
    printf("target has: %s\n", (const char *)xfer_mem_base(mem));
    xfer_close(x);
    return 0;
}

static int initiator(int in, int out)
{
    struct why why = {0};
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    char line[400] = "", name[300], way[200];
    uint64_t addr;
    if (read(in, line, sizeof line - 1) <= 0 ||
        sscanf(line, "%299s %" SCNu64, name, &addr) != 2)
        return 1;
    if (xfer_open(&x, NULL, &why) || xfer_alloc(x, 4096, 0, &mem, &why) ||
        xfer_peer_open(x, name, &peer, &why))
        return fail(&why);
    strcpy(xfer_mem_base(mem), "hello from another process");
    struct xfer_op op = {.kind = XFER_WRITE,
                         .local = xfer_mem_base(mem),
                         .remote = addr,
                         .bytes = 4096};
    if (xfer_transfer(peer, &op, 1, 5000, &why)) return fail(&why);
    xfer_peer_explain(peer, way, sizeof way);
    printf("written over: %s\n", way);
    fflush(stdout);
    if (write(out, "g", 1) < 0) return 1;
    xfer_close(x);
    return 0;
}

int main(void)
{
    int there[2], back[2], status = 1;
    if (pipe(there) || pipe(back)) return 1;
    pid_t child = fork();
    if (child == 0) return target(there[0], back[1]);
    int rc = initiator(back[0], there[1]);
    close(there[1]);
    waitpid(child, &status, 0);
    return rc || status;
}
