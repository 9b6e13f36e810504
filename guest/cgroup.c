/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT "/sys/fs/cgroup"

/* Those that could not be removed yet. */
#define KEPT_MAX 64

static unsigned int last_number;
static unsigned int kept[KEPT_MAX];
static unsigned int kept_count;

static void write_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		errno = 0; /* a kernel without it: nobody can help that */
	close(fd);
}

static ssize_t read_fd(int fd, char *text, size_t size)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return n;
}

static ssize_t read_file(int dir, const char *name, char *text, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = read_fd(fd, text, size);

	if (fd >= 0)
		close(fd);
	return n;
}

/* The number behind "NAME " at the beginning of a line; 0 if there is none. */
static uint64_t value_of(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) == 0 && line[length] == ' ')
			return strtoull(line + length, NULL, 10);
	}
	return 0;
}

static bool remove_folder(unsigned int number)
{
	char path[64];

	snprintf(path, sizeof(path), ROOT "/exec-%u", number);
	return rmdir(path) == 0 || errno == ENOENT;
}

static void remove_kept(void)
{
	unsigned int left = 0;

	for (unsigned int i = 0; i < kept_count; i++) {
		if (!remove_folder(kept[i]))
			kept[left++] = kept[i];
	}
	kept_count = left;
}

void cgroup_open(struct cgroup *cgroup)
{
	char path[64];

	*cgroup = (struct cgroup){ .number = ++last_number, .fd = -1, .events_fd = -1 };
	if (cgroup->number == 1)
		write_file(AT_FDCWD, ROOT "/cgroup.subtree_control", "+memory");
	remove_kept();
	snprintf(path, sizeof(path), ROOT "/exec-%u", cgroup->number);
	if (mkdir(path, 0755) < 0)
		return;
	cgroup->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A kernel without cgroups has an ordinary folder there, if any. */
	if (cgroup->fd >= 0)
		cgroup->events_fd = openat(cgroup->fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (cgroup->events_fd < 0)
		cgroup_close(cgroup);
}

void cgroup_close(struct cgroup *cgroup)
{
	if (cgroup->events_fd >= 0)
		close(cgroup->events_fd);
	if (cgroup->fd >= 0) {
		close(cgroup->fd);
		if (!remove_folder(cgroup->number) && kept_count < KEPT_MAX)
			kept[kept_count++] = cgroup->number;
	}
	cgroup->fd = cgroup->events_fd = -1;
}

void cgroup_kill(const struct cgroup *cgroup)
{
	if (cgroup->fd >= 0)
		write_file(cgroup->fd, "cgroup.kill", "1");
}

bool cgroup_populated(struct cgroup *cgroup)
{
	char text[128];

	return read_fd(cgroup->events_fd, text, sizeof(text)) > 0 &&
	       value_of(text, "populated") != 0;
}

bool cgroup_usage(const struct cgroup *cgroup, struct cgroup_usage *usage)
{
	char text[1024];

	if (cgroup->fd < 0 || read_file(cgroup->fd, "cpu.stat", text, sizeof(text)) <= 0)
		return false;
	usage->user_us = value_of(text, "user_usec");
	usage->system_us = value_of(text, "system_usec");
	if (read_file(cgroup->fd, "memory.peak", text, sizeof(text)) > 0)
		usage->memory_peak = strtoull(text, NULL, 10);
	if (read_file(cgroup->fd, "memory.events", text, sizeof(text)) > 0)
		usage->oom_kills = value_of(text, "oom_kill");
	return true;
}
