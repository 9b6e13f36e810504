/* SPDX-License-Identifier: Apache-2.0 */
#include "base/printable.h"

#include <stdbool.h>
#include <string.h>

/* Bytes that follow the first one of a character; 4 if it begins none. */
static unsigned char follow(unsigned char first)
{
	if (first < 0x80)
		return 0;
	if (first >= 0xc2 && first < 0xe0)
		return 1;
	if (first >= 0xe0 && first < 0xf0)
		return 2;
	return first >= 0xf0 && first < 0xf5 ? 3 : 4;
}

/* Whether a whole character of several bytes is a good one: no C1 control, and as short as it can
 * be. */
static bool is_good(const unsigned char *bytes)
{
	switch (bytes[0]) {
	case 0xc2:
		return bytes[1] >= 0xa0;
	case 0xe0:
		return bytes[1] >= 0xa0;
	case 0xed:
		return bytes[1] < 0xa0; /* surrogates */
	case 0xf0:
		return bytes[1] >= 0x90;
	case 0xf4:
		return bytes[1] < 0x90; /* past U+10FFFF */
	default:
		return true;
	}
}

static size_t flush(struct printable *printable, char *out)
{
	const size_t have = printable->have;

	if (printable->need == 0 && is_good(printable->pending))
		memcpy(out, printable->pending, have);
	else
		memset(out, '?', have);
	printable->have = printable->need = 0;
	return have;
}

static size_t add(struct printable *printable, unsigned char byte, bool lines, char *out)
{
	size_t used = 0;

	if (printable->need > 0 && (byte & 0xc0) == 0x80) {
		printable->pending[printable->have++] = byte;
		return --printable->need == 0 ? flush(printable, out) : 0;
	}
	used = flush(printable, out);
	if (byte >= 0x80 && follow(byte) < 4) {
		printable->pending[0] = byte;
		printable->have = 1;
		printable->need = follow(byte);
	} else if (!lines || byte != '\r') {
		const bool stays =
			byte < 0x7f && (byte >= ' ' || (lines && (byte == '\n' || byte == '\t')));

		out[used++] = stays ? (char)byte : '?';
	}
	return used;
}

size_t printable_stream(struct printable *printable, const char *in, size_t size, char *out)
{
	size_t used = 0;

	for (size_t i = 0; i < size; i++)
		used += add(printable, (unsigned char)in[i], true, out + used);
	return used;
}

void printable_line(char *line, size_t size)
{
	struct printable printable = { .have = 0 };
	size_t used = 0;

	for (size_t i = 0; i < size; i++)
		used += add(&printable, (unsigned char)line[i], false, line + used);
	/* What is not whole at the end. */
	flush(&printable, line + used);
}
