/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"

#define CONFIG_PATH "/proc/self/fd/3"
#define CONFIG_FD 3
#define GUEST_CID 3 /* any: each VM has its own vsock device */

static int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A memory file with the VM's configuration, or -errno with err set. */
static int write_config(const struct sandbox_config *config, struct err *err)
{
	json_t *json = json_pack("{s:{s:s, s:s, s:s}, s:{s:i, s:i, s:s}, s:O, s:O, s:{s:i, s:s}}",
				 "boot-source", "kernel_image_path", config->kernel, "initrd_path",
				 config->initrd, "boot_args", config->boot_args, "machine-config",
				 "vcpu_count", config->vcpu_count, "mem_size_mib",
				 config->mem_size_mib, "huge_pages", config->huge_pages, "drives",
				 config->drives, "network-interfaces", config->interfaces, "vsock",
				 "guest_cid", GUEST_CID, "uds_path", config->vsock);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int fd, rc;

	json_decref(json);
	if (!text)
		return err_set(err, EINVAL, "the VM's configuration: a path is not UTF-8");
	fd = memfd_create("vm.json", MFD_CLOEXEC);
	rc = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
	free(text);
	if (rc < 0) {
		fd_close(&fd);
		return err_sys(err, -rc, "the VM's configuration");
	}
	return fd;
}

static _Noreturn void exec_vmm(const char *path, int64_t start_ns, const int fds[3], int config_fd,
			       int passt_fd)
{
	/* Out of the way of the numbers given out below. */
	int passt = passt_fd > 0 ? fcntl(passt_fd, F_DUPFD_CLOEXEC, SANDBOX_PASST_FD + 1) : -1;
	char start_us[32];
	char *const argv[] = {
		(char[]){ "mote-vmm" },
		(char[]){ "--no-api" },
		(char[]){ "--config-file" },
		(char[]){ CONFIG_PATH },
		(char[]){ "--boot-timer" },
		(char[]){ "--id" },
		(char[]){ "sandbox" },
		(char[]){ "--start-time-us" },
		start_us,
		NULL,
	};
	sigset_t none;

	snprintf(start_us, sizeof(start_us), "%lld", (long long)start_ns / 1000);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* A process group of its own: the terminal's Ctrl-C is mote's to handle. */
	setpgid(0, 0);
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (config_fd == CONFIG_FD)
		fcntl(config_fd, F_SETFD, 0);
	else
		dup2(config_fd, CONFIG_FD);
	if (passt >= 0)
		dup2(passt, SANDBOX_PASST_FD);
	execv(path, argv);
	dprintf(STDERR_FILENO, "0 [sandbox:main:ERROR] %s: %s\n", path, strerrordesc_np(errno));
	_exit(CLI_EXIT_SANDBOX);
}

static int open_pipe(int *reader, int *writer)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	*reader = pair[0];
	*writer = pair[1];
	return fcntl(pair[0], F_SETFL, O_NONBLOCK);
}

int sandbox_start(struct sandbox *sandbox, const struct sandbox_config *config, bool verbose,
		  struct err *err)
{
	CLEANUP_FD int console_read = -1, console_write = -1, log_read = -1, log_write = -1;
	CLEANUP_FD int config_fd = -1, nothing = -1;
	char path[PATH_MAX];
	pid_t parent = getpid();
	int rc;

