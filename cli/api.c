/* SPDX-License-Identifier: Apache-2.0 */
/* mote api: one request to the API socket of a microVM, for people. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/printable.h"
#include "cli/cli.h"
#include "host/api_client.h"

#define DEFAULT_SOCKET "/run/firecracker.socket"
#define SOCKET_VARIABLE "MOTE_API_SOCKET"
#define INPUT_MAX (16 << 20)

static const char usage[] =
	"usage: mote api [--socket PATH] METHOD PATH [BODY | @FILE | -]\n"
	"Sends one request to a microVM's API and prints the answer.\n"
	"\n"
	"  --socket PATH      where mote-vmm serves its API (default $" SOCKET_VARIABLE ",\n"
	"                     else " DEFAULT_SOCKET ")\n"
	"  METHOD             GET, PUT, PATCH or DELETE\n"
	"  PATH               as /machine-config; docs/api.md has a table of them\n"
	"  BODY               JSON; @FILE reads it from a file, - from standard input\n"
	"\n"
	"  mote api PUT /machine-config '{\"vcpu_count\": 2, \"mem_size_mib\": 256}'\n"
	"  mote api GET /vm/config\n"
	"  mote api GET /events      as they come, until the microVM ends; so is /console\n"
	"\n"
	"Exit status: 0; 1 if the request was refused or could not be made; 2 for wrong usage.\n";

static const char *const methods[] = { "GET", "PUT", "PATCH", "DELETE" };

struct text {
	char *bytes; /* owned */
	size_t len;
};

static int fail(struct err *err)
{
	cli_clean(err->text);
	fprintf(stderr, "mote api: %s\n", err->text);
	return CLI_EXIT_FAILURE;
}

static int usage_error(const char *what, const char *value, const char *expected)
{
	fprintf(stderr, "mote api: %s%s%s: %s; see mote api --help\n", what, *value ? " " : "",
		value, expected);
	return CLI_EXIT_USAGE;
}

static const char *find_method(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (strcasecmp(methods[i], name) == 0)
			return methods[i];
	}
	return NULL;
}

static int read_all(int fd, const char *name, struct text *text, struct err *err)
{
	size_t room = 0;
	ssize_t n;

	do {
		if (text->len == room) {
			char *more;

			room = room ? 2 * room : 65536;
			if (room > INPUT_MAX)
				return err_set(err, EFBIG, "%s: %d MiB or more", name,
					       INPUT_MAX >> 20);
			more = realloc(text->bytes, room);
			if (!more)
				return err_sys(err, ENOMEM, "%s", name);
			text->bytes = more;
		}
		n = read(fd, text->bytes + text->len, room - text->len);
		if (n > 0)
			text->len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? err_sys(err, errno, "%s", name) : 0;
}

/* A mistake is told with its place before anything is sent. */
static int check_json(const struct text *text, const char *name, struct err *err)
{
	json_error_t error;
	json_t *body = json_loadb(text->bytes, text->len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY,
				  &error);

	if (!body)
		return err_set(err, EINVAL, "%s: line %d, column %d: %s", name, error.line,
			       error.column, error.text);
	json_decref(body);
	return 0;
}

static int read_body(const char *argument, struct text *text, struct err *err)
{
	CLEANUP_FD int fd = -1;
	const char *name = "body";
	int rc = 0;

	if (strcmp(argument, "-") == 0) {
		name = "standard input";
		rc = read_all(STDIN_FILENO, name, text, err);
	} else if (argument[0] == '@') {
		name = argument + 1;
		fd = open(name, O_RDONLY | O_CLOEXEC);
		rc = fd < 0 ? err_sys(err, errno, "%s", name) : read_all(fd, name, text, err);
	} else {
		text->bytes = strdup(argument);
		if (!text->bytes)
			return err_sys(err, ENOMEM, "%s", name);
		text->len = strlen(argument);
	}
	return rc < 0 ? rc : check_json(text, name, err);
}

static int print(const char *data, size_t len, struct err *err)
{
	if (fwrite(data, 1, len, stdout) != len || fflush(stdout) != 0)
		return err_sys(err, errno, "standard output");
	return 0;
}

/* What is no JSON is not ours to change, but does not get to command the terminal. */
static int print_raw(const char *data, size_t len, struct err *err)
{
	static struct printable printable;
	char *text;
	int rc;

	if (!isatty(STDOUT_FILENO))
		return print(data, len, err);
	text = malloc(len + PRINTABLE_MORE);
	if (!text)
		return err_sys(err, ENOMEM, "its answer");
	rc = print(text, printable_stream(&printable, data, len, text), err);
	free(text);
	return rc;
}

static int print_part(void *opaque, const char *data, size_t len, struct err *err)
{
	(void)opaque;
	return print_raw(data, len, err);
}

static int print_answer(const struct api_answer *answer, struct err *err)
{
	json_t *body = NULL;
	char *text;
	int rc;

	if (!answer->body)
		return 0;
	if (api_answer_is_json(answer))
		body = json_loadb(answer->body, answer->body_len, JSON_DECODE_ANY, NULL);
	if (!body)
		return print_raw(answer->body, answer->body_len, err);
	text = cli_json_text(body, JSON_INDENT(2) | JSON_ENCODE_ANY);
	json_decref(body);
	if (!text)
		return err_sys(err, ENOMEM, "its answer");
	rc = print(text, strlen(text), err);
	free(text);
	return rc < 0 ? rc : print("\n", 1, err);
}

static int request(const char *socket, const char *method, const char *path,
		   const struct text *body, struct err *err)
{
	struct api_client client;
	struct api_answer answer;
	int rc = api_client_open(&client, socket, err);

	if (rc < 0)
		return rc;
	rc = api_client_request(&client, method, path, body->bytes, body->len, &answer, print_part,
				NULL, err);
	if (rc == 0)
		rc = api_answer_check(&answer, method, path, err);
	if (rc == 0)
		rc = print_answer(&answer, err);
	api_answer_free(&answer);
	api_client_close(&client);
	return rc;
}

/* -1, or the exit status. */
static int parse_options(int argc, char **argv, const char **socket)
{
	static const struct option names[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	*socket = getenv(SOCKET_VARIABLE);
	if (!*socket || !**socket)
		*socket = DEFAULT_SOCKET;
	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:", names, NULL)) != -1) {
		switch (option) {
		case 's':
			*socket = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case ':':
			return usage_error(argv[optind - 1], "", "a value is expected");
		default:
			return usage_error(argv[optind - 1], "", "no such option");
		}
	}
	return -1;
}

int cli_api(int argc, char **argv)
{
	struct text body = { NULL, 0 };
	const char *socket, *method, *path;
	struct err err;
	int rc, status = parse_options(argc, argv, &socket);

	if (status >= 0)
		return status;
	argc -= optind;
	argv += optind;
	if (argc < 2 || argc > 3) {
		fputs(usage, stderr);
		return CLI_EXIT_USAGE;
	}
	method = find_method(argv[0]);
	path = argv[1];
	if (!method)
		return usage_error("METHOD", argv[0], "GET, PUT, PATCH or DELETE is expected");
	if (*path != '/')
		return usage_error("PATH", path, "a path that begins with / is expected");
	rc = argc == 3 ? read_body(argv[2], &body, &err) : 0;
	if (rc == 0)
		rc = request(socket, method, path, &body, &err);
	free(body.bytes);
	return rc < 0 ? fail(&err) : EXIT_SUCCESS;
}
