/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/args.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/firecracker.h"

#define NO_FILE_DEFAULT 2048
#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static const char usage[] =
	"usage: mote-jailer --id ID --exec-file FILE --uid UID --gid GID [OPTION]... [-- "
	"ARGUMENT...]\n"
	"Runs FILE, a copy of it, with the ARGUMENTs in a jail of its own, and ends as it ends.\n"
	"\n"
	"  --id ID                the VM's name: 1 to 64 letters, digits and dashes\n"
	"  --exec-file FILE       the VMM: static, not setuid\n"
	"  --uid UID, --gid GID   what it runs as; 0 only outside of the host's network "
	"namespace\n"
	"  --chroot-base-dir DIR  its root is DIR/NAME OF FILE/ID/root (default /srv/jailer)\n"
	"  --netns PATH           the network namespace to join (default: it stays in the "
	"caller's)\n"
	"  --new-netns            a new, empty network namespace instead\n"
	"  --cgroup FILE=VALUE    a limit in its cgroup, such as memory.max=1G; repeatable\n"
	"  --cgroup-version 1|2   default: what the host has\n"
	"  --parent-cgroup PATH   its cgroup is PATH/ID (default: the name of FILE); in\n"
	"                         version 1 it goes with --cgroup, which names controllers\n"
	"  --resource-limit NAME=NUMBER\n"
	"                         no-file (default 2048), fsize (bytes), nproc; repeatable\n"
	"  --daemonize            return when the VMM runs, and look after it in the background\n"
	"  --new-pid-ns           taken, without effect: the PID namespace is always new\n"
	"  --keep-fd N            an open descriptor that the VMM inherits; repeatable\n"
	"  --record-fd N          the same, and errors are told there, too: lines of JSON\n"
	"  --tun                  /dev/net/tun is there also with --new-netns\n"
	"  --uffd                 userfaultfd is there\n"
	"  --read-only-root       only /run can be written to, and what is in it goes\n"
	"                         with the jail\n"
	"  --weaker-jail cgroup   go on without a cgroup where one cannot be made\n"
	"  --remove               start nothing: remove what a jailer of this ID that was killed\n"
	"                         has left, its cgroup too if --cgroup is as it was\n"
	"  --version, --help\n"
	"\n"
	"Without root, UID and GID are one's own: a user namespace takes the place of another "
	"user,\n"
	"/dev/kvm is the host's own, and the cgroup is beside that of the caller.\n"
	"\n"
	"Exit status: the VMM's own; 1 if the jail could not be built, 153 bad arguments. "
	"SIGTERM,\n"
	"SIGINT, SIGHUP, SIGUSR1, SIGUSR2 and SIGALRM are passed on to it; SIGQUIT and others "
	"that\n"
	"end a process kill it.\n";

enum option_number {
	ID = 1,
	EXEC_FILE,
	UID,
	GID,
	CHROOT_BASE,
	NETNS,
	NEW_NETNS,
	CGROUP,
	CGROUP_VERSION,
	PARENT_CGROUP,
	RESOURCE_LIMIT,
	DAEMONIZE,
	NEW_PID_NS,
	KEEP_FD,
	RECORD_FD,
	TUN,
	UFFD,
	READ_ONLY_ROOT,
	WEAKER_JAIL,
	REMOVE,
	VERSION,
	HELP,
};

static const struct option names[] = {
	{ "id", required_argument, NULL, ID },
	{ "exec-file", required_argument, NULL, EXEC_FILE },
	{ "uid", required_argument, NULL, UID },
	{ "gid", required_argument, NULL, GID },
	{ "chroot-base-dir", required_argument, NULL, CHROOT_BASE },
	{ "netns", required_argument, NULL, NETNS },
	{ "new-netns", no_argument, NULL, NEW_NETNS },
	{ "cgroup", required_argument, NULL, CGROUP },
	{ "cgroup-version", required_argument, NULL, CGROUP_VERSION },
	{ "parent-cgroup", required_argument, NULL, PARENT_CGROUP },
	{ "resource-limit", required_argument, NULL, RESOURCE_LIMIT },
	{ "daemonize", no_argument, NULL, DAEMONIZE },
	{ "new-pid-ns", no_argument, NULL, NEW_PID_NS },
	{ "keep-fd", required_argument, NULL, KEEP_FD },
	{ "record-fd", required_argument, NULL, RECORD_FD },
	{ "tun", no_argument, NULL, TUN },
	{ "uffd", no_argument, NULL, UFFD },
	{ "read-only-root", no_argument, NULL, READ_ONLY_ROOT },
	{ "weaker-jail", required_argument, NULL, WEAKER_JAIL },
	{ "remove", no_argument, NULL, REMOVE },
	{ "version", no_argument, NULL, VERSION },
	{ "help", no_argument, NULL, HELP },
	{ NULL, 0, NULL, 0 },
};

