/* SPDX-License-Identifier: Apache-2.0 */
/* mote kernel: the kernels in the cache. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/cli.h"
#include "host/paths.h"

static const char usage[] = "usage: mote kernel list         the kernels that guests can boot\n"
			    "       mote kernel path [NAME]  the file of one (default microvm)\n";

static int print_kernel(const char *dir, const char *name)
{
	char path[2 * PATH_MAX], version[PATH_MAX];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s/current", dir, name);
	n = readlink(path, version, sizeof(version) - 1);
	if (n < 0)
		return 0;
	version[n] = '\0';
	snprintf(path, sizeof(path), "%s/%s/current/kernel", dir, name);
	if (stat(path, &st) < 0)
		return 0;
	printf("%-16s %-36s %6.1f MiB\n", name, version, (double)st.st_size / (1 << 20));
	return 1;
}

static int list(void)
{
	char dir[PATH_MAX];
	struct dirent **names;
	struct err err;
	int count, shown = 0;

	if (paths_kernels(dir, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	count = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (names[i]->d_name[0] != '.')
			shown += print_kernel(dir, names[i]->d_name);
		free(names[i]);
	}
	if (count >= 0)
		free(names);
	if (shown == 0) {
		err_set(&err, ENOENT,
			"there is no kernel in %s (\"make kernel\" builds the default one)", dir);
		return cli_fail(CLI_EXIT_FAILURE, &err);
	}
	return EXIT_SUCCESS;
}

int cli_kernel(int argc, char **argv)
{
	char path[PATH_MAX];
	struct err err;

	if ((argc > 1 && cli_is_help(argv[1])) || (argc > 2 && cli_is_help(argv[2]))) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (argc == 2 && strcmp(argv[1], "list") == 0)
		return list();
	if ((argc == 2 || argc == 3) && strcmp(argv[1], "path") == 0) {
		if (paths_kernel(argc == 3 ? argv[2] : "microvm", path, &err) < 0)
			return cli_fail(CLI_EXIT_FAILURE, &err);
		puts(path);
		return EXIT_SUCCESS;
	}
	fputs(usage, stderr);
	return CLI_EXIT_USAGE;
}
