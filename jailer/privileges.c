/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/ring_memory.h"
#include "jailer/args.h"

static int limit(__rlimit_resource_t resource, const char *name, uint64_t value, struct err *err)
{
	const struct rlimit both = { value, value };

	if (value != RLIM_INFINITY && setrlimit(resource, &both) < 0)
		return err_sys(err, errno, "resource limit %s", name);
	return 0;
}

/* As much of it as the caller has: one without privilege cannot have more. */
static int limit_locked_memory(struct err *err)
{
	struct rlimit has;
	int rc = limit(RLIMIT_MEMLOCK, "memlock", RING_MEMORY, err);

	if (rc != -EPERM)
		return rc;
	if (getrlimit(RLIMIT_MEMLOCK, &has) < 0)
		return err_sys(err, errno, "resource limit memlock");
	return limit(RLIMIT_MEMLOCK, "memlock", has.rlim_max, err);
}

int privileges_limit(const struct jailer_args *args, struct err *err)
{
	/* No byte fits, and a handler that is a pipe gets none either: with 0 it would get all. */
	int rc = limit(RLIMIT_CORE, "core", 1, err);

	if (rc == 0)
		rc = limit_locked_memory(err);
	if (rc == 0)
		rc = limit(RLIMIT_NOFILE, "no-file", args->limits.no_file, err);
	if (rc == 0)
		rc = limit(RLIMIT_FSIZE, "fsize", args->limits.fsize, err);
	if (rc == 0)
		rc = limit(RLIMIT_NPROC, "nproc", args->limits.nproc, err);
	return rc;
}

static int empty_bounding_set(struct err *err)
{
	for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++) {
		if (cap_drop_bound(cap) < 0)
			return err_sys(err, errno, "capability %d cannot be dropped", cap);
	}
	return 0;
}

static int drop_capabilities(struct err *err)
{
	cap_t none = cap_init();
	int rc = 0;

	if (!none)
		return err_sys(err, errno, "capabilities");
	if (cap_reset_ambient() < 0 || cap_set_proc(none) < 0)
		rc = err_sys(err, errno, "capabilities cannot be dropped");
	cap_free(none);
	return rc;
}

static int verify(const struct jailer_args *args, struct err *err)
{
	cap_t none = cap_init(), now = cap_get_proc();
	uid_t uids[3] = { 0 };
	gid_t gids[3] = { 0 };
	bool good = none && now && cap_compare(none, now) == 0 &&
		    getresuid(&uids[0], &uids[1], &uids[2]) == 0 &&
		    getresgid(&gids[0], &gids[1], &gids[2]) == 0;

	for (int i = 0; i < 3; i++)
		good = good && uids[i] == args->uid && gids[i] == args->gid;
	cap_free(none);
	cap_free(now);
	return good ? 0 : err_set(err, EPERM, "privileges are left after all were dropped");
}

int privileges_drop(const struct jailer_args *args, struct err *err)
{
	const unsigned long locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
				     SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
				     SECBIT_NO_CAP_AMBIENT_RAISE |
				     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
	int rc;

	rc = empty_bounding_set(err);
	if (rc < 0)
		return rc;
	if (prctl(PR_SET_SECUREBITS, locked) < 0)
		return err_sys(err, errno, "securebits");
	/* A user namespace of one user cannot; /dev/kvm is the group's, too. */
	if (!args->rootless && setgroups(0, NULL) < 0)
		return err_sys(err, errno, "supplementary groups");
	if (setresgid(args->gid, args->gid, args->gid) < 0)
		return err_sys(err, errno, "--gid %u", args->gid);
	if (setresuid(args->uid, args->uid, args->uid) < 0)
		return err_sys(err, errno, "--uid %u", args->uid);
	/* The keys of whoever started us are not for the VMM; kernels without keys have none. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		return err_sys(err, errno, "session keyring");
	rc = drop_capabilities(err);
	if (rc == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		rc = err_sys(err, errno, "no_new_privs");
	return rc < 0 ? rc : verify(args, err);
}
