/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image_build.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"

#define SCRIPT "build-image.sh"
#define PROGRESS_FD 3
#define END_SECONDS 5
#define TEXT_MAX (4 << 20) /* bytes of a configuration; registries take no more either */
#define LINE 512
#define WARNING "warning: "
#define WARNINGS_MAX 8

/* Of what was read so far. */
struct lines {
	char next[LINE];
	size_t used;
	char last[LINE]; /* the last whole one that is not empty */
	char warnings[WARNINGS_MAX][LINE];
	int warned;
};

/* The script, while it runs. */
struct job {
	pid_t pid;
	int pid_fd;
	int progress_fd;
	int said_fd; /* its standard error */
	struct lines doing, said;
	bool is_terminal;
	bool interrupted; /* and asked to end */
	time_t patience;  /* until it is made to */
};

static _Noreturn void exec_script(const char *path, char *const argv[], int source, int progress,
				  int said)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Of its own, so that all of it can be ended at once. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (source >= 0)
		dup2(source, STDIN_FILENO);
	dup2(said, STDERR_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (progress == PROGRESS_FD)
		fcntl(progress, F_SETFD, 0);
	else
		dup2(progress, PROGRESS_FD);
	execv(path, argv);
	dprintf(STDERR_FILENO, "%s: %s\n", path, strerrordesc_np(errno));
	_exit(CLI_EXIT_FAILURE);
}

/* The end that is read never waits. */
static int open_pipe(int *read_end, int *write_end, struct err *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "%s: its pipes", SCRIPT);
	*read_end = ends[0];
	*write_end = ends[1];
	fcntl(*read_end, F_SETFL, O_NONBLOCK);
	return 0;
}

static int start_job(struct job *job, const char *path, char *const argv[], int source,
		     struct err *err)
{
	CLEANUP_FD int progress = -1, said = -1;
	int rc = open_pipe(&job->progress_fd, &progress, err);

	if (rc == 0)
		rc = open_pipe(&job->said_fd, &said, err);
	if (rc < 0)
		return rc;
	job->pid = fork();
	if (job->pid < 0)
		return err_sys(err, errno, "%s: fork", SCRIPT);
	if (job->pid == 0)
		exec_script(path, argv, source, progress, said);
	setpgid(job->pid, job->pid);
	job->pid_fd = (int)syscall(SYS_pidfd_open, job->pid, 0);
	return 0;
}

static void show(const struct job *job, time_t started)
{
	if (job->is_terminal && job->doing.last[0])
		fprintf(stderr, "\r\033[Kmote image: %s (%lld s)", job->doing.last,
			(long long)(time(NULL) - started));
}

static void end_line(struct lines *lines)
{
	lines->next[lines->used] = '\0';
	if (strncmp(lines->next, WARNING, strlen(WARNING)) == 0 && lines->warned < WARNINGS_MAX)
		memcpy(lines->warnings[lines->warned++], lines->next, lines->used + 1);
	else if (lines->used > 0)
		memcpy(lines->last, lines->next, lines->used + 1);
	lines->used = 0;
}

/* With names of the source in them. */
static void print_warnings(struct lines *lines, const char *about)
{
	for (int i = 0; i < lines->warned; i++) {
		cli_clean(lines->warnings[i]);
		fprintf(stderr, "mote: %s: %s\n", about, lines->warnings[i]);
	}
}

/* What there is at the moment. False at the end. */
static bool read_lines(struct lines *lines, int fd)
{
	char data[4096];
	ssize_t n = read(fd, data, sizeof(data));

	for (ssize_t i = 0; i < n; i++) {
		if (data[i] == '\n')
			end_line(lines);
		else if (lines->used < sizeof(lines->next) - 1)
			lines->next[lines->used++] = data[i];
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

/* The first signal lets it tidy up, the second does not. */
static void end_job(struct job *job, int signal_fd)
{
	struct signalfd_siginfo info;

	if (read(signal_fd, &info, sizeof(info)) < 0 && !job->interrupted)
		return;
	kill(-job->pid, job->interrupted ? SIGKILL : SIGTERM);
	job->interrupted = true;
	job->patience = time(NULL) + END_SECONDS;
}

/* Until it ends, or a signal ends it; the status as waitpid has it. */
static int wait_job(struct job *job, int signal_fd)
{
	const time_t started = time(NULL);
	bool progress_over = false, said_all = false;
	int status = 0;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = job->pid_fd, .events = POLLIN },
			{ .fd = progress_over ? -1 : job->progress_fd, .events = POLLIN },
			{ .fd = said_all ? -1 : job->said_fd, .events = POLLIN },
			{ .fd = signal_fd, .events = POLLIN },
		};

		if (poll(fds, 4, job->is_terminal || job->interrupted ? 1000 : -1) < 0)
			continue;
		if (fds[1].revents)
			progress_over = !read_lines(&job->doing, job->progress_fd);
		if (fds[2].revents)
			said_all = !read_lines(&job->said, job->said_fd);
		if (fds[3].revents || (job->interrupted && time(NULL) > job->patience))
			end_job(job, signal_fd);
		show(job, started);
		if (fds[0].revents)
			break;
	}
	while (waitpid(job->pid, &status, 0) < 0 && errno == EINTR)
		;
	while (read_lines(&job->said, job->said_fd))
		;
	end_line(&job->said);
	while (read_lines(&job->doing, job->progress_fd))
		;
	if (job->is_terminal && job->doing.last[0])
		fputs("\r\033[K", stderr);
	return status;
}

