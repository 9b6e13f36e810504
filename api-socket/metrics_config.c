/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/metrics_config.h"

#include "api-socket/apply.h"
#include "vmm/control.h"
#include "json/fields.h"

static const struct field metrics_fields[] = {
	{ "metrics_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(metrics_config, metrics_path) },
	{ "emit_id", FIELD_BOOL, FIELD_AT(metrics_config, emit_id) },
	{ "properties", FIELD_TEXTS, FIELD_AT(metrics_config, properties),
	  .max = METRICS_PROPERTIES_MAX },
	{ NULL, .others_ignored = true },
};

int body_metrics(const json_t *body, struct metrics_config *config, struct err *err)
{
	return fields_read(body, metrics_fields, config, err);
}

int apply_metrics(struct control *control, const json_t *body, struct err *err)
{
	struct metrics_config config = { 0 };
	int rc = body_metrics(body, &config, err);

	if (rc == 0)
		rc = control_set_metrics(control, &config, err);
	metrics_config_free(&config);
	return rc;
}
