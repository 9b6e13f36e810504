/* SPDX-License-Identifier: Apache-2.0 */
#include "host/passt.h"

#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"

#define END_TIMEOUT_MS 2000

/* Interface, destination, gateway and flags in hexadecimal: a default route that is in use. */
static bool has_default_ipv4(void)
{
	FILE *file = fopen("/proc/net/route", "re");
	unsigned int destination, flags;
	char line[256];
	bool has = false;

	while (file && !has && fgets(line, sizeof(line), file))
		has = sscanf(line, "%*s %x %*x %x", &destination, &flags) == 2 &&
		      destination == 0 && (flags & RTF_UP) && !(flags & RTF_REJECT);
	if (file)
		fclose(file);
	return has;
}

/* By which interface, too. */
static bool has_default_ipv6(char interface[IF_NAMESIZE])
{
	FILE *file = fopen("/proc/net/ipv6_route", "re");
	char line[256], destination[33];
	unsigned int prefix, flags;
	bool has = false;

	while (file && !has && fgets(line, sizeof(line), file))
		has = sscanf(line, "%32s %x %*s %*x %*s %*x %*x %*x %x %15s", destination, &prefix,
			     &flags, interface) == 4 &&
		      prefix == 0 && (flags & RTF_UP) && !(flags & RTF_REJECT);
	if (file)
		fclose(file);
	return has;
}

struct passt_families passt_families(void)
{
	char interface[IF_NAMESIZE];
	const bool ipv6 = has_default_ipv6(interface);

	return (struct passt_families){ .ipv4 = has_default_ipv4() || !ipv6, .ipv6 = ipv6 };
}

/* It speaks when all is well, too: what it says is kept for the sentence about its failure. */
static _Noreturn void exec_passt(int fd, int said_fd, const struct passt_ports *ports)
{
	char number[16];
	const struct passt_families families = passt_families();
	char *argv[24 + 2 * PASST_PORTS_MAX] = {
		(char[]){ "passt" },	   (char[]){ "--foreground" },
		(char[]){ "--stderr" },	   (char[]){ "--quiet" },
		(char[]){ "--no-map-gw" }, (char[]){ "--no-ra" },
		(char[]){ "--fd" },	   number,
	};
	char *const ipv4[] = {
		(char[]){ "--address" },     (char[]){ PASST_GUEST }, (char[]){ "--netmask" },
		(char[]){ PASST_PREFIX },    (char[]){ "--gateway" }, (char[]){ PASST_GATEWAY },
		(char[]){ "--dns-forward" }, (char[]){ PASST_DNS },
	};
	char *const ipv6[] = {
		(char[]){ "--address" },     (char[]){ PASST_GUEST_IPV6 },
		(char[]){ "--gateway" },     (char[]){ PASST_GATEWAY_IPV6 },
		(char[]){ "--dns-forward" }, (char[]){ PASST_DNS_IPV6 },
	};
	char ipv4_only[] = "--ipv4-only", option[] = "--interface", interface[IF_NAMESIZE];
	size_t count = 8;
	int own = dup(fd); /* without close-on-exec */
	sigset_t none;

	snprintf(number, sizeof(number), "%d", own);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	dup2(said_fd, STDERR_FILENO);
	memcpy(argv + count, ipv4, sizeof(ipv4));
	count += ARRAY_SIZE(ipv4);
	/* It has no IPv4 of its own choice without a route, and the host's resolver may be there.
	 */
	if (!families.ipv4 && has_default_ipv6(interface)) {
		argv[count++] = option;
		argv[count++] = interface;
	}
	if (families.ipv6) {
		memcpy(argv + count, ipv6, sizeof(ipv6));
		count += ARRAY_SIZE(ipv6);
	} else {
		argv[count++] = ipv4_only;
	}
	for (unsigned int i = 0; i < ports->count; i++) {
		argv[count++] = (char *)(uintptr_t)ports->option[i];
		argv[count++] = (char *)(uintptr_t)ports->list[i];
	}
	execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "%s; it is in the Debian package passt\n", strerrordesc_np(errno));
	_exit(EXIT_FAILURE);
}

static bool is_port(const char *text, size_t length)
{
	unsigned long value;
	char *end;

	if (length == 0 || length > 5 || text[0] < '1' || text[0] > '9')
		return false;
	value = strtoul(text, &end, 10);
	return end == text + length && value <= UINT16_MAX;
}

int passt_publish(struct passt_ports *ports, const char *argument)
{
	size_t length = strlen(argument), host_at = 0, guest_at;
	bool udp = length > 4 && strcmp(argument + length - 4, "/udp") == 0;
	const char *colon;

	length -= udp ? 4 : 0;
	if (ports->count == PASST_PORTS_MAX || length >= sizeof(ports->list[0]) - 1)
		return -EINVAL;
	guest_at = length;
	while (guest_at > 0 && argument[guest_at - 1] != ':')
		guest_at--;
	/* One number alone is both. */
	if (guest_at > 0) {
		colon = memrchr(argument, ':', guest_at - 1);
		host_at = colon ? (size_t)(colon + 1 - argument) : 0;
		if (!is_port(argument + host_at, guest_at - 1 - host_at))
			return -EINVAL;
	}
	if (!is_port(argument + guest_at, length - guest_at) ||
	    strspn(argument, "0123456789.") < (host_at > 0 ? host_at - 1 : 0))
		return -EINVAL;
	snprintf(ports->list[ports->count], sizeof(ports->list[0]), "%.*s%s%.*s",
		 (int)(host_at > 0 ? host_at - 1 : 0), argument, host_at > 0 ? "/" : "",
		 (int)(length - host_at), argument + host_at);
	ports->option[ports->count++] = udp ? "--udp-ports" : "--tcp-ports";
	return 0;
}

int passt_start(struct passt *passt, const struct passt_ports *ports, struct err *err)
{
	CLEANUP_FD int ours = -1, theirs = -1, said = memfd_create("passt", MFD_CLOEXEC);
	int pair[2];
	pid_t pid;

	memset(passt, 0, sizeof(*passt));
	if (said < 0)
		return err_sys(err, errno, "passt: memfd_create");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "a socket to passt");
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "passt: fork");
	if (pid == 0)
		exec_passt(theirs, said, ports);
	passt->pid = pid;
	passt->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	passt->socket_fd = fd_take(&ours);
	passt->said_fd = fd_take(&said);
	if (passt->pid_fd < 0) {
		int rc = err_sys(err, errno, "passt: pidfd_open");

		passt_close(passt);
		return rc;
	}
	return 0;
}

void passt_last_words(const struct passt *passt, char *text, size_t size)
{
	ssize_t n = pread(passt->said_fd, text, size - 1, 0);
	char *line;

	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n > 0 ? n : 0] = '\0';
	line = strrchr(text, '\n');
	if (line)
		memmove(text, line + 1, strlen(line));
}

void passt_close_socket(struct passt *passt)
{
	if (passt->pid > 0)
		fd_close(&passt->socket_fd);
}

void passt_close(struct passt *passt)
{
	struct pollfd ended = { .fd = passt->pid_fd, .events = POLLIN };

	if (passt->pid == 0)
		return;
	/* It ends by itself with its last connection. */
	fd_close(&passt->socket_fd);
	if (passt->pid_fd < 0 || poll(&ended, 1, END_TIMEOUT_MS) <= 0)
		kill(passt->pid, SIGKILL);
	while (waitpid(passt->pid, NULL, 0) < 0 && errno == EINTR)
		;
	fd_close(&passt->pid_fd);
	fd_close(&passt->said_fd);
	memset(passt, 0, sizeof(*passt));
}