/* Runs the script to its end: 0, or -1 with *status set to the exit status and all of it said. */
static int run_script(char *const argv[], int source, int signal_fd, const char *about, int *status)
{
	struct job job = { .pid_fd = -1,
			   .progress_fd = -1,
			   .said_fd = -1,
			   .is_terminal = isatty(STDERR_FILENO) == 1 };
	char path[PATH_MAX];
	struct err err;
	int end, rc;

	rc = cli_find_own(SCRIPT, path, &err);
	if (rc == 0)
		rc = start_job(&job, path, argv, source, &err);
	end = rc == 0 ? wait_job(&job, signal_fd) : -1;
	fd_close(&job.pid_fd);
	fd_close(&job.progress_fd);
	fd_close(&job.said_fd);
	if (rc < 0) {
		*status = cli_fail(CLI_EXIT_FAILURE, &err);
		return -1;
	}
	print_warnings(&job.doing, about);
	if (!job.interrupted && WIFEXITED(end) && WEXITSTATUS(end) == 0)
		return 0;
	/* The last line of what it said is why it failed, with names of the source in it. */
	cli_clean(job.said.last);
	*status = job.interrupted ? 128 + SIGINT : CLI_EXIT_FAILURE;
	fprintf(stderr, "mote: %s: %s\n", about,
		job.interrupted	   ? "interrupted"
		: job.said.last[0] ? job.said.last
				   : "its build ended for no reason that it gave");
	return -1;
}

static bool is_list_of_strings(const json_t *list)
{
	json_t *value;
	size_t i;

	json_array_foreach (list, i, value) {
		if (!json_is_string(value))
			return false;
	}
	return json_is_array(list);
}

static int take_members(json_t *ours, const json_t *theirs, struct err *err)
{
	static const struct {
		const char *theirs, *ours;
		bool is_list;
	} members[] = {
		{ "Entrypoint", "entrypoint", true },
		{ "Cmd", "cmd", true },
		{ "Env", "env", true },
		{ "WorkingDir", "workdir", false },
		{ "User", "user", false },
		{ "StopSignal", "stop_signal", false },
	};

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		json_t *value = json_object_get(theirs, members[i].theirs);

		if (!value || json_is_null(value))
			continue;
		if (members[i].is_list ? !is_list_of_strings(value) : !json_is_string(value))
			return err_set(err, EINVAL, "the image's configuration: %s is not %s",
				       members[i].theirs,
				       members[i].is_list ? "a list of strings" : "a string");
		/* What was not set is an empty string, too. */
		if (members[i].is_list || json_string_length(value) > 0)
			json_object_set(ours, members[i].ours, value);
	}
	return 0;
}

json_t *image_build_config(const char *text, size_t length, struct err *err)
{
	json_t *ours = json_object(), *theirs = NULL;
	json_error_t error;
	int rc = 0;

	if (length > 0) {
		theirs = json_loadb(text, length, 0, &error);
		if (json_is_array(json_object_get(theirs, "history")))
			json_object_set(ours, "history", json_object_get(theirs, "history"));
		rc = theirs ? take_members(ours, json_object_get(theirs, "config"), err)
			    : err_set(err, EINVAL, "the image's configuration: %s", error.text);
	}
	json_decref(theirs);
	if (rc == 0)
		return ours;
	json_decref(ours);
	return NULL;
}

/* The file's bytes with a zero behind them (owned by the caller), or NULL with err set. */
static char *read_text(const char *dir, const char *name, size_t *length, struct err *err)
{
	char path[PATH_MAX];
	CLEANUP_FD int fd = -1;
	char *text;
	off_t size;
	int rc;

	snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 64, dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (size < 0 || size > TEXT_MAX) {
		err_sys(err, size < 0 ? errno : EFBIG, "%s", path);
		return NULL;
	}
	text = malloc((size_t)size + 1);
	rc = text ? fd_pread_exact(fd, text, (size_t)size, 0) : -ENOMEM;
	if (rc < 0) {
		err_sys(err, -rc, "%s", path);
		free(text);
		return NULL;
	}
	text[size] = '\0';
	*length = (size_t)size;
	return text;
}

