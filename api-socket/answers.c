/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/answers.h"

#include <http_parser.h>
#include <stdlib.h>
#include <string.h>

#include "api-socket/http.h"
#include "mmds/store.h"
#include "vmm/control.h"

static const char json_media_type[] = "application/json";

/* Takes the object. */
void answer_json(struct http_answer *answer, unsigned int status, json_t *body)
{
	answer->status = status;
	answer->content_type = json_media_type;
	answer->body = body ? json_dumps(body, JSON_COMPACT) : NULL;
	if (answer->body)
		answer->body_len = strlen(answer->body);
	else
		answer->status = HTTP_STATUS_INTERNAL_SERVER_ERROR;
	json_decref(body);
}

static int answer_text(struct http_answer *answer, const char *content_type, char *text, size_t len)
{
	answer->status = text ? HTTP_STATUS_OK : HTTP_STATUS_INTERNAL_SERVER_ERROR;
	answer->content_type = content_type;
	answer->body = text;
	answer->body_len = len;
	return 0;
}

int answer_metadata(struct control *control, const struct http_request *request,
		    struct http_answer *answer, struct err *err)
{
	struct mmds *mmds = NULL;
	int rc = control_metadata(control, &mmds, err);
	char *text;

	(void)request;
	if (rc < 0)
		return rc;
	text = mmds_text(mmds);
	return answer_text(answer, json_media_type, text, text ? strlen(text) : 0);
}

int answer_metrics(struct control *control, const struct http_request *request,
		   struct http_answer *answer, struct err *err)
{
	struct metrics *metrics = &control->metrics;
	char *text = malloc(METRICS_TEXT_SIZE);
	int len = 0;

	(void)err;
	if (text)
		len = request->wants_text ? metrics_prometheus(metrics, text, METRICS_TEXT_SIZE)
					  : metrics_json(metrics, text, METRICS_TEXT_SIZE);
	return answer_text(answer,
			   request->wants_text ? "text/plain; version=0.0.4" : json_media_type,
			   text, len > 0 ? (size_t)len : 0);
}
