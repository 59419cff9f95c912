/* The config store over TLS: who is let in, and what is said to those who are
 * not. What the store does is in store_test.c. */
#include "tests/test.h"

#include "tests/xfer/pem.h"
#include "tests/xfer/stranger.h"
#include "xfer/store.h"

#include <stdbool.h>

enum { MS = 20000, BIG = 3 << 20 };

static struct pem ours, other; /* each is its own CA */

static struct xfer_store_auth auth_of(const struct pem *p, const struct pem *ca)
{
    return (struct xfer_store_auth){
        .tls_cert = p->cert, .tls_key = p->key, .tls_ca = ca->cert};
}

static struct xfer_store *store_start(const struct xfer_store_auth *auth)
{
    struct xfer_store *store;
    struct why why = {0};
    if (xfer_store_serve("tcp://127.0.0.1:0", auth, &store, &why))
        fail_msg("%s", why.text);
    return store;
}

static struct xfer_store_client *client_start(struct xfer_store *store,
                                              const struct xfer_store_auth *a)
{
    struct xfer_store_client *c;
    struct why why = {0};
    if (xfer_store_connect(xfer_store_url(store), a, MS, &c, &why))
        fail_msg("%s", why.text);
    return c;
}

static void refused(struct xfer_store *store, const struct xfer_store_auth *a,
                    int expected, const char *said)
{
    struct xfer_store_client *c;
    struct why why = {0};
    /* A refusal ends the wait; what may come right later takes its time. */
    int ms = expected == ERR_AUTH ? MS : 2500;
    int rc = xfer_store_connect(xfer_store_url(store), a, ms, &c, &why);
    if (rc != expected || !strstr(why.text, said))
        fail_msg("%s: %s", err_name(rc), why.text);
}

static void large_values_and_news_pass(void **state)
{
    (void)state;
    const struct xfer_store_auth auth = auth_of(&ours, &ours);
    struct xfer_store *store = store_start(&auth);
    struct xfer_store_client *a = client_start(store, &auth),
                             *b = client_start(store, &auth);
    char *big = malloc(BIG), *got;
    size_t n;
    for (size_t i = 0; i < BIG; i++)
        big[i] = (char)(i * 31 + i / 977);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(xfer_store_set(a, "big", big, BIG, MS, NULL), 0);
        assert_int_equal(xfer_store_get(b, "big", 1, MS, &got, &n, NULL), 0);
        assert_int_equal(n, BIG);
        assert_memory_equal(got, big, BIG);
        xfer_store_free(got);
        big[round]++;
    }
    assert_int_equal(xfer_store_announce(a, "who/a", "here", 4, NULL), 0);
    assert_int_equal(xfer_store_get(b, "who/a", 1, MS, &got, &n, NULL), 0);
    assert_string_equal(got, "here");
    xfer_store_free(got);
    free(big);
    xfer_store_disconnect(a);
    xfer_store_disconnect(b);
    xfer_store_stop(store);
}

static void strangers_certificates_are_refused(void **state)
{
    (void)state;
    const struct xfer_store_auth good = auth_of(&ours, &ours),
                                 stranger = auth_of(&other, &ours),
                                 suspicious = auth_of(&ours, &other);
    struct xfer_store *store = store_start(&good);
    refused(store, &stranger, ERR_AUTH, "unknown ca"); /* says the store */
    refused(store, &suspicious, ERR_AUTH, "certificate");
    xfer_store_disconnect(client_start(store, &good));
    xfer_store_stop(store);
}

static void plain_and_tls_do_not_meet(void **state)
{
    (void)state;
    const struct xfer_store_auth auth = auth_of(&ours, &ours);
    struct xfer_store *store = store_start(&auth);
    refused(store, NULL, ERR_PEER, "may want TLS");
    xfer_store_stop(store);
    store = store_start(NULL);
    refused(store, &auth, ERR_AUTH, "does not speak TLS");
    xfer_store_stop(store);
}

static void a_token_is_asked_for_too(void **state)
{
    (void)state;
    struct xfer_store_auth auth = auth_of(&ours, &ours), guess = auth;
    auth.token = "secret";
    guess.token = "guess";
    struct xfer_store *store = store_start(&auth);
    refused(store, &guess, ERR_AUTH, "token does not match");
    xfer_store_disconnect(client_start(store, &auth));
    xfer_store_stop(store);
}

