/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VMM that is not ours any more might try: runs in its place, in the jail, and says what
 *came of it, a line each: the name of the errno with which it was refused, or "done".
 *
 *	payload ... TRY [ARGUMENT]
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int unshare(int flags);
extern int setns(int fd, int type);

#define PROCESSES_MAX 4096
#define CHUNK (1 << 20)

static void say(long result)
{
	puts(result < 0 ? strerrorname_np(errno) : "done");
}

static void try_open(const char *path)
{
	say(open(path, O_RDONLY));
}

static void try_open_relative(const char *path)
{
	char up[256] = "";

	for (int i = 0; i < 40; i++)
		strcat(up, "../");
	strcat(up, path + 1);
	say(open(up, O_RDONLY));
	for (int i = 0; i < 40; i++)
		(void)!chdir("..");
	say(open(path + 1, O_RDONLY));
}

static void try_create(const char *path)
{
	say(open(path, O_WRONLY | O_CREAT, 0600));
}

static void try_overwrite(const char *path)
{
	say(open(path, O_WRONLY));
}

static void try_symlink(const char *path)
{
	say(symlink(path, "/run/link"));
}

static void try_proc(const char *path)
{
	char through[256];

	snprintf(through, sizeof(through), "/proc/self/root%s", path);
	say(open(through, O_RDONLY));
	say(open("/proc/1/root", O_RDONLY));
}

/* The usual way out of a chroot: keep a directory open, chroot below it, and go up from it. */
static void try_chroot(const char *unused)
{
	int here = open(".", O_RDONLY | O_DIRECTORY);

	(void)unused;
	say(chroot("/run"));
	(void)!fchdir(here);
	for (int i = 0; i < 40; i++)
		(void)!chdir("..");
	say(open("etc/passwd", O_RDONLY));
}

static void try_mknod(const char *unused)
{
	(void)unused;
	say(mknod("/run/disk", S_IFBLK | 0600, makedev(8, 0)));
	say(mknod("/run/mem", S_IFCHR | 0600, makedev(1, 1)));
}

static void try_mount(const char *unused)
{
	(void)unused;
	say(mount("none", "/run", "tmpfs", 0, NULL));
	say(mount("proc", "/run", "proc", 0, NULL));
	say(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
	say(mount("/run", "/dev", NULL, MS_BIND, NULL));
	say(umount2("/dev", MNT_DETACH));
	say(syscall(SYS_fsopen, "tmpfs", 0));
	say(syscall(SYS_open_tree, AT_FDCWD, "/", 1));
	say(syscall(SYS_pivot_root, ".", "."));
}

static void try_setuid(const char *unused)
{
	const struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	const struct __user_cap_data_struct all[2] = { { ~0U, ~0U, ~0U }, { ~0U, ~0U, ~0U } };
	const gid_t root = 0;

	(void)unused;
	say(setuid(0));
	say(setreuid(0, 0));
	say(setresgid(0, 0, 0));
	say(setgroups(1, &root));
	say(syscall(SYS_capset, &header, all));
}

static void try_ptrace(const char *pid)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { &byte, 1 };

	say(ptrace(PTRACE_ATTACH, atoi(pid), NULL, NULL));
	say(ptrace(PTRACE_SEIZE, atoi(pid), NULL, NULL));
	say(syscall(SYS_process_vm_readv, atoi(pid), &local, 1, &remote, 1, 0));
}

static void try_kill(const char *pid)
{
	say(kill(atoi(pid), SIGKILL));
	say(kill(-1, SIGKILL));
	say(kill(getppid() ? getppid() : 999999, SIGKILL));
}

/* How many processes there are to be seen. */
static void try_processes(const char *unused)
{
	int seen = 0;

	(void)unused;
	for (pid_t pid = 1; pid < 65536; pid++)
		seen += kill(pid, 0) == 0 || errno == EPERM;
	printf("%d\n%d\n", getpid(), seen);
}

static void try_abstract(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path + 1, name, sizeof(address.sun_path) - 2);
	say(connect(fd, (const struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))));
}

