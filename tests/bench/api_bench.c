/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock of the API of mote-vmm: api_bench COUNT MOTE_VMM KERNEL DRIVE, in an empty directory.
 * Of COUNT VMs, lines "NAME MICROSECONDS":
 *   exec_to_answer  from exec to the answer to GET /
 *   put             one PUT /machine-config on a connection that is there, many of them
 *   configure       six PUTs (one of them of the drive DRIVE) and InstanceStart, up to the first
 *                   byte that the guest writes
 *   start           of which InstanceStart's answer alone
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SOCKET "api.sock"
#define PUTS 100

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void report(const char *name, int64_t start_ns)
{
	printf("%s %.1f\n", name, (double)(now_ns() - start_ns) / 1000);
}

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "api_bench: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static pid_t start_vmm(const char *path, int out[2])
{
	pid_t pid;
	int null;

	if (pipe2(out, O_CLOEXEC) < 0)
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		execl(path, path, "--api-sock", SOCKET, NULL);
		_exit(127);
	}
	close(out[1]);
	return pid;
}

/* Waits for the socket's file, and for the moment from there until it listens. */
static int connect_api(pid_t pid, int watch)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	char event[sizeof(struct inotify_event) + NAME_MAX + 1];

	if (read(watch, event, sizeof(event)) < 0)
		fail("inotify");
	while (waitpid(pid, NULL, WNOHANG) == 0) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		close(fd);
		/* It may need this very processor to get there. */
		sched_yield();
	}
	fail("mote-vmm ended");
}

static void request(int fd, const char *line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void request(int fd, const char *line, const char *fmt, ...)
{
	char body[1024], text[2048];
	va_list args;
	ssize_t n;
	int len;

	va_start(args, fmt);
	len = vsnprintf(body, sizeof(body), fmt, args);
	va_end(args);
	len = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", line, len,
		       body);
	if (write(fd, text, (size_t)len) != len)
		fail(line);
	/* An answer comes whole: it is one write. */
	n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	if (strncmp(text, "HTTP/1.1 20", 11) != 0) {
		fprintf(stderr, "api_bench: %s: %s\n", line, text);
		exit(EXIT_FAILURE);
	}
}

static void run_one(const char *vmm, const char *kernel, const char *drive)
{
	int watch = inotify_init1(IN_CLOEXEC);
	int64_t start, starting;
	int out[2], fd, status;
	char byte;
	pid_t pid;

	if (watch < 0 || inotify_add_watch(watch, ".", IN_CREATE) < 0)
		fail("inotify");
	start = now_ns();
	pid = start_vmm(vmm, out);
	fd = connect_api(pid, watch);
	request(fd, "GET /", "%s", "");
	report("exec_to_answer", start);
	/* Behind the figure: it takes milliseconds. */
	close(watch);
	for (int i = 0; i < PUTS; i++) {
		start = now_ns();
		request(fd, "PUT /machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": %d}",
			100 + i);
		report("put", start);
	}
	start = now_ns();
	request(fd, "PUT /logger", "{\"level\": \"Warning\"}");
	request(fd, "PUT /machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 128}");
	request(fd, "PUT /boot-source", "{\"kernel_image_path\": \"%s\"}", kernel);
	request(fd, "PUT /drives/rootfs",
		"{\"drive_id\": \"rootfs\", \"path_on_host\": \"%s\", \"is_root_device\": true}",
		drive);
	request(fd, "PUT /vsock", "{\"guest_cid\": 3, \"uds_path\": \"v.sock\"}");
	request(fd, "PUT /serial", "{\"buffer_size\": 16384}");
	starting = now_ns();
	request(fd, "PUT /actions", "{\"action_type\": \"InstanceStart\"}");
	report("start", starting);
	if (read(out[0], &byte, 1) != 1)
		fail("the guest's first byte");
	report("configure", start);
	close(fd);
	while (read(out[0], &byte, 1) > 0)
		;
	close(out[0]);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail("mote-vmm's end");
}

int main(int argc, char **argv)
{
	int count = argc == 5 ? atoi(argv[1]) : 0;

	for (int i = 0; i < count; i++)
		run_one(argv[2], argv[3], argv[4]);
	return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
