/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/printable.h"
#include "cli/cli.h"

void cli_clean(char *text)
{
	printable_line(text, strlen(text));
}

/* What begins a control character that jansson writes as it is. */
static bool is_control(const char *at)
{
	return at[0] == 0x7f || ((unsigned char)at[0] == 0xc2 && (unsigned char)at[1] < 0xa0);
}

char *cli_json_text(const json_t *json, size_t flags)
{
	static const char digits[] = "0123456789abcdef";
	char *text = json_dumps(json, flags), *whole, *to;
	size_t more = 0;

	for (const char *at = text; at && *at; at++)
		more += is_control(at) ? sizeof("\\u0000") : 0;
	if (more == 0)
		return text;
	whole = to = malloc(strlen(text) + more + 1);
	for (const char *at = text; whole && *at; at++) {
		if (is_control(at)) {
			const unsigned char code = (unsigned char)(at[0] == 0x7f ? at[0] : *++at);

			to = stpcpy(to, "\\u00");
			*to++ = digits[code >> 4];
			*to++ = digits[code & 15];
		} else {
			*to++ = *at;
		}
	}
	if (whole)
		*to = '\0';
	free(text);
	return whole;
}
