/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata service on one network interface: it stands before the interface's backend, takes
 * the guest's ARP requests and IPv4 packets for its address, and lets all else pass. It is a small
 * TCP server of bounded memory that only answers: up to 30 connections, no reassembly.
 */
#ifndef MOTE_MMDS_RESPONDER_H
#define MOTE_MMDS_RESPONDER_H

#include <stdint.h>

struct err;
struct mmds;
struct net_backend;
struct responder;

#define RESPONDER_PORT 80
#define RESPONDER_CONNECTIONS 30
/* A connection on which nothing has moved for so long gives way to a new one, if there is no room.
 */
#define RESPONDER_IDLE_NS INT64_C(10000000000)

/*
 * `behind` gets and gives all frames that are not for the address (network byte order); it, and
 * mmds, must live longer. clock is CLOCK_MONOTONIC, unless a test has another. 0 or -errno with err
 * set.
 */
int responder_open(struct responder **responder, struct mmds *mmds, uint32_t address,
		   struct net_backend *behind, int64_t (*clock)(void), struct err *err);
/* NULL is allowed. */
void responder_close(struct responder *responder);

/* What the device uses instead of what is behind. */
struct net_backend *responder_backend(struct responder *responder);

#endif
