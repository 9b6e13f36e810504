/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/answer.h"

#include <errno.h>
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "mmds/internal.h"
#include "mmds/token.h"

#define FIELD_SIZE 128 /* of a header field that matters, with the terminating zero */
#define TOKEN_PATH "/latest/api/token"
/* So many of the largest answers wait for their readers at once. */
#define ANSWERS_MAX 4
#define HEAD_SIZE 1024 /* of an answer, at most */

static const char text_plain[] = "text/plain";

struct request {
	http_parser parser;
	const char *url;
	size_t url_len;
	char path[512];
	bool in_value;
	char name[FIELD_SIZE];
	char value[FIELD_SIZE];
	size_t name_len;
	size_t value_len;

	bool whole; /* the end of its head was reached, and it has no body */
	bool wants_json;
	bool forwarded;
	char token[FIELD_SIZE]; /* "" none */
	char ttl[FIELD_SIZE];
	char ttl_name[FIELD_SIZE]; /* of the field that had it */
};

struct reply {
	unsigned int status;
	const char *type;
	char *body; /* owned */
	size_t size;
	char field[2 * FIELD_SIZE + 4]; /* one more of the header, with its line's end */
};

size_t answer_request_size(const char *bytes, size_t size)
{
	for (size_t i = 0; i + 1 < size; i++) {
		if (bytes[i] != '\n')
			continue;
		if (bytes[i + 1] == '\n')
			return i + 2;
		if (i + 2 < size && bytes[i + 1] == '\r' && bytes[i + 2] == '\n')
			return i + 3;
	}
	return 0;
}

static struct request *request_of(http_parser *parser)
{
	return parser->data;
}

static int on_url(http_parser *parser, const char *at, size_t len)
{
	struct request *request = request_of(parser);

	/* All of the request is in one place, and so is the URL. */
	if (!request->url)
		request->url = at;
	request->url_len = (size_t)(at + len - request->url);
	return 0;
}

/* What is longer than what matters does not matter: it is cut. */
static void append(char *field, size_t *used, const char *at, size_t len)
{
	if (len > FIELD_SIZE - 1 - *used)
		len = FIELD_SIZE - 1 - *used;
	memcpy(field + *used, at, len);
	*used += len;
}

static bool is_one_of(const char *name, const char *one, const char *other)
{
	return strcasecmp(name, one) == 0 || strcasecmp(name, other) == 0;
}

static void end_field(struct request *request)
{
	char *name = request->name, *value = request->value;

	name[request->name_len] = '\0';
	value[request->value_len] = '\0';
	request->name_len = 0;
	request->in_value = false;
	if (strcasecmp(name, "Accept") == 0) {
		const char *json = strcasestr(value, "application/json");
		const char *text = strcasestr(value, text_plain);

		request->wants_json = json && (!text || json < text);
	} else if (strcasecmp(name, "X-Forwarded-For") == 0) {
		request->forwarded = true;
	} else if (is_one_of(name, "X-metadata-token", "X-aws-ec2-metadata-token")) {
		memcpy(request->token, value, FIELD_SIZE);
	} else if (is_one_of(name, "X-metadata-token-ttl-seconds",
			     "X-aws-ec2-metadata-token-ttl-seconds")) {
		memcpy(request->ttl, value, FIELD_SIZE);
		memcpy(request->ttl_name, name, FIELD_SIZE);
	}
}

static int on_header_field(http_parser *parser, const char *at, size_t len)
{
	struct request *request = request_of(parser);

	if (request->in_value)
		end_field(request);
	append(request->name, &request->name_len, at, len);
	return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
	struct request *request = request_of(parser);

	if (!request->in_value)
		request->value_len = 0;
	request->in_value = true;
	append(request->value, &request->value_len, at, len);
	return 0;
}

static int on_headers_complete(http_parser *parser)
{
	struct request *request = request_of(parser);

	if (request->in_value)
		end_field(request);
	/* An offer that need not be taken up (RFC 9110, 7.8); CONNECT is none. */
	parser->upgrade = parser->method == HTTP_CONNECT;
	return 0;
}

static int on_message_complete(http_parser *parser)
{
	request_of(parser)->whole = true;
	/* Before the parser begins another. */
	http_parser_pause(parser, 1);
	return 0;
}

