/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/vm.h"

/* In ticks since the host's boot: with the number it names one process, ever. 0: there is none. */
static int64_t start_of(pid_t pid)
{
	char path[32], text[1024];
	const char *rest;
	long long start = 0;
	size_t n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (file) {
		n = fread(text, 1, sizeof(text) - 1, file);
		fclose(file);
	}
	text[n] = '\0';
	/* Past the name, which may be anything: state is field 3, the start time 22. */
	rest = strrchr(text, ')');
	if (rest)
		(void)sscanf(rest,
			     ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
			     "%*d %*d %*d %lld",
			     &start);
	return start;
}

static void start_key(const char *key, char name[32])
{
	snprintf(name, 32, "%s_start", key);
}

void vm_set_process(json_t *meta, const char *key, pid_t pid)
{
	char start[32];

	start_key(key, start);
	json_object_set_new(meta, key, json_integer(pid));
	json_object_set_new(meta, start, json_integer(start_of(pid)));
}

int vm_open_process(const json_t *meta, const char *key)
{
	const pid_t pid = (pid_t)vm_number(meta, key);
	CLEANUP_FD int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	char start[32];
	int64_t wanted;

	start_key(key, start);
	wanted = vm_number(meta, start);
	/* The number may be another's by now; what is open stays what it is. */
	return fd < 0 || wanted == 0 || start_of(pid) != wanted ? -ESRCH : fd_take(&fd);
}

bool vm_signal(const json_t *meta, const char *key, int number)
{
	CLEANUP_FD int fd = vm_open_process(meta, key);

	return fd >= 0 && syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) == 0;
}

bool vm_wait(const json_t *meta, int timeout_ms)
{
	CLEANUP_FD int fd = vm_open_process(meta, VM_SUPERVISOR);
	struct pollfd ended = { .fd = fd, .events = POLLIN };

	return fd < 0 || poll(&ended, 1, timeout_ms) > 0;
}
