/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

/* Newer than Debian 12's headers. */
#define ACCESS_TRUNCATE (1ULL << 14)   /* version 3 */
#define ACCESS_IOCTL_DEV (1ULL << 15)  /* version 5 */
#define NET_BIND_AND_CONNECT 3ULL      /* version 4 */
#define SCOPE_ABSTRACT_AND_SIGNAL 3ULL /* version 6 */

/* Version 1: everything up to making symbolic links. */
#define ACCESS_FIRST ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

struct ruleset_attr {
	uint64_t handled_access_fs;
	uint64_t handled_access_net; /* version 4 */
	uint64_t scoped;	     /* version 6 */
};

static struct ruleset_attr attr_of_version(long version)
{
	struct ruleset_attr attr = { .handled_access_fs = ACCESS_FIRST };

	if (version >= 2)
		attr.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
	if (version >= 3)
		attr.handled_access_fs |= ACCESS_TRUNCATE;
	if (version >= 4)
		attr.handled_access_net = NET_BIND_AND_CONNECT;
	if (version >= 5)
		attr.handled_access_fs |= ACCESS_IOCTL_DEV;
	if (version >= 6)
		attr.scoped = SCOPE_ABSTRACT_AND_SIGNAL;
	return attr;
}

static int allow(int ruleset, const char *path, uint64_t access, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	const struct landlock_path_beneath_attr rule = { .allowed_access = access,
							 .parent_fd = fd };

	if (fd < 0 ||
	    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_sys(err, errno, "Landlock's rule for the jail's %s", path);
	return 0;
}

int landlock_enter(const char *exec_name, bool devices_anywhere, struct err *err)
{
	const long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	const struct ruleset_attr attr = attr_of_version(version);
	const uint64_t read_write = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
	const uint64_t files = read_write | LANDLOCK_ACCESS_FS_READ_DIR | ACCESS_TRUNCATE |
			       LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
			       LANDLOCK_ACCESS_FS_REMOVE_FILE |
			       (devices_anywhere ? ACCESS_IOCTL_DEV : 0);
	CLEANUP_FD int ruleset = -1;
	int rc;

	if (version < 1)
		return 0;
	/* What an older kernel has behind what it knows must not be there. */
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr,
			       version >= 6   ? sizeof(attr)
			       : version >= 4 ? 2 * sizeof(uint64_t)
					      : sizeof(uint64_t),
			       0);
	if (ruleset < 0)
		return err_sys(err, errno, "Landlock");
	rc = allow(ruleset, "/", files & attr.handled_access_fs, err);
	if (rc == 0)
		rc = allow(ruleset, "/dev",
			   (read_write | ACCESS_IOCTL_DEV) & attr.handled_access_fs, err);
	if (rc == 0)
		rc = allow(ruleset, exec_name,
			   LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE, err);
	if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		rc = err_sys(err, errno, "Landlock");
	return rc;
}
