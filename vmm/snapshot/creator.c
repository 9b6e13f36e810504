/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/creator.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/seccomp.h"

#define FILES_MAX 2
/* Where the creator has its end of the socket. */
#define CREATOR_FD 3

enum verb { CREATE, KEEP, DROP, CLEAR };

struct request {
	enum verb verb;
	uint64_t size;	     /* of CREATE */
	char path[PATH_MAX]; /* ended by a zero; no more than that is sent of it */
};

struct answer {
	int rc; /* 0 or -errno */
};

/* The creator's own. */
struct file {
	bool used;
	char path[PATH_MAX];
	char part[PATH_MAX + sizeof(CREATOR_SUFFIX)];
};

static struct file files[FILES_MAX];

static struct file *find(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i].used && strcmp(files[i].path, path) == 0)
			return &files[i];
	}
	return NULL;
}

static struct file *find_free(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!files[i].used)
			return &files[i];
	}
	return NULL;
}

/* Whether one of the two would be kept where the other is. */
static bool are_in_conflict(const struct file *file, const char *path, const char *part)
{
	return strcmp(file->path, path) == 0 || strcmp(file->path, part) == 0 ||
	       strcmp(file->part, path) == 0;
}

static bool is_free(const char *path, const char *part)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i].used && are_in_conflict(&files[i], path, part))
			return false;
	}
	return true;
}

/* Whether those that are being written are there still. */
static bool are_whole(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i].used && rename(files[i].part, files[i].part) < 0)
			return false;
	}
	return true;
}

/* The new file's descriptor, or -errno. */
static int create(const char *path, uint64_t size)
{
	struct file *file = find_free();
	int fd;

	if (!file)
		return -EBUSY;
	snprintf(file->part, sizeof(file->part), "%s" CREATOR_SUFFIX, path);
	if (!is_free(path, file->part))
		return -EBUSY;
	/* Of one that was killed meanwhile. */
	if (unlink(file->part) < 0 && errno != ENOENT)
		return -errno;
	/* Or of the other one, whose path has another name. */
	if (!are_whole())
		return -EBUSY;
	fd = open(file->part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (size > INT64_MAX || ftruncate(fd, (off_t)size) < 0) {
		int rc = size > INT64_MAX ? -EFBIG : -errno;

		close(fd);
		unlink(file->part);
		return rc;
	}
	memcpy(file->path, path, strlen(path) + 1);
	file->used = true;
	return fd;
}

/* That the name lasts, as the file does. */
static int sync_folder(const char *path)
{
	static char folder[PATH_MAX];
	char *slash;
	int fd, rc;

	memcpy(folder, path, strlen(path) + 1);
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	close(fd);
	return rc;
}

static int keep(const char *path)
{
	struct file *file = find(path);

	if (!file)
		return -ENOENT;
	if (rename(file->part, file->path) < 0)
		return -errno;
	file->used = false;
	return sync_folder(file->path);
}

static int clear(const char *path)
{
	struct file *file = find(path);

	if (!file)
		return -ENOENT;
	if (unlink(path) < 0)
		return errno == ENOENT ? 0 : -errno;
	return sync_folder(path);
}

static int drop(const char *path)
{
	struct file *file = find(path);

	if (file) {
		unlink(file->part);
		file->used = false;
	}
	return 0;
}

/* Sends the answer, and a descriptor with it, which is closed here. */
static bool reply(int rc, int fd)
{
	struct answer answer = { rc };
	struct iovec iov = { &answer, sizeof(answer) };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(fd))];
	} control = { .header = { CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS } };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	bool sent;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	sent = sendmsg(CREATOR_FD, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(answer);
	if (fd >= 0)
		close(fd);
	return sent;
}

static bool serve(const struct request *request)
{
	int rc;

	switch (request->verb) {
	case CREATE:
		rc = create(request->path, request->size);
		return reply(rc < 0 ? rc : 0, rc);
	case KEEP:
		return reply(keep(request->path), -1);
	case DROP:
		return reply(drop(request->path), -1);
	case CLEAR:
		return reply(clear(request->path), -1);
	}
	return false;
}

