/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/program.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent-protocol/protocol.h"
#include "base/array.h"
#include "guest/bytes.h"
#include "guest/cgroup.h"
#include "guest/failure.h"

#define TIMEOUT_MAX_MS (INT64_C(1) << 40)
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* HOME is the user's, see make_environment. */
static const char *const default_environment[] = {
	"PATH=" DEFAULT_PATH,
	"LANG=C.UTF-8",
};

/* Of what is on a terminal. */
static const char default_terminal[] = "TERM=xterm";

enum stage { STAGE_EXEC, STAGE_CWD, STAGE_USER, STAGE_TERMINAL, STAGE_LIMIT };

struct report {
	int errnum;
	enum stage stage;
};

static int parse_tty(struct program *program, json_t *tty, struct failure *failure)
{
	int rows = 24, columns = 80;

	program->tty = json_is_object(tty) || json_is_true(tty);
	if (json_is_object(tty) &&
	    json_unpack(tty, "{s?i, s?i !}", "rows", &rows, "columns", &columns) < 0)
		return failure_set(failure, "exec: tty: {\"rows\": N, \"columns\": N} is expected");
	program->rows = (uint16_t)rows;
	program->columns = (uint16_t)columns;
	return 0;
}

int program_parse(struct program *program, const json_t *exec, struct failure *failure)
{
	const char *user = "0";
	json_t *argv = NULL, *env = NULL, *tty = NULL, *limits = NULL, *cwd = NULL;
	json_int_t timeout_ms = 0;
	int keep = 0, with_stdin = 1, make_cwd = 0;
	json_error_t error;

	*program = (struct program){ .cwd = "/" };
	/* Strings in it are decoded in place. */
	if (json_unpack_ex((json_t *)(uintptr_t)exec, &error, 0,
			   "{s:o, s?o, s?o, s?b, s?s, s?o, s?I, s?b, s?b, s?o !}", "argv", &argv,
			   "env", &env, "cwd", &cwd, "make_cwd", &make_cwd, "user", &user, "tty",
			   &tty, "timeout_ms", &timeout_ms, "keep", &keep, "stdin", &with_stdin,
			   "rlimits", &limits) < 0)
		return failure_set(failure, "exec: %s", error.text);
	if (bytes_decode_list(argv) < 0 || json_array_size(argv) == 0)
		return failure_set(failure, "exec: argv: a list of strings is expected");
	if (env && bytes_decode_list(env) < 0)
		return failure_set(failure, "exec: env: a list of strings is expected");
	if (timeout_ms < 0 || timeout_ms > TIMEOUT_MAX_MS)
		return failure_set(failure, "exec: timeout_ms: not a number that is possible");
	if (cwd) {
		cwd = bytes_decode(cwd);
		if (!cwd)
			return failure_set(failure, "exec: cwd: a string is expected");
		json_object_set_new((json_t *)(uintptr_t)exec, "cwd", cwd);
		program->cwd = json_string_value(cwd);
	}
	program->argv = argv;
	program->env = env;
	program->timeout_ms = timeout_ms;
	program->keep = keep;
	program->no_stdin = !with_stdin;
	program->make_cwd = make_cwd;
	if (limits_parse(&program->limits, limits, failure) < 0 ||
	    users_find(user, &program->user, failure) < 0)
		return -1;
	return tty ? parse_tty(program, tty, failure) : 0;
}

/* Whether the array has a string that begins with NAME=, as variable does. */
static bool is_given(const json_t *array, const char *variable)
{
	size_t length = strcspn(variable, "=") + 1;
	size_t i;
	json_t *value;

	json_array_foreach (array, i, value) {
		if (strncmp(json_string_value(value), variable, length) == 0)
			return true;
	}
	return false;
}

/* getenv() finds the first of a name, so there is one: the last that was given. */
static void set_variable(char **list, size_t *used, char *variable)
{
	const size_t length = strcspn(variable, "=") + 1;

	for (size_t i = 0; i < *used; i++) {
		if (strncmp(list[i], variable, length) == 0) {
			list[i] = variable;
			return;
		}
	}
	list[(*used)++] = variable;
}

