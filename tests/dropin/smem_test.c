/* MemFabric's C functions between two processes, in the order in which its
 * users call them. */
#include "tests/dropin/child.h"
#include "tests/xfer/pem.h"

#include "dropin/smem.h"
#include "dropin/smem_trans.h"

static char store_url[64];

static smem_trans_t engine_make(smem_trans_role_t role, const char *id)
{
    smem_trans_config_t config;
    assert_int_equal(smem_set_conf_store_tls(false, NULL, 0), 0);
    assert_int_equal(smem_trans_config_init(&config), 0);
    config.role = role;
    assert_int_equal(smem_trans_init(&config), 0);
    smem_trans_t h = smem_trans_create(store_url, id, &config);
    if (!h) fail_msg("%s", smem_get_last_err_msg());
    return h;
}

/* The decode side; it serves the store too. */
static void receiver(FILE *in, FILE *out)
{
    char id[64], line[200];
    unsigned char *memory = calloc(1, CHILD_BYTES);
    void *list[1] = {memory};
    size_t sizes[1] = {CHILD_BYTES};
    snprintf(id, sizeof id, "127.0.0.1:%d", free_port());
    smem_init(0);
    smem_set_log_level(3);
    if (smem_create_config_store(store_url)) _exit(1);
    smem_trans_t h = engine_make(SMEM_TRANS_RECEIVER, id);
    if (smem_trans_batch_register_mem(h, list, sizes, 1, 0)) _exit(2);
    fprintf(out, "%s %lu\n", id, (unsigned long)memory);
    fflush(out);
    while (fgets(line, sizeof line, in)) {
        long answer = 0;
        if (strncmp(line, "sum", 3) == 0) answer = sum_of(memory, CHILD_BYTES);
        if (strncmp(line, "fill", 4) == 0) memset(memory, 0x77, CHILD_BYTES);
        if (strncmp(line, "away", 4) == 0)
            answer = smem_trans_deregister_mem(h, memory);
        fprintf(out, "%ld\n", answer);
        fflush(out);
    }
    smem_trans_destroy(h, 0);
    smem_trans_uninit(0);
    free(memory);
}

static void a_sender_writes_and_reads(void **state)
{
    (void)state;
    struct child c;
    snprintf(store_url, sizeof store_url, "tcp://127.0.0.1:%d", free_port());
    child_start(&c, receiver);
    unsigned char *mine = malloc(CHILD_BYTES);
    char *theirs = (char *)c.addr;
    for (int i = 0; i < CHILD_BYTES; i++)
        mine[i] = (unsigned char)(i * 13 + i / 1000);
    smem_trans_t h = engine_make(SMEM_TRANS_SENDER, "127.0.0.1:0");
    assert_int_equal(smem_trans_register_mem(h, mine, CHILD_BYTES, 0), 0);
    enum { N = 64 };
    const void *from[N];
    void *to[N];
    size_t sizes[N];
    for (int i = 0; i < N; i++) {
        sizes[i] = CHILD_BYTES / N;
        from[i] = mine + (size_t)i * sizes[i];
        to[i] = theirs + (size_t)i * sizes[i];
    }
    int32_t rc = smem_trans_batch_write(h, from, c.name, to, sizes, N, 0);
    if (rc) fail_msg("%d: %s", rc, smem_get_last_err_msg());
    assert_int_equal(child_ask(&c, "sum"), sum_of(mine, CHILD_BYTES));
    assert_int_equal(smem_trans_write(h, mine, c.name, theirs + 5, 100, 2), 0);
    child_ask(&c, "fill");
    assert_int_equal(
        smem_trans_read(h, mine + 3, c.name, theirs, CHILD_BYTES - 3, 0), 0);
    assert_int_equal(mine[CHILD_BYTES - 1], 0x77);
    assert_int_equal(smem_trans_batch_read(h, to, c.name, from, sizes, N, 4),
                     SMEM_INVALID_PARAM); /* unknown flag */
    /* A stream that is none, and one that only an NPU has. */
    assert_int_equal(
        smem_trans_write_submit(h, mine, c.name, theirs, 10, NULL, 0), 0);
    assert_int_equal(
        smem_trans_write_submit(h, mine, c.name, theirs, 10, &c, 0),
        SMEM_UNSUPPORTED);
    /* Memory that the library made. */
    char *made = smem_trans_malloc(h, 100000);
    assert_non_null(made);
    assert_int_equal(smem_trans_read(h, made, c.name, theirs, 100000, 0), 0);
    assert_int_equal(smem_trans_free(h, made), 0);
    assert_int_equal(smem_trans_free(h, made), SMEM_OBJECT_NOT_EXISTS);
    smem_trans_destroy(h, 0);
    child_end(&c, 0);
    free(mine);
}