static const http_parser_settings settings = {
	.on_url = on_url,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_message_complete = on_message_complete,
};

/* Its path in *request; 0, or the status that says what is wrong with it. */
static unsigned int parse(struct request *request, const char *bytes, size_t size)
{
	struct http_parser_url parts;
	enum http_errno error;

	memset(request, 0, sizeof(*request));
	http_parser_init(&request->parser, HTTP_REQUEST);
	request->parser.data = request;
	(void)http_parser_execute(&request->parser, &settings, bytes, size);
	error = HTTP_PARSER_ERRNO(&request->parser);
	if (error == HPE_INVALID_METHOD || error == HPE_INVALID_VERSION ||
	    request->parser.http_major > 1)
		return HTTP_STATUS_NOT_IMPLEMENTED;
	/* Bodies are not read: no request that makes sense here has one. */
	if (!request->whole || request->parser.upgrade)
		return HTTP_STATUS_BAD_REQUEST;
	http_parser_url_init(&parts);
	if (http_parser_parse_url(request->url, request->url_len, 0, &parts) != 0 ||
	    !(parts.field_set & 1 << UF_PATH))
		return HTTP_STATUS_BAD_REQUEST;
	if (parts.field_data[UF_PATH].len >= sizeof(request->path))
		return HTTP_STATUS_NOT_FOUND;
	memcpy(request->path, request->url + parts.field_data[UF_PATH].off,
	       parts.field_data[UF_PATH].len);
	return 0;
}

static void say(struct reply *reply, unsigned int status, const char *sentence)
{
	reply->status = status;
	reply->type = text_plain;
	reply->body = strdup(sentence);
	reply->size = strlen(sentence);
}

static void read_store(const struct mmds *mmds, const struct request *request, struct reply *reply)
{
	bool json = request->wants_json && !mmds->imds_compat;

	reply->status = HTTP_STATUS_OK;
	/* With imds_compat, too, it is of the type that was asked for, as Firecracker has it. */
	reply->type = request->wants_json ? "application/json" : text_plain;
	switch (store_read(&mmds->store, request->path, json ? STORE_JSON : STORE_IMDS,
			   &reply->body, &reply->size)) {
	case STORE_FOUND:
	case STORE_NO_MEMORY:
		return;
	case STORE_ABSENT:
		say(reply, HTTP_STATUS_NOT_FOUND, "There is no metadata at this path.");
		return;
	case STORE_NOT_SHOWN:
		say(reply, HTTP_STATUS_NOT_IMPLEMENTED,
		    "Only strings and objects can be shown as text: accept application/json.");
		return;
	}
}

static void get(struct mmds *mmds, const struct request *request, int64_t now_ns,
		struct reply *reply)
{
	bool given = request->token[0];
	bool good = given && token_valid(&mmds->tokens, request->token, now_ns);

	/* With V1 these are told, for who wants to go on to V2. */
	if (!given)
		mmds->metrics.rx_no_token++;
	else if (!good)
		mmds->metrics.rx_invalid_token++;
	if (good || mmds->version == MMDS_V1)
		read_store(mmds, request, reply);
	else if (given)
		say(reply, HTTP_STATUS_UNAUTHORIZED, "The token is not valid, or no longer.");
	else
		say(reply, HTTP_STATUS_UNAUTHORIZED,
		    "A token is needed: PUT " TOKEN_PATH
		    ", and give it in X-metadata-token or X-aws-ec2-metadata-token.");
}

/* Slashes count once. */
static bool is_token_path(const char *path)
{
	const char *expected = TOKEN_PATH;

	for (; *path == *expected && *path; path++, expected++) {
		while (path[0] == '/' && path[1] == '/')
			path++;
	}
	return *path == *expected;
}

static void put(struct mmds *mmds, const struct request *request, int64_t now_ns,
		struct reply *reply)
{
	char token[TOKEN_LENGTH + 1];
	size_t digits = strspn(request->ttl, "0123456789");
	unsigned long ttl = digits <= 9 ? strtoul(request->ttl, NULL, 10) : 0;

