/* Golden messages: the bytes are written out by hand after docs/wire.md. */
#include "tests/test.h"

#include "base/mem.h"
#include "pd/auxrow.h"
#include "pd/route.h"
#include "pd/wire.h"

#define FRAME(s) ((struct pd_frame){s, sizeof(s) - 1})
#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char KV[] = "\x00\x10\x00\x00\x00\x7f\x00\x00"
                         "\x00\x20\x00\x00\x00\x7f\x00\x00";
static const char AUX9[] = "\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
                           "\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0"
                           "\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0"
                           "\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0"
                           "\x09\0\0\0\0\0\0\0";
static const char PAGES[] = "\x03\0\0\0\x04\0\0\0\x2a\0\0\0";
static const char LAYOUT[] =
    "baton=1 model=00000000deadbeef layers=1 kv_heads=2 head_dim=4 page=128 "
    "dtype=bf16 xfer=10.0.0.2:17000 epoch=000102030405060708090a0b0c0d0e0f";

static const struct pd_layout layout = {
    .model = 0xdeadbeef,
    .shape = {1, 2, 4, 128, DTYPE_BF16},
    .xfer = "10.0.0.2:17000",
    .has_epoch = true,
    .epoch = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

static void same_message(const struct pd_message *message,
                         const struct pd_frame *frames, size_t count)
{
    assert_false(message->bytes.failed);
    assert_int_equal(message->count, count);
    for (uint32_t i = 0; i < count; i++) {
        struct pd_frame f = pd_message_frame(message, i);
        assert_int_equal(f.len, frames[i].len);
        if (f.len) assert_memory_equal(f.data, frames[i].data, f.len);
    }
}

static void register_golden(size_t count, enum pd_generation generation)
{
    const struct pd_frame frames[15] = {FRAME("None"),  FRAME("10.0.0.2"),
                                        FRAME("50123"), FRAME("10.0.0.2:17000"),
                                        FRAME(KV),      FRAME(AUX9),
                                        FRAME(""),      FRAME("0"),
                                        FRAME("1"),     FRAME("65536"),
                                        FRAME(""),      FRAME(""),
                                        FRAME(""),      FRAME(""),
                                        FRAME(LAYOUT)};
    struct pd_note note;
    struct why why = {0};
    assert_int_equal(pd_prefill_decode(frames, count, &note, &why), 0);
    assert_int_equal(note.kind, PD_REGISTER);
    const struct pd_register *r = &note.reg;
    assert_int_equal(r->generation, generation);
    assert_string_equal(r->from.host, "10.0.0.2");
    assert_int_equal(r->from.port, 50123);
    assert_string_equal(r->session, "10.0.0.2:17000");
    assert_int_equal(r->kv_count, 2);
    assert_int_equal(pd_u64_at(r->kv, 1), 0x7f0000002000);
    assert_int_equal(r->aux_count, 9);
    assert_int_equal(pd_u64_at(r->aux, 8), 9);
    assert_false(r->has_state);
    assert_int_equal(r->tp_size, 1);
    assert_int_equal(r->page_bytes, 65536);
    assert_int_equal(r->has_layout, count == 15);

    struct pd_message again;
    pd_message_init(&again);
    pd_register_encode(&again, r);
    if (count != 12) same_message(&again, frames, count);
    pd_message_fini(&again);
}

static void register_in_every_generation(void **state)
{
    (void)state;
    register_golden(10, PD_W2);
    register_golden(12, PD_W2);
    register_golden(14, PD_W4);
    register_golden(15, PD_W4);
}

/* SGLang 0.5.10's has as many frames as ours; a flag and the staging buffer's
 * address and size are the last three. */
static void stock_register_of_15_frames(void **state)
{
    (void)state;
    static const struct pd_frame ends[2][2] = {
        {FRAME(""), FRAME("")}, {FRAME("\0\0\1\0\0\0\0\0"), FRAME("65536")}};
    for (int i = 0; i < 2; i++) {
        const struct pd_frame frames[15] = {
            FRAME("None"), FRAME("h"), FRAME("5"), FRAME("h:1"), FRAME(KV),
            FRAME(AUX9),   FRAME(""),  FRAME("0"), FRAME("1"),   FRAME("640"),
            FRAME(""),     FRAME(""),  FRAME("0"), ends[i][0],   ends[i][1]};
        struct pd_note note;
        struct why why = {0};
        assert_int_equal(pd_prefill_decode(frames, 15, &note, &why), 0);
        assert_int_equal(note.kind, PD_REGISTER);
        assert_int_equal(note.reg.generation, PD_W2); /* it knows no ABORT */
        assert_false(note.reg.has_layout);
        assert_int_equal(note.reg.page_bytes, 640);
    }
}

/* SGLang 0.5.23: layer numbers, a staging buffer (or none), DCP, item lengths
 * behind what we know; and a REQUEST whose last frame is empty. */
static void stock_messages_with_more_frames(void **state)
{
    (void)state;
    const struct pd_frame reg[20] = {
        FRAME("None"),     FRAME("h"),   FRAME("5"), FRAME("h:1"),
        FRAME(KV),         FRAME(AUX9),  FRAME(""),  FRAME("0"),
        FRAME("1"),        FRAME("640"), FRAME(""),  FRAME(""),
        FRAME("\0\0\0\0"), FRAME(""),    FRAME(""),  FRAME(""),
        FRAME("1"),        FRAME("0"),   FRAME(""),  FRAME(KV)};
    const struct pd_frame request[10] = {
        FRAME("5"), FRAME("h"), FRAME("5"), FRAME("h:1"), FRAME(PAGES),
        FRAME("1"), FRAME(""),  FRAME("1"), FRAME("0"),   FRAME("")};
    struct pd_note note;
    struct why why = {0};
    assert_int_equal(pd_prefill_decode(reg, 20, &note, &why), 0);
    assert_int_equal(note.kind, PD_REGISTER);
    assert_int_equal(note.reg.generation, PD_W4);
    assert_false(note.reg.has_layout);
    assert_int_equal(note.reg.page_bytes, 640);
    assert_int_equal(pd_prefill_decode(request, 10, &note, &why), 0);
    assert_int_equal(note.kind, PD_REQUEST);
    assert_int_equal(note.request.generation, PD_W4);
    assert_false(note.request.has_prompt);
    assert_int_equal(note.request.page_count, 3);
}

static void request_in_every_generation(void **state)
{
    (void)state;
    int32_t prompt[] = {7, 8, 9};
    uint64_t hash = pd_prompt_hash(prompt, 3);
    char check[40];
    snprintf(check, sizeof check, "3 %016llx", (unsigned long long)hash);
    struct pd_frame frames[10] = {FRAME("9223372036854775807"),
                                  FRAME("fe80::1%eth0"),
                                  FRAME("1"),
                                  FRAME("[fe80::1]:15001"),
                                  FRAME(PAGES),
                                  FRAME("11"),
                                  FRAME(""),
                                  FRAME("1"),
                                  FRAME("128"),
                                  {check, strlen(check)}};
    for (size_t count = 8; count <= 10; count++) {
        struct pd_note note;
        struct why why = {0};
        assert_int_equal(pd_prefill_decode(frames, count, &note, &why), 0);
        assert_int_equal(note.kind, PD_REQUEST);
        const struct pd_request *r = &note.request;
        assert_int_equal(r->generation, count == 8 ? PD_W2 : PD_W4);
        assert_true(r->room == INT64_MAX);
        assert_string_equal(r->from.host, "fe80::1%eth0");
        assert_int_equal(r->page_count, 3);
        assert_int_equal(pd_i32_at(r->pages, 2), 42);
        assert_int_equal(r->aux_row, 11);
        assert_false(r->dummy);
        assert_int_equal(r->required_dst, 1);
        assert_int_equal(r->prefix_tokens, count == 8 ? 0 : 128);
        assert_int_equal(r->has_prompt, count == 10);
        if (r->has_prompt) assert_true(r->prompt_hash == hash);
        struct pd_message again;
        pd_message_init(&again);
        pd_request_encode(&again, r);
        same_message(&again, frames, count);
        pd_message_fini(&again);
    }
}

static void dummy_request_is_told_by_its_empty_frames(void **state)
{
    (void)state;
    const struct pd_frame frames[] = {FRAME("5"),   FRAME("h"), FRAME("1"),
                                      FRAME("h:1"), FRAME(""),  FRAME(""),
                                      FRAME(""),    FRAME("2"), FRAME("0")};
    struct pd_note note;
    assert_int_equal(pd_prefill_decode(frames, COUNT(frames), &note, NULL), 0);
    assert_true(note.request.dummy);
    struct pd_message again;
    pd_message_init(&again);
    pd_request_encode(&again, &note.request);
    same_message(&again, frames, COUNT(frames));
    pd_message_fini(&again);
}

static void small_messages(void **state)
{
    (void)state;
    struct pd_note note;
    struct pd_message m;
    pd_message_init(&m);

    const struct pd_frame abort[] = {FRAME("ABORT"), FRAME("77"),
                                     FRAME("10.0.0.2"), FRAME("5")};
    assert_int_equal(pd_prefill_decode(abort, 4, &note, NULL), 0);
    assert_int_equal(note.kind, PD_ABORT);
    assert_int_equal(note.abort.room, 77);
    pd_abort_encode(&m, &note.abort);
    same_message(&m, abort, 4);

    const struct pd_frame ack[] = {FRAME("ABORT_ACK"), FRAME("77")};
    assert_int_equal(pd_decode_decode(ack, 2, &note, NULL), 0);
    assert_int_equal(note.kind, PD_ABORT_ACK);
    pd_abort_ack_encode(&m, note.acked_room);
    same_message(&m, ack, 2);

    const struct pd_frame status[] = {FRAME("77"), FRAME("0"), FRAME("3"),
                                      FRAME("400"), FRAME("too long")};
    assert_int_equal(pd_decode_decode(status, 5, &note, NULL), 0);
    assert_int_equal(note.kind, PD_STATUS);
    assert_false(note.status.success);
    assert_int_equal(note.status.rank, 3);
    assert_int_equal(note.status.http_status, 400);
    assert_string_equal(note.status.text, "too long");
    pd_status_encode(&m, &note.status);
    same_message(&m, status, 5);
    note.status.http_status = 0; /* a stock peer gets three frames */
    pd_status_encode(&m, &note.status);
    same_message(&m, status, 3);

    const struct pd_frame good[] = {FRAME("77"), FRAME("4"), FRAME("0")};
    assert_int_equal(pd_decode_decode(good, 3, &note, NULL), 0);
    assert_true(note.status.success);
    pd_status_encode(&m, &note.status);
    same_message(&m, good, 3);

    assert_int_equal(pd_prefill_decode(&FRAME("WATERMARK"), 1, &note, NULL), 0);
    assert_int_equal(note.kind, PD_OTHER);
    assert_int_equal(pd_decode_decode(&FRAME("AUX_DATA"), 1, &note, NULL), 0);
    assert_int_equal(note.kind, PD_OTHER);
    pd_message_fini(&m);
}

/* Each row: one frame of a good W4 REQUEST or REGISTER replaced. */
static void bad_frames_are_named(void **state)
{
    (void)state;
    const struct pd_frame request[9] = {FRAME("1"),   FRAME("h"),   FRAME("1"),
                                        FRAME("h:1"), FRAME(PAGES), FRAME("11"),
                                        FRAME(""),    FRAME("1"),   FRAME("0")};
    const struct pd_frame reg[15] = {
        FRAME("None"), FRAME("h"), FRAME("5"), FRAME("h:1"), FRAME(KV),
        FRAME(AUX9),   FRAME(""),  FRAME("0"), FRAME("1"),   FRAME("65536"),
        FRAME(""),     FRAME(""),  FRAME(""),  FRAME(""),    FRAME(LAYOUT)};
    const struct {
        bool reg;
        int frame;
        struct pd_frame with;
        const char *text;
    } rows[] = {
        {0, 0, FRAME("9223372036854775808"), "room"},
        {0, 0, FRAME("-1"), "room"},
        {0, 0, FRAME(""), "room"},
        {0, 0, FRAME("184467440737095516160"), "room"},
        {0, 1, FRAME("a/b"), "host"},
        {0, 1, FRAME(""), "host"},
        {0, 2, FRAME("0"), "port"},
        {0, 2, FRAME("65536"), "port"},
        {0, 3, FRAME("nothing"), "session"},
        {0, 3, FRAME("a b:1"), "session"},
        {0, 4, FRAME("\x01\0\0"), "pages"},
        {0, 4, FRAME("\xff\xff\xff\xff"), "pages: page 0 is -1"},
        {0, 5, FRAME("x"), "aux row"},
        {0, 6, FRAME("\x01\0\0\0\x09\0\0\0"), "state indices"},
        {0, 6, FRAME("\xff\xff\xff\xff"), "state indices"},
        {0, 7, FRAME("99999"), "required_dst_info_num"},
        {0, 8, FRAME("1e3"), "decode_prefix_len"},
        {1, 4, FRAME("1234567"), "KV buffers"},
        {1, 6, FRAME("\0\0\0\0\0"), "state buffers"},
        {1, 8, FRAME("many"), "attn_tp_size"},
        {1, 9, FRAME("99999999999"), "item_len"},
        {1, 14, FRAME("baton=1"), "a required word is missing"},
        {1, 14, FRAME("baton=2"), "bad word"},
        {1, 14, FRAME("baton=1 dtype=q8_0"), "bad word"},
        {1, 14, FRAME("baton=1 page=0"), "bad word"},
        {1, 14, FRAME("baton=1 model=12"), "bad word"},
        {1, 14, FRAME("baton=1 epoch=12"), "bad word"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct pd_frame frames[15];
        size_t count = rows[i].reg ? 15 : 9;
        memcpy(frames, rows[i].reg ? reg : request, count * sizeof *frames);
        struct pd_note note;
        assert_int_equal(pd_prefill_decode(frames, count, &note, NULL), 0);
        frames[rows[i].frame] = rows[i].with;
        struct why why = {0};
        assert_int_equal(pd_prefill_decode(frames, count, &note, &why),
                         ERR_FORMAT);
        if (!strstr(why.text, rows[i].text))
            fail_msg("row %zu: \"%s\" lacks \"%s\"", i, why.text, rows[i].text);
    }
    struct pd_note note;
    for (size_t count = 0; count < 8; count++)
        assert_int_equal(pd_prefill_decode(request, count, &note, NULL),
                         ERR_FORMAT);
    assert_int_equal(pd_prefill_decode(reg, 11, &note, NULL), ERR_FORMAT);
    const struct pd_frame status[] = {FRAME("1"), FRAME("3"), FRAME("0")};
    assert_int_equal(pd_decode_decode(status, 3, &note, NULL), ERR_FORMAT);
    assert_int_equal(pd_decode_decode(status, 2, &note, NULL), ERR_FORMAT);
}

static void nested_state_lists_are_seen(void **state)
{
    (void)state;
    struct pd_frame reg[14] = {
        FRAME("None"), FRAME("h"), FRAME("5"), FRAME("h:1"), FRAME(KV),
        FRAME(AUX9),   FRAME(""),  FRAME("0"), FRAME("1"),   FRAME("65536"),
        FRAME(""),     FRAME(""),  FRAME(""),  FRAME("")};
    reg[6] = FRAME("\x02\0\0\0\x08\0\0\0\0\0\0\0"
                   "\x01\x02\x03\x04\x05\x06\x07\x08");
    struct pd_note note;
    assert_int_equal(pd_prefill_decode(reg, 14, &note, NULL), 0);
    assert_true(note.reg.has_state);
    reg[6] = FRAME("\x01\0\0\0\0\0\0\0");
    assert_int_equal(pd_prefill_decode(reg, 14, &note, NULL), 0);
    assert_false(note.reg.has_state);
}

static void layout_text_round_trips(void **state)
{
    (void)state;
    char text[PD_LAYOUT_TEXT];
    pd_layout_encode(&layout, text);
    assert_string_equal(text, LAYOUT);
    struct pd_layout back;
    const char *more = "later=yes ";
    char longer[600];
    snprintf(longer, sizeof longer, "%s%s", more, LAYOUT);
    assert_int_equal(pd_layout_decode(longer, strlen(longer), &back, NULL), 0);
    assert_true(back.model == layout.model);
    assert_memory_equal(&back.shape, &layout.shape, sizeof back.shape);
    assert_string_equal(back.xfer, layout.xfer);
    assert_memory_equal(back.epoch, layout.epoch, 16);
}

static void layouts_that_differ_name_both_values(void **state)
{
    (void)state;
    struct pd_layout other = layout;
    other.xfer[0] = 0; /* where it is does not matter */
    assert_int_equal(pd_layout_check(&layout, &other, "prefill x:1", NULL), 0);
    struct {
        uint32_t *field;
        uint32_t value;
        const char *text;
    } rows[] = {
        {&other.shape.page_tokens, 64,
         "prefill x:1 does not fit: its page size is 64, ours is 128"},
        {&other.shape.layers, 2, "number of layers is 2, ours is 1"},
        {&other.shape.kv_heads, 3, "number of KV heads is 3, ours is 2"},
        {&other.shape.head_dim, 5, "head dimension is 5, ours is 4"},
    };
    struct why why = {0};
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint32_t was = *rows[i].field;
        *rows[i].field = rows[i].value;
        assert_int_equal(pd_layout_check(&layout, &other, "prefill x:1", &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, rows[i].text));
        *rows[i].field = was;
    }
    other.shape.type = DTYPE_F32;
    assert_int_equal(pd_layout_check(&layout, &other, "p", &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "type is f32, ours is bf16"));
    other.shape.type = DTYPE_KV8;
    assert_int_equal(pd_layout_check(&layout, &other, "p", &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "type is int8, ours is bf16"));
    other.shape.type = DTYPE_BF16;
    other.model = 1;
    assert_int_equal(pd_layout_check(&layout, &other, "p", &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "another model"));
    assert_non_null(strstr(why.text, "0000000000000001"));
    assert_non_null(strstr(why.text, "00000000deadbeef"));
}

static void aux_rows_lie_where_the_wire_says(void **state)
{
    (void)state;
    enum { ROWS = 4 };
    assert_int_equal(pd_aux_table_bytes(1), 1600);
    char *memory = mem_must(1, pd_aux_table_bytes(ROWS));
    struct pd_aux_table table;
    pd_aux_table_init(&table, memory, ROWS);
    struct pd_aux_row in = {.token = 17,
                            .cached_tokens = 256,
                            .logprob = -0.5f,
                            .logprob_id = 17,
                            .top_count = 2,
                            .top_values = {-0.5f, -1.5f},
                            .top_ids = {17, 4},
                            .room = 0x123456789abc};
    memset(memory, 0xee, pd_aux_table_bytes(ROWS));
    pd_aux_write(&table, 2, &in);
    /* item 0 row 2; item 5 begins behind 4 x 64 and 512 bytes a row */
    assert_memory_equal(memory + 2 * 64, "\x11\0\0\0\0\0\0\0", 8);
    assert_memory_equal(memory + ROWS * 64 + 2 * 64, "\0\1\0\0\0\1\0\0", 8);
    assert_memory_equal(memory + ROWS * (4 * 64 + 512) + 2 * 512,
                        "\x11\0\0\0\4\0\0\0\0", 9);
    assert_memory_equal(memory + ROWS * (1600 - 64) + 2 * 64,
                        "\xbc\x9a\x78\x56\x34\x12\0\0\0", 9);
    assert_int_equal((unsigned char)memory[64], 0xee); /* row 1 untouched */
    struct pd_aux_row out = {.top_count = 2};
    pd_aux_read(&table, 2, &out);
    assert_memory_equal(&out, &in, sizeof out);
    pd_aux_clear(&table, 2);
    pd_aux_read(&table, 2, &out);
    assert_true(out.room == 0 && out.token == 0 && out.top_ids[1] == 0);
    mem_free(memory);
}

static json_t *parse(const char *text)
{
    json_t *out;
    struct why why = {0};
    if (json_parse(&out, text, strlen(text), &why)) fail_msg("%s", why.text);
    return out;
}

static void same_json(json_t *got, const char *text)
{
    json_t *want = parse(text);
    char *shown = json_dumps(got, JSON_SORT_KEYS);
    if (!json_equal(got, want)) fail_msg("got %s, want %s", shown, text);
    free(shown);
    json_decref(want);
    json_decref(got);
}

static void rank_bodies(void **state)
{
    (void)state;
    struct pd_rank rank = {.tp = {0, 1},
                           .cp = {0, 1},
                           .dp = {0, 1},
                           .pp = {0, 1},
                           .system_dp = {0, 1},
                           .address = {"10.0.0.1", 50123},
                           .page_size = 128,
                           .kv_cache_dtype = "auto",
                           .follow_room = true};
    same_json(pd_rank_encode(&rank),
              "{\"role\":\"Prefill\",\"attn_tp_size\":1,\"attn_tp_rank\":0,"
              "\"attn_cp_size\":1,\"attn_cp_rank\":0,\"attn_dp_size\":1,"
              "\"attn_dp_rank\":0,\"pp_size\":1,\"pp_rank\":0,"
              "\"system_dp_size\":1,\"system_dp_rank\":0,"
              "\"rank_ip\":\"10.0.0.1\",\"rank_port\":50123,\"page_size\":128,"
              "\"kv_cache_dtype\":\"auto\","
              "\"load_balance_method\":\"follow_bootstrap_room\"}");

    json_t *w2 = parse("{\"role\":\"Prefill\",\"attn_tp_size\":4,"
                       "\"attn_tp_rank\":3,\"attn_dp_size\":2,"
                       "\"attn_dp_rank\":1,\"pp_size\":1,\"pp_rank\":0,"
                       "\"system_dp_size\":1,\"system_dp_rank\":0,"
                       "\"rank_ip\":\"[::1]\",\"rank_port\":7,\"more\":1}");
    struct pd_rank got;
    assert_int_equal(pd_rank_decode(w2, &got, NULL), 0);
    assert_int_equal(got.tp.rank, 3);
    assert_int_equal(pd_rank_dp_group(&got), 1);
    assert_int_equal(pd_rank_dp_size(&got), 2);
    assert_string_equal(got.address.host, "::1");
    assert_int_equal(got.page_size, 0);
    json_decref(w2);

    const char *bad[] = {
        "[]",
        "{}",
        "{\"rank_ip\":\"h\",\"rank_port\":0}",
        "{\"rank_ip\":\"h\",\"rank_port\":\"7\"}",
        "{\"rank_ip\":\"h h\",\"rank_port\":7}",
        "{\"rank_ip\":\"h\",\"rank_port\":7,\"role\":\"Decode\"}",
        "{\"rank_ip\":\"h\",\"rank_port\":7,\"attn_tp_size\":0}",
        "{\"rank_ip\":\"h\",\"rank_port\":7,\"attn_tp_rank\":1}",
        ("{\"rank_ip\":\"h\",\"rank_port\":7,\"attn_tp_size\":4096,"
         "\"pp_size\":4096}"),
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        json_t *body = parse(bad[i]);
        struct why why = {0};
        assert_int_equal(pd_rank_decode(body, &got, &why), ERR_FORMAT);
        assert_true(why.text[0]);
        json_decref(body);
    }
}

static void sizes_bodies(void **state)
{
    (void)state;
    struct pd_sizes sizes = {.generation = PD_W2};
    same_json(pd_sizes_encode(&sizes),
              "{\"prefill_attn_tp_size\":null,\"prefill_dp_size\":null,"
              "\"prefill_pp_size\":null,\"prefill_page_size\":null}");
    sizes = (struct pd_sizes){.generation = PD_W2,
                              .registered = true,
                              .tp = 4,
                              .cp = 1,
                              .dp = 2,
                              .pp = 1,
                              .page_size = 128};
    same_json(pd_sizes_encode(&sizes),
              "{\"prefill_attn_tp_size\":4,\"prefill_dp_size\":2,"
              "\"prefill_pp_size\":1,\"prefill_page_size\":128}");
    sizes.generation = PD_W4;
    sizes.follow_room = true;
    const char *w4 = "{\"attn_tp_size\":4,\"attn_cp_size\":1,\"dp_size\":2,"
                     "\"pp_size\":1,\"page_size\":128,\"kv_cache_dtype\":null,"
                     "\"follow_bootstrap_room\":true,\"target_tp_rank\":null,"
                     "\"target_tp_ranks\":null,\"target_cp_ranks\":null,"
                     "\"target_pp_ranks\":null,\"required_dst_info_num\":null,"
                     "\"required_prefill_response_num\":null}";
    same_json(pd_sizes_encode(&sizes), w4);
    json_t *body = parse(w4);
    struct pd_sizes got;
    assert_int_equal(pd_sizes_decode(body, PD_W4, &got, NULL), 0);
    assert_true(got.registered && got.tp == 4 && got.dp == 2);
    assert_int_equal(got.page_size, 128);
    assert_int_equal(pd_sizes_decode(body, PD_W2, &got, NULL), ERR_FORMAT);
    json_decref(body);
    body = parse("{\"prefill_attn_tp_size\":null,\"prefill_dp_size\":null}");
    assert_int_equal(pd_sizes_decode(body, PD_W2, &got, NULL), 0);
    assert_false(got.registered);
    json_decref(body);
    struct pd_address address;
    body = parse("{\"rank_ip\":\"10.0.0.9\",\"rank_port\":50123}");
    assert_int_equal(pd_address_decode(body, &address, NULL), 0);
    assert_string_equal(address.host, "10.0.0.9");
    same_json(pd_address_encode(&address),
              "{\"rank_ip\":\"10.0.0.9\",\"rank_port\":50123}");
    json_decref(body);
}

TESTS(T(register_in_every_generation), T(stock_register_of_15_frames),
      T(stock_messages_with_more_frames), T(request_in_every_generation),
      T(dummy_request_is_told_by_its_empty_frames), T(small_messages),
      T(bad_frames_are_named), T(nested_state_lists_are_seen),
      T(layout_text_round_trips), T(layouts_that_differ_name_both_values),
      T(aux_rows_lie_where_the_wire_says), T(rank_bodies), T(sizes_bodies))
