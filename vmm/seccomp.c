/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "vmm/policies.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static const struct {
	const char *name;
	const struct sock_filter *filter;
	const unsigned short *length;
} roles[] = {
	[SECCOMP_MAIN] = { "main", policy_main, &policy_main_length },
	[SECCOMP_VCPU] = { "vcpu", policy_vcpu, &policy_vcpu_length },
	[SECCOMP_BLOCK] = { "block", policy_block, &policy_block_length },
	[SECCOMP_CREATOR] = { "creator", policy_creator, &policy_creator_length },
};

/* The policy for this process. At level Debug its refusals are signals that a handler sees. */
static struct sock_filter *instance(const struct sock_filter *filter, unsigned short length)
{
	struct sock_filter *copy = malloc(length * sizeof(*copy));

	if (!copy)
		return NULL;
	memcpy(copy, filter, length * sizeof(*copy));
	for (unsigned short i = 0; i < length; i++) {
		if (copy[i].code == (BPF_JMP | BPF_JEQ | BPF_K) && copy[i].k == POLICY_OWN_PID)
			copy[i].k = (uint32_t)getpid();
		if (log_wants(LOG_DEBUG) && copy[i].code == (BPF_RET | BPF_K) &&
		    copy[i].k == SECCOMP_RET_KILL_PROCESS)
			copy[i].k = SECCOMP_RET_TRAP;
	}
	return copy;
}

static int load(struct sock_filter *filter, unsigned short length)
{
	const struct sock_fprog program = { length, filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return -errno;
	return 0;
}

int seccomp_enter(enum seccomp_role role, struct err *err)
{
	const unsigned short length = *roles[role].length;
	struct sock_filter *filter;
	int rc;

	if (SANITIZED)
		return 0;
	filter = instance(roles[role].filter, length);
	rc = filter ? load(filter, length) : -ENOMEM;
	free(filter);
	return rc < 0 ? err_sys(err, -rc, "seccomp policy %s", roles[role].name) : 0;
}
