#include "text/lexicon.h"
#include "base/mem.h"
#include "text/tag_index.h"
#include "text/utf8.h"
#include "text/word_key.h"

#include <string.h>

struct token {
    uint32_t at, len : 31, found : 1;
};

struct lexicon {
    enum lexicon_kind kind;
    struct token *tokens;
    char *arena;
    struct tag_index words; /* of the tokens that are found */
    size_t token_count, arena_len, arena_cap;
    int32_t byte_id[256];
};

/* GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes
 * in order for U+0100 and up. */
static bool printable(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

static int alphabet_byte(uint32_t cp)
{
    static const unsigned char other[68] = {
        0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,
        14,  15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,  26,  27,
        28,  29,  30,  31,  32,  127, 128, 129, 130, 131, 132, 133, 134, 135,
        136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149,
        150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 173};
    if (cp < 256) return printable(cp) ? (int)cp : -1;
    return cp < 256 + sizeof other ? other[cp - 256] : -1;
}

/* Spelling to bytes in out (n at most). False: it leaves the alphabet. */
static bool unspell(const char *s, size_t n, char *out, size_t *out_len)
{
    size_t count = 0, len;
    for (size_t i = 0; i < n; i += len) {
        int byte = alphabet_byte(utf8_get(s + i, &len));
        if (byte < 0) return false;
        out[count++] = (char)byte;
    }
    *out_len = count;
    return true;
}

static uint64_t hash_of(const char *s, size_t n)
{
    return word_key_hash(word_key(s, n, s + n));
}

static int32_t find(const struct lexicon *l, uint64_t hash, const char *s,
                    size_t n)
{
    struct tag_walk w = tag_walk(&l->words, hash);
    for (uint32_t id; tag_next(&l->words, &w, &id);) {
        const struct token *token = &l->tokens[id];
        if (token->len == n && !memcmp(l->arena + token->at, s, n))
            return (int32_t)id;
    }
    return -1;
}

int32_t lexicon_find(const struct lexicon *l, const char *s, size_t n)
{
    return n ? find(l, hash_of(s, n), s, n) : -1;
}

int lexicon_create(struct lexicon **out, enum lexicon_kind kind, size_t tokens,
                   size_t text_bytes, struct why *why)
{
    struct lexicon *l = mem_must(1, sizeof *l);
    l->kind = kind;
    l->token_count = tokens;
    l->arena_cap = text_bytes;
    memset(l->byte_id, -1, sizeof l->byte_id);
    if (tag_index_init(&l->words, tokens) && text_bytes <= INT32_MAX) {
        l->tokens = mem_try(tokens, sizeof *l->tokens, 0);
        l->arena = mem_try(text_bytes, 1, 0);
    }
    if (!l->tokens || !l->arena) {
        lexicon_destroy(l);
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", tokens);
    }
    *out = l;
    return 0;
}

void lexicon_destroy(struct lexicon *l)
{
    if (!l) return;
    mem_free(l->tokens);
    mem_free(l->arena);
    tag_index_fini(&l->words);
    mem_free(l);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int lexicon_byte_spelled(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>') return -1;
    int high = hex(s[3]), low = hex(s[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* The byte that has this token for its own, or -1. */
static int own_byte(const struct lexicon *l, const char *bytes, size_t n)
{
    if (l->kind == LEXICON_BYTES) return n == 1 ? (unsigned char)bytes[0] : -1;
    int byte = lexicon_byte_spelled(bytes, n);
    bool small = n == 6 && (bytes[3] >= 'a' || bytes[4] >= 'a');
    return small ? -1 : byte; /* text becomes "<0x0A>", never "<0x0a>" */
}

int lexicon_add(struct lexicon *l, uint32_t id, const char *spelling, size_t n,
                bool found, struct why *why)
{
    if (id >= l->token_count)
        return err_set(why, ERR_FORMAT, "token id %u of %zu", id,
                       l->token_count);
    if (utf8_valid(spelling, n) != n)
        return err_set(why, ERR_FORMAT, "token %u is not UTF-8", id);
    struct token *token = &l->tokens[id];
    if (token->len) return err_set(why, ERR_FORMAT, "two tokens of id %u", id);
    if (n == 0) return 0;
    if (n > l->arena_cap - l->arena_len)
        return err_set(why, ERR_FORMAT, "token %u: longer than the file", id);
    char *bytes = l->arena + l->arena_len;
    size_t len = n;
    bool known = l->kind == LEXICON_TEXT || unspell(spelling, n, bytes, &len);
    if (!known || l->kind == LEXICON_TEXT) {
        memcpy(bytes, spelling, n);
        len = n;
    }
    if (known && found) {
        uint64_t hash = hash_of(bytes, len);
        if (find(l, hash, bytes, len) >= 0)
            return err_set(why, ERR_FORMAT, "token %u: two tokens are \"%.*s\"",
                           id, (int)n, spelling);
        int byte = own_byte(l, bytes, len);
        if (byte >= 0) l->byte_id[byte] = (int32_t)id;
        tag_index_add(&l->words, hash, id);
    }
    *token =
        (struct token){(uint32_t)l->arena_len, len & INT32_MAX, found && known};
    l->arena_len += len;
    return 0;
}

enum { SPELLED_BYTES = 4096 };

int32_t lexicon_find_spelled(const struct lexicon *l, const char *spelling,
                             size_t n)
{
    char bytes[SPELLED_BYTES];
    size_t len;
    if (l->kind == LEXICON_TEXT) return lexicon_find(l, spelling, n);
    if (n > sizeof bytes || utf8_valid(spelling, n) != n ||
        !unspell(spelling, n, bytes, &len))
        return -1;
    return lexicon_find(l, bytes, len);
}

bool lexicon_is(const struct lexicon *l, int32_t id, const char *spelling,
                size_t n)
{
    char bytes[SPELLED_BYTES];
    size_t len, have;
    const char *token = lexicon_bytes(l, id, &have);
    if (!token || utf8_valid(spelling, n) != n) return false;
    if (l->kind == LEXICON_BYTES && n <= sizeof bytes &&
        unspell(spelling, n, bytes, &len))
        return len == have && !memcmp(bytes, token, len);
    return n == have && !memcmp(spelling, token, n);
}

bool lexicon_covers_utf8(const struct lexicon *l)
{
    for (int byte = 0; byte < 0xf5; byte++)
        if (l->byte_id[byte] < 0 && byte != 0xc0 && byte != 0xc1) return false;
    return true;
}

enum lexicon_kind lexicon_kind(const struct lexicon *l)
{
    return l->kind;
}

size_t lexicon_count(const struct lexicon *l)
{
    return l->token_count;
}

bool lexicon_has(const struct lexicon *l, int32_t id)
{
    return id >= 0 && (size_t)id < l->token_count && l->tokens[id].len;
}

bool lexicon_found(const struct lexicon *l, int32_t id)
{
    return lexicon_has(l, id) && l->tokens[id].found;
}

const char *lexicon_bytes(const struct lexicon *l, int32_t id, size_t *len)
{
    *len = 0;
    if (!lexicon_has(l, id)) return NULL;
    *len = l->tokens[id].len;
    return l->arena + l->tokens[id].at;
}

int32_t lexicon_byte(const struct lexicon *l, unsigned char byte)
{
    return l->byte_id[byte];
}
