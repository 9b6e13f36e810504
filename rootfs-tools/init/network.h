/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_INIT_NETWORK_H
#define MOTE_INIT_NETWORK_H

struct failure;

/*
 * Brings loopback up, and eth0 with `address`, ADDRESS/PREFIX[,GATEWAY[,DNS]], if that is not NULL;
 * writes /etc/resolv.conf. 0 or -1 with failure set.
 */
int network_set_up(const char *address, struct failure *failure);

#endif
