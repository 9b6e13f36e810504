/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock from exec of mote-jailer to the first byte that the VMM in its jail writes:
 *
 *	jail_bench COUNT PARALLEL MOUNTS MOTE_JAILER MOTE_VMM
 *
 * COUNT times in each of PARALLEL processes, in a mount namespace that has MOUNTS more mounts than
 * this machine, with a tmpfs as the chroot's base. Prints microseconds, a line each. The VMM prints
 * its version, and ends.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BASE "/mnt"

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool prepare(int mounts)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0 ||
	    mount("none", BASE, "tmpfs", 0, "mode=0755") < 0 || mkdir(BASE "/mounts", 0755) < 0)
		return false;
	for (int i = 0; i < mounts; i++) {
		char path[64];

		snprintf(path, sizeof(path), BASE "/mounts/%d", i);
		if (mkdir(path, 0755) < 0 || mount(path, path, NULL, MS_BIND, NULL) < 0)
			return false;
	}
	return true;
}

static int64_t run_once(const char *jailer, const char *vmm, int number)
{
	int out[2], status;
	int64_t start, first = 0;
	char byte, id[32];
	pid_t pid;

	snprintf(id, sizeof(id), "bench-%d-%d", getpid(), number);
	if (pipe2(out, O_CLOEXEC) < 0)
		return -1;
	start = now_us();
	pid = fork();
	if (pid == 0) {
		dup2(out[1], STDOUT_FILENO);
		execl(jailer, jailer, "--id", id, "--exec-file", vmm, "--uid", "64017", "--gid",
		      "64017", "--new-netns", "--chroot-base-dir", BASE "/jail", "--", "--version",
		      NULL);
		_exit(127);
	}
	close(out[1]);
	if (pid > 0 && read(out[0], &byte, 1) == 1)
		first = now_us();
	while (read(out[0], &byte, 1) > 0)
		;
	close(out[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0 || first == 0)
		return -1;
	return first - start;
}

static int run(int count, const char *jailer, const char *vmm)
{
	for (int i = 0; i < count; i++) {
		int64_t took = run_once(jailer, vmm, i);

		if (took < 0)
			return EXIT_FAILURE;
		/* A line at a time, so that those of several processes do not mix. */
		dprintf(STDOUT_FILENO, "%lld\n", (long long)took);
	}
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	int count = argc == 6 ? atoi(argv[1]) : 0, parallel = argc == 6 ? atoi(argv[2]) : 0;
	int failed = count < 1 || parallel < 1 || !prepare(atoi(argv[3]));

	for (int i = 0; !failed && i < parallel; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(run(count, argv[4], argv[5]));
		failed = pid < 0;
	}
	for (int i = 0, status; i < parallel && wait(&status) > 0; i++)
		failed |= status;
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
