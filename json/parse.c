/* SPDX-License-Identifier: Apache-2.0 */
#include "json/parse.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/random.h>

#include "base/err.h"

json_t *parse_object(const char *text, size_t len, const char *what, struct err *err)
{
	static bool seeded;
	size_t seed = 0;
	json_error_t error;
	json_t *object;

	/* By itself jansson would open /dev/urandom, which a jailed process does not have. */
	if (!seeded && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed))
		json_object_seed(seed | 1);
	seeded = true;
	object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

	if (!object) {
		err_set(err, EINVAL, "%s: line %d, column %d: %s", what, error.line, error.column,
			error.text);
		return NULL;
	}
	if (!json_is_object(object)) {
		json_decref(object);
		err_set(err, EINVAL, "%s: a JSON object is expected", what);
		return NULL;
	}
	return object;
}
