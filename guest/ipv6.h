/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_GUEST_IPV6_H
#define MOTE_GUEST_IPV6_H

struct failure;

/*
 * Before the interface is up: it looks for no routers, nor for others with its address, which it
 * does from no address at all. passt answers to the address that it has seen last, so that either
 * would cost the connections that are open then.
 */
void ipv6_keep_one_address(const char *interface);

/*
 * Gives an interface that is up an address, `text` being ADDRESS/PREFIX[,GATEWAY]. Nobody else has
 * it, so it can be used at once. 0 or -1 with failure set.
 */
int ipv6_set(const char *interface, const char *text, struct failure *failure);

#endif
