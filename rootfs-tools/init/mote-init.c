/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of a microVM: mounts, tells the boot timer, runs the one command that the host asks for on
 * the serial line (protocol.h), reports how it ended, and powers off. It never returns. While the
 * host does not take its output it waits for that and for nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "line.h"
#include "protocol.h"
#include "setup.h"

#define BOOT_TIMER_ADDR 0xc0000000
#define BOOT_TIMER_VALUE 123
#define SLEEP_CONTROL_PORT 0x600
#define SLEEP_S5_NOW 0x34 /* SLP_TYP 5, SLP_EN */

#define KLOG_SET_CONSOLE_LEVEL 8

#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND 127

static const char *const default_environment[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root",
	"LANG=C.UTF-8",
	NULL,
};

/* The command and the ends of its pipes that are ours; -1 once closed. */
struct command {
	pid_t pid;
	int in;
	int out;
	int err;
	uint8_t *pending; /* standard input that the command has not taken yet */
	size_t pending_size;
	size_t pending_at;
	bool in_ends; /* after `pending` */
	bool exited;
	int status;
	struct rusage usage;
};

static void power_off(void)
{
	sync();
	/* So that a root that was written to is clean; another root does not mind. */
	(void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	/* Kernels without ACPI do not know the sleep register; those with it find it themselves. */
	if (ioperm(SLEEP_CONTROL_PORT, 1, 1) == 0)
		outb(SLEEP_S5_NOW, SLEEP_CONTROL_PORT);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void mount_at(const char *type, const char *target, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	/* A kernel without one of these still runs commands. */
	(void)mount(type, target, type, flags, options);
}

static void mount_all(void)
{
	const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	mount_at("sysfs", "/sys", safe, NULL);
	mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620");
	mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
	mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("cgroup2", "/sys/fs/cgroup", safe, NULL);
}

/* Distribution kernels have drivers and file systems as modules; the list is in loading order. */
static void load_modules(void)
{
	FILE *list = fopen("/lib/modules/load", "re");
	char path[PATH_MAX];

	while (list && fgets(path, sizeof(path), list)) {
		int fd;

		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
			fprintf(stderr, "mote-init: module %s: %s\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (list)
		fclose(list);
}

static void set_up(char *failure)
{
	char root[16], network[256];
	bool has_root, has_network;

	mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	has_root = setup_option("mote.root", root, sizeof(root));
	has_network = setup_option("mote.net", network, sizeof(network));
	if (has_root) {
		if (setup_root(root, failure) < 0)
			return;
		mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755");
		mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	}
	mount_all();
	(void)setup_network(has_network ? network : NULL, failure);
}

static void tell_boot_timer(void)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	volatile uint8_t *timer;

	if (fd < 0)
		return;
	timer = mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, BOOT_TIMER_ADDR);
	if (timer != MAP_FAILED) {
		*timer = BOOT_TIMER_VALUE;
		munmap((void *)(uintptr_t)timer, 4096);
	}
	close(fd);
}

/* Whether the array has a string that begins with NAME=, as variable does. */
static bool is_given(const json_t *array, const char *variable)
{
	size_t length = strcspn(variable, "=") + 1;
	size_t i;
	json_t *value;

	json_array_foreach (array, i, value) {
		const char *string = json_string_value(value);

		if (string && strncmp(string, variable, length) == 0)
			return true;
	}
	return false;
}

/* The array's strings behind those defaults that they do not replace; NULL if one is no string. */
static char **string_list(const json_t *array, const char *const *defaults)
{
	size_t used = 0, most = json_array_size(array), i;
	char **list;
	json_t *value;

	for (i = 0; defaults && defaults[i]; i++)
		most++;
	list = calloc(most + 1, sizeof(*list));
	if (!list)
		return NULL;
	for (i = 0; defaults && defaults[i]; i++) {
		if (!is_given(array, defaults[i]))
			list[used++] = strdup(defaults[i]);
	}
	json_array_foreach (array, i, value) {
		const char *string = json_string_value(value);

		list[used] = string ? strdup(string) : NULL;
		if (!list[used++])
			return NULL;
	}
	return list;
}

static void reset_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
}

static _Noreturn void run_child(char **argv, char **env, const char *cwd, const int fds[3],
				int report)
{
	int saved;

	setsid();
	reset_signals();
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (chdir(cwd) == 0) {
		environ = env;
		execvp(argv[0], argv);
	}
	saved = errno;
	if (write(report, &saved, sizeof(saved)) < 0)
		_exit(EXIT_CANNOT_RUN);
	_exit(saved == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

/* 0, or the errno of what kept the program from running. */
static int spawn(struct command *command, char **argv, char **env, const char *cwd)
{
	int in[2], out[2], err[2], report[2];
	int failure = 0;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 ||
	    pipe2(report, O_CLOEXEC) < 0)
		return errno;
	command->pid = fork();
	if (command->pid < 0)
		return errno;
	if (command->pid == 0)
		run_child(argv, env, cwd, (const int[3]){ in[0], out[1], err[1] }, report[1]);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	close(report[1]);
	if (read(report[0], &failure, sizeof(failure)) != (ssize_t)sizeof(failure))
		failure = 0;
	close(report[0]);
	command->in = in[1];
	command->out = out[0];
	command->err = err[0];
	fcntl(command->in, F_SETFL, O_NONBLOCK);
	fcntl(command->out, F_SETFL, O_NONBLOCK);
	fcntl(command->err, F_SETFL, O_NONBLOCK);
	return failure;
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Passes on what there is, at most one frame of it; false at the end or when there is nothing. */
static bool forward(int *fd, uint8_t type)
{
	static uint8_t data[PROTOCOL_PAYLOAD_MAX];
	ssize_t n = read(*fd, data, sizeof(data));

	if (n > 0)
		line_send(type, data, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_end(fd);
	return n > 0;
}

static void feed(struct command *command)
{
	while (command->pending_at < command->pending_size && command->in >= 0) {
		ssize_t n = write(command->in, command->pending + command->pending_at,
				  command->pending_size - command->pending_at);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			close_end(&command->in); /* the command does not read any more */
		if (n > 0)
			command->pending_at += (size_t)n;
	}
	free(command->pending);
	command->pending = NULL;
	command->pending_at = command->pending_size = 0;
	if (command->in_ends)
		close_end(&command->in);
}

static void take_stdin(struct command *command, const uint8_t *data, size_t size)
{
	command->pending = malloc(size + 1);
	if (!command->pending)
		return;
	memcpy(command->pending, data, size);
	command->pending_size = size;
	feed(command);
}

/* Frames are taken one at a time, the next only when the command has read the last one's bytes. */
static void handle_frames(struct line *line, struct command *command)
{
	ssize_t size = 0;

	while (!command->pending && (size = line_frame(line)) > 0) {
		const uint8_t *payload = line->buffer + PROTOCOL_HEADER_SIZE;

		switch (line->buffer[0]) {
		case PROTOCOL_STDIN:
			take_stdin(command, payload, (size_t)size - PROTOCOL_HEADER_SIZE);
			break;
		case PROTOCOL_STDIN_END:
			command->in_ends = true;
			feed(command);
			break;
		case PROTOCOL_SIGNAL:
			if (size == PROTOCOL_HEADER_SIZE + 1)
				kill(-command->pid, payload[0]);
			break;
		default:
			break;
		}
		line_drop(line, (size_t)size);
	}
	if (size < 0)
		power_off();
}

static void reap(struct command *command)
{
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		if (pid == command->pid) {
			command->exited = true;
			command->status = status;
			command->usage = usage;
		}
	}
}

static void send_exit(const struct command *command)
{
	const struct rusage *usage = &command->usage;
	bool signalled = WIFSIGNALED(command->status);
	char text[256];
	int n = snprintf(text, sizeof(text),
			 "{\"%s\": %d, \"user_us\": %lld, \"system_us\": %lld, "
			 "\"max_rss_kib\": %ld}",
			 signalled ? "signal" : "code",
			 signalled ? WTERMSIG(command->status) : WEXITSTATUS(command->status),
			 (long long)usage->ru_utime.tv_sec * 1000000 + usage->ru_utime.tv_usec,
			 (long long)usage->ru_stime.tv_sec * 1000000 + usage->ru_stime.tv_usec,
			 usage->ru_maxrss);

	line_send(PROTOCOL_EXIT, text, (size_t)n);
}

static void serve(struct line *line, struct command *command)
{
	sigset_t child;
	int child_fd;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	child_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	reap(command);
	while (!command->exited) {
		struct pollfd fds[] = {
			{ .fd = child_fd, .events = POLLIN },
			{ .fd = command->out, .events = POLLIN },
			{ .fd = command->err, .events = POLLIN },
			{ .fd = command->pending ? command->in : -1, .events = POLLOUT },
			{ .fd = command->pending ? -1 : line->fd, .events = POLLIN },
		};
		struct signalfd_siginfo info;

		if (poll(fds, 5, -1) < 0)
			continue;
		if (fds[1].revents)
			forward(&command->out, PROTOCOL_STDOUT);
		if (fds[2].revents)
			forward(&command->err, PROTOCOL_STDERR);
		if (fds[3].revents)
			feed(command);
		if (fds[4].revents && !line_receive(line))
			power_off();
		handle_frames(line, command);
		if (fds[0].revents && read(child_fd, &info, sizeof(info)) > 0)
			reap(command);
	}
	/* Whoever it left running ends with the VM: now, so that the pipes have an end. */
	kill(-1, SIGKILL);
	while (command->out >= 0 && forward(&command->out, PROTOCOL_STDOUT))
		;
	while (command->err >= 0 && forward(&command->err, PROTOCOL_STDERR))
		;
	send_exit(command);
}

static void execute(struct line *line, const json_t *request)
{
	struct command command = { .in = -1, .out = -1, .err = -1 };
	const json_t *cwd = json_object_get(request, "cwd");
	char **argv = string_list(json_object_get(request, "argv"), NULL);
	char **env = string_list(json_object_get(request, "env"), default_environment);
	int failure;

	if (!argv || !argv[0] || !env) {
		line_send_error("exec: argv and env are lists of strings, argv not empty");
		return;
	}
	failure = spawn(&command, argv, env, cwd ? json_string_value(cwd) : "/");
	if (failure != 0) {
		line_send_error("%s: %s", argv[0], strerror(failure));
		return;
	}
	serve(line, &command);
}

static void handle_request(struct line *line, const char *failure)
{
	ssize_t size;
	json_t *request, *exec;

	while ((size = line_frame(line)) == 0) {
		if (!line_receive(line))
			return;
	}
	if (size < 0)
		return;
	if (*failure) {
		line_send_error("%s", failure);
		return;
	}
	request = line->buffer[0] != PROTOCOL_REQUEST
			  ? NULL
			  : json_loadb((const char *)line->buffer + PROTOCOL_HEADER_SIZE,
				       (size_t)size - PROTOCOL_HEADER_SIZE, 0, NULL);
	line_drop(line, (size_t)size);
	exec = json_object_get(request, "exec");
	if (exec)
		execute(line, exec);
	else if (!json_object_get(request, "shutdown"))
		line_send_error("request: an object with \"exec\" or \"shutdown\" is expected");
	json_decref(request);
}

int main(void)
{
	static struct line line;
	char failure[SETUP_FAILURE] = "";

	if (getpid() != 1) {
		fputs("mote-init: it is PID 1 of a microVM and nothing else\n", stderr);
		return EXIT_FAILURE;
	}
	mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755");
	tell_boot_timer();
	load_modules();
	signal(SIGPIPE, SIG_IGN);
	line.fd = line_open();
	if (line.fd < 0)
		power_off();
	/* From here on the line is the protocol's; only a panic may still write to it. */
	klogctl(KLOG_SET_CONSOLE_LEVEL, NULL, 1);
	line_send_sync();
	line_send(PROTOCOL_READY, NULL, 0);
	/* The host takes its time over its request: set up meanwhile. */
	set_up(failure);
	handle_request(&line, failure);
	power_off();
}
