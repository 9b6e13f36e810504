/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#define NUMBER_DIGITS 20

struct text text_in(char *buffer, size_t size)
{
	buffer[0] = '\0';
	return (struct text){ .buffer = buffer, .size = size };
}

void text_add(struct text *text, const char *string)
{
	for (; *string; string++) {
		if (text->used + 1 >= text->size) {
			text->cut = true;
			break;
		}
		text->buffer[text->used++] = *string;
	}
	text->buffer[text->used] = '\0';
}

static void add_in_base(struct text *text, uint64_t number, unsigned int base, unsigned int digits)
{
	char buffer[NUMBER_DIGITS + 1] = "";
	char *at = buffer + NUMBER_DIGITS;

	while (at > buffer && (number > 0 || digits > 0)) {
		*--at = "0123456789abcdef"[number % base];
		number /= base;
		digits -= digits > 0 ? 1 : 0;
	}
	text_add(text, at);
}

void text_add_number(struct text *text, uint64_t number)
{
	add_in_base(text, number, 10, 1);
}

void text_add_digits(struct text *text, uint64_t number, unsigned int digits)
{
	add_in_base(text, number, 10, digits);
}

void text_add_hex(struct text *text, uint64_t number)
{
	text_add(text, "0x");
	add_in_base(text, number, 16, 1);
}
