/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "guest/failure.h"
#include "guest/stream.h"
#include "guest/users.h"
#include "tree/tar.h"
#include "tree/tree.h"

#define FILES_MAX 2048 /* descriptors */

/* What a client puts, as it comes in frames. */
struct input {
	struct stream *stream;
	size_t frame; /* whole length of the one that is being taken; 0: none */
	size_t at;    /* in it */
	bool over;
};

/* In the new process: 1; in the agent: 0, or -1 with failure set. */
static int start_process(struct stream *stream, struct failure *failure)
{
	const struct rlimit files = { FILES_MAX, FILES_MAX };
	sigset_t none;
	pid_t pid = fork();

	if (pid < 0)
		return failure_sys(failure, errno, "a process for the request");
	if (pid > 0)
		return 0;
	setsid();
	/* It does not exec: the ends of other programs' pipes would stay open with it. */
	dup2(stream->fd, STDERR_FILENO + 1);
	stream->fd = STDERR_FILENO + 1;
	(void)close_range(STDERR_FILENO + 2, UINT_MAX, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setrlimit(RLIMIT_NOFILE, &files);
	umask(0022);
	/* It waits for its client and for its drive. */
	fcntl(stream->fd, F_SETFL, 0);
	/* The request itself is the first frame still. */
	stream_drop(stream, (size_t)stream_frame(stream));
	return 1;
}

static _Noreturn void answer(struct stream *stream, const struct tree_counts *counts,
			     const struct failure *failure)
{
	if (failure)
		(void)stream_send_failure(stream, failure);
	else
		(void)stream_send_result(stream,
					 json_pack("{s:I, s:I}", "files", (json_int_t)counts->files,
						   "bytes", (json_int_t)counts->bytes));
	_exit(stream_flush(stream) ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* Waits for the next frame with something in it; false at the end. */
static bool next_frame(struct input *input)
{
	struct stream *stream = input->stream;

	for (;;) {
		ssize_t size = stream_frame(stream);

		if (size == 0 && stream_receive(stream))
			continue;
		if (size <= 0 || stream->in[0] != PROTOCOL_STDIN) {
			/* Its end, or one that does not keep to the protocol, or has left. */
			input->over = size > 0 && stream->in[0] == PROTOCOL_STDIN_END;
			return false;
		}
		if (size > PROTOCOL_HEADER_SIZE) {
			input->frame = (size_t)size;
			input->at = PROTOCOL_HEADER_SIZE;
			return true;
		}
		stream_drop(stream, (size_t)size);
	}
}

static ssize_t read_input(void *opaque, void *data, size_t size)
{
	struct input *input = opaque;
	size_t part;

	if (input->over || (input->frame == 0 && !next_frame(input)))
		return 0;
	part = input->frame - input->at;
	if (part > size)
		part = size;
	memcpy(data, input->stream->in + input->at, part);
	input->at += part;
	if (input->at == input->frame) {
		stream_drop(input->stream, input->frame);
		input->frame = 0;
	}
	return (ssize_t)part;
}

/* A client that is told while it still sends would not hear it: its rest is read first. */
static void read_rest(struct input *input)
{
	static char dropped[16384];

	while (read_input(input, dropped, sizeof(dropped)) > 0)
		;
}

static int make_path(const char *path, struct failure *failure)
{
	char copy[4096];
	int fd;

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *slash = copy + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		(void)mkdir(copy, 0755);
		*slash = '/';
	}
	(void)mkdir(copy, 0755);
	fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? failure_sys(failure, errno, "%s", path) : fd;
}

/*
 * Where the stream goes: into `path` if that is, or shall be, a directory; else it becomes *name
 * there.
 */
static int open_target(char *path, bool into, const char **name, struct failure *failure)
{
	size_t length = strlen(path);
	struct stat st;
	char *slash;

	if (path[0] != '/')
		return failure_set(failure, "put: path: one that begins with / is expected");
	if (into || path[length - 1] == '/' || (stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
		return make_path(path, failure);
	slash = strrchr(path, '/');
	*name = slash + 1;
	*slash = '\0';
	return make_path(slash == path ? "/" : path, failure);
}

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	size_t count = 0;

	while (dir && count < 3 && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	/* "." and ".." */
	return count < 3;
}

/* As if it were mounted there: what the image has in that place is not to be seen, or to be sent.
 */
static int open_volume(const char *path, struct failure *failure)
{
	if (path[0] != '/')
		return failure_set(failure, "put: path: one that begins with / is expected");
	if (!is_empty(path) && mount("volume", path, "tmpfs", 0, "mode=0755,size=100%") < 0)
		return failure_sys(failure, errno, "%s: a place for a volume", path);
	return make_path(path, failure);
}

/* What a client wants. */
struct put {
	char *path; /* owned */
	bool into;
	bool volume;
	struct tree_options options;
};

static int parse_put(const json_t *value, struct put *put, struct failure *failure)
{
	const char *text, *owner = NULL;
	int into = 0, volume = 0;
	struct user user;
	json_error_t error;

	/* json_unpack_ex only reads its root. */
	if (json_unpack_ex((json_t *)(uintptr_t)value, &error, 0, "{s:s, s?s, s?b, s?b !}", "path",
			   &text, "owner", &owner, "into", &into, "volume", &volume) < 0) {
		failure_set(failure, "put: %s", error.text);
		return -1;
	}
	put->into = into;
	put->volume = volume;
	if (owner) {
		if (users_find(owner, &user, failure) < 0)
			return -1;
		put->options.own = true;
		put->options.uid = user.uid;
		put->options.gid = user.gid;
	}
	put->path = strdup(text);
	if (put->path)
		return 0;
	failure_sys(failure, ENOMEM, "put");
	return -1;
}

int files_put(const json_t *value, struct stream *stream, struct failure *failure)
{
	struct input input = { .stream = stream };
	struct tar_reader reader = { .read = read_input, .opaque = &input };
	struct put put = { 0 };
	struct tree_counts counts = { 0 };
	const char *name = NULL;
	struct err err;
	int dir, rc = parse_put(value, &put, failure);

	if (rc == 0)
		rc = start_process(stream, failure);
	if (rc <= 0) {
		free(put.path);
		return rc;
	}
	if (put.volume)
		name = ".";
	dir = put.volume ? open_volume(put.path, failure)
			 : open_target(put.path, put.into, &name, failure);
	if (dir < 0)
		rc = -1;
	else
		rc = name ? tree_unpack_as(dir, name, &reader, &put.options, &counts, &err)
			  : tree_unpack(dir, &reader, &put.options, &counts, &err);
	if (dir >= 0 && rc < 0)
		failure_set(failure, "%s", err.text);
	read_rest(&input);
	if (!input.over && rc == 0)
		rc = failure_set(failure, "put: the client has left");
	answer(stream, &counts, rc < 0 ? failure : NULL);
}

static int write_output(void *opaque, const void *data, size_t size)
{
	struct stream *stream = opaque;
	const char *at = data;

	while (size > 0) {
		size_t room, part;
		uint8_t *to = stream_room(stream, &room);

		if (!to) {
			if (!stream_flush(stream))
				return -1;
			continue;
		}
		part = size < room ? size : room;
		memcpy(to, at, part);
		stream_add(stream, PROTOCOL_STDOUT, part);
		at += part;
		size -= part;
	}
	return 0;
}

int files_get(const json_t *value, struct stream *stream, struct failure *failure)
{
	struct tar_writer writer = { write_output, stream };
	struct tree_counts counts = { 0 };
	char name[NAME_MAX + 1];
	const char *path;
	json_error_t error;
	struct err err;
	int fd, rc, follow = 0;

	if (json_unpack_ex((json_t *)(uintptr_t)value, &error, 0, "{s:s, s?b !}", "path", &path,
			   "follow", &follow) < 0)
		return failure_set(failure, "get: %s", error.text);
	if (path[0] != '/')
		return failure_set(failure, "get: path: one that begins with / is expected");
	rc = start_process(stream, failure);
	if (rc <= 0)
		return rc;
	fd = tree_open(path, follow, name, &err);
	rc = fd < 0 ? -1 : tree_pack(fd, name, &writer, &counts, &err);
	if (rc < 0)
		failure_set(failure, "%s", err.text);
	/* What waits must not keep the end from its place. */
	if (!stream_flush(stream))
		_exit(EXIT_FAILURE);
	answer(stream, &counts, rc < 0 ? failure : NULL);
}

int files_sync(const json_t *value, struct stream *stream, struct failure *failure)
{
	int rc;

	if (!json_is_object(value) || json_object_size(value) > 0)
		return failure_set(failure, "quiesce: {} is expected");
	rc = start_process(stream, failure);
	if (rc <= 0)
		return rc;
	sync();
	(void)stream_send_result(stream, json_object());
	_exit(stream_flush(stream) ? EXIT_SUCCESS : EXIT_FAILURE);
}