/* What was pulled is named with the digest of its manifest. */
static json_t *describe_source(const struct image_build *build, const char *scratch)
{
	bool is_file = strcmp(build->kind, "dir") == 0 || strcmp(build->kind, "tar") == 0 ||
		       strcmp(build->kind, "debian") == 0;
	struct err err;
	size_t length;
	json_t *source;
	char *digest;

	if (strcmp(build->kind, "pull") != 0)
		return is_file ? json_sprintf("%s:%s", build->kind, build->source)
			       : json_sprintf("oci:%s", build->source);
	digest = read_text(scratch, "pulled.digest", &length, &err);
	source = json_sprintf("docker://%.*s@%s", (int)strcspn(build->detail, "@"), build->detail,
			      digest ? digest : "");
	free(digest);
	return source;
}

static int keep(struct image_store *store, const struct image_build *build, const char *scratch,
		struct err *err)
{
	char file[PATH_MAX];
	struct image image = { 0 };
	json_t *config = NULL;
	size_t length = 0;
	char *text;
	int rc;

	snprintf(file, sizeof(file), "%.*s/image", PATH_MAX - 64, scratch);
	text = read_text(scratch, "digest", &length, err);
	if (!text)
		return -EIO;
	snprintf(image.digest, sizeof(image.digest), "%.*s", IMAGE_DIGEST_LENGTH, text);
	free(text);
	snprintf(image.name, sizeof(image.name), "%s", build->name);
	snprintf(image.format, sizeof(image.format), "%s", build->format);
	snprintf(image.file, sizeof(image.file), "blobs/%s.%s", image.digest, image.format);
	text = read_text(scratch, "config", &length, err);
	config = text ? image_build_config(text, length, err) : NULL;
	free(text);
	if (!config)
		return -EINVAL;
	json_object_set_new(config, "source", describe_source(build, scratch));
	rc = image_store_add(store, file, &image, config, err);
	json_decref(config);
	if (rc == 0 && !build->is_quiet)
		printf("%s\n", image.digest);
	return rc;
}

static int build_in(struct image_store *store, const struct image_build *build, const char *scratch,
		    int signal_fd)
{
	char max_kib[24];
	struct err err;
	char *const argv[] = {
		(char[]){ SCRIPT },
		(char *)(uintptr_t)build->format,
		(char *)(uintptr_t)build->kind,
		(char *)(uintptr_t)build->detail,
		(char *)(uintptr_t)scratch,
		max_kib,
		NULL,
	};
	int status;

	snprintf(max_kib, sizeof(max_kib), "%lld", (long long)build->max_mib * 1024);
	if (run_script(argv, build->source_fd, signal_fd, build->source, &status) < 0)
		return status;
	return keep(store, build, scratch, &err) < 0 ? cli_fail(CLI_EXIT_FAILURE, &err)
						     : EXIT_SUCCESS;
}

/* A second signal while it is removed does not stop that. */
static void remove_scratch(const char *scratch)
{
	char *const argv[] = {
		(char[]){ SCRIPT },
		(char[]){ "--remove" },
		(char *)(uintptr_t)scratch,
		NULL,
	};
	int status;

	(void)run_script(argv, -1, -1, scratch, &status);
}

/* Removes what `stale` lists, which it gives up. */
static void remove_stale(json_t *stale)
{
	json_t *path;
	size_t i;

	json_array_foreach (stale, i, path)
		remove_scratch(json_string_value(path));
	json_decref(stale);
}

int image_build(struct image_store *store, const struct image_build *build)
{
	CLEANUP_FD int lock_fd = -1, signal_fd = -1;
	char scratch[PATH_MAX];
	sigset_t ends, before;
	json_t *stale;
	struct err err;
	int status;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &before);
	signal_fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signal_fd < 0) {
		err_sys(&err, errno, "signalfd");
		return cli_fail(CLI_EXIT_FAILURE, &err);
	}
	if (image_store_scratch(store, scratch, &lock_fd, &stale, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	remove_stale(stale);
	status = build_in(store, build, scratch, signal_fd);
	remove_scratch(scratch);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return status;
}

int image_pull(const char *reference, struct err *err)
{
	char name[IMAGE_NAME_MAX + 1];
	struct image_build build = {
		.kind = "pull",
		.source = name,
		.detail = name,
		.source_fd = -1,
		.name = name,
		.format = "erofs",
		.max_mib = IMAGE_MAX_MIB,
		.is_quiet = true,
	};
	struct image_store store;
	int rc = image_reference_parse(reference, name, err);

	if (rc == 0)
		rc = image_store_open(&store, err);
	if (rc < 0)
		return rc;
	if (image_build(&store, &build) != EXIT_SUCCESS)
		rc = err_set(err, EIO, "image %s: it could not be pulled", reference);
	image_store_close(&store);
	return rc;
}

int image_prune(struct image_store *store)
{
	CLEANUP_FD int lock_fd = -1;
	char scratch[PATH_MAX];
	json_t *stale;
	struct err err;

	if (image_store_scratch(store, scratch, &lock_fd, &stale, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	remove_stale(stale);
	remove_scratch(scratch);
	return EXIT_SUCCESS;
}