/* One line, whatever the value is. */
static int bad(struct err *err, const char *option, const char *value, const char *cause)
{
	if (strpbrk(value, "\n\r\033"))
		return err_set(err, EINVAL, "--%s: %s", option, cause);
	return err_set(err, EINVAL, "--%s %s: %s", option, value, cause);
}

/* Decimal digits and nothing else, up to max. */
static bool parse_number(const char *text, uint64_t max, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' && *number <= max;
}

static int take_id(struct jailer_args *args, const char *text, struct err *err)
{
	size_t len = strlen(text);

	if (len < 1 || len > JAILER_ID_LENGTH_MAX || strspn(text, ALNUM "-") != len)
		return err_set(err, EINVAL, "--id: 1 to %d letters, digits and dashes are expected",
			       JAILER_ID_LENGTH_MAX);
	args->id = text;
	return 0;
}

/* It also names a directory, a file in the jail beside /dev and /run, and a cgroup. */
static int take_exec_file(struct jailer_args *args, const char *text, struct err *err)
{
	const char *slash = strrchr(text, '/');
	const char *name = slash ? slash + 1 : text;
	size_t len = strlen(name);

	if (len < 1 || len > JAILER_ID_LENGTH_MAX || strspn(name, ALNUM "-_.") != len ||
	    name[0] == '.' || strcmp(name, "dev") == 0 || strcmp(name, "run") == 0)
		return bad(err, "exec-file", text, "not a name for a program in a jail");
	args->exec_file = text;
	args->exec_name = name;
	return 0;
}

/* (uid_t)-1 is "no change" to the kernel. */
static int take_user(const char *option, const char *text, uid_t *user, struct err *err)
{
	uint64_t number;

	if (!parse_number(text, UINT32_MAX - 1, &number))
		return bad(err, option, text, "not a number of a user or group");
	*user = (uid_t)number;
	return 0;
}

static int take_cgroup(struct jailer_args *args, const char *text, struct err *err)
{
	struct jailer_cgroup_value *value = &args->cgroup[args->cgroup_count];
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : 0;
	size_t dot;

	if (args->cgroup_count == JAILER_CGROUP_VALUES_MAX)
		return bad(err, "cgroup", text, "too many of them");
	if (len == 0 || len >= sizeof(value->file) || equals[1] == '\0' || strchr(equals, '\n'))
		return bad(err, "cgroup", text, "FILE=VALUE is expected");
	memcpy(value->file, text, len);
	value->file[len] = '\0';
	value->value = equals + 1;
	dot = strcspn(value->file, ".");
	if (strspn(value->file, ALNUM "_.") != len || dot == 0 || dot == len ||
	    dot >= sizeof(value->controller))
		return bad(err, "cgroup", text, "not a file of a cgroup");
	if (strncmp(value->file, "cgroup.", 7) != 0)
		memcpy(value->controller, value->file, dot);
	args->cgroup_count++;
	return 0;
}

/* A path below the hierarchy's mount that does not leave it. */
static int take_parent_cgroup(struct jailer_args *args, const char *text, struct err *err)
{
	const char *at = text;

	if (*text == '\0' || strlen(text) >= PATH_MAX / 2)
		return bad(err, "parent-cgroup", text, "a relative path is expected");
	while (*at) {
		size_t len = strcspn(at, "/");

		if (len == 0 || (len == 1 && *at == '.') || (len == 2 && memcmp(at, "..", 2) == 0))
			return bad(err, "parent-cgroup", text, "a relative path is expected");
		at += len;
		if (*at == '/')
			at++;
	}
	args->parent_cgroup = text;
	args->in_parent = true;
	return 0;
}

static int take_limit(struct jailer_args *args, const char *text, struct err *err)
{
	const struct {
		const char *prefix;
		uint64_t *limit;
	} known[] = {
		{ "no-file=", &args->limits.no_file },
		{ "fsize=", &args->limits.fsize },
		{ "nproc=", &args->limits.nproc },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		size_t len = strlen(known[i].prefix);

		if (strncmp(text, known[i].prefix, len) == 0)
			return parse_number(text + len, RLIM_INFINITY - 1, known[i].limit)
				       ? 0
				       : bad(err, "resource-limit", text, "not a number");
	}
	return bad(err, "resource-limit", text, "no-file=, fsize= or nproc= is expected");
}

static int take_keep_fd(struct jailer_args *args, const char *option, const char *text,
			struct err *err)
{
	unsigned int at = args->keep_count;
	uint64_t number;

	if (!parse_number(text, INT_MAX, &number))
		return bad(err, option, text, "not a descriptor");
	if (number <= STDERR_FILENO)
		return 0;
	if (at == JAILER_KEEP_FDS_MAX)
		return bad(err, option, text, "too many of them");
	for (; at > 0 && args->keep_fds[at - 1] > (int)number; at--)
		args->keep_fds[at] = args->keep_fds[at - 1];
	args->keep_fds[at] = (int)number;
	args->keep_count++;
	return 0;
}

