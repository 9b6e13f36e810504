/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A text that was cut within a UTF-8 character loses all of it: JSON cannot carry half a one. */
static void drop_half_character(char *text)
{
	size_t end = strlen(text), at = end;
	size_t size;

	while (at > 0 && end - at < 3 && ((uint8_t)text[at - 1] & 0xc0) == 0x80)
		at--;
	if (at == 0 || (uint8_t)text[at - 1] < 0xc0)
		return;
	at--;
	size = (uint8_t)text[at] >= 0xf0 ? 4 : (uint8_t)text[at] >= 0xe0 ? 3 : 2;
	if (end - at < size)
		text[at] = '\0';
}

__attribute__((format(printf, 2, 0))) static void format(struct err *err, const char *fmt,
							 va_list args)
{
	int size;

	if (!err)
		return;
	size = vsnprintf(err->text, sizeof(err->text), fmt, args);
	if (size < 0)
		err->text[0] = '\0';
	else if (size >= (int)sizeof(err->text))
		drop_half_character(err->text);
}

int err_set(struct err *err, int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	format(err, fmt, args);
	va_end(args);
	return -errnum;
}

int err_sys(struct err *err, int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	format(err, fmt, args);
	va_end(args);
	if (err) {
		const char *cause = strerrordesc_np(errnum);
		size_t used = strlen(err->text);

		snprintf(err->text + used, sizeof(err->text) - used, ": %s",
			 cause ? cause : "unknown error");
	}
	return -errnum;
}
