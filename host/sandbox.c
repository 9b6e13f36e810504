/* SPDX-License-Identifier: Apache-2.0 */
#include "host/sandbox.h"

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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent-protocol/protocol.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/printable.h"
#include "host/jail.h"
#include "host/paths.h"

#define CONFIG_PATH "/dev/fd/3"
#define CONFIG_FD 3
#define FIRST_FILE_FD 16
#define JAILER_SAYS "mote-jailer: "
#define GUEST_CID 3 /* any: each VM has its own vsock device */

/* One that was opened, or that could not be as it was to be written to: the jailer takes none. */
static bool is_directory(int fd)
{
	struct stat st;

	return fd < 0 ? errno == EISDIR : fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Its name for mote-vmm, or NULL with err set. The sentence is the one that mote-vmm would say. */
static json_t *open_file(struct sandbox *sandbox, const char *path, int flags, const char *what,
			 struct err *err)
{
	CLEANUP_FD int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct sandbox_file *file = &sandbox->files[sandbox->file_count];

	if (is_directory(fd)) {
		err_set(err, EISDIR,
			"%s%s: a directory, not a file (\"mote image build\" makes an image of "
			"one)",
			what, path);
		return NULL;
	}
	if (fd < 0 || sandbox->file_count == SANDBOX_FILES_MAX) {
		err_sys(err, fd < 0 ? errno : EMFILE, "%s%s", what, path);
		return NULL;
	}
	/* Past the numbers that are given out in the new process. */
	file->fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FILE_FD);
	if (file->fd < 0) {
		err_sys(err, errno, "%s%s", what, path);
		return NULL;
	}
	file->path = path;
	file->number = file->fd;
	sandbox->file_count++;
	return json_sprintf("/dev/fd/%d", file->fd);
}

static void close_files(struct sandbox *sandbox)
{
	for (unsigned int i = 0; i < sandbox->file_count; i++)
		fd_close(&sandbox->files[i].fd);
}

/* The same drives, whose paths are those of open files; NULL with err set. */
static json_t *open_drives(struct sandbox *sandbox, json_t *drives, struct err *err)
{
	json_t *opened = json_deep_copy(drives);
	json_t *drive, *path;
	size_t i;

	json_array_foreach (opened, i, drive) {
		const bool read_only = json_is_true(json_object_get(drive, "is_read_only"));
		char what[64];

		snprintf(what, sizeof(what),
			 "drive %s: ", json_string_value(json_object_get(drive, "drive_id")));
		path = open_file(sandbox,
				 json_string_value(json_object_get(json_array_get(drives, i),
								   "path_on_host")),
				 read_only ? O_RDONLY : O_RDWR, what, err);
		if (!path) {
			json_decref(opened);
			return NULL;
		}
		json_object_set_new(drive, "path_on_host", path);
	}
	return opened;
}

static json_t *describe(struct sandbox *sandbox, const struct sandbox_config *config,
			struct err *err)
{
	json_t *kernel = open_file(sandbox, config->kernel, O_RDONLY, "kernel image ", err);
	json_t *initrd =
		kernel ? open_file(sandbox, config->initrd, O_RDONLY, "initrd ", err) : NULL;
	json_t *drives = initrd ? open_drives(sandbox, config->drives, err) : NULL;

	if (!drives) {
		json_decref(kernel);
		json_decref(initrd);
		return NULL;
	}
	return json_pack("{s:{s:o, s:o, s:s}, s:{s:i, s:i, s:s}, s:o, s:O, s:{s:i, s:s}}",
			 "boot-source", "kernel_image_path", kernel, "initrd_path", initrd,
			 "boot_args", config->boot_args, "machine-config", "vcpu_count",
			 config->vcpu_count, "mem_size_mib", config->mem_size_mib, "huge_pages",
			 config->huge_pages, "drives", drives, "network-interfaces",
			 config->interfaces, "vsock", "guest_cid", GUEST_CID, "uds_path",
			 config->vsock);
}

/* The guest's agent leads what asks for them to the port. The file for mote-vmm, or NULL with err
   set. */
static json_t *add_metadata(struct sandbox *sandbox, const char *path, json_t *configuration,
			    struct err *err)
{
	json_object_set_new(configuration, "mmds-config",
			    json_pack("{s:[], s:i}", "network_interfaces", "vsock_port",
				      PROTOCOL_METADATA_PORT));
	return open_file(sandbox, path, O_RDONLY, "metadata file ", err);
}

/* A memory file with the VM's configuration, or -errno with err set. */
static int write_config(struct sandbox *sandbox, const struct sandbox_config *config,
			json_t **metadata, struct err *err)
{
	json_t *json;
	char *text;
	int fd, rc;

	err->text[0] = '\0';
	json = describe(sandbox, config, err);
	if (json && config->metadata)
		*metadata = add_metadata(sandbox, config->metadata, json, err);
	text = json && (*metadata || !config->metadata) ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!text)
		return err->text[0] ? -ENOENT
				    : err_set(err, EINVAL,
					      "the VM's configuration: a path is not UTF-8");
	fd = memfd_create("vm.json", MFD_CLOEXEC);
	rc = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
	free(text);
	if (rc < 0) {
		fd_close(&fd);
		return err_sys(err, -rc, "the VM's configuration");
	}
	return fd;
}