static void errors_have_codes_of_their_own(void **state)
{
    (void)state;
    struct child c;
    char memory[1000];
    snprintf(store_url, sizeof store_url, "tcp://127.0.0.1:%d", free_port());
    child_start(&c, receiver);
    char *theirs = (char *)c.addr;
    smem_trans_config_t config;
    smem_trans_config_init(&config);
    smem_trans_init(&config);
    assert_null(smem_trans_create(store_url, "127.0.0.1:0", &config));
    assert_non_null(strstr(smem_get_last_err_msg(), "role"));
    assert_null(
        smem_trans_create("etcd://127.0.0.1:1", "127.0.0.1:0", &config));
    assert_null(smem_trans_create(store_url, NULL, &config));
    smem_trans_t h = engine_make(SMEM_TRANS_SENDER, "127.0.0.1:0");
    assert_int_equal(smem_trans_write(h, memory, c.name, theirs, 10, 0),
                     SMEM_OUT_OF_RANGE); /* ours is not registered */
    assert_int_equal(smem_trans_register_mem(h, memory, sizeof memory, 0), 0);
    assert_int_equal(
        smem_trans_write(h, memory, c.name, theirs + CHILD_BYTES - 5, 10, 0),
        SMEM_OUT_OF_RANGE);
    assert_non_null(strstr(smem_get_last_err_msg(), c.name));
    assert_int_not_equal(strlen(smem_get_and_clear_last_err_msg()), 0);
    assert_string_equal(smem_get_last_err_msg(), "");
    assert_int_equal(smem_trans_write(h, memory, "127.0.0.1:1", theirs, 10, 0),
                     SMEM_PEER_DEAD);
    assert_int_equal(smem_trans_write(h, memory, "nobody", theirs, 10, 0),
                     SMEM_NO_SUCH_PEER);
    assert_int_equal(smem_trans_write(h, NULL, NULL, theirs, 10, 0),
                     SMEM_INVALID_PARAM);
    assert_int_equal(smem_trans_deregister_mem(h, theirs),
                     SMEM_OBJECT_NOT_EXISTS);
    /* What the peer took back cannot be written any more. */
    assert_int_equal(smem_trans_write(h, memory, c.name, theirs, 10, 0), 0);
    assert_int_equal(child_ask(&c, "away"), 0);
    assert_int_equal(smem_trans_write(h, memory, c.name, theirs, 10, 0),
                     SMEM_OUT_OF_RANGE);
    child_end(&c, SIGKILL);
    assert_int_equal(smem_trans_write(h, memory, c.name, theirs, 10, 0),
                     SMEM_PEER_DEAD);
    smem_trans_destroy(h, 0);
    assert_int_equal(smem_trans_write(h, memory, c.name, theirs, 10, 0),
                     SMEM_INVALID_PARAM); /* no handle any more */
    smem_trans_uninit(0);
    assert_null(smem_trans_create(store_url, "127.0.0.1:0", &config));
}

static int32_t tls(const char *info)
{
    return smem_set_conf_store_tls(true, info, (uint32_t)strlen(info));
}

static int rot1(const char *cipher, size_t n, char *plain, size_t *plain_n)
{
    if (n > *plain_n) return -1;
    for (size_t i = 0; i < n; i++)
        plain[i] = (char)(cipher[i] - 1);
    *plain_n = n;
    return 0;
}

/* Certificates of the store in MemFabric's words, the key by itself with a
 * password that is a secret too. */
