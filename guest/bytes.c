/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/bytes.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* With its padding; no byte that comes out is 0. */
static json_t *decode(const char *text, size_t length)
{
	const size_t padding =
		length > 1 && text[length - 1] == '=' ? 1 + (text[length - 2] == '=') : 0;
	uint32_t bits = 0;
	size_t used = 0;
	json_t *string;
	char *bytes;

	if (length % 4 != 0)
		return NULL;
	bytes = malloc(length + 1);
	for (size_t i = 0; bytes && i < length - padding; i++) {
		const int value = digit(text[i]);

		bits = bits << 6 | (uint32_t)value;
		/* After each digit but the first of four a byte is whole. */
		if (i % 4 > 0)
			bytes[used++] = (char)(bits >> (6 - 2 * (i % 4)));
		if (value < 0 || (i % 4 > 0 && bytes[used - 1] == '\0')) {
			free(bytes);
			return NULL;
		}
	}
	string = bytes ? json_stringn_nocheck(bytes, used) : NULL;
	free(bytes);
	return string;
}

json_t *bytes_decode(const json_t *value)
{
	const json_t *text = json_object_get(value, "base64");

	if (json_is_string(value))
		return json_copy((json_t *)(uintptr_t)value);
	if (json_object_size(value) != 1 || !json_is_string(text))
		return NULL;
	return decode(json_string_value(text), json_string_length(text));
}

int bytes_decode_list(json_t *list)
{
	size_t i;
	json_t *value;

	if (!json_is_array(list))
		return -1;
	json_array_foreach (list, i, value) {
		if (!json_is_string(value) && json_array_set_new(list, i, bytes_decode(value)) < 0)
			return -1;
	}
	return 0;
}
