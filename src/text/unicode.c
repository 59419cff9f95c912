/* A two-level table of class bits, filled from utf8proc (Unicode 15.0) and from
 * the short lists below of what is newer. Planes 4 to 13, 15 and 16 hold
 * nothing of interest and share block 0. */
#include "text/unicode.h"

#include <pthread.h>
#include <utf8proc.h>

struct range {
    uint32_t from, to;
};

/* Assigned in Unicode 15.1 and 16.0. */
static const struct range new_letters[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},
    {0x105c0, 0x105f3}, {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85},
    {0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7},
    {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0},
    {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c},
    {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0},
    {0x2ebf0, 0x2ee5d}};
static const struct range new_numbers[] = {
    {0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
    {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
    {0x1e5f1, 0x1e5fa}};
static const struct range new_marks[] = {
    {0x897, 0x897},     {0x10d69, 0x10d6d}, {0x10efc, 0x10efc},
    {0x113b8, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5},
    {0x113c7, 0x113ca}, {0x113cc, 0x113d0}, {0x113d2, 0x113d2},
    {0x113e1, 0x113e2}, {0x11f5a, 0x11f5a}, {0x1611e, 0x1612f},
    {0x1e5ee, 0x1e5ef}};
static const struct range new_puncts[] = {
    {0x1b4e, 0x1b4f},   {0x1b7f, 0x1b7f},   {0x10d6e, 0x10d6e},
    {0x113d4, 0x113d5}, {0x113d7, 0x113d8}, {0x11be1, 0x11be1},
    {0x16d6d, 0x16d6f}, {0x1e5ff, 0x1e5ff}};
static const struct range new_symbols[] = {
    {0x2427, 0x2429},   {0x2ffc, 0x2fff},   {0x31e4, 0x31e5},
    {0x31ef, 0x31ef},   {0x10d8e, 0x10d8f}, {0x1cc00, 0x1ccef},
    {0x1cd00, 0x1ceb3}, {0x1f8b2, 0x1f8bb}, {0x1f8c0, 0x1f8c1},
    {0x1fa89, 0x1fa89}, {0x1fa8f, 0x1fa8f}, {0x1fabe, 0x1fabe},
    {0x1fac6, 0x1fac6}, {0x1fadc, 0x1fadc}, {0x1fadf, 0x1fadf},
    {0x1fae9, 0x1fae9}, {0x1fbcb, 0x1fbef}};

/* Marks, and U+11930 which would compose, that are newer than the normalizer:
 * to it they neither move nor join. */
static const struct range nfc_unknown[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},
    {0x9fe, 0x9fe},     {0xc3c, 0xc3c},     {0xd3b, 0xd3c},
    {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},
    {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x10d24, 0x10d27},
    {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0},
    {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
    {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef}};

static const struct range white_space[] = {
    {0x9, 0xd},       {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},
    {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
    {0x205f, 0x205f}, {0x3000, 0x3000}};

enum {
    BLOCK = UNICODE_BLOCK,
    BLOCKS = 0x110000 / BLOCK,
    FILLED = 6 * 65536 / BLOCK
};
unsigned char unicode_blocks[FILLED][BLOCK];
uint16_t unicode_block_of[BLOCKS];
unsigned char unicode_low[UNICODE_LOW];

static unsigned category_class(uint32_t cp)
{
    switch (utf8proc_category_string((utf8proc_int32_t)cp)[0]) {
    case 'L': return UNICODE_LETTER;
    case 'N': return UNICODE_NUMBER;
    case 'M': return UNICODE_MARK;
    case 'P': return UNICODE_PUNCT;
    case 'S': return UNICODE_SYMBOL;
    default: return 0;
    }
}

#define NFC_OPTIONS ((utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE))

enum {
    HANGUL_V = 0x1161,
    HANGUL_V_LAST = 0x1175,
    HANGUL_T = 0x11a8,
    HANGUL_T_LAST = 0x11c2,
    SECOND_HALF = 0x8000, /* comb_index from here: composes with its left */
};

static bool nfc_changes(uint32_t cp)
{
    utf8proc_int32_t cps[32];
    int bound = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, cps, 32,
                                                 NFC_OPTIONS, &bound);
    n = utf8proc_normalize_utf32(cps, n, NFC_OPTIONS);
    return n != 1 || cps[0] != (utf8proc_int32_t)cp;
}

static bool nfc_check(uint32_t cp)
{
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    if (p->combining_class) return true;
    if (p->comb_index >= SECOND_HALF && p->comb_index != UINT16_MAX)
        return true;
    if (cp >= HANGUL_V && cp <= HANGUL_V_LAST) return true;
    if (cp >= HANGUL_T && cp <= HANGUL_T_LAST) return true;
    return p->decomp_seqindex != UINT16_MAX && !p->decomp_type &&
           nfc_changes(cp);
}

static unsigned char *slot(uint32_t cp)
{
    return &unicode_blocks[unicode_block_of[cp / BLOCK]][cp % BLOCK];
}

#define FOR_RANGES(list, cp)                                      \
    for (size_t i_ = 0; i_ < sizeof(list) / sizeof *(list); i_++) \
        for (uint32_t cp = (list)[i_].from; cp <= (list)[i_].to; cp++)

static void fill(void)
{
    unsigned used = 1;
    for (uint32_t b = 0; b < BLOCKS; b++) {
        uint32_t plane = b * BLOCK >> 16;
        if (plane > 3 && plane != 14) continue;
        unicode_block_of[b] = (uint16_t)used++;
        for (uint32_t cp = b * BLOCK; cp < (b + 1) * BLOCK; cp++)
            *slot(cp) =
                (unsigned char)(category_class(cp) |
                                (nfc_check(cp) ? UNICODE_NFC_CHECK : 0));
    }
    FOR_RANGES(new_letters, cp) * slot(cp) = UNICODE_LETTER;
    FOR_RANGES(new_numbers, cp) * slot(cp) = UNICODE_NUMBER;
    FOR_RANGES(new_marks, cp) * slot(cp) = UNICODE_MARK;
    FOR_RANGES(new_puncts, cp) * slot(cp) = UNICODE_PUNCT;
    FOR_RANGES(new_symbols, cp) * slot(cp) = UNICODE_SYMBOL;
    FOR_RANGES(white_space, cp) * slot(cp) |= UNICODE_SPACE;
    FOR_RANGES(nfc_unknown, cp)
    {
        *slot(cp) &= (unsigned char)~UNICODE_NFC_CHECK;
        *slot(cp) |= UNICODE_NFC_UNKNOWN;
    }
    for (uint32_t cp = 0; cp < UNICODE_LOW; cp++)
        unicode_low[cp] = *slot(cp);
}

void unicode_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
}

bool unicode_is_numeric(uint32_t cp)
{
    /* The two ranges are Unicode 17, which Rust has and the regex has not. */
    return (unicode_class_wide(cp) & UNICODE_NUMBER) ||
           (cp >= 0x11de0 && cp <= 0x11de9) || (cp >= 0x16ff4 && cp <= 0x16ff6);
}

/* Punctuation since, or still, unknown to the crate that Hugging Face asks. */
static const struct range punct_unknown[] = {
    {0x61d, 0x61d},     {0x9fd, 0x9fd},     {0xa76, 0xa76},
    {0xc77, 0xc77},     {0xc84, 0xc84},     {0x1b7d, 0x1b7e},
    {0x2e43, 0x2e4f},   {0x2e52, 0x2e5d},   {0x10ead, 0x10ead},
    {0x10f55, 0x10f59}, {0x10f86, 0x10f89}, {0x1144b, 0x1144f},
    {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c},
    {0x116b9, 0x116b9}, {0x1183b, 0x1183b}, {0x11944, 0x11946},
    {0x119e2, 0x119e2}, {0x11a3f, 0x11a46}, {0x11a9a, 0x11a9c},
    {0x11a9e, 0x11aa2}, {0x11b00, 0x11b09}, {0x11c41, 0x11c45},
    {0x11c70, 0x11c71}, {0x11ef7, 0x11ef8}, {0x11f43, 0x11f4f},
    {0x11fff, 0x11fff}, {0x12ff1, 0x12ff2}, {0x16e97, 0x16e9a},
    {0x16fe2, 0x16fe2}, {0x1e95e, 0x1e95f}};

static bool in_ranges(const struct range *ranges, size_t count, uint32_t cp)
{
    for (size_t i = 0; i < count; i++)
        if (cp >= ranges[i].from && cp <= ranges[i].to) return true;
    return false;
}

bool unicode_is_punct(uint32_t cp)
{
    if (cp < 0x80) return unicode_low[cp] & (UNICODE_PUNCT | UNICODE_SYMBOL);
    if (cp == 0x166d || cp == 0x111c9) return true;
    if (!(unicode_class_wide(cp) & UNICODE_PUNCT)) return false;
    return utf8proc_category_string((utf8proc_int32_t)cp)[0] == 'P' &&
           !in_ranges(punct_unknown,
                      sizeof punct_unknown / sizeof *punct_unknown, cp);
}

bool unicode_is_word(uint32_t cp)
{
    /* Alphabetic symbols, joiners, connectors: besides L, M, Nd and Nl. */
    static const struct range more[] = {{0x200c, 0x200d},
                                        {0x24b6, 0x24e9},
                                        {0x1f130, 0x1f149},
                                        {0x1f150, 0x1f169},
                                        {0x1f170, 0x1f189}};
    if (in_ranges(more, sizeof more / sizeof *more, cp)) return true;
    unsigned c = unicode_class_wide(cp);
    if (c & (UNICODE_LETTER | UNICODE_MARK)) return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)cp);
    if (c & UNICODE_NUMBER) return category != UTF8PROC_CATEGORY_NO;
    return category == UTF8PROC_CATEGORY_PC;
}