static int take(int option, struct jailer_args *args, struct err *err)
{
	int rc;

	switch (option) {
	case ID:
		return take_id(args, optarg, err);
	case EXEC_FILE:
		return take_exec_file(args, optarg, err);
	case UID:
		args->has_uid = true;
		return take_user("uid", optarg, &args->uid, err);
	case GID:
		args->has_gid = true;
		return take_user("gid", optarg, &args->gid, err);
	case CHROOT_BASE:
		args->chroot_base = optarg;
		return 0;
	case NETNS:
		args->netns = optarg;
		return 0;
	case NEW_NETNS:
		args->new_netns = true;
		return 0;
	case CGROUP:
		return take_cgroup(args, optarg, err);
	case CGROUP_VERSION:
		if (strcmp(optarg, "1") != 0 && strcmp(optarg, "2") != 0)
			return bad(err, "cgroup-version", optarg, "1 or 2 is expected");
		args->cgroup_version = (unsigned int)(*optarg - '0');
		return 0;
	case PARENT_CGROUP:
		return take_parent_cgroup(args, optarg, err);
	case RESOURCE_LIMIT:
		return take_limit(args, optarg, err);
	case DAEMONIZE:
		args->daemonize = true;
		return 0;
	case NEW_PID_NS:
		return 0;
	case KEEP_FD:
		return take_keep_fd(args, "keep-fd", optarg, err);
	case RECORD_FD:
		rc = take_keep_fd(args, "record-fd", optarg, err);
		if (rc == 0)
			args->record_fd = atoi(optarg);
		return rc;
	case TUN:
		args->tun = true;
		return 0;
	case UFFD:
		args->uffd = true;
		return 0;
	case READ_ONLY_ROOT:
		args->read_only_root = true;
		return 0;
	case WEAKER_JAIL:
		if (strcmp(optarg, "cgroup") != 0)
			return bad(err, "weaker-jail", optarg,
				   "cgroup is the one that can be left out");
		args->weaker_cgroup = true;
		return 0;
	case REMOVE:
		args->remove = true;
		return 0;
	case VERSION:
		printf("Jailer v" FIRECRACKER_VERSION "\nmote-jailer %s\n", MOTE_VERSION);
		return 1;
	default:
		fputs(usage, stdout);
		return 1;
	}
}

static int check(const struct jailer_args *args, char **rest, int count, struct err *err)
{
	static const char missing[] = "--id, --exec-file, --uid and --gid are needed";

	if (count > 0)
		return err_set(err, EINVAL, "%s: unexpected (the VMM's arguments come behind --)",
			       rest[0]);
	if (!args->id || !args->exec_file || !args->has_uid || !args->has_gid)
		return err_set(err, EINVAL, "%s", missing);
	if (args->rootless && (args->uid != geteuid() || args->gid != getegid()))
		return err_set(err, EPERM,
			       "--uid %u --gid %u: without root only one's own, %u and %u",
			       args->uid, args->gid, geteuid(), getegid());
	if (args->netns && args->new_netns)
		return err_set(err, EINVAL, "--netns, --new-netns: one of them is expected");
	for (unsigned int i = 1; i < args->keep_count; i++) {
		if (args->keep_fds[i] == args->keep_fds[i - 1])
			return err_set(err, EINVAL, "--keep-fd %d: given twice", args->keep_fds[i]);
	}
	return 0;
}

/* The first "--" ends the jailer's arguments, whatever getopt thinks of what is behind it. */
static int own_arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") == 0)
			return i;
	}
	return argc;
}

int jailer_args_parse(int argc, char **argv, struct jailer_args *args, struct err *err)
{
	int own = own_arguments(argc, argv);
	int option;

	*args = (struct jailer_args){
		.chroot_base = "/srv/jailer",
		.rootless = geteuid() != 0,
		.record_fd = -1,
		.limits = { NO_FILE_DEFAULT, RLIM_INFINITY, RLIM_INFINITY },
		.vmm_args = argv + (own < argc ? own + 1 : argc),
	};
	optind = 1;
	opterr = 0;
	while ((option = getopt_long(own, argv, ":", names, NULL)) != -1) {
		const char *given = argv[optind - 1];
		int rc;

		if (option == ':')
			return err_set(err, EINVAL, "%s: a value is expected", given);
		if (option == '?')
			return err_set(err, EINVAL, "%s: no such option", given);
		rc = take(option, args, err);
		if (rc != 0)
			return rc;
	}
	/* Where tap devices are, they are of use. */
	if (!args->new_netns && (args->netns || !args->rootless))
		args->tun = true;
	args->as_root = !args->rootless && (args->uid == 0 || args->gid == 0);
	if (!args->parent_cgroup)
		args->parent_cgroup = args->exec_name;
	return check(args, argv + optind, own - optind, err);
}
