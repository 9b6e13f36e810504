/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_GUEST_NETWORK_H
#define MOTE_GUEST_NETWORK_H

#include "guest/etc.h"

struct failure;

/* Strings are the caller's, and stay; NULL: nothing of it. */
struct network {
	const char *ipv4;	      /* of eth0: ADDRESS/PREFIX[,GATEWAY[,DNS]] */
	const char *ipv6;	      /* of eth0: ADDRESS/PREFIX[,GATEWAY] */
	struct etc_resolver resolver; /* its servers come before DNS */
	struct etc_names names;	      /* but the address, which is eth0's */
};

/* Brings loopback and eth0 up; writes what /etc says of them. 0 or -1 with failure set. */
int network_set_up(const struct network *network, struct failure *failure);

/* One more address of the loopback interface: a single one. 0 or -1 with errno set. */
int network_add_local(const char *address);

/*
 * Another address of eth0, as network.ipv4 has it, and another host name, which is copied; either
 * may be NULL. 0 or -1 with failure set.
 */
int network_change(const char *ipv4, const char *hostname, struct failure *failure);

#endif