	memset(sandbox, 0, sizeof(*sandbox));
	sandbox->phases = (struct sandbox_phases){ -1, -1, -1, -1 };
	sandbox->verbose = verbose;
	rc = cli_find_own("mote-vmm", path, err);
	if (rc < 0)
		return rc;
	config_fd = write_config(config, err);
	if (config_fd < 0)
		return config_fd;
	nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (nothing < 0 || open_pipe(&console_read, &console_write) < 0 ||
	    open_pipe(&log_read, &log_write) < 0)
		return err_sys(err, errno, "a pipe to mote-vmm");
	sandbox->start_ns = monotonic_ns();
	sandbox->pid = fork();
	if (sandbox->pid < 0)
		return err_sys(err, errno, "mote-vmm: fork");
	if (sandbox->pid == 0) {
		/* If mote is killed, so is its VM; it may have been before this takes effect. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(CLI_EXIT_SANDBOX);
		exec_vmm(path, sandbox->start_ns,
			 (const int[3]){ nothing, console_write, log_write }, config_fd,
			 config->passt_fd);
	}
	sandbox->pid_fd = (int)syscall(SYS_pidfd_open, sandbox->pid, 0);
	if (sandbox->pid_fd < 0) {
		rc = err_sys(err, errno, "mote-vmm: pidfd_open");
		kill(sandbox->pid, SIGKILL);
		waitpid(sandbox->pid, NULL, 0);
		return rc;
	}
	sandbox->console_fd = fd_take(&console_read);
	sandbox->log_fd = fd_take(&log_read);
	return 0;
}

static void keep_error(struct sandbox *sandbox, const char *text)
{
	/* The configuration is ours, so its path tells the user nothing. */
	static const char config[] = "configuration file " CONFIG_PATH ": ";

	if (strncmp(text, config, sizeof(config) - 1) == 0) {
		const char *behind = strstr(text + sizeof(config) - 1, ": ");

		if (behind)
			text = behind + 2;
	}
	snprintf(sandbox->last_error, sizeof(sandbox->last_error), "%s", text);
}

static void read_line(struct sandbox *sandbox)
{
	struct sandbox_phases *phases = &sandbox->phases;
	const char *line = sandbox->line;
	const char *at;
	long long a, b, c;

	if (sandbox->verbose)
		fprintf(stderr, "%s\n", line);
	if ((at = strstr(line, ":ERROR] ")) != NULL) {
		keep_error(sandbox, at + strlen(":ERROR] "));
	} else if ((at = strstr(line, "Boot-phases = ")) != NULL &&
		   sscanf(at,
			  "Boot-phases = kvm_ready %lld us, kernel_loaded %lld us, "
			  "first_instruction %lld us",
			  &a, &b, &c) == 3) {
		phases->kvm_ready_us = a;
		phases->kernel_loaded_us = b;
		phases->first_instruction_us = c;
	} else if ((at = strstr(line, "Guest-boot-time = ")) != NULL &&
		   sscanf(at, "Guest-boot-time = %lld us", &a) == 1) {
		phases->init_us = a;
	} else if ((at = strstr(line, ":INFO] ")) != NULL) {
		snprintf(sandbox->last_info, sizeof(sandbox->last_info), "%s",
			 at + strlen(":INFO] "));
	}
}

bool sandbox_read_log(struct sandbox *sandbox)
{
	char data[SANDBOX_LOG_LINE];
	ssize_t n = read(sandbox->log_fd, data, sizeof(data));

	for (ssize_t i = 0; i < n; i++) {
		if (data[i] == '\n') {
			sandbox->line[sandbox->line_used] = '\0';
			read_line(sandbox);
			sandbox->line_used = 0;
		} else if (sandbox->line_used < sizeof(sandbox->line) - 1) {
			sandbox->line[sandbox->line_used++] = data[i];
		}
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

void sandbox_finish(struct sandbox *sandbox, int timeout_ms)
{
	struct pollfd ended = { .fd = sandbox->pid_fd, .events = POLLIN };
	int status;

	if (sandbox->pid == 0)
		return;
	if (poll(&ended, 1, timeout_ms) <= 0)
		kill(sandbox->pid, SIGKILL);
	while (waitpid(sandbox->pid, &status, 0) < 0 && errno == EINTR)
		;
	sandbox->status = status;
	sandbox->pid = 0;
	while (sandbox->log_fd > 0 && sandbox_read_log(sandbox)) {
		struct pollfd more = { .fd = sandbox->log_fd, .events = POLLIN };

		if (poll(&more, 1, 0) <= 0)
			break;
	}
}

void sandbox_close(struct sandbox *sandbox)
{
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (sandbox->pid_fd <= 0)
		return;
	sandbox_finish(sandbox, 0);
	fd_close(&sandbox->pid_fd);
	fd_close(&sandbox->console_fd);
	fd_close(&sandbox->log_fd);
}