/* In the child, which nobody frees after: what is given behind those defaults that it leaves. */
static char **make_environment(const struct program *program)
{
	const size_t defaults = ARRAY_SIZE(default_environment);
	char **list = calloc(json_array_size(program->env) + defaults + 4, sizeof(*list));
	static char hostname[sizeof("HOSTNAME=") + HOST_NAME_MAX] = "HOSTNAME=";
	char *home;
	size_t used = 0, i;
	json_t *value;

	if (!list)
		return NULL;
	if (!is_given(program->env, hostname) &&
	    gethostname(hostname + strlen(hostname), HOST_NAME_MAX) == 0)
		list[used++] = hostname;
	if (program->tty && !is_given(program->env, default_terminal))
		list[used++] = (char *)(uintptr_t)default_terminal;
	for (i = 0; i < defaults; i++) {
		if (!is_given(program->env, default_environment[i]))
			list[used++] = (char *)(uintptr_t)default_environment[i];
	}
	if (!is_given(program->env, "HOME=") && asprintf(&home, "HOME=%s", program->user.home) > 0)
		list[used++] = home;
	json_array_foreach (program->env, i, value)
		set_variable(list, &used, (char *)(uintptr_t)json_string_value(value));
	return list;
}

static char **make_arguments(const struct program *program)
{
	char **list = calloc(json_array_size(program->argv) + 1, sizeof(*list));
	size_t i;
	json_t *value;

	json_array_foreach (program->argv, i, value) {
		if (list)
			list[i] = (char *)(uintptr_t)json_string_value(value);
	}
	return list;
}

static int become_user(const struct user *user)
{
	if (setgroups((size_t)user->group_count, user->groups) < 0 ||
	    setresgid(user->gid, user->gid, user->gid) < 0 ||
	    setresuid(user->uid, user->uid, user->uid) < 0)
		return -1;
	return 0;
}

int program_make_directories(const char *path)
{
	char part[PATH_MAX];
	size_t length = strlen(path);

	if (length >= sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (size_t i = 1; i <= length; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -1;
	}
	return 0;
}

/*
 * As execvp(3), but a file in no format that the kernel knows is not given to a shell: a program
 * for another processor would be read as a script. Returns with errno set.
 */
static void exec_found(char *const *argv, char *const *env)
{
	const char *place = getenv("PATH");
	bool refused = false;
	char path[PATH_MAX];

	if (strchr(argv[0], '/')) {
		execve(argv[0], argv, env);
		return;
	}
	for (place = place ? place : DEFAULT_PATH; argv[0][0]; place++) {
		const size_t length = strcspn(place, ":");

		/* An empty one is the working directory. */
		if (snprintf(path, sizeof(path), "%.*s%s%s", (int)length, place, length ? "/" : "",
			     argv[0]) < (int)sizeof(path)) {
			execve(path, argv, env);
			refused = refused || errno == EACCES;
			if (errno != EACCES && errno != ENOENT && errno != ENOTDIR)
				return;
		}
		place += length;
		if (!*place)
			break;
	}
	errno = refused ? EACCES : ENOENT;
}

static int enter(const struct program *program)
{
	if (chdir(program->cwd) == 0)
		return 0;
	return program->make_cwd && errno == ENOENT && program_make_directories(program->cwd) == 0
		       ? chdir(program->cwd)
		       : -1;
}

static _Noreturn void run_child(const struct program *program, const int fds[3], int report_fd)
{
	char **argv = make_arguments(program), **env = make_environment(program);
	struct report report = { ENOMEM, STAGE_EXEC };
	sigset_t none;

	setsid();
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (program->tty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0) {
		report = (struct report){ errno, STAGE_TERMINAL };
	} else if (limits_set(&program->limits) < 0) {
		report = (struct report){ errno, STAGE_LIMIT };
	} else if (enter(program) < 0) {
		report = (struct report){ errno, STAGE_CWD };
	} else if (become_user(&program->user) < 0) {
		report = (struct report){ errno, STAGE_USER };
	} else if (argv && argv[0] && env) {
		environ = env;
		exec_found(argv, env);
		report = (struct report){ errno, STAGE_EXEC };
	}
	if (write(report_fd, &report, sizeof(report)) < 0)
		_exit(PROTOCOL_STATUS_AGENT);
	_exit(PROTOCOL_STATUS_NOT_FOUND);
}

int program_report(int report_fd, const struct program *program, struct failure *failure)
{
	struct report report;
	ssize_t n = read(report_fd, &report, sizeof(report));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n != (ssize_t)sizeof(report))
		return 0;
	switch (report.stage) {
	case STAGE_CWD:
		failure_sys(failure, report.errnum, "working directory %s", program->cwd);
		break;
	case STAGE_USER:
		failure_sys(failure, report.errnum, "the user cannot be changed");
		break;
	case STAGE_LIMIT:
		failure_sys(failure, report.errnum, "a resource limit cannot be set");
		break;
	case STAGE_TERMINAL:
		failure_sys(failure, report.errnum, "the terminal");
		break;
	default:
		failure_sys(failure, report.errnum, "%s",
			    json_string_value(json_array_get(program->argv, 0)));
		break;
	}
	failure->status =
		report.stage == STAGE_EXEC && (report.errnum == ENOENT || report.errnum == ENOTDIR)
			? PROTOCOL_STATUS_NOT_FOUND
			: PROTOCOL_STATUS_CANNOT_RUN;
	return -1;
}