/* Until the VMM ends, and its end of the socket with it. */
static void serve_all(void)
{
	static struct request request;
	const size_t least = offsetof(struct request, path) + sizeof("x");
	ssize_t n;

	while ((n = read(CREATOR_FD, &request, sizeof(request))) >= (ssize_t)least) {
		if (((const char *)&request)[n - 1] != '\0' || request.path[0] == '\0' ||
		    !serve(&request))
			break;
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i].used)
			drop(files[i].path);
	}
}

static _Noreturn void become_creator(int fd, bool filtered)
{
	struct err err;

	prctl(PR_SET_NAME, "mote-creator");
	if (dup2(fd, CREATOR_FD) == CREATOR_FD && close_range(CREATOR_FD + 1, UINT_MAX, 0) == 0 &&
	    close_range(0, CREATOR_FD - 1, 0) == 0 &&
	    (!filtered || seccomp_enter(SECCOMP_CREATOR, &err) == 0))
		serve_all();
	_exit(EXIT_SUCCESS);
}

int creator_open(struct creator *creator, bool filtered, struct err *err)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_sys(err, errno, "creator of files: its socket");
	pid = fork();
	if (pid == 0)
		become_creator(ends[1], filtered);
	close(ends[1]);
	if (pid < 0) {
		int rc = err_sys(err, errno, "creator of files: its process");

		close(ends[0]);
		return rc;
	}
	creator->fd = ends[0];
	return 0;
}

void creator_close(struct creator *creator)
{
	if (creator->fd > 0)
		fd_close(&creator->fd);
}

/* The answer, and the descriptor that comes with it, or -1. */
static int receive(const struct creator *creator, int *fd)
{
	struct answer answer;
	struct iovec iov = { &answer, sizeof(answer) };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(*fd))];
	} control;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *header;
	ssize_t n;

	do {
		n = recvmsg(creator->fd, &message, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(answer))
		return n < 0 ? -errno : -EPIPE;
	header = CMSG_FIRSTHDR(&message);
	*fd = -1;
	if (header && header->cmsg_len == CMSG_LEN(sizeof(*fd)))
		memcpy(fd, CMSG_DATA(header), sizeof(*fd));
	return answer.rc;
}

static int ask(const struct creator *creator, enum verb verb, const char *path, uint64_t size,
	       int *fd, struct err *err)
{
	struct request request = { .verb = verb, .size = size };
	const size_t path_size = strlen(path) + 1;
	const size_t request_size = offsetof(struct request, path) + path_size;
	int rc;

	*fd = -1;
	if (path_size == 1 || path_size > PATH_MAX)
		return err_sys(err, path_size == 1 ? EINVAL : ENAMETOOLONG, "snapshot file %s",
			       path);
	memcpy(request.path, path, path_size);
	if (send(creator->fd, &request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
		return err_sys(err, errno, "snapshot file %s: the process that creates it", path);
	rc = receive(creator, fd);
	return rc < 0 ? err_sys(err, -rc, "snapshot file %s", path) : 0;
}

int creator_create(struct creator *creator, const char *path, uint64_t size, struct err *err)
{
	struct stat st;
	int fd, rc;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "snapshot file %s: what is there is not a regular file",
			       path);
	rc = ask(creator, CREATE, path, size, &fd, err);
	if (rc == 0 && fd < 0)
		rc = err_sys(err, EPROTO, "snapshot file %s", path);
	return rc < 0 ? rc : fd;
}

int creator_keep(struct creator *creator, const char *path, struct err *err)
{
	int none;

	return ask(creator, KEEP, path, 0, &none, err);
}

int creator_clear(struct creator *creator, const char *path, struct err *err)
{
	int none;

	return ask(creator, CLEAR, path, 0, &none, err);
}

void creator_drop(struct creator *creator, const char *path)
{
	struct err err;
	int none;

	(void)ask(creator, DROP, path, 0, &none, &err);
}
