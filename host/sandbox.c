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
#include "base/array.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/printable.h"
#include "host/jail.h"
#include "host/paths.h"

#define CONFIG_PATH "/dev/fd/3"
#define CONFIG_FD 3
#define FIRST_FILE_FD 16
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
	int record_fd;
	int config_fd;
	int passt_fd; /* 0: none */
};

static void give_descriptors(const struct sandbox *sandbox, const struct command *command)
{
	/* Out of the way of the numbers given out below. */
	const int passt = command->passt_fd > 0
				  ? fcntl(command->passt_fd, F_DUPFD_CLOEXEC, FIRST_FILE_FD)
				  : -1;
	const int config = fcntl(command->config_fd, F_DUPFD_CLOEXEC, FIRST_FILE_FD);
	const int record = fcntl(command->record_fd, F_DUPFD_CLOEXEC, FIRST_FILE_FD);

	for (int i = 0; i < 3; i++)
		dup2(command->standard[i], i);
	dup2(config, CONFIG_FD);
	dup2(record, SANDBOX_RECORD_FD);
	if (passt >= 0)
		dup2(passt, SANDBOX_PASST_FD);
	for (unsigned int i = 0; i < sandbox->file_count; i++)
		fcntl(sandbox->files[i].fd, F_SETFD, 0);
}

/* The words of a command line; what they point to stays. */
struct words {
	char *list[JAIL_ARGUMENTS_MAX + 2 * SANDBOX_FILES_MAX + 32]; /* ends with NULL */
	unsigned int count;
};

static void add_word(struct words *words, const char *word)
{
	if (words->count < ARRAY_SIZE(words->list) - 1)
		words->list[words->count++] = (char *)(uintptr_t)word;
}

static void add_option(struct words *words, const char *option, const char *value)
{
	add_word(words, option);
	add_word(words, value);
}

/* In the new process: what is allocated goes with it, at the latest by its exec. */
static void add_number(struct words *words, const char *option, long long number)
{
	char *text;

	if (asprintf(&text, "%lld", number) >= 0)
		add_option(words, option, text);
}

static void add_fd_name(struct words *words, int number, const char *name)
{
	char *text;

	if (asprintf(&text, "%d=%s", number, name) >= 0)
		add_option(words, "--fd-name", text);
}

static void add_vmm(struct words *words, const struct sandbox *sandbox,
		    const struct command *command)
{
	add_number(words, "--record-fd", SANDBOX_RECORD_FD);
	/* It is ours: its name would tell the user nothing. */
	add_fd_name(words, CONFIG_FD, "");
	for (unsigned int i = 0; i < sandbox->file_count; i++)
		add_fd_name(words, sandbox->files[i].number, sandbox->files[i].path);
	add_option(words, "--api-sock", command->api);
	add_option(words, "--config-file", CONFIG_PATH);
	add_word(words, "--boot-timer");
	add_option(words, "--id", "sandbox");
	add_number(words, "--start-time-us", command->start_ns / NS_PER_US);
	if (command->metadata)
		add_option(words, "--metadata", command->metadata);
}

static _Noreturn void exec_vmm(const struct sandbox *sandbox, const struct command *command)
{
	struct words words = { .count = 0 };
	struct err err;
	sigset_t none;

	/* The jailer has the program's name already. */
	for (unsigned int i = 0; command->jailer && i < command->jailer->count; i++)
		add_word(&words, command->jailer->words[i]);
	if (!command->jailer)
		add_word(&words, command->vmm);
	add_vmm(&words, sandbox, command);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* A process group of its own: the terminal's Ctrl-C is mote's to handle. */
	setpgid(0, 0);
	give_descriptors(sandbox, command);
	execv(words.list[0], words.list);
	(void)err_sys(&err, errno, "%s", words.list[0]);
	record_to(SANDBOX_RECORD_FD);
	record_error(err.text);
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
		.record_fd = SANDBOX_RECORD_FD,
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
	CLEANUP_FD int record_read = -1, record_write = -1, config_fd = -1, nothing = -1;
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
	if (rc >= 0 &&
	    (nothing < 0 || open_pipe(&console_read, &console_write) < 0 ||
	     open_pipe(&log_read, &log_write) < 0 || open_pipe(&record_read, &record_write) < 0))
		rc = err_sys(err, errno, "a pipe to mote-vmm");
	command.vmm = path;
	command.config_fd = config_fd;
	command.record_fd = record_write;
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
	sandbox->record_fd = fd_take(&record_read);
	return 0;
}

static void keep_text(char kept[ERR_TEXT_SIZE], const json_t *text)
{
	if (!json_is_string(text))
		return;
	snprintf(kept, ERR_TEXT_SIZE, "%s", json_string_value(text));
	/* The guest may have taken over who wrote it. */
	printable_line(kept, strlen(kept));
}

static void keep_phase(int64_t *us, const json_t *number)
{
	if (json_is_integer(number) && json_integer_value(number) >= 0)
		*us = json_integer_value(number);
}

static void take_record(struct sandbox *sandbox, const char *line, size_t size)
{
	struct sandbox_phases *phases = &sandbox->phases;
	json_t *record = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
	const char *event = json_string_value(json_object_get(record, "event"));

	if (event && strcmp(event, "error") == 0) {
		keep_text(sandbox->error, json_object_get(record, "error"));
	} else if (event && strcmp(event, "ended") == 0) {
		keep_text(sandbox->reason, json_object_get(record, "reason"));
		if (json_integer_value(json_object_get(record, "exit_status")) != 0)
			keep_text(sandbox->error, json_object_get(record, "reason"));
	} else if (event && strcmp(event, "phases") == 0) {
		keep_phase(&phases->kvm_ready_us, json_object_get(record, "kvm_ready_us"));
		keep_phase(&phases->kernel_loaded_us, json_object_get(record, "kernel_loaded_us"));
		keep_phase(&phases->first_instruction_us,
			   json_object_get(record, "first_instruction_us"));
		keep_phase(&phases->init_us, json_object_get(record, "init_us"));
	}
	json_decref(record);
}

static bool goes_on(ssize_t n)
{
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

bool sandbox_read_records(struct sandbox *sandbox)
{
	char data[RECORD_MAX];
	ssize_t n = read(sandbox->record_fd, data, sizeof(data));

	for (ssize_t i = 0; i < n; i++) {
		if (data[i] == '\n') {
			take_record(sandbox, sandbox->record, sandbox->record_used);
			sandbox->record_used = 0;
		} else if (sandbox->record_used < sizeof(sandbox->record)) {
			sandbox->record[sandbox->record_used++] = data[i];
		}
	}
	return goes_on(n);
}

bool sandbox_read_log(struct sandbox *sandbox)
{
	char data[4096], shown[sizeof(data) + PRINTABLE_MORE];
	ssize_t n = read(sandbox->log_fd, data, sizeof(data));

	if (n > 0 && sandbox->verbose)
		fwrite(shown, 1, printable_stream(&sandbox->printable, data, (size_t)n, shown),
		       stderr);
	return goes_on(n);
}

/* What a process that has ended left in a pipe. */
static void read_rest(struct sandbox *sandbox, int fd, bool (*read_some)(struct sandbox *sandbox))
{
	struct pollfd more = { .fd = fd, .events = POLLIN };

	while (poll(&more, 1, 0) > 0 && read_some(sandbox))
		;
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
	if (sandbox->record_fd > 0) {
		read_rest(sandbox, sandbox->log_fd, sandbox_read_log);
		read_rest(sandbox, sandbox->record_fd, sandbox_read_records);
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
	fd_close(&sandbox->record_fd);
}
