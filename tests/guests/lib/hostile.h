/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that break a rule, over and over: each round breaks it, looks at what the device makes of
 * it, resets the device and shows that it works. A program of such cases defines hostile_cases and
 * hostile_set_up; which case, how many rounds and which device are options on the command line:
 * case=NAME rounds=N device=NAME.
 */
#ifndef MOTE_TESTS_GUESTS_HOSTILE_H
#define MOTE_TESTS_GUESTS_HOSTILE_H

#include "block.h"
#include "net.h"
#include "virtio.h"
#include "vsock.h"

enum hostile_outcome {
	RUNS_ON,     /* a good request is served without a reset */
	UNHARMED,    /* no DEVICE_NEEDS_RESET; but the driver has left nothing to be served */
	NEEDS_RESET, /* a broken ring */
	EITHER,	     /* the rule does not say, or it is a race */
};

struct hostile_case {
	const char *name; /* NULL ends the list */
	enum hostile_outcome outcome;
	void (*run)(void); /* finds the device reset */
};

extern const struct hostile_case hostile_cases[];
/* Once, before the first round; the target is found. */
void hostile_set_up(const void *zero_page);

/* What is attacked: a device, and a queue of it. */
struct hostile_target {
	const char *name; /* of the option `device` */
	struct virtio *virtio;
	unsigned int queue_count; /* that the driver uses */
	unsigned int queue;
	bool writable; /* by the device are the queue's buffers */
	bool (*find)(void);
	bool (*start)(uint64_t features); /* from whatever state */
	bool (*good)(void);		  /* a request or the like, on a started device */
	void (*provoke)(void);		  /* makes the device look for a buffer in the queue */
};

extern struct hostile_target *hostile_target;
extern struct block hostile_block;
extern struct net hostile_net;
extern struct vsock hostile_vsock;

/* Says what is not as it should be. */
void hostile_expect(const char *what, bool good);

#endif