/* What is to be started, in a jail or not. */
struct command {
	struct jail_arguments *jailer; /* NULL: none */
	char *vmm;
	const char *api;
	const char *metadata; /* its file, as mote-vmm knows it; NULL: none */
	int64_t start_ns;
	int standard[3];
	int config_fd;
	int passt_fd; /* 0: none */
};

static void give_descriptors(const struct sandbox *sandbox, const struct command *command)
{
	/* Out of the way of the numbers given out below. */
	int passt = command->passt_fd > 0 ? fcntl(command->passt_fd, F_DUPFD_CLOEXEC, FIRST_FILE_FD)
					  : -1;

	for (int i = 0; i < 3; i++)
		dup2(command->standard[i], i);
	if (command->config_fd == CONFIG_FD)
		fcntl(command->config_fd, F_SETFD, 0);
	else
		dup2(command->config_fd, CONFIG_FD);
	if (passt >= 0)
		dup2(passt, SANDBOX_PASST_FD);
	for (unsigned int i = 0; i < sandbox->file_count; i++)
		fcntl(sandbox->files[i].fd, F_SETFD, 0);
}

static _Noreturn void exec_vmm(const struct sandbox *sandbox, const struct command *command)
{
	char start_us[32];
	char *const vmm[] = {
		command->vmm,
		(char[]){ "--api-sock" },
		(char *)(uintptr_t)command->api,
		(char[]){ "--config-file" },
		(char[]){ CONFIG_PATH },
		(char[]){ "--boot-timer" },
		(char[]){ "--id" },
		(char[]){ "sandbox" },
		(char[]){ "--start-time-us" },
		start_us,
		command->metadata ? (char[]){ "--metadata" } : NULL,
		(char *)(uintptr_t)command->metadata,
		NULL,
	};
	const unsigned int before = command->jailer ? command->jailer->count : 0;
	char *argv[JAIL_ARGUMENTS_MAX + sizeof(vmm) / sizeof(vmm[0])] = { NULL };
	sigset_t none;

	snprintf(start_us, sizeof(start_us), "%lld", (long long)command->start_ns / 1000);
	if (command->jailer)
		memcpy(argv, command->jailer->words, before * sizeof(*argv));
	/* The jailer has the program's name already. */
	memcpy(argv + before, vmm + (before ? 1 : 0), sizeof(vmm) - (before ? sizeof(*vmm) : 0));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* A process group of its own: the terminal's Ctrl-C is mote's to handle. */
	setpgid(0, 0);
	give_descriptors(sandbox, command);
	execv(argv[0], argv);
	dprintf(STDERR_FILENO, "0 [sandbox:main:ERROR] %s: %s\n", argv[0], strerrordesc_np(errno));
	_exit(SANDBOX_EXIT);
}

