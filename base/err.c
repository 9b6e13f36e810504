/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void format(struct err *err, const char *fmt, va_list args)
{
	if (err && vsnprintf(err->text, sizeof(err->text), fmt, args) < 0)
		err->text[0] = '\0';
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
