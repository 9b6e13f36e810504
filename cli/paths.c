/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

int cli_fail(int status, const struct err *err)
{
	fprintf(stderr, "mote: %s\n", err->text);
	return status;
}

__attribute__((format(printf, 3, 4))) static int join(char path[PATH_MAX], struct err *err,
						      const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(path, PATH_MAX, fmt, args);
	va_end(args);
	if (n < 0 || n >= PATH_MAX)
		return err_set(err, ENAMETOOLONG, "a path is longer than %d bytes", PATH_MAX - 1);
	return 0;
}

int cli_find_own(const char *name, char path[PATH_MAX], struct err *err)
{
	static const char *const places[] = { ".", "../lib/mote" };
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return err_sys(err, errno, "/proc/self/exe");
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int rc = join(path, err, "%s/%s/%s", self, places[i], name);

		if (rc < 0)
			return rc;
		if (access(path, R_OK) == 0)
			return 0;
	}
	return err_set(err, ENOENT, "%s: neither in %s nor in its ../lib/mote", name, self);
}

int cli_images_dir(char path[PATH_MAX], struct err *err)
{
	const char *data = getenv("XDG_DATA_HOME");
	const char *home = getenv("HOME");

	if (data && data[0] == '/')
		return join(path, err, "%s/mote/images", data);
	if (home && home[0] == '/')
		return join(path, err, "%s/.local/share/mote/images", home);
	return err_set(err, ENOENT, "the data directory: neither HOME nor XDG_DATA_HOME is set");
}

int cli_kernels_dir(char path[PATH_MAX], struct err *err)
{
	const char *cache = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");

	if (cache && cache[0] == '/')
		return join(path, err, "%s/mote/kernels", cache);
	if (home && home[0] == '/')
		return join(path, err, "%s/.cache/mote/kernels", home);
	return err_set(err, ENOENT, "the cache directory: neither HOME nor XDG_CACHE_HOME is set");
}

int cli_find_kernel(const char *name, char path[PATH_MAX], struct err *err)
{
	char dir[PATH_MAX];
	int rc;

	if (strchr(name, '/'))
		return join(path, err, "%s", name);
	rc = cli_kernels_dir(dir, err);
	if (rc == 0)
		rc = join(path, err, "%s/%s/current/kernel", dir, name);
	if (rc == 0 && access(path, R_OK) < 0)
		rc = err_set(err, ENOENT,
			     "kernel %s: there is none of this name in %s (\"make kernel\" builds "
			     "the default one)",
			     name, dir);
	return rc;
}
