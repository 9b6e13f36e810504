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
#include <stdarg.h>
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
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"
#include "setup.h"

/* Input comes through the driver, which has interrupts; output goes to the port itself. */
#define SERIAL_LINE "/dev/ttyS0"
#define SERIAL_PORT 0x3f8
#define SERIAL_LINE_STATUS (SERIAL_PORT + 5)
#define SERIAL_TRANSMIT_EMPTY 0x20
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

struct line {
	int fd;
	uint8_t buffer[PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX];
	size_t used;
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

static int open_line(void)
{
	struct termios settings;
	int fd = open(SERIAL_LINE, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &settings) < 0 || ioperm(SERIAL_PORT, 8, 1) < 0 ||
	    ioperm(PROTOCOL_SERIAL_BURST_PORT, 1, 1) < 0)
		return -1;
	cfmakeraw(&settings);
	/* With flow control no byte is lost, however slowly the command reads. */
	settings.c_cflag |= CRTSCTS | CLOCAL | CREAD;
	cfsetspeed(&settings, B4000000);
	tcsetattr(fd, TCSANOW, &settings);
	return fd;
}

static void transmit(const void *data, size_t size)
{
	const struct timespec reader_is_slow = { .tv_nsec = 1000000 };
	const bool fast = inb(PROTOCOL_SERIAL_BURST_PORT) == PROTOCOL_SERIAL_BURST_MAGIC;
	const uint16_t port = fast ? PROTOCOL_SERIAL_BURST_PORT : SERIAL_PORT;
	const size_t most = fast ? PROTOCOL_SERIAL_BURST : PROTOCOL_SERIAL_FIFO;
	const uint8_t *at = data;

	while (size > 0) {
		size_t burst = size < most ? size : most;

		while (!(inb(SERIAL_LINE_STATUS) & SERIAL_TRANSMIT_EMPTY))
			nanosleep(&reader_is_slow, NULL);
		outsb(port, at, burst);
		at += burst;
		size -= burst;
	}
}

static void send_frame(uint8_t type, const void *payload, size_t size)
{
	const uint8_t header[PROTOCOL_HEADER_SIZE] = {
		type, (uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), 0,
	};

	transmit(header, sizeof(header));
	transmit(payload, size);
	/* Looking at the line's status sends off what the UART still holds together. */
	(void)inb(SERIAL_LINE_STATUS);
}

__attribute__((format(printf, 1, 2))) static void send_error(const char *fmt, ...)
{
	char text[512];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n > 0)
		send_frame(PROTOCOL_ERROR, text, strlen(text));
}

/* The length of the first whole frame in the buffer with its header; 0 if there is none yet. */
static size_t whole_frame(const struct line *line)
{
	uint32_t size;

	if (line->used < PROTOCOL_HEADER_SIZE)
		return 0;
	memcpy(&size, line->buffer + 1, sizeof(size));
	if (size > PROTOCOL_PAYLOAD_MAX)
		power_off(); /* not our client */
	return line->used < PROTOCOL_HEADER_SIZE + size ? 0 : PROTOCOL_HEADER_SIZE + size;
}

static void drop_frame(struct line *line, size_t size)
{
	line->used -= size;
	memmove(line->buffer, line->buffer + size, line->used);
}

static bool receive(struct line *line)
{
	ssize_t n = read(line->fd, line->buffer + line->used, sizeof(line->buffer) - line->used);

	if (n > 0)
		line->used += (size_t)n;
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
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
		send_frame(type, data, (size_t)n);
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
	size_t size;

	while (!command->pending && (size = whole_frame(line)) > 0) {
		const uint8_t *payload = line->buffer + PROTOCOL_HEADER_SIZE;

		switch (line->buffer[0]) {
		case PROTOCOL_STDIN:
			take_stdin(command, payload, size - PROTOCOL_HEADER_SIZE);
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
		drop_frame(line, size);
	}
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

	send_frame(PROTOCOL_EXIT, text, (size_t)n);
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
		if (fds[4].revents && !receive(line))
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
		send_error("exec: argv and env are lists of strings, argv not empty");
		return;
	}
	failure = spawn(&command, argv, env, cwd ? json_string_value(cwd) : "/");
	if (failure != 0) {
		send_error("%s: %s", argv[0], strerror(failure));
		return;
	}
	serve(line, &command);
}

static void handle_request(struct line *line, const char *failure)
{
	size_t size;
	json_t *request, *exec;

	while ((size = whole_frame(line)) == 0) {
		if (!receive(line))
			return;
	}
	if (*failure) {
		send_error("%s", failure);
		return;
	}
	request = line->buffer[0] != PROTOCOL_REQUEST
			  ? NULL
			  : json_loadb((const char *)line->buffer + PROTOCOL_HEADER_SIZE,
				       size - PROTOCOL_HEADER_SIZE, 0, NULL);
	drop_frame(line, size);
	exec = json_object_get(request, "exec");
	if (exec)
		execute(line, exec);
	else if (!json_object_get(request, "shutdown"))
		send_error("request: an object with \"exec\" or \"shutdown\" is expected");
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
	line.fd = open_line();
	if (line.fd < 0)
		power_off();
	/* From here on the line is the protocol's; only a panic may still write to it. */
	klogctl(KLOG_SET_CONSOLE_LEVEL, NULL, 1);
	transmit(PROTOCOL_SYNC, PROTOCOL_SYNC_SIZE);
	send_frame(PROTOCOL_READY, NULL, 0);
	/* The host takes its time over its request: set up meanwhile. */
	set_up(failure);
	handle_request(&line, failure);
	power_off();
}
