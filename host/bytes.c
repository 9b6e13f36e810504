/* SPDX-License-Identifier: Apache-2.0 */
#include "host/bytes.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static json_t *encode(const char *text)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const size_t length = strlen(text);
	char *out = malloc((length + 2) / 3 * 4 + 1), *at = out;
	json_t *json;

	for (size_t i = 0; out && i < length; i += 3) {
		const size_t left = length - i;
		uint32_t bits = (uint32_t)(uint8_t)text[i] << 16;

		bits |= left > 1 ? (uint32_t)(uint8_t)text[i + 1] << 8 : 0;
		bits |= left > 2 ? (uint32_t)(uint8_t)text[i + 2] : 0;
		*at++ = digits[bits >> 18];
		*at++ = digits[bits >> 12 & 63];
		*at++ = left > 1 ? digits[bits >> 6 & 63] : '=';
		*at++ = left > 2 ? digits[bits & 63] : '=';
	}
	json = out ? json_pack("{s:s%}", "base64", out, (size_t)(at - out)) : NULL;
	free(out);
	return json;
}

json_t *bytes_encode(const char *text)
{
	json_t *string = json_string(text);

	return string ? string : encode(text);
}

static json_t *readable(const char *text)
{
	json_t *string = json_string(text);
	char *copy = string ? NULL : strdup(text);

	if (string || !copy)
		return string;
	for (char *at = copy; *at; at++) {
		if (*at & 0x80)
			*at = '?';
	}
	string = json_string(copy);
	free(copy);
	return string;
}

static json_t *map(const json_t *list, json_t *(*convert)(const char *text))
{
	json_t *out = json_array(), *value;
	size_t i;

	json_array_foreach (list, i, value)
		json_array_append_new(out, convert(json_string_value(value)));
	return out;
}

json_t *bytes_encode_list(const json_t *list)
{
	return map(list, bytes_encode);
}

json_t *bytes_readable_list(const json_t *list)
{
	return map(list, readable);
}
