/* SPDX-License-Identifier: Apache-2.0 */
/* mote cp: files and trees into a running microVM and out of it. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/transfer.h"
#include "cli/vm.h"
#include "rootfs-tools/init/tree.h"

static const char usage[] =
	"usage: mote cp [OPTION]... FILE NAME:PATH\n"
	"       mote cp [OPTION]... NAME:PATH FILE\n"
	"Copies a file or a tree into the running microVM NAME or out of it, into PATH or FILE if "
	"that\n"
	"is a directory, else as it. FILE may be - for a tar stream on standard input or output.\n"
	"\n"
	"  -u, --user USER  whom it belongs to in the guest, USER[:GROUP] (default: root)\n"
	"  -a, --archive    to whom it belongs here, by numbers\n"
	"  --json           print how many files and bytes it was\n"
	"\n"
	"What comes out of a guest belongs to you, has no setuid bits, and is files, directories "
	"and\n"
	"symbolic links only. Hard links become files; sockets and extended attributes are left "
	"out.\n";

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

static int copy(const char *from, const char *to, const char *owner, struct tree_counts *counts,
		struct err *err)
{
	char name[VM_NAME_MAX + 1] = "";
	const char *remote = "";
	/* One of them is the guest's. */
	bool put = split(to, name, &remote) || !split(from, name, &remote);
	json_t *meta = vm_find_running(name, err);
	int rc;

	if (!meta)
		return -ESRCH;
	rc = put ? transfer_put(vm_string(meta, "vsock"), from, remote, owner, false, NULL, counts,
				err)
		 : transfer_get(vm_string(meta, "vsock"), remote, to, false, NULL, counts, err);
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
	static const struct option names[] = { { "user", required_argument, NULL, 'u' },
					       { "archive", no_argument, NULL, 'a' },
					       { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	const char *owner = "0:0", *path;
	char name[VM_NAME_MAX + 1];
	struct tree_counts counts = { 0 };
	bool as_json = false;
	int option;
	struct err err;

	while ((option = getopt_long(argc, argv, "u:a", names, NULL)) != -1) {
		switch (option) {
		case 'u':
			owner = optarg;
			break;
		case 'a':
			owner = NULL;
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
	if (copy(argv[optind], argv[optind + 1], owner, &counts, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	if (counts.left_out > 0)
		fprintf(stderr, "mote: %llu devices and fifos were left out\n",
			(unsigned long long)counts.left_out);
	if (as_json)
		print_counts(&counts);
	return EXIT_SUCCESS;
}
