/* text/charsmap.h - the table by which SentencePiece replaces characters before
 * it looks for tokens (precompiled_charsmap: NFKC, case folding and more), and
 * the two ways it is applied: SentencePiece's own and that of Hugging Face's
 * normalizer Precompiled, which goes by grapheme clusters.
 *
 * The table: the size of a trie as a little-endian u32; the trie's units, u32
 * each, a double array as Darts-clone packs it; texts with a NUL behind each.
 * A key's value is the offset of its text. Files are not trusted: a walk leaves
 * neither the trie nor the texts, and gives whole characters for whole ones.
 * Immutable once made; any thread reads. */
#ifndef BATON_TEXT_CHARSMAP_H
#define BATON_TEXT_CHARSMAP_H

#include "base/buf.h"
#include "base/err.h"
#include "text/added.h"

struct charsmap;

/* What one key may become; the longest of Unicode's own takes 36. */
enum { CHARSMAP_MAX_TEXT = 1024 };

/* Copies. ERR_FORMAT: the trie does not fit, or a text is not UTF-8.
 * ERR_UNSUPPORTED: a text too long. ERR_NOMEM. */
int charsmap_create(struct charsmap **out, const char *table, size_t n,
                    struct why *why);
/* The same from base64, as tokenizer.json has it. */
int charsmap_create_base64(struct charsmap **out, const char *text, size_t n,
                           struct why *why);
void charsmap_destroy(struct charsmap *m); /* NULL is fine */

/* Appends what Precompiled makes of valid text: a grapheme cluster of less than
 * 6 bytes is replaced as one when some key starts it, by the text of the
 * shortest such key; else each of its characters by itself. */
void charsmap_precompiled(const struct charsmap *m, struct buf *out,
                          const char *s, size_t n);

/* SentencePiece's whole normalizer. */
struct charsmap_rules {
    const struct charsmap *map;  /* NULL: characters stay             */
    const struct added *symbols; /* found in the text, never replaced;
                                  * NULL: none                        */
    bool squeeze; /* remove_extra_whitespaces: no spaces at the ends, one
                   * between words                                    */
};
/* Appends it of valid text: at each place the longest symbol or else the
 * longest key, spaces as U+2581. prefix: one more in front, if the text is not
 * empty. out must be empty. */
void charsmap_sentencepiece(const struct charsmap_rules *rules, bool prefix,
                            struct buf *out, const char *s, size_t n);

#endif
