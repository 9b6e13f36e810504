/* SPDX-License-Identifier: Apache-2.0 */
/* mote cp: files and trees into a running microVM and out of it. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "host/transfer.h"
#include "host/vm.h"
#include "tree/tree.h"

static const char usage[] =
	"usage: mote cp [OPTION]... FILE NAME:PATH\n"
	"       mote cp [OPTION]... NAME:PATH FILE\n"
	"Copies a file or a tree into the running microVM NAME or out of it, into PATH or FILE if "
	"that\n"
	"is a directory, else as it. FILE may be - for a tar stream on standard input or output.\n"
	"DIRECTORY/. means what is in it: that goes into the directory of the target.\n"
	"\n"
	"  -u, --user USER  whom it belongs to in the guest, USER[:GROUP] (default: root)\n"
	"  -a, --archive    to whom it belongs here, by numbers\n"
	"  -L, --follow-link\n"
	"                   what a symbolic link leads to, if that is what is to be copied, and "
	"not "
	"it\n"
	"                   itself; those inside of a tree are copied as links\n"
	"  --json           print how many files and bytes it was\n"
	"\n"
	"What comes out of a guest belongs to you, has no setuid bits, and is files, directories "
	"and\n"
	"symbolic links only. Extended attributes of users (user.*) come along, file capabilities "
	"into\n"
	"a guest only. Hard links become files; sockets are left out; pages of zeroes become "
	"holes.\n"
	"A directory takes no file's place, and no file a directory's.\n";

/* Splits NAME:PATH; false if this is a file of the host's. */
static bool split(const char *argument, char name[VM_NAME_MAX + 1], const char **path)
{
	const char *colon = strchr(argument, ':');
	const char *slash = strchr(argument, '/');

	if (!colon || colon == argument || (slash && slash < colon) ||
	    colon - argument > VM_NAME_MAX)
		return false;
	memcpy(name, argument, (size_t)(colon - argument));
	name[colon - argument] = '\0';
	*path = colon + 1;
	return true;
}

/* How it is copied. */
struct choices {
	const char *owner; /* NULL: as it is here */
	bool follow;
};

/* As DIRECTORY/. does, which means what is in it, and not itself. */
static bool means_contents(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strcmp(slash ? slash + 1 : path, ".") == 0;
}

static int put(const char *vsock, const char *local, const char *remote,
	       const struct choices *choices, struct tree_counts *counts, struct err *err)
{
	CLEANUP_FD int fd = -1;
	char name[NAME_MAX + 1];

	if (strcmp(local, "-") != 0) {
		fd = tree_open(local, choices->follow, name, err);
		if (fd < 0)
			return fd;
		if (means_contents(local))
			snprintf(name, sizeof(name), ".");
	}
	return transfer_put(vsock, &(struct transfer_end){ fd, name }, remote, choices->owner,
			    false, NULL, counts, err);
}

/* The last part of a path of the guest's. */
static void name_of(const char *remote, char name[NAME_MAX + 1])
{
	size_t end = strlen(remote), begin;

	while (end > 0 && remote[end - 1] == '/')
		end--;
	for (begin = end; begin > 0 && remote[begin - 1] != '/'; begin--)
		;
	snprintf(name, NAME_MAX + 1, "%.*s", (int)(end - begin), remote + begin);
	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		snprintf(name, NAME_MAX + 1, "root");
}

/* Into `local` if that is a directory, else as it: the open directory, and the name in it. */
static int open_target(const char *local, const char *remote, char name[NAME_MAX + 1],
		       struct err *err)
{
	const bool contents = means_contents(remote);
	const char *slash = strrchr(local, '/');
	char path[PATH_MAX];
	int fd;

	if (contents && mkdir(local, 0777) < 0 && errno != EEXIST)
		return err_sys(err, errno, "%s", local);
	fd = open(local, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		if (contents)
			snprintf(name, NAME_MAX + 1, ".");
		else
			name_of(remote, name);
		return fd;
	}
	if (contents)
		return err_sys(err, errno, "%s", local);
	if (errno != ENOENT && errno != ENOTDIR)
		return err_sys(err, errno, "%s", local);
	if (strlen(local) >= sizeof(path) ||
	    snprintf(name, NAME_MAX + 1, "%s", slash ? slash + 1 : local) > NAME_MAX || !name[0])
		return err_set(err, EINVAL, "%s: a path to a file or directory is expected", local);
	snprintf(path, sizeof(path), "%.*s", slash ? (int)(slash - local) + 1 : 1,
		 slash ? local : ".");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "%s", local) : fd;
}

static int get(const char *vsock, const char *remote, const char *local,
	       const struct choices *choices, struct tree_counts *counts, struct err *err)
{
	CLEANUP_FD int fd = -1;
	char name[NAME_MAX + 1];

	if (strcmp(local, "-") != 0) {
		fd = open_target(local, remote, name, err);
		if (fd < 0)
			return fd;
	}
	return transfer_get(vsock, remote, choices->follow, &(struct transfer_end){ fd, name },
			    NULL, counts, err);
}

static int copy(const char *from, const char *to, const struct choices *choices,
		struct tree_counts *counts, struct err *err)
{
	char name[VM_NAME_MAX + 1] = "";
	const char *remote = "";
	/* One of them is the guest's. */
	bool puts = split(to, name, &remote) || !split(from, name, &remote);
	json_t *meta = vm_find_awake(name, err);
	int rc;

	if (!meta)
		return -ESRCH;
	rc = puts ? put(vm_string(meta, "vsock"), from, remote, choices, counts, err)
		  : get(vm_string(meta, "vsock"), remote, to, choices, counts, err);
	json_decref(meta);
	return rc;
}

static void print_counts(const struct tree_counts *counts)
{
	json_t *json = json_pack("{s:I, s:I}", "files", (json_int_t)counts->files, "bytes",
				 (json_int_t)counts->bytes);

	cli_print_json(json);
	json_decref(json);
}

int cli_cp(int argc, char **argv)
{
	static const struct option names[] = {
		{ "user", required_argument, NULL, 'u' },  { "archive", no_argument, NULL, 'a' },
		{ "follow-link", no_argument, NULL, 'L' }, { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },	   { NULL, 0, NULL, 0 }
	};
	struct choices choices = { .owner = "0:0" };
	const char *path;
	char name[VM_NAME_MAX + 1];
	struct tree_counts counts = { 0 };
	bool as_json = false;
	int option;
	struct err err;

	while ((option = getopt_long(argc, argv, "u:aL", names, NULL)) != -1) {
		switch (option) {
		case 'u':
			choices.owner = optarg;
			break;
		case 'a':
			choices.owner = NULL;
			break;
		case 'L':
			choices.follow = true;
			break;
		case 'j':
			as_json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			return CLI_EXIT_USAGE;
		}
	}
	if (argc - optind != 2 ||
	    split(argv[optind], name, &path) == split(argv[optind + 1], name, &path)) {
		fputs(usage, stderr);
		return CLI_EXIT_USAGE;
	}
	if (copy(argv[optind], argv[optind + 1], &choices, &counts, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	if (counts.left_out > 0)
		fprintf(stderr, "mote: %llu devices and fifos were left out\n",
			(unsigned long long)counts.left_out);
	if (as_json)
		print_counts(&counts);
	return EXIT_SUCCESS;
}
