/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/body.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "json/fields.h"

static int read_body(const struct body *body, const struct control *control, const json_t *object,
		     void *config, struct err *err)
{
	int rc;

	if (body->before) {
		memcpy(config, body->before(control), body->size);
		rc = fields_read_some(object, body->fields, config, err);
	} else {
		rc = fields_read(object, body->fields, config, err);
	}
	if (rc == 0 && body->nothing && !fields_given(object, body->fields, !body->before))
		return err_set(err, EINVAL, "%s", body->nothing);
	return rc;
}

int body_apply(const struct body *body, struct control *control, const json_t *object,
	       struct err *err)
{
	void *config;
	int rc;

	if (body->take)
		return body->take(control, object, err);
	config = calloc(1, body->size);
	if (!config)
		return err_sys(err, ENOMEM, "body");
	rc = read_body(body, control, object, config, err);
	if (rc == 0)
		rc = body->set(control, config, err);
	fields_free(body->fields, config);
	free(config);
	return rc;
}