void program_set_window(int tty, uint16_t rows, uint16_t columns)
{
	const struct winsize size = { .ws_row = rows, .ws_col = columns };

	(void)ioctl(tty, TIOCSWINSZ, &size); /* no terminal, no size */
}

/* The child's ends of its streams, and ours. */
struct ends {
	int theirs[3];
	int ours[3];
};

static void close_all(int fds[3])
{
	for (int i = 0; i < 3; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static int open_pipe(struct ends *ends, int stream)
{
	const int their_end = stream == STDIN_FILENO ? 0 : 1;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	ends->theirs[stream] = fds[their_end];
	ends->ours[stream] = fds[1 - their_end];
	return fcntl(ends->ours[stream], F_SETFL, O_NONBLOCK);
}

/* Whoever runs the program may open its streams by their names, as /dev/stdout. */
static int give_pipes(const struct ends *ends, const struct user *user, bool no_stdin)
{
	for (int i = no_stdin ? STDOUT_FILENO : STDIN_FILENO; i < 3; i++) {
		if (fchown(ends->theirs[i], user->uid, user->gid) < 0)
			return -1;
	}
	return 0;
}

static int open_pipes(struct ends *ends, const struct program *program)
{
	if (program->no_stdin)
		ends->theirs[STDIN_FILENO] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	else if (open_pipe(ends, STDIN_FILENO) < 0)
		return -1;
	if (ends->theirs[STDIN_FILENO] < 0 || open_pipe(ends, STDOUT_FILENO) < 0 ||
	    open_pipe(ends, STDERR_FILENO) < 0)
		return -1;
	return program->user.uid == 0 ? 0 : give_pipes(ends, &program->user, program->no_stdin);
}

/* One terminal for all three. */
static int open_terminal(struct ends *ends, const struct program *program)
{
	int ours = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), unlocked = 0;

	ends->ours[STDIN_FILENO] = ours;
	if (ours < 0 || ioctl(ours, TIOCSPTLCK, &unlocked) < 0)
		return -1;
	program_set_window(ours, program->rows, program->columns);
	ends->ours[STDOUT_FILENO] = fcntl(ours, F_DUPFD_CLOEXEC, 3);
	ends->theirs[STDIN_FILENO] = ioctl(ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (ends->ours[STDOUT_FILENO] < 0 || ends->theirs[STDIN_FILENO] < 0)
		return -1;
	if (program->user.uid != 0 &&
	    fchown(ends->theirs[STDIN_FILENO], program->user.uid, (gid_t)-1) < 0)
		return -1;
	for (int i = 1; i < 3; i++) {
		ends->theirs[i] = fcntl(ends->theirs[STDIN_FILENO], F_DUPFD_CLOEXEC, 3);
		if (ends->theirs[i] < 0)
			return -1;
	}
	return 0;
}

/* fork() into the control group: the child is never outside of it. */
static pid_t fork_into(const struct cgroup *cgroup)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	if (cgroup->fd < 0)
		return fork();
	args.flags = CLONE_INTO_CGROUP;
	args.cgroup = (unsigned int)cgroup->fd;
	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

int program_start(const struct program *program, const struct cgroup *cgroup,
		  struct process *process, struct failure *failure)
{
	struct ends ends = { { -1, -1, -1 }, { -1, -1, -1 } };
	int report[2] = { -1, -1 }, saved;
	pid_t pid = -1;

	if ((program->tty ? open_terminal(&ends, program) : open_pipes(&ends, program)) == 0 &&
	    pipe2(report, O_CLOEXEC | O_NONBLOCK) == 0)
		pid = fork_into(cgroup);
	saved = errno;
	if (pid == 0)
		run_child(program, ends.theirs, report[1]);
	close_all(ends.theirs);
	if (report[1] >= 0)
		close(report[1]);
	if (pid < 0) {
		close_all(ends.ours);
		if (report[0] >= 0)
			close(report[0]);
		return failure_sys(failure, saved, "a process for %s",
				   json_string_value(json_array_get(program->argv, 0)));
	}
	*process = (struct process){ .pid = pid,
				     .report = report[0],
				     .in = ends.ours[STDIN_FILENO],
				     .out = ends.ours[STDOUT_FILENO],
				     .err = ends.ours[STDERR_FILENO] };
	return 0;
}
