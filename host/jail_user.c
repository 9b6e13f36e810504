/* SPDX-License-Identifier: Apache-2.0 */
#include "host/jail_user.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"

#define GETENT "/usr/bin/getent"
#define GETENT_NOT_THERE 2
#define FIRST_MIN 65536u
#define FIRST_MAX (UINT32_MAX - JAIL_USER_COUNT)

static int read_first(unsigned int *first, struct err *err)
{
	const char *text = getenv(JAIL_USER_VARIABLE);
	unsigned long long number;
	char *end;

	*first = JAIL_USER_FIRST;
	if (!text || !*text)
		return 0;
	number = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || number < FIRST_MIN || number > FIRST_MAX)
		return err_set(err, EINVAL,
			       JAIL_USER_VARIABLE "=%s: a number from %u to %u is expected, the "
						  "first of %u that are no users of the host",
			       text, FIRST_MIN, FIRST_MAX, JAIL_USER_COUNT);
	*first = (unsigned int)number;
	return 0;
}

static int taken(unsigned int user, const char *where, struct err *err)
{
	return err_set(err, EEXIST,
		       "user %u, for the VMM: it is in %s (" JAIL_USER_VARIABLE
		       " gives another range)",
		       user, where);
}

/* Of user name service modules there are any number, which only the host's own programs can load.
 */
static int ask_host(unsigned int user, const char *database, struct err *err)
{
	char number[16];
	char *const argv[] = { (char[]){ GETENT }, (char *)(uintptr_t)database, number, NULL };
	char *const environment[] = { NULL };
	posix_spawn_file_actions_t actions;
	int rc, status;
	pid_t pid;

	snprintf(number, sizeof(number), "%u", user);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	rc = posix_spawn(&pid, GETENT, &actions, NULL, argv, environment);
	posix_spawn_file_actions_destroy(&actions);
	if (rc != 0)
		return err_sys(err, rc, GETENT);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return err_sys(err, errno, GETENT);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS)
		return taken(user, database, err);
	return WIFEXITED(status) && WEXITSTATUS(status) == GETENT_NOT_THERE
		       ? 0
		       : err_set(err, EIO, GETENT " %s %s: it failed", database, number);
}

/* Lines are NAME:FIRST:COUNT. */
static int read_delegated(unsigned int user, const char *path, struct err *err)
{
	FILE *file = fopen(path, "re");
	unsigned long long first, count;
	char line[1024];
	int rc = 0;

	if (!file)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
	while (rc == 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%*[^:]:%llu:%llu", &first, &count) == 2 && user >= first &&
		    user - first < count)
			rc = taken(user, path, err);
	}
	fclose(file);
	return rc;
}

int jail_user_choose(unsigned int *user, struct err *err)
{
	int rc = read_first(user, err);

	*user += (unsigned int)getpid();
	if (rc == 0)
		rc = read_delegated(*user, "/etc/subuid", err);
	if (rc == 0)
		rc = read_delegated(*user, "/etc/subgid", err);
	if (rc == 0)
		rc = ask_host(*user, "passwd", err);
	return rc < 0 ? rc : ask_host(*user, "group", err);
}
