/* SPDX-License-Identifier: Apache-2.0 */
#include "host/api_reader.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/printable.h"

static const char json_media_type[] = "application/json";

static struct api_reader *reader_of(http_parser *parser)
{
	return parser->data;
}

static int fail(struct api_reader *reader, int rc)
{
	reader->rc = rc;
	return -1;
}

static int on_message_begin(http_parser *parser)
{
	struct api_reader *reader = reader_of(parser);

	reader->in_value = false;
	reader->is_type = false;
	reader->name_len = 0;
	reader->type_len = 0;
	reader->answer->type[0] = '\0';
	return 0;
}

/* What does not fit is no name that matters. */
static int on_header_field(http_parser *parser, const char *at, size_t len)
{
	struct api_reader *reader = reader_of(parser);
	size_t room;

	if (reader->in_value)
		reader->name_len = 0;
	reader->in_value = false;
	room = sizeof(reader->name) - reader->name_len;
	memcpy(reader->name + reader->name_len, at, len < room ? len : room);
	reader->name_len += len < room ? len : room;
	return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
	static const char name[] = "Content-Type";
	struct api_reader *reader = reader_of(parser);
	char *type = reader->answer->type;

	if (!reader->in_value) {
		reader->in_value = true;
		/* Fields behind the body may not say what it was. */
		reader->is_type = !reader->in_body && reader->name_len == sizeof(name) - 1 &&
				  strncasecmp(reader->name, name, sizeof(name) - 1) == 0;
		if (reader->is_type)
			reader->type_len = 0;
	}
	if (!reader->is_type)
		return 0;
	if (len > API_TYPE_SIZE - 1 - reader->type_len)
		len = API_TYPE_SIZE - 1 - reader->type_len;
	memcpy(type + reader->type_len, at, len);
	reader->type_len += len;
	type[reader->type_len] = '\0';
	return 0;
}

static int on_headers_complete(http_parser *parser)
{
	struct api_reader *reader = reader_of(parser);

	if (parser->http_major != 1 || parser->status_code < 100 ||
	    parser->status_code == HTTP_STATUS_SWITCHING_PROTOCOLS)
		return fail(reader, err_set(reader->err, EPROTO, "no answer in HTTP/1.1"));
	reader->answer->status = parser->status_code;
	reader->answer->streamed = reader->sink && parser->status_code == HTTP_STATUS_OK &&
				   !api_answer_is_json(reader->answer);
	reader->in_body = true;
	return 0;
}

static int on_body(http_parser *parser, const char *at, size_t len)
{
	struct api_reader *reader = reader_of(parser);
	struct api_answer *answer = reader->answer;
	char *body;

	if (answer->streamed) {
		int rc = reader->sink(reader->opaque, at, len, reader->err);

		return rc < 0 ? fail(reader, rc) : 0;
	}
	if (len > API_BODY_MAX - answer->body_len)
		return fail(reader, err_set(reader->err, EFBIG, "an answer of more than %d MiB",
					    API_BODY_MAX >> 20));
	body = realloc(answer->body, answer->body_len + len + 1);
	if (!body)
		return fail(reader, err_sys(reader->err, ENOMEM, "its answer"));
	memcpy(body + answer->body_len, at, len);
	answer->body = body;
	answer->body_len += len;
	body[answer->body_len] = '\0';
	return 0;
}

static int on_message_complete(http_parser *parser)
{
	struct api_reader *reader = reader_of(parser);

	reader->in_body = false;
	/* "100 Continue" and its like come before the answer. */
	if (parser->status_code < 200)
		return 0;
	reader->complete = true;
	http_parser_pause(parser, 1);
	return 0;
}

void api_reader_start(struct api_reader *reader, struct api_answer *answer, api_sink *sink,
		      void *opaque)
{
	memset(answer, 0, sizeof(*answer));
	memset(reader, 0, sizeof(*reader));
	reader->answer = answer;
	reader->sink = sink;
	reader->opaque = opaque;
	http_parser_init(&reader->parser, HTTP_RESPONSE);
	reader->parser.data = reader;
}

static int execute(struct api_reader *reader, const char *data, size_t len, struct err *err)
{
	static const http_parser_settings settings = {
		.on_message_begin = on_message_begin,
		.on_header_field = on_header_field,
		.on_header_value = on_header_value,
		.on_headers_complete = on_headers_complete,
		.on_body = on_body,
		.on_message_complete = on_message_complete,
	};
	enum http_errno error;
	size_t used;

	reader->err = err;
	used = http_parser_execute(&reader->parser, &settings, data, len);
	reader->err = NULL;
	error = HTTP_PARSER_ERRNO(&reader->parser);
	if (reader->rc < 0)
		return reader->rc;
	if (reader->complete) {
		reader->excess = used < len;
		return 1;
	}
	if (error != HPE_OK && error != HPE_INVALID_EOF_STATE) {
		reader->rc = err_set(err, EPROTO, "no answer in HTTP/1.1: %s",
				     http_errno_description(error));
		return reader->rc;
	}
	return 0;
}

int api_reader_feed(struct api_reader *reader, const char *data, size_t len, struct err *err)
{
	/* Nothing is an end to the parser. */
	return len == 0 ? 0 : execute(reader, data, len, err);
}

int api_reader_end(struct api_reader *reader, struct err *err)
{
	int rc = execute(reader, NULL, 0, err);

	if (rc != 0)
		return rc;
	return err_set(err, EPROTO, "%s",
		       reader->in_body ? "the connection ended in the middle of the answer"
				       : "the connection ended without an answer");
}

bool api_reader_keeps_alive(const struct api_reader *reader)
{
	return reader->complete && !reader->excess && http_should_keep_alive(&reader->parser);
}

bool api_answer_is_json(const struct api_answer *answer)
{
	size_t len = sizeof(json_media_type) - 1;

	return strncasecmp(answer->type, json_media_type, len) == 0 &&
	       (answer->type[len] == '\0' || strchr("; \t", answer->type[len]));
}

/* What a terminal would take for a command is no part of a sentence. */
static void copy_printable(char *to, size_t size, const char *from)
{
	size_t i;

	for (i = 0; i < size - 1 && from[i]; i++)
		to[i] = from[i];
	to[i] = '\0';
	printable_line(to, i);
}

int api_answer_check(const struct api_answer *answer, const char *method, const char *path,
		     struct err *err)
{
	const char *sentence = NULL;
	char text[ERR_TEXT_SIZE], request[ERR_TEXT_SIZE];
	struct err prefix;
	json_t *body;
	size_t len;

	if (answer->status >= 200 && answer->status < 300)
		return 0;
	err_set(&prefix, EINVAL, "%s %s: ", method, path);
	copy_printable(request, sizeof(request), prefix.text);
	body = answer->body ? json_loadb(answer->body, answer->body_len, 0, NULL) : NULL;
	sentence = json_string_value(json_object_get(body, "fault_message"));
	if (!sentence)
		sentence = json_string_value(json_object_get(body, "error"));
	if (sentence)
		copy_printable(text, sizeof(text), sentence);
	json_decref(body);
	if (!sentence)
		return err_set(err, EINVAL, "%sstatus %u, without a reason", request,
			       answer->status);
	/* Some of the server's sentences begin so themselves. */
	len = strlen(request);
	return err_set(err, EINVAL, "%s%s", strncmp(text, request, len) == 0 ? "" : request, text);
}

void api_answer_free(struct api_answer *answer)
{
	free(answer->body);
	memset(answer, 0, sizeof(*answer));
}
