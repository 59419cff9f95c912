/* text/unicode.h - what kind of character a code point is, normal forms, case.
 *
 * Classes follow Unicode 16, as the regex engine inside Hugging Face's
 * tokenizers does; normal forms follow the older Unicode of its normalizer,
 * which takes marks assigned since as plain characters. All were measured, code
 * point by code point, against tokenizers 0.23.3
 * (tools/golden/tok_unicode.py). */
#ifndef BATON_TEXT_UNICODE_H
#define BATON_TEXT_UNICODE_H

#include "base/buf.h"
#include "text/utf8.h"

#include <stdbool.h>

enum {
    UNICODE_LETTER = 1,        /* \p{L} */
    UNICODE_NUMBER = 2,        /* \p{N} */
    UNICODE_MARK = 4,          /* \p{M} */
    UNICODE_PUNCT = 8,         /* \p{P} */
    UNICODE_SYMBOL = 16,       /* \p{S} */
    UNICODE_SPACE = 32,        /* \s, the property White_Space */
    UNICODE_NFC_CHECK = 64,    /* NFC may change it or join it to the left */
    UNICODE_NFC_UNKNOWN = 128, /* newer than the normalizer's Unicode */
};

/* Fills the tables; call once before the rest, from any thread. */
void unicode_init(void);

/* The inside of the next two: blocks of 256 code points, and a copy of the
 * first ones, which take two bytes at most. */
enum { UNICODE_LOW = 0x800, UNICODE_BLOCK = 256 };
extern unsigned char unicode_low[UNICODE_LOW];
extern unsigned char unicode_blocks[][UNICODE_BLOCK];
extern uint16_t unicode_block_of[];

/* The class of any scalar value. */
static inline unsigned unicode_class_wide(uint32_t cp)
{
    return unicode_blocks[unicode_block_of[cp / UNICODE_BLOCK]]
                         [cp % UNICODE_BLOCK];
}

/* The class of the character at s in valid text, and its length. */
static inline unsigned unicode_class(const char *s, size_t *len)
{
    unsigned char first = (unsigned char)s[0];
    if (first < 0x80) {
        *len = 1;
        return unicode_low[first];
    }
    if (first < 0xe0) {
        *len = 2;
        return unicode_low[(first & 31) << 6 | (s[1] & 63)];
    }
    return unicode_class_wide(utf8_get(s, len));
}

/* Rust's char::is_numeric, which the Digits splitter asks. */
bool unicode_is_numeric(uint32_t cp);
/* \w of Rust's regex, which whole-word added tokens ask. */
bool unicode_is_word(uint32_t cp);
/* What the Punctuation splitter takes for punctuation. */
bool unicode_is_punct(uint32_t cp);

/* Bytes at the start of valid text that are surely in NFC. */
size_t unicode_nfc_prefix(const char *s, size_t n);

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
/* Appends a normal form of valid text; linear in its length. */
void unicode_normalize(struct buf *out, enum unicode_form form, const char *s,
                       size_t n);
/* Appends valid text in lower case, character by character. */
void unicode_lower(struct buf *out, const char *s, size_t n);

#endif
