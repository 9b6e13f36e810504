/* SPDX-License-Identifier: Apache-2.0 */
#include "host/values.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/array.h"

int value_number(const char *text, int *number)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < 1 || value > INT_MAX)
		return -EINVAL;
	*number = (int)value;
	return 0;
}

int value_mib(const char *text, int *mib)
{
	static const char *const units[] = { "", "M", "MB", "MiB", "G", "GB", "GiB" };
	char *end;
	long value = strtol(text, &end, 10);

	if (!isdigit((unsigned char)text[0]) || value < 1)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		long factor = units[i][0] == 'G' ? 1024 : 1;

		if (strcasecmp(end, units[i]) != 0)
			continue;
		if (value > INT_MAX / factor)
			return -EINVAL;
		*mib = (int)(value * factor);
		return 0;
	}
	return -EINVAL;
}

int value_duration(const char *text, int64_t *ms)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = { { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
	char *end;
	double value = strtod(text, &end);

	/* No sign, no infinity, no hexadecimal. */
	if (!isdigit((unsigned char)text[0]) || strspn(text, "0123456789.") != (size_t)(end - text))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].name) != 0)
			continue;
		value = value * units[i].ms;
		if (value < 1 || value > 1e12)
			return -EINVAL;
		*ms = (int64_t)(value + 0.5);
		return 0;
	}
	return -EINVAL;
}
