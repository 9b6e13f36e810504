/* SPDX-License-Identifier: Apache-2.0 */
/* mote logs: what a microVM's console, and its command if it was detached, have written. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/printable.h"
#include "cli/cli.h"
#include "host/vm.h"

static const char usage[] =
	"usage: mote logs [-f] [--json] NAME\n"
	"Prints the last 1 to 2 MiB that the microVM's console and the command "
	"of one that was started\n"
	"with --detach have written. On a terminal control characters are question marks.\n"
	"\n"
	"  -f, --follow  go on with what comes, until the microVM ends\n"
	"  --json        an object for each line, {\"line\": TEXT}; what is not "
	"UTF-8 is a ? in it\n";

/* Longer lines are several. */
#define LINE_MAX_SIZE 16384
#define DATA_SIZE 16384

/* Where it is printed, and how. */
struct printer {
	bool json;
	bool terminal; /* which a guest does not get to command */
	struct printable printable;
	size_t used;
	char line[LINE_MAX_SIZE];
};

static int print_line(struct printer *printer)
{
	size_t size = printer->used;
	json_t *text;
	char *dump;
	int rc;

	if (size > 0 && printer->line[size - 1] == '\r')
		size--;
	text = json_stringn(printer->line, size);
	for (size_t i = 0; !text && i < size; i++) {
		if ((unsigned char)printer->line[i] >= 0x80)
			printer->line[i] = '?';
	}
	if (!text)
		text = json_stringn(printer->line, size);
	printer->used = 0;
	text = json_pack("{s:o}", "line", text);
	dump = cli_json_text(text, JSON_COMPACT);
	json_decref(text);
	rc = printf("%s\n", dump) < 0 || fflush(stdout) == EOF ? -errno : 0;
	free(dump);
	return rc;
}

static int print(struct printer *printer, const char *data, size_t size)
{
	char printable[DATA_SIZE + PRINTABLE_MORE];

	if (!printer->json && !printer->terminal)
		return fd_write_all(STDOUT_FILENO, data, size);
	if (!printer->json)
		return fd_write_all(STDOUT_FILENO, printable,
				    printable_stream(&printer->printable, data, size, printable));
	for (size_t i = 0; i < size; i++) {
		int rc = 0;

		if (data[i] != '\n')
			printer->line[printer->used++] = data[i];
		if (data[i] == '\n' || printer->used == sizeof(printer->line))
			rc = print_line(printer);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Prints from *fd to its present end; *fd is opened first if it is -1. */
static int print_file(struct printer *printer, const char *dir, const char *name, int *fd,
		      struct err *err)
{
	char path[PATH_MAX], data[DATA_SIZE];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (*fd < 0)
		*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
	while ((n = read(*fd, data, sizeof(data))) > 0) {
		int rc = print(printer, data, (size_t)n);

		if (rc < 0)
			return err_sys(err, -rc, "standard output");
	}
	return n < 0 ? err_sys(err, errno, "%s", path) : 0;
}

/* Another file has taken its place: the rest of the old one, then the new one from its beginning.
 */
static bool is_replaced(const char *dir, int fd)
{
	char path[PATH_MAX];
	struct stat now, open_one;

	snprintf(path, sizeof(path), "%s/console.log", dir);
	return fd >= 0 && stat(path, &now) == 0 && fstat(fd, &open_one) == 0 &&
	       now.st_ino != open_one.st_ino;
}

static int follow(struct printer *printer, const json_t *meta, int *fd, struct err *err)
{
	const char *dir = vm_string(meta, "dir");
	CLEANUP_FD int pid = vm_open_process(meta, VM_SUPERVISOR);
	CLEANUP_FD int changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int rc;

	if (changes < 0 || inotify_add_watch(changes, dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
		return err_sys(err, errno, "%s", dir);
	for (;;) {
		struct pollfd fds[] = { { .fd = changes, .events = POLLIN },
					{ .fd = pid, .events = POLLIN } };
		char events[4096];

		rc = print_file(printer, dir, "console.log", fd, err);
		if (rc < 0)
			return rc;
		if (is_replaced(dir, *fd)) {
			fd_close(fd);
			continue;
		}
		/* What it wrote last has been printed. */
		if (pid < 0)
			return 0;
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return err_sys(err, errno, "poll");
		if (fds[1].revents)
			fd_close(&pid);
		while (read(changes, events, sizeof(events)) > 0)
			;
	}
}

static int print_logs(const char *name, bool follows, bool as_json, struct err *err)
{
	static struct printer printer;
	CLEANUP_FD int old = -1, fd = -1;
	json_t *meta = vm_find(name, err);
	int rc;

	if (!meta)
		return -ENOENT;
	printer.json = as_json;
	printer.terminal = isatty(STDOUT_FILENO);
	rc = print_file(&printer, vm_string(meta, "dir"), "console.log.old", &old, err);
	if (rc == 0)
		rc = print_file(&printer, vm_string(meta, "dir"), "console.log", &fd, err);
	if (rc == 0 && follows && json_is_true(json_object_get(meta, "running")))
		rc = follow(&printer, meta, &fd, err);
	if (rc == 0 && printer.used > 0)
		rc = print_line(&printer);
	json_decref(meta);
	return rc;
}

int cli_logs(int argc, char **argv)
{
	static const struct option names[] = { { "follow", no_argument, NULL, 'f' },
					       { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	bool follows = false, as_json = false;
	int option;
	struct err err;

	while ((option = getopt_long(argc, argv, "f", names, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		}
		if (option != 'f' && option != 'j')
			return CLI_EXIT_USAGE;
		*(option == 'f' ? &follows : &as_json) = true;
	}
	if (optind + 1 != argc) {
		fputs(usage, stderr);
		return CLI_EXIT_USAGE;
	}
	return print_logs(argv[optind], follows, as_json, &err) < 0
		       ? cli_fail(CLI_EXIT_FAILURE, &err)
		       : EXIT_SUCCESS;
}