static void try_raw(const char *unused)
{
	(void)unused;
	say(socket(AF_PACKET, SOCK_RAW, 0x0300));
	say(socket(AF_INET, SOCK_RAW, 1));
	say(socket(AF_INET6, SOCK_RAW, 58));
	say(socket(AF_NETLINK, SOCK_RAW, 0));
	say(socket(AF_INET, SOCK_STREAM, 0));
	say(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static int run_on_ring(int ring, const struct io_uring_params *params,
		       const struct io_uring_sqe *sqe)
{
	char *sq = mmap(NULL, params->sq_off.array + params->sq_entries * sizeof(unsigned int),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	char *cq =
		mmap(NULL, params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe),
		     PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqes = mmap(NULL, params->sq_entries * sizeof(*sqes),
					 PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	const struct io_uring_cqe *cqe = (const void *)(cq + params->cq_off.cqes);

	sqes[0] = *sqe;
	*(unsigned int *)(void *)(sq + params->sq_off.array) = 0;
	__atomic_store_n((unsigned int *)(void *)(sq + params->sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -1;
	errno = cqe->res < 0 ? -cqe->res : 0;
	return cqe->res < 0 ? -1 : cqe->res;
}

/* A TCP socket that socket() would not make, and what it reaches. */
static void try_ring_socket(const char *port)
{
	struct io_uring_params params = { 0 };
	int ring = (int)syscall(SYS_io_uring_setup, 1, &params);
	const struct io_uring_sqe sqe = { .opcode = IORING_OP_SOCKET,
					  .fd = AF_INET,
					  .off = SOCK_STREAM };
	const struct sockaddr_in host = { .sin_family = AF_INET,
					  .sin_port = htons((uint16_t)atoi(port)),
					  .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = ring < 0 ? -1 : run_on_ring(ring, &params, &sqe);

	say(fd < 0 ? -1 : connect(fd, (const struct sockaddr *)&host, sizeof(host)));
}

static void try_interfaces(const char *unused)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)unused;
	for (int i = 1; i < 256; i++) {
		struct ifreq request = { .ifr_ifindex = i };

		if (ioctl(fd, SIOCGIFNAME, &request) == 0)
			puts(request.ifr_name);
	}
}

/* Its own for it to type into, if it is no session's. */
static void try_terminal(const char *unused)
{
	(void)unused;
	say(ioctl(STDIN_FILENO, TIOCSCTTY, 0));
	say(ioctl(STDIN_FILENO, TIOCSTI, "x"));
}

static void try_dumpable(const char *unused)
{
	(void)unused;
	say(prctl(PR_SET_DUMPABLE, 0));
	say(prctl(PR_SET_DUMPABLE, 1));
}

static void try_keys(const char *description)
{
	say(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", description, 0));
	say(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", description, 0));
	say(syscall(SYS_request_key, "user", description, NULL, 0));
	say(syscall(SYS_add_key, "user", "new", "x", 1, KEY_SPEC_SESSION_KEYRING));
}

static void try_bpf(const char *unused)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1
	};

	(void)unused;
	say(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static void try_perf(const char *unused)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof(attr),
					.config = PERF_COUNT_SW_TASK_CLOCK,
					.exclude_kernel = 1 };

	(void)unused;
	say(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static void try_userfaultfd(const char *unused)
{
	(void)unused;
	say(syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY));
	say(open("/dev/userfaultfd", O_RDWR));
}

static void try_namespaces(const char *unused)
{
	struct clone_args clone = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };

	(void)unused;
	say(unshare(CLONE_NEWUSER));
	say(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0));
	say(syscall(SYS_clone3, &clone, sizeof(clone)));
	say(unshare(CLONE_NEWNET));
	say(setns(0, 0));
}

static void try_cgroup(const char *unused)
{
	(void)unused;
	say(open("/sys/fs/cgroup", O_RDONLY));
	say(mount("none", "/run", "cgroup2", 0, NULL));
	say(mount("none", "/run", "cgroup", 0, "memory"));
}

/* Bytes written to one file before it was refused. */
static void try_fill(const char *unused)
{
	static char chunk[CHUNK];
	int fd = open("/run/file", O_WRONLY | O_CREAT | O_EXCL, 0600);
	long long written = 0;
	ssize_t n;

	(void)unused;
	signal(SIGXFSZ, SIG_IGN);
	do {
		n = write(fd, chunk, sizeof(chunk));
		written += n > 0 ? n : 0;
	} while (n > 0 && written < (1 << 30));
	printf("%s\n%lld\n", n < 0 ? strerrorname_np(errno) : "done", written);
	unlink("/run/file");
}

/* Processes that there can be at once. */
static void try_fork(const char *unused)
{
	pid_t pid = 1;
	int count = 0;

	(void)unused;
	while (count < PROCESSES_MAX && (pid = fork()) > 0)
		count++;
	if (pid == 0)
		pause();
	printf("%s\n%d\n", pid < 0 ? strerrorname_np(errno) : "done", count);
}

static void try_eat(const char *unused)
{
	(void)unused;
	for (int i = 0; i < 4096; i++) {
		char *memory = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			break;
		memset(memory, 1, CHUNK);
	}
	puts("done");
}

/* The numbers of the descriptors that are open. */
static void try_descriptors(const char *unused)
{
	(void)unused;
	for (int fd = 0; fd < 65536; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			printf("%d\n", fd);
	}
}

static void copy_self(const char *to)
{
	static const char program[] = "#!/payload\n";
	int fd = open(to, O_WRONLY | O_CREAT, 0700);

	(void)!write(fd, program, sizeof(program) - 1);
	close(fd);
}

static void try_execute(const char *unused)
{
	char *const none[] = { NULL };
	int fd;

	(void)unused;
	copy_self("/run/program");
	say(execve("/run/program", none, none));
	fd = open("/run/program", O_RDONLY);
	say(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
	say(mprotect(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0), 4096, PROT_READ | PROT_EXEC));
	unlink("/run/program");
}

static void try_make(const char *unused)
{
	(void)unused;
	say(mkdir("/run/directory", 0700));
	say(mkfifo("/run/fifo", 0600));
	say(link("/run/x", "/run/y"));
	say(open("/dev/file", O_WRONLY | O_CREAT, 0600));
	say(unlink("/dev/kvm"));
}

static void try_own_program(const char *path)
{
	say(open(path, O_RDONLY));
	say(open(path, O_WRONLY));
	say(truncate(path, 0));
	say(unlink(path));
	say(rename(path, "/run/other"));
}

/* What is not tried but read: the state that makes the rest impossible. */
static void show_state(const char *unused)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2] = { 0 };
	struct rlimit core, locked, files;
	unsigned int bounding = 0;

	(void)unused;
	syscall(SYS_capget, &header, caps);
	for (int cap = 0; cap < 64; cap++)
		bounding += prctl(PR_CAPBSET_READ, cap) == 1;
	getrlimit(RLIMIT_CORE, &core);
	getrlimit(RLIMIT_MEMLOCK, &locked);
	getrlimit(RLIMIT_NOFILE, &files);
	printf("capabilities %x\n", caps[0].effective | caps[0].permitted | caps[0].inheritable |
					    caps[1].effective | caps[1].permitted |
					    caps[1].inheritable);
	printf("bounding %u\n", bounding);
	printf("securebits %x\n", prctl(PR_GET_SECUREBITS));
	printf("no_new_privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	printf("seccomp %d\n", prctl(PR_GET_SECCOMP));
	printf("dumpable %d\n", prctl(PR_GET_DUMPABLE));
	printf("groups %d\n", getgroups(0, NULL));
	printf("uid %d\n", getuid());
	printf("gid %d\n", getgid());
	printf("core %lld\n", (long long)core.rlim_max);
	printf("memlock %lld\n", (long long)locked.rlim_max);
	printf("no_file %lld\n", (long long)files.rlim_max);
	printf("session %d\n", getsid(0) == getpid());
	printf("environment %d\n", environ[0] != NULL);
}

static void wait_for_end(const char *unused)
{
	(void)unused;
	puts("waiting");
	fflush(stdout);
	for (;;)
		pause();
}

static void on_signal(int number)
{
	char text[] = { (char)('0' + number / 10), (char)('0' + number % 10), '\n' };

	(void)!write(STDOUT_FILENO, text, sizeof(text));
}

static void wait_for_signals(const char *unused)
{
	sigset_t none;

	for (int number = 1; number < 32; number++)
		signal(number, on_signal);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	wait_for_end(unused);
}

static void show_time(const char *unused)
{
	struct timespec now;

	(void)unused;
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%lld\n", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

static void end(const char *status)
{
	_exit(atoi(status));
}

static void end_by_signal(const char *unused)
{
	(void)unused;
	__builtin_trap();
}

static const struct {
	const char *name;
	void (*function)(const char *argument);
} tries[] = {
	{ "open", try_open },
	{ "open-relative", try_open_relative },
	{ "create", try_create },
	{ "overwrite", try_overwrite },
	{ "symlink", try_symlink },
	{ "proc", try_proc },
	{ "chroot", try_chroot },
	{ "mknod", try_mknod },
	{ "mount", try_mount },
	{ "setuid", try_setuid },
	{ "ptrace", try_ptrace },
	{ "kill", try_kill },
	{ "processes", try_processes },
	{ "abstract", try_abstract },
	{ "raw", try_raw },
	{ "ring-socket", try_ring_socket },
	{ "interfaces", try_interfaces },
	{ "keys", try_keys },
	{ "terminal", try_terminal },
	{ "dumpable", try_dumpable },
	{ "bpf", try_bpf },
	{ "perf", try_perf },
	{ "userfaultfd", try_userfaultfd },
	{ "namespaces", try_namespaces },
	{ "cgroup", try_cgroup },
	{ "fill", try_fill },
	{ "fork", try_fork },
	{ "eat", try_eat },
	{ "descriptors", try_descriptors },
	{ "execute", try_execute },
	{ "make", try_make },
	{ "own-program", try_own_program },
	{ "state", show_state },
	{ "wait", wait_for_end },
	{ "signals", wait_for_signals },
	{ "time", show_time },
	{ "end", end },
	{ "signal", end_by_signal },
};

int main(int argc, char **argv)
{
	if (argc > 7 && strcmp(argv[7], "arguments") == 0) {
		for (int i = 0; i < argc; i++)
			puts(argv[i]);
		return EXIT_SUCCESS;
	}
	/* The jailer's own arguments come first. */
	for (int i = 1; i < argc; i++) {
		for (size_t k = 0; k < sizeof(tries) / sizeof(tries[0]); k++) {
			if (strcmp(argv[i], tries[k].name) == 0) {
				tries[k].function(i + 1 < argc ? argv[i + 1] : "");
				return EXIT_SUCCESS;
			}
		}
	}
	return EXIT_FAILURE;
}