/* Those who say nothing, or half of a word, or something else. */
static void strangers_stop_nobody(void **state)
{
    (void)state;
    static const unsigned char half[] = {22, 3, 1, 2, 0, 1, 0, 1, 252};
    const struct xfer_store_auth auth = auth_of(&ours, &ours);
    struct xfer_store *store = store_start(&auth);
    int port = atoi(strrchr(xfer_store_url(store), ':') + 1);
    int strangers[90];
    for (int i = 0; i < 90; i++) {
        strangers[i] = stranger_dial(port);
        if (i % 3 == 1)
            assert_true(send(strangers[i], half, sizeof half, 0) > 0);
        if (i % 3 == 2) assert_true(send(strangers[i], "GET / ", 6, 0) > 0);
    }
    struct xfer_store_client *c = client_start(store, &auth);
    assert_int_equal(xfer_store_set(c, "k", "v", 1, MS, NULL), 0);
    for (int i = 0; i < 90; i++)
        stranger_expect_closed(strangers[i]);
    assert_int_equal(xfer_store_set(c, "k", "w", 1, MS, NULL), 0);
    xfer_store_disconnect(c);
    xfer_store_stop(store);
}

/* A key with a password, from its file or as text; two CAs; what is bad. */
static void keys_have_many_forms(void **state)
{
    (void)state;
    char command[500], key[100], both[200], text[4096] = "";
    snprintf(key, sizeof key, "%s/locked.pem", ours.dir);
    snprintf(command, sizeof command,
             "openssl pkcs8 -topk8 -in %s -out %s -passout pass:open", ours.key,
             key);
    assert_int_equal(system(command), 0);
    FILE *f = fopen(key, "r");
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    snprintf(both, sizeof both, "%s,%s", other.cert, ours.cert);
    struct xfer_store_auth auth = {.tls_cert = ours.cert,
                                   .tls_key = key,
                                   .tls_ca = both,
                                   .tls_password = "open"};
    struct xfer_store *store = store_start(&auth), *none;
    auth.tls_key = text;
    xfer_store_disconnect(client_start(store, &auth));
    const struct xfer_store_auth good = auth_of(&other, &ours);
    xfer_store_disconnect(client_start(store, &good));
    xfer_store_stop(store);
    static const char *const passwords[] = {NULL, "", "wrong"};
    for (size_t i = 0; i < 6; i++) { /* nobody is asked for one */
        struct why why = {0};
        auth.tls_password = passwords[i / 2];
        auth.tls_key = i % 2 ? text : key;
        assert_int_equal(
            xfer_store_serve("tcp://127.0.0.1:0", &auth, &none, &why),
            ERR_INVALID);
        assert_non_null(strstr(why.text, i % 2 ? "the key" : key));
    }
    struct why why = {0};
    auth = auth_of(&ours, &ours);
    auth.tls_ca = "/no/ca,/no/other";
    assert_int_equal(xfer_store_serve("tcp://127.0.0.1:0", &auth, &none, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "/no/ca:"));
    auth.tls_ca = NULL;
    assert_int_equal(xfer_store_serve("tcp://127.0.0.1:0", &auth, &none, &why),
                     ERR_INVALID);
    unlink(key);
}

static void no_libssl(void **state)
{
    (void)state;
    SKIP("there is no libssl");
}

/* In a foreign root (an emulated machine) there may be none. */
static bool there_is_libssl(void)
{
    struct xfer_store *store;
    const struct xfer_store_auth auth = {
        .tls_cert = "/", .tls_key = "/", .tls_ca = "/"};
    return xfer_store_serve("tcp://127.0.0.1:0", &auth, &store, NULL) !=
           ERR_UNSUPPORTED;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(large_values_and_news_pass), T(strangers_certificates_are_refused),
        T(plain_and_tls_do_not_meet),  T(a_token_is_asked_for_too),
        T(strangers_stop_nobody),      T(keys_have_many_forms),
    };
    const struct CMUnitTest none[] = {T(no_libssl)};
    if (!there_is_libssl()) return cmocka_run_group_tests(none, NULL, NULL);
    if (pem_make(&ours) || pem_make(&other)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    pem_drop(&ours);
    pem_drop(&other);
    return rc;
}
