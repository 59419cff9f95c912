/* tests/xfer/pem.h - a certificate that signs itself, made on the spot. */
#ifndef BATON_TESTS_XFER_PEM_H
#define BATON_TESTS_XFER_PEM_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct pem {
    char dir[64], cert[80], key[80];
};

/* 0, or not where there is no openssl program. */
static inline int pem_make(struct pem *p)
{
    char command[500];
    snprintf(p->dir, sizeof p->dir, "/tmp/baton-pem-XXXXXX");
    if (!mkdtemp(p->dir)) return -1;
    snprintf(p->cert, sizeof p->cert, "%s/cert.pem", p->dir);
    snprintf(p->key, sizeof p->key, "%s/key.pem", p->dir);
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt "
             "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=%s "
             "-keyout %s -out %s 2>/dev/null",
             p->dir + 5, p->key, p->cert);
    return system(command);
}

static inline void pem_drop(struct pem *p)
{
    unlink(p->cert);
    unlink(p->key);
    rmdir(p->dir);
}

#endif