	if (request->forwarded) {
		/* Of a proxy, open to others: not a program of the guest's own (EC2's rule). */
		say(reply, HTTP_STATUS_BAD_REQUEST, "X-Forwarded-For is not allowed.");
	} else if (!is_token_path(request->path)) {
		say(reply, HTTP_STATUS_NOT_FOUND, "Only " TOKEN_PATH " can be PUT.");
	} else if (!request->ttl_name[0]) {
		say(reply, HTTP_STATUS_BAD_REQUEST,
		    "How long the token is valid is missing: X-metadata-token-ttl-seconds or "
		    "X-aws-ec2-metadata-token-ttl-seconds.");
	} else if (digits == 0 || request->ttl[digits] || ttl < TOKEN_TTL_MIN ||
		   ttl > TOKEN_TTL_MAX) {
		say(reply, HTTP_STATUS_BAD_REQUEST, "A token is valid for 1 to 21600 seconds.");
	} else if (token_make(&mmds->tokens, (unsigned int)ttl, now_ns, token) < 0) {
		say(reply, HTTP_STATUS_SERVICE_UNAVAILABLE, "There are no random numbers yet.");
	} else {
		say(reply, HTTP_STATUS_OK, token);
		snprintf(reply->field, sizeof(reply->field), "%s: %lu\r\n", request->ttl_name, ttl);
	}
}

static void act(struct mmds *mmds, const struct request *request, int64_t now_ns,
		struct reply *reply)
{
	switch ((enum http_method)request->parser.method) {
	case HTTP_GET:
		get(mmds, request, now_ns, reply);
		break;
	case HTTP_PUT:
		put(mmds, request, now_ns, reply);
		break;
	default:
		say(reply, HTTP_STATUS_METHOD_NOT_ALLOWED, "Only GET and PUT are possible.");
		snprintf(reply->field, sizeof(reply->field), "Allow: GET, PUT\r\n");
	}
}

static const char *status_text(unsigned int status)
{
	switch (status) {
#define TEXT(number, name, text)                                                                   \
	case number:                                                                               \
		return #text;
		HTTP_STATUS_MAP(TEXT)
#undef TEXT
	}
	return "";
}

static int write_answer(const struct request *request, const struct reply *reply,
			struct answer *answer)
{
	/* To HEAD there is no body, whatever the answer (RFC 9110, 9.3.2). */
	size_t body = request->parser.method == HTTP_HEAD && request->whole ? 0 : reply->size;
	int head;

	answer->text = malloc(HEAD_SIZE + body);
	if (!answer->text)
		return -ENOMEM;
	head = snprintf(answer->text, HEAD_SIZE,
			"HTTP/1.%d %u %s\r\nServer: mote\r\nConnection: %s\r\nContent-Type: "
			"%s\r\n%sContent-Length: %zu\r\n\r\n",
			request->parser.http_minor > 0 || request->parser.http_major != 1,
			reply->status, status_text(reply->status),
			answer->close ? "close" : "keep-alive", reply->type, reply->field,
			reply->size);
	memcpy(answer->text + head, reply->body, body);
	answer->size = (size_t)head + body;
	return 0;
}

int answer_make(struct mmds *mmds, const char *bytes, size_t size, int64_t now_ns,
		struct answer *answer)
{
	struct request request;
	struct reply reply = { 0 };
	unsigned int wrong = parse(&request, bytes, size);
	int rc;

	*answer = (struct answer){ .close = wrong || !http_should_keep_alive(&request.parser) };
	if (wrong)
		say(&reply, wrong, "The request is not understood.");
	else
		act(mmds, &request, now_ns, &reply);
	if (reply.body && mmds->answers_size + reply.size > ANSWERS_MAX * mmds->store.limit &&
	    reply.size > HEAD_SIZE) {
		free(reply.body);
		say(&reply, HTTP_STATUS_SERVICE_UNAVAILABLE, "Too many answers wait to be read.");
	}
	rc = reply.body ? write_answer(&request, &reply, answer) : -ENOMEM;
	free(reply.body);
	mmds->answers_size += answer->size;
	return rc;
}

void answer_free(struct mmds *mmds, struct answer *answer)
{
	mmds->answers_size -= answer->size;
	free(answer->text);
	*answer = (struct answer){ 0 };
}
