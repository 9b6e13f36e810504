/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/api.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api-socket/answers.h"
#include "api-socket/body.h"
#include "api-socket/describe.h"
#include "api-socket/resources.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/record.h"
#include "vmm/control.h"
#include "json/parse.h"

/*
 * How long a slow reader may take for the last that the streams have to say; and when the VM's
 * owner has ended it, who does not want to wait.
 */
#define FINISH_TIME_MS 1000
#define FINISH_STOPPED_MS 100

static unsigned int fault_status(int rc)
{
	return rc == -EMSGSIZE ? HTTP_STATUS_PAYLOAD_TOO_LARGE : HTTP_STATUS_BAD_REQUEST;
}

/* A path of the client's need not be UTF-8, and JSON must. */
static void answer_fault(struct http_answer *answer, int rc, const struct err *err)
{
	json_t *body = json_pack("{s:s}", "fault_message", err->text);

	if (!body) {
		char text[ERR_TEXT_SIZE];
		size_t i;

		for (i = 0; i < sizeof(text) - 1 && err->text[i]; i++)
			text[i] = (unsigned char)err->text[i] < 0x80 ? err->text[i] : '?';
		text[i] = '\0';
		body = json_pack("{s:s}", "fault_message", text);
	}
	answer_json(answer, fault_status(rc), body);
}

static int check_id(const struct meaning *meaning, const json_t *body, struct err *err)
{
	const char *field = meaning->resource->id_field;
	const char *own = field ? json_string_value(json_object_get(body, field)) : NULL;

	/* What is wrong with the field itself is the parser's to say. */
	if (!own || strcmp(own, meaning->id) == 0)
		return 0;
	return err_set(err, EINVAL, "%s: \"%s\" is not the path's \"%s\"", field, own, meaning->id);
}

static bool is_deprecated(const struct resource *resource, const json_t *body)
{
	const json_t *field =
		resource->deprecated ? json_object_get(body, resource->deprecated) : NULL;
	const char *value = json_string_value(field);

	/* The default is one of the others. */
	if (resource->current)
		return !value || strcmp(value, resource->current) != 0;
	return field && !json_is_null(field);
}

static void tell_deprecated(struct api *api, const struct resource *resource,
			    const struct http_request *request, const json_t *body,
			    struct http_answer *answer)
{
	if (!is_deprecated(resource, body))
		return;
	answer->deprecated = true;
	api->control->metrics.deprecated_api.deprecated_http_api_calls++;
	log_warn("API: %s %s: %s is deprecated%s%s", http_method_str(request->method),
		 resource->path, resource->deprecated, resource->current ? " but for " : "",
		 resource->current ? resource->current : "");
}

static int apply(struct api *api, const struct meaning *meaning, const struct http_request *request,
		 struct http_answer *answer, struct err *err)
{
	json_t *body;
	int rc;

	if (request->body_len == 0)
		return err_set(err, EINVAL, "%s %s: a JSON body is expected",
			       http_method_str(request->method), request->path);
	body = parse_object(request->body, request->body_len, "body", err);
	if (!body)
		return -EINVAL;
	rc = check_id(meaning, body, err);
	tell_deprecated(api, meaning->resource, request, body, answer);
	if (rc == 0)
		rc = body_apply(meaning->operation->body, api->control, body, err);
	json_decref(body);
	return rc;
}

/* One line of JSON for /events, to be freed. */
static char *event_line(json_t *event, size_t *len)
{
	char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;

	json_decref(event);
	if (!text)
		return NULL;
	*len = strlen(text);
	/* The terminating zero's place. */
	text[(*len)++] = '\n';
	return text;
}

/* What the console's readers have not been sent yet. */
static void publish_console(struct api *api)
{
	size_t len;
	char *text = console_ring_read(&api->control->console_ring, &api->console_seen, &len);

	if (text)
		http_server_publish(api->server, HTTP_STREAM_CONSOLE, text, len);
	free(text);
}

/* A guest prints byte by byte: what follows the first is waited for a little. */
static void on_console_notified(evutil_socket_t fd, short events, void *opaque)
{
	static const struct timeval after = { .tv_usec = 1000 };
	struct api *api = opaque;
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
	(void)events;
	(void)evtimer_add(api->console_timer, &after);
}

static void on_console_timer(evutil_socket_t fd, short events, void *opaque)
{
	struct api *api = opaque;

	(void)fd;
	(void)events;
	/* Without a reader it is not asked for, and so not notified of. */
	if (http_server_has_reader(api->server, HTTP_STREAM_CONSOLE))
		publish_console(api);
}

static void begin_stream(struct api *api, enum http_stream stream, struct http_answer *answer)
{
	uint64_t from_the_start = 0;

	answer->status = HTTP_STATUS_OK;
	answer->stream = stream;
	if (stream == HTTP_STREAM_EVENTS) {
		answer->content_type = "application/x-ndjson";
		answer->body = event_line(describe_state_event(api->control), &answer->body_len);
		return;
	}
	answer->content_type = "application/octet-stream";
	/* The others' share first, so that all have seen the same. */
	publish_console(api);
	answer->body =
		console_ring_read(&api->control->console_ring, &from_the_start, &answer->body_len);
	if (answer->body)
		api->console_seen = from_the_start;
}

