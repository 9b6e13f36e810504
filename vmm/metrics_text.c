/* SPDX-License-Identifier: Apache-2.0 */
/* Async-signal-safe. Names need no quoting: they are constants, and ids of [A-Za-z0-9_]. */
#include <time.h>

#include "base/text.h"
#include "vmm/metrics.h"

static uint64_t utc_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t field_value(const struct metrics_object *object, unsigned int field, bool line)
{
	bool difference = line && !metrics_groups[object->group].values;

	return object->now[field] - (difference ? object->last[field] : 0);
}

/* A line has what Firecracker's have, the totals what is counted. */
static bool is_told(const struct metric *metric, bool line)
{
	return line ? metric->kind != METRIC_OWN : metric_is_counted(metric);
}

static bool has_any(const struct metric *table, bool line)
{
	while (table->name && !is_told(table, line))
		table++;
	return table->name != NULL;
}

/* One object, or with `object` NULL the sum of its group. */
static void add_fields(struct text *text, const struct metrics *metrics,
		       enum metrics_group_id group, const struct metrics_object *object, bool line)
{
	const struct metric *table = metrics_groups[group].table;

	const char *before = "";

	text_add(text, "{");
	for (unsigned int field = 0; table[field].name; field++) {
		uint64_t value = 0;

		if (!is_told(&table[field], line))
			continue;

		for (unsigned int i = 0; i < metrics->object_count; i++) {
			const struct metrics_object *one = &metrics->objects[i];

			if (one->group == group && (!object || object == one))
				value += field_value(one, field, line);
		}
		text_add(text, before);
		text_add(text, "\"");
		text_add(text, table[field].name);
		text_add(text, "\":");
		if (table[field].kind == METRIC_NEVER_TIMED)
			text_add(text, "{\"min_us\":0,\"max_us\":0,\"sum_us\":0}");
		else
			text_add_number(text, value);
		before = ",";
	}
	text_add(text, "}");
}

static void add_labels(struct text *text, const struct metrics *metrics)
{
	if (metrics->config.emit_id && metrics->id) {
		text_add(text, ",\"id\":\"");
		text_add(text, metrics->id);
		text_add(text, "\"");
	}
	if (metrics->config.properties) {
		text_add(text, ",\"properties\":");
		text_add(text, metrics->config.properties);
	}
}

void metrics_text_json(struct text *text, const struct metrics *metrics, bool line)
{
	text_add(text, "{\"utc_timestamp_ms\":");
	text_add_number(text, utc_ms());
	if (line)
		add_labels(text, metrics);
	for (enum metrics_group_id group = 0; group < METRICS_GROUPS; group++) {
		if (!has_any(metrics_groups[group].table, line))
			continue;
		text_add(text, ",\"");
		text_add(text, metrics_groups[group].name);
		text_add(text, "\":");
		add_fields(text, metrics, group, NULL, line);
		for (unsigned int i = 0; i < metrics->object_count; i++) {
			const struct metrics_object *object = &metrics->objects[i];

			if (object->group != group || !metrics_groups[group].label)
				continue;
			text_add(text, ",\"");
			text_add(text, metrics_groups[group].name);
			text_add(text, "_");
			text_add(text, object->id);
			text_add(text, "\":");
			add_fields(text, metrics, group, object, line);
		}
	}
	text_add(text, "}");
}

static void add_name(struct text *text, const struct metrics_group *group,
		     const struct metric *metric)
{
	text_add(text, "mote_");
	text_add(text, group->name);
	text_add(text, "_");
	text_add(text, metric->name);
	text_add(text, group->values ? "" : "_total");
}

/* All samples of a name stand together, behind its type. */
static void add_samples(struct text *text, const struct metrics *metrics, enum metrics_group_id id,
			unsigned int field)
{
	const struct metrics_group *group = &metrics_groups[id];
	bool typed = false;

	for (unsigned int i = 0; i < metrics->object_count; i++) {
		const struct metrics_object *object = &metrics->objects[i];

		if (object->group != id)
			continue;
		if (!typed) {
			text_add(text, "# TYPE ");
			add_name(text, group, &group->table[field]);
			text_add(text, group->values ? " gauge\n" : " counter\n");
			typed = true;
		}
		add_name(text, group, &group->table[field]);
		if (group->label) {
			text_add(text, "{");
			text_add(text, group->label);
			text_add(text, "=\"");
			text_add(text, object->id);
			text_add(text, "\"}");
		}
		text_add(text, " ");
		text_add_number(text, object->now[field]);
		text_add(text, "\n");
	}
}

void metrics_text_prometheus(struct text *text, const struct metrics *metrics)
{
	for (enum metrics_group_id group = 0; group < METRICS_GROUPS; group++) {
		for (unsigned int field = 0; metrics_groups[group].table[field].name; field++) {
			if (is_told(&metrics_groups[group].table[field], false))
				add_samples(text, metrics, group, field);
		}
	}
}
