/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include "base/log.h"

void metrics_log(const char *object, const struct metric *table, const void *counters)
{
	for (; table->name; table++) {
		uint64_t value = metric_value(table, counters);

		if (value > 0)
			log_debug("%s: %s = %llu", object, table->name, (unsigned long long)value);
	}
}
