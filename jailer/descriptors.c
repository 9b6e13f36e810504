/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "jailer/args.h"

/* What the jailer opens itself, to build a jail and to remove it again. */
#define NEEDED 32

static int check(int fd, struct err *err)
{
	const int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "descriptor %d", fd);
	if (S_ISDIR(st.st_mode) || flags & O_PATH)
		return err_set(err, EISDIR,
			       "descriptor %d: a directory, which leads out of the jail", fd);
	return 0;
}

int descriptors_prepare(const struct jailer_args *args, struct err *err)
{
	unsigned int from = STDERR_FILENO + 1;
	struct rlimit limit;
	int rc = 0;

	for (int fd = 0; rc == 0 && fd <= STDERR_FILENO; fd++)
		rc = check(fd, err);
	for (unsigned int i = 0; rc == 0 && i < args->keep_count; i++) {
		const unsigned int fd = (unsigned int)args->keep_fds[i];

		rc = check(args->keep_fds[i], err);
		if (fd > from && close_range(from, fd - 1, 0) < 0)
			return err_sys(err, errno, "descriptors cannot be closed");
		from = fd + 1;
	}
	if (rc == 0 && close_range(from, UINT_MAX, 0) < 0)
		rc = err_sys(err, errno, "descriptors cannot be closed");
	/* Without them a jail that cannot be built could not be removed either. */
	if (rc == 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < from + NEEDED)
		rc = err_sys(err, EMFILE,
			     "the jailer's limit of %llu descriptors, of %u that it needs",
			     (unsigned long long)limit.rlim_cur, from + NEEDED);
	return rc;
}

void descriptors_close_kept(const struct jailer_args *args)
{
	for (unsigned int i = 0; i < args->keep_count; i++) {
		if (args->keep_fds[i] != args->record_fd)
			close(args->keep_fds[i]);
	}
}

int descriptors_detach(struct err *err)
{
	CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (null < 0 || dup2(null, fd) < 0)
			return err_sys(err, errno, "/dev/null");
	}
	return 0;
}