static void the_store_has_tls(void **state)
{
    (void)state;
    struct pem ours, other;
    char url[64], info[600], command[500], key[4096] = "";
    if (pem_make(&ours) || pem_make(&other)) SKIP("no openssl program");
    snprintf(info, sizeof info, "tlsCert:%s;tlsPk:%s;tlsCaFile:%s", ours.cert,
             ours.key, ours.cert);
    bool found = tls(info) != SMEM_UNSUPPORTED;
    assert_int_equal(smem_set_conf_store_tls(false, NULL, 0), 0);
    if (!found) SKIP("there is no libssl");
    snprintf(info, sizeof info,
             "\n  tlsCert: %s;\n  tlsCaPath: /tmp/;tlsCaFile :%s, %s;"
             "tlsCrlFile: ;packagePath: /usr/lib; ",
             ours.cert, ours.cert + 5, other.cert + 5);
    assert_int_equal(tls(info), 0);
    snprintf(command, sizeof command,
             "openssl pkcs8 -topk8 -in %s -passout pass:Red", ours.key);
    FILE *f = popen(command, "r");
    assert_true(fread(key, 1, sizeof key - 1, f) > 0);
    pclose(f);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", free_port());
    smem_trans_config_t config;
    smem_trans_config_init(&config);
    config.role = SMEM_TRANS_BOTH;
    smem_trans_init(&config);
    uint32_t n = (uint32_t)strlen(key);
    /* Without a key, or with one that does not open: no store, not a plain
     * one. */
    assert_int_equal(smem_create_config_store(url), SMEM_INVALID_PARAM);
    assert_int_equal(smem_set_config_store_tls_key(key, n, "Sfe", 3, NULL),
                     SMEM_INVALID_PARAM);
    assert_int_equal(smem_create_config_store(url), SMEM_INVALID_PARAM);
    assert_int_equal(smem_set_config_store_tls_key(key, n, "Sfe", 3, rot1), 0);
    assert_int_equal(smem_create_config_store(url), 0);
    smem_trans_t h = smem_trans_create(url, "127.0.0.1:0", &config);
    if (!h) fail_msg("%s", smem_get_last_err_msg());
    smem_trans_destroy(h, 0);
    /* The other is known there; it does not know ours. */
    snprintf(info, sizeof info, "tlsCert:%s;tlsPk:%s;tlsCaFile:%s", other.cert,
             other.key, other.cert);
    assert_int_equal(tls(info), 0);
    assert_null(smem_trans_create(url, "127.0.0.1:0", &config));
    assert_non_null(strstr(smem_get_last_err_msg(), "certificate"));
    static const char *const bad[] = {"tlsCert: /no/cert", "tlsCert",
                                      "tlsColour: red", ""};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(tls(bad[i]), SMEM_INVALID_PARAM);
    assert_null(smem_trans_create(url, "127.0.0.1:0", &config));
    assert_int_equal(tls("tlsCrlFile: gone.pem"), SMEM_UNSUPPORTED);
    assert_int_equal(tls("tlsPkPwd: pw.txt"), SMEM_UNSUPPORTED);
    assert_int_equal(smem_set_conf_store_tls(true, NULL, 0),
                     SMEM_INVALID_PARAM);
    assert_int_equal(smem_set_conf_store_tls(false, NULL, 0), 0);
    smem_trans_uninit(0);
    pem_drop(&ours);
    pem_drop(&other);
}

static int lines;

static void count_line(int level, const char *text)
{
    lines += level >= 0 && level <= 3 && text[0] != 0;
}

static void the_process_has_settings(void **state)
{
    (void)state;
    assert_int_equal(smem_set_log_level(4), SMEM_INVALID_PARAM);
    assert_int_equal(smem_set_log_level(1), 0);
    assert_int_equal(smem_create_config_store(NULL), SMEM_INVALID_PARAM);
    assert_int_equal(smem_create_config_store("127.0.0.1:1"),
                     SMEM_INVALID_PARAM);
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", free_port());
    assert_int_equal(smem_set_extern_logger(count_line), 0);
    assert_int_equal(smem_create_config_store(url), 0);
    assert_int_equal(smem_create_config_store(url), 0); /* is there */
    assert_int_equal(smem_set_extern_logger(NULL), 0);
    assert_int_equal(lines, 2);
    smem_uninit();
}

TESTS(T(a_sender_writes_and_reads), T(errors_have_codes_of_their_own),
      T(the_store_has_tls), T(the_process_has_settings))