static int act(struct api *api, const struct meaning *meaning, const struct http_request *request,
	       struct http_answer *answer, struct err *err)
{
	const struct operation *operation = meaning->operation;

	if (operation->missing)
		return err_set(err, ENOTSUP, "%s %s: %s", http_method_str(request->method),
			       request->path, operation->missing);
	answer->status = HTTP_STATUS_NO_CONTENT;
	if (operation->body)
		return apply(api, meaning, request, answer, err);
	if (request->body_len > 0)
		return err_set(err, EINVAL, "%s %s: no body is expected",
			       http_method_str(request->method), request->path);
	if (operation->remove)
		return operation->remove(api->control, meaning->id, err);
	if (operation->stream != HTTP_STREAM_NONE)
		begin_stream(api, operation->stream, answer);
	else if (operation->answer)
		return operation->answer(api->control, request, answer, err);
	else
		answer_json(answer, HTTP_STATUS_OK, operation->describe(api->control, api->id));
	return 0;
}

/* In Firecracker's words, for who waits for them; without the body, which may hold secrets. */
static void log_request(const struct http_request *request)
{
	const char *method = http_method_str(request->method);
	char rest[16];
	size_t i;

	for (i = 0; i < sizeof(rest) - 1 && method[i]; i++)
		rest[i] = i > 0 ? (char)tolower(method[i]) : method[i];
	rest[i] = '\0';
	log_debug("The API server received a %s request on \"%s\".", rest, request->path);
}

void api_handle(void *opaque, const struct http_request *request, struct http_answer *answer)
{
	struct api *api = opaque;
	struct latency_metrics *latencies = &api->control->metrics.latencies;
	enum control_state before = api->control->state;
	int64_t start_ns = clock_ns();
	struct meaning meaning;
	uint64_t took_us;
	struct err err;
	int rc;

	log_request(request);
	rc = resources_find(&meaning, request->method, request->path, &err);
	if (rc == 0)
		rc = act(api, &meaning, request, answer, &err);
	took_us = (uint64_t)(clock_ns() - start_ns) / 1000;

	if (before == CONTROL_RUNNING && api->control->state == CONTROL_PAUSED)
		latencies->pause_vm = took_us;
	else if (before == CONTROL_PAUSED && api->control->state == CONTROL_RUNNING)
		latencies->resume_vm = took_us;
	operation_count(meaning.operation, &api->control->metrics, rc < 0);
	if (rc < 0) {
		answer_fault(answer, rc, &err);
		log_warn("API: %s %s: %s", http_method_str(request->method), request->path,
			 err.text);
	} else {
		log_debug("The request was executed successfully. Status code: %u %s.",
			  answer->status, http_status_str((enum http_status)answer->status));
	}
}

static void publish_event(struct api *api, json_t *event)
{
	size_t len;
	char *line = event_line(event, &len);

	if (line) {
		record_write(line, len);
		if (api->server)
			http_server_publish(api->server, HTTP_STREAM_EVENTS, line, len);
	}
	free(line);
}

void api_publish_state(struct api *api)
{
	/* Of an end, api_publish_end tells. */
	if (api->control->state == CONTROL_ENDED)
		return;
	if (api->server)
		http_server_limit(api->server, api->control->state == CONTROL_RUNNING);
	publish_event(api, describe_state_event(api->control));
}

void api_publish_phases(struct api *api)
{
	publish_event(api, describe_phases_event(api->control));
}

void api_publish_end(struct api *api, const struct vm_end *end)
{
	if (api->server)
		publish_console(api);
	publish_event(api, describe_end_event(end));
	if (!api->server)
		return;
	http_server_finish(api->server,
			   end->kind == VM_END_STOPPED ? FINISH_STOPPED_MS : FINISH_TIME_MS);
}

int api_open(struct api *api, struct control *control, const char *id, const char *path,
	     size_t body_max, struct err *err)
{
	int rc;

	*api = (struct api){ .control = control, .id = id };
	if (!path)
		return 0;
	rc = http_server_open(&api->server, control->base, path, body_max, api_handle, api, err);
	if (rc < 0)
		return rc;
	api->console_notified = event_new(control->base, control->console_ring.notify_fd,
					  EV_READ | EV_PERSIST, on_console_notified, api);
	api->console_timer = evtimer_new(control->base, on_console_timer, api);
	if (api->console_notified && api->console_timer &&
	    event_add(api->console_notified, NULL) == 0) {
		log_debug("API server started.");
		return 0;
	}
	api_close(api);
	return err_set(err, ENOMEM, "API socket %s: no memory for its events", path);
}

void api_close(struct api *api)
{
	if (api->console_notified)
		event_free(api->console_notified);
	if (api->console_timer)
		event_free(api->console_timer);
	http_server_close(api->server);
	memset(api, 0, sizeof(*api));
}
