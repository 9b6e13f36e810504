/* SPDX-License-Identifier: Apache-2.0 */
#include "host/paths.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/own_dir.h"
#include "host/image_reference.h"

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

int paths_own(const char *name, char path[PATH_MAX], struct err *err)
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
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		int rc = join(path, err, "%s/%s/%s", self, places[i], name);

		if (rc < 0)
			return rc;
		if (access(path, R_OK) == 0)
			return 0;
	}
	return err_set(err, ENOENT, "%s: neither in %s nor in its ../lib/mote", name, self);
}

/* Of the user, which a system's services are not told. 0 or -ENOENT with err set. */
static int find_home(char home[PATH_MAX], const char *what, const char *variable, struct err *err)
{
	const char *told = getenv("HOME");
	struct passwd *entry;
	FILE *users;
	int rc = -ENOENT;

	if (told && told[0] == '/')
		return join(home, err, "%s", told);
	/* getpwuid() would load libraries into what is a static program. */
	users = fopen("/etc/passwd", "re");
	while (users && rc == -ENOENT && (entry = fgetpwent(users)) != NULL) {
		if (entry->pw_uid == geteuid() && entry->pw_dir[0] == '/')
			rc = join(home, err, "%s", entry->pw_dir);
	}
	if (users)
		fclose(users);
	if (rc != -ENOENT)
		return rc;
	return err_set(err, ENOENT,
		       "the %s directory: /etc/passwd has no home for user %u: set HOME or %s",
		       what, (unsigned int)geteuid(), variable);
}

/* What a variable names, or what is usual in the user's home. */
static int xdg_dir(char path[PATH_MAX], const char *what, const char *variable, const char *usual,
		   const char *name, struct err *err)
{
	const char *told = getenv(variable);
	char home[PATH_MAX];
	int rc;

	if (told && told[0] == '/')
		return join(path, err, "%s/mote/%s", told, name);
	rc = find_home(home, what, variable, err);
	return rc < 0 ? rc : join(path, err, "%s/%s/mote/%s", home, usual, name);
}

int paths_images(char path[PATH_MAX], struct err *err)
{
	return xdg_dir(path, "data", "XDG_DATA_HOME", ".local/share", "images", err);
}

static int cache_dir(char path[PATH_MAX], const char *name, struct err *err)
{
	return xdg_dir(path, "cache", "XDG_CACHE_HOME", ".cache", name, err);
}

/* What is not there is told by whoever looks for something in it. */
static int check_own(const char *path, struct err *err)
{
	CLEANUP_FD int fd = own_dir_open(path, 0, err);

	return fd < 0 && fd != -ENOENT ? fd : 0;
}

int paths_kernels(char path[PATH_MAX], struct err *err)
{
	int rc = cache_dir(path, "kernels", err);

	return rc < 0 ? rc : check_own(path, err);
}

static int open_private(const char *path, struct err *err)
{
	CLEANUP_FD int fd = own_dir_open(path, 0700, err);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 0077) != 0)
		return err_set(err, EPERM,
			       "runtime directory %s: it must be a directory of yours that nobody "
			       "else may enter",
			       path);
	return 0;
}

/* After `su` one that is named may be somebody else's, who could put other files in its place. */
static bool is_own(const char *path)
{
	CLEANUP_FD int fd = path && path[0] == '/' ? own_dir_open(path, 0, NULL) : -1;
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid();
}

static int own_runtime_dir(char path[PATH_MAX], const char *name, struct err *err)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char usual[32], base[PATH_MAX];
	int rc;

	snprintf(usual, sizeof(usual), "/run/user/%u", (unsigned int)geteuid());
	if (is_own(runtime))
		rc = join(base, err, "%s/mote", runtime);
	else if (geteuid() == 0)
		rc = join(base, err, "/run/mote");
	else if (is_own(usual))
		rc = join(base, err, "%s/mote", usual);
	else
		/* Not in /tmp, where anybody can be first. */
		rc = cache_dir(base, "run", err);
	if (rc == 0)
		rc = open_private(base, err);
	if (rc == 0)
		rc = join(path, err, "%s/%s", base, name);
	return rc < 0 ? rc : open_private(path, err);
}

int paths_vms(char path[PATH_MAX], struct err *err)
{
	return own_runtime_dir(path, "vms", err);
}

int paths_jails(char path[PATH_MAX], struct err *err)
{
	return own_runtime_dir(path, "jail", err);
}

/* As no image's name does. */
static bool ends_with_slash(const char *name)
{
	return *name && name[strlen(name) - 1] == '/';
}

int paths_image(const char *name, char path[PATH_MAX], bool *is_file, struct err *err)
{
	char dir[PATH_MAX], tag[PATH_MAX], whole[IMAGE_REFERENCE_MAX + 1];
	bool has_slash = strchr(name, '/') != NULL;
	const char *names[] = { name, whole };
	int rc;

	*is_file =
		name[0] == '/' ||
		(has_slash && (name[0] == '.' || ends_with_slash(name) || access(name, F_OK) == 0));
	if (*is_file)
		return join(path, err, "%s", name);
	rc = paths_images(dir, err);
	if (rc == 0)
		rc = check_own(dir, err);
	if (rc < 0)
		return rc;
	if (image_reference_parse(name, whole, NULL) < 0)
		whole[0] = '\0';
	for (size_t i = 0; i < 2; i++) {
		char file[IMAGE_REFERENCE_MAX + 1];

		if (!names[i][0] || strlen(names[i]) > IMAGE_REFERENCE_MAX)
			continue;
		image_reference_file(names[i], file);
		rc = join(tag, err, "%s/tags/%s", dir, file);
		if (rc < 0 || realpath(tag, path))
			return rc;
		if (errno != ENOENT)
			return err_sys(err, errno, "image %s", name);
	}
	return err_set(err, ENOENT,
		       "image %s: there is none of this name (\"mote image ls\" lists them%s%s; a "
		       "file's path has a slash; a command without an image follows --)",
		       name, whole[0] ? ", \"mote image pull\" fetches " : "", whole);
}

int paths_kernel(const char *name, char path[PATH_MAX], struct err *err)
{
	char dir[PATH_MAX];
	int rc;

	if (strchr(name, '/'))
		return join(path, err, "%s", name);
	rc = paths_kernels(dir, err);
	if (rc == 0)
		rc = join(path, err, "%s/%s/current/kernel", dir, name);
	if (rc == 0 && access(path, R_OK) < 0)
		rc = err_set(err, ENOENT,
			     "kernel %s: there is none of this name in %s (\"make kernel\" builds "
			     "the default one)",
			     name, dir);
	return rc;
}