static int find_jailer(const struct sandbox *sandbox, const struct sandbox_config *config,
		       const char *vmm, struct jail_arguments *arguments, struct err *err)
{
	int fds[SANDBOX_FILES_MAX + 2] = { CONFIG_FD };
	struct jail_contents contents = {
		.vmm = vmm,
		.mem_size_mib = config->mem_size_mib,
		.vcpu_count = config->vcpu_count,
		.tap = config->tap,
		.fds = fds,
		.count = 1,
	};
	char jailer[PATH_MAX];
	int rc = paths_own("mote-jailer", jailer, err);

	if (rc < 0)
		return rc;
	if (config->passt_fd > 0)
		fds[contents.count++] = SANDBOX_PASST_FD;
	for (unsigned int i = 0; i < sandbox->file_count; i++)
		fds[contents.count++] = sandbox->files[i].fd;
	rc = jail_command(config->jail, jailer, &contents, arguments);
	return rc < 0 ? err_sys(err, -rc, "mote-jailer's arguments") : 0;
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

static int start(struct sandbox *sandbox, const struct command *command, struct err *err)
{
	pid_t parent = getpid();

	sandbox->start_ns = command->start_ns;
	sandbox->pid = fork();
	if (sandbox->pid < 0)
		return err_sys(err, errno, "mote-vmm: fork");
	if (sandbox->pid == 0) {
		/* If mote is killed, so is its VM; it may have been before this takes effect. */
		prctl(PR_SET_PDEATHSIG, command->jailer ? SIGQUIT : SIGKILL);
		if (getppid() != parent)
			_exit(SANDBOX_EXIT);
		exec_vmm(sandbox, command);
	}
	sandbox->pid_fd = (int)syscall(SYS_pidfd_open, sandbox->pid, 0);
	if (sandbox->pid_fd < 0) {
		int rc = err_sys(err, errno, "mote-vmm: pidfd_open");

		kill(sandbox->pid, command->jailer ? SIGQUIT : SIGKILL);
		waitpid(sandbox->pid, NULL, 0);
		return rc;
	}
	return 0;
}

int sandbox_start(struct sandbox *sandbox, const struct sandbox_config *config, bool verbose,
		  struct err *err)
{
	CLEANUP_FD int console_read = -1, console_write = -1, log_read = -1, log_write = -1;
	CLEANUP_FD int config_fd = -1, nothing = -1;
	json_t *metadata = NULL;
	struct jail_arguments jailer;
	struct command command = { .jailer = config->jail ? &jailer : NULL,
				   .api = config->api,
				   .passt_fd = config->passt_fd };
	char path[PATH_MAX];
	int rc;

	memset(sandbox, 0, sizeof(*sandbox));
	sandbox->phases = (struct sandbox_phases){ -1, -1, -1, -1 };
	sandbox->verbose = verbose;
	sandbox->jailed = config->jail;
	rc = paths_own("mote-vmm", path, err);
	if (rc < 0)
		return rc;
	config_fd = write_config(sandbox, config, &metadata, err);
	command.metadata = json_string_value(metadata);
	rc = config_fd;
	if (rc >= 0 && config->jail)
		rc = find_jailer(sandbox, config, path, &jailer, err);
	nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (rc >= 0 && (nothing < 0 || open_pipe(&console_read, &console_write) < 0 ||
			open_pipe(&log_read, &log_write) < 0))
		rc = err_sys(err, errno, "a pipe to mote-vmm");
	command.vmm = path;
	command.config_fd = config_fd;
	memcpy(command.standard, (const int[3]){ nothing, console_write, log_write },
	       sizeof(command.standard));
	command.start_ns = clock_ns();
	if (rc >= 0)
		rc = start(sandbox, &command, err);
	json_decref(metadata);
	close_files(sandbox);
	if (rc < 0)
		return rc;
	sandbox->console_fd = fd_take(&console_read);
	sandbox->log_fd = fd_take(&log_read);
	return 0;
}

/* The sentence with the path in the place of the descriptor's. */
static void name_file(const struct sandbox *sandbox, const char *text, char *named, size_t size)
{
	const char *at = strstr(text, "/dev/fd/");
	char *end = NULL;
	long number = at ? strtol(at + strlen("/dev/fd/"), &end, 10) : -1;

	for (unsigned int i = 0; at && i < sandbox->file_count; i++) {
		if (sandbox->files[i].number == number) {
			snprintf(named, size, "%.*s%s%s", (int)(at - text), text,
				 sandbox->files[i].path, end);
			return;
		}
	}
	snprintf(named, size, "%s", text);
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
	name_file(sandbox, text, sandbox->last_error, sizeof(sandbox->last_error));
}

static void read_line(struct sandbox *sandbox)
{
	struct sandbox_phases *phases = &sandbox->phases;
	char *line = sandbox->line;
	const char *at;
	long long a, b, c;

	/* The guest may have taken over who wrote it. */
	printable_line(line, strlen(line));
	if (sandbox->verbose)
		fprintf(stderr, "%s\n", line);
	if (strncmp(line, JAILER_SAYS, sizeof(JAILER_SAYS) - 1) == 0) {
		keep_error(sandbox, line + sizeof(JAILER_SAYS) - 1);
	} else if ((at = strstr(line, ":ERROR] ")) != NULL) {
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

bool sandbox_finish(struct sandbox *sandbox, int timeout_ms, int interrupt_fd)
{
	struct pollfd fds[] = { { .fd = sandbox->pid_fd, .events = POLLIN },
				{ .fd = interrupt_fd, .events = POLLIN } };
	bool by_itself;
	int status;

	if (sandbox->pid == 0)
		return true;
	by_itself = poll(fds, 2, timeout_ms) > 0 && fds[0].revents;
	/* The jailer kills it, and then removes the jail. */
	if (!by_itself)
		kill(sandbox->pid, sandbox->jailed ? SIGQUIT : SIGKILL);
	while (waitpid(sandbox->pid, &status, 0) < 0 && errno == EINTR)
		;
	sandbox->status = status;
	sandbox->pid = 0;
	while (sandbox->log_fd > 0 && sandbox_read_log(sandbox)) {
		struct pollfd more = { .fd = sandbox->log_fd, .events = POLLIN };

		if (poll(&more, 1, 0) <= 0)
			break;
	}
	return by_itself;
}

bool sandbox_has_failed(const struct sandbox *sandbox)
{
	return !WIFEXITED(sandbox->status) || WEXITSTATUS(sandbox->status) != 0;
}

void sandbox_close(struct sandbox *sandbox)
{
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (sandbox->pid_fd <= 0)
		return;
	(void)sandbox_finish(sandbox, 0, -1);
	fd_close(&sandbox->pid_fd);
	fd_close(&sandbox->console_fd);
	fd_close(&sandbox->log_fd);
}
