/* SPDX-License-Identifier: Apache-2.0 */
/* A passt process: the network of one VM, without privilege on the host. */
#ifndef MOTE_HOST_PASST_H
#define MOTE_HOST_PASST_H

#include <stdbool.h>
#include <sys/types.h>

struct err;

/* The guest's place in passt's network; nothing of the host answers at the gateway's address. */
#define PASST_GUEST "10.0.2.15"
#define PASST_PREFIX "24"
#define PASST_GATEWAY "10.0.2.2"
#define PASST_DNS "10.0.2.3" /* forwarded to the host's resolver */
#define PASST_GUEST_IPV6 "fd00::2"
#define PASST_PREFIX_IPV6 "64"
#define PASST_GATEWAY_IPV6 "fd00::1"
#define PASST_DNS_IPV6 "fd00::3" /* likewise, for those of its servers that have such addresses */

struct passt {
	pid_t pid;     /* 0: none */
	int pid_fd;    /* owned; readable when it has ended */
	int socket_fd; /* owned; for the VMM */
	int said_fd;   /* owned; what it wrote to its standard error */
};

#define PASST_PORTS_MAX 32

/* Ports of the host that lead to the guest: [ADDRESS/]HOST:GUEST, in passt's words. */
struct passt_ports {
	char list[PASST_PORTS_MAX][64];
	const char *option[PASST_PORTS_MAX]; /* --tcp-ports or --udp-ports */
	unsigned int count;
};

/* [ADDRESS:]HOST[:GUEST][/udp]. 0 or -EINVAL. */
int passt_publish(struct passt_ports *ports, const char *argument);

/*
 * What the host has a way to the world by, and so the guest. By IPv4 it always reaches the host's
 * resolver, which may be at 127.0.0.53.
 */
struct passt_families {
	bool ipv4;
	bool ipv6;
};

/* A host without any is taken for one with IPv4. */
struct passt_families passt_families(void);

/* 0 or -errno with err set; on failure there is nothing to close. */
int passt_start(struct passt *passt, const struct passt_ports *ports, struct err *err);
/* The last line that it said; empty if it said nothing. */
void passt_last_words(const struct passt *passt, char *text, size_t size);
/* Once the VMM has its copy. */
void passt_close_socket(struct passt *passt);
/* Ends and reaps it. Safe on a zeroed object. */
void passt_close(struct passt *passt);

#endif
