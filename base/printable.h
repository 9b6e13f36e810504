/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text from outside, such as a guest's, made harmless for a terminal: what commands it, or is no
 * UTF-8, becomes question marks. That is U+0000 to U+001F, U+007F and U+0080 to U+009F, the last of
 * which begin commands as ESC does.
 */
#ifndef MOTE_BASE_PRINTABLE_H
#define MOTE_BASE_PRINTABLE_H

#include <stddef.h>

/* A stream that comes in pieces; zero-initialise. */
struct printable {
	unsigned char pending[4]; /* of a character that is not whole yet */
	unsigned char have;
	unsigned char need; /* bytes that are missing of it */
};

/* What printable_stream may add to a piece. */
#define PRINTABLE_MORE 4

/*
 * Text of many lines: newlines and tabs stay, carriage returns are left out. How many bytes are in
 * `out`, which has room for size + PRINTABLE_MORE, and may be `in` if nothing is pending.
 */
size_t printable_stream(struct printable *printable, const char *in, size_t size, char *out);

/* One line, in place, as many bytes as before. */
void printable_line(char *line, size_t size);

#endif
