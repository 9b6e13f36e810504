/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, the device's side (virtio 1.2, 2.7): the only code that touches rings. Every
 * field in guest memory is read once; each descriptor is copied, checked, and turned into host
 * memory. A driver that breaks a rule makes the queue fail for good: virtq_pop returns an error
 * and virtq_error says which rule, until virtq_reset.
 *
 * No locking: the device that owns the queue locks.
 */
#ifndef MOTE_VIRTIO_CORE_QUEUE_H
#define MOTE_VIRTIO_CORE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct guest_memory;
struct state_reader;
struct state_writer;
struct vring_avail;
struct vring_desc;
struct vring_used;

/* The largest queue that mote offers; also the longest chain (2.7.5.3.1). */
#define VIRTQ_SIZE_MAX 256

struct virtq {
	/* Set-up, by the transport. */
	uint16_t size;	    /* entries; a power of two, at most max_size */
	uint16_t max_size;  /* what the device offers */
	bool ready;	    /* QueueReady */
	uint64_t desc_addr; /* guest physical addresses */
	uint64_t avail_addr;
	uint64_t used_addr;

	/* Running, from virtq_start. */
	const struct guest_memory *memory; /* not owned */
	volatile struct vring_desc *desc;
	volatile struct vring_avail *avail;
	volatile struct vring_used *used;
	bool event_idx;
	bool indirect;
	uint16_t next_avail;	 /* free-running index of the next chain to pop */
	uint16_t next_used;	 /* of the next used element to write */
	uint16_t published_used; /* what the driver has been shown of it */
	const char *error;	 /* the rule that the driver broke; NULL none */
};

/*
 * A chain of descriptors in host memory. The first out_count entries of iov are for the device to
 * read, the in_count behind them for it to write (2.7.4.2). The guest can change what is in them at
 * any time.
 */
struct virtq_chain {
	uint16_t head;	      /* what virtq_push takes */
	uint16_t descriptors; /* of the queue's own table that it takes; an indirect table's not */
	uint16_t out_count;
	uint16_t in_count;
	uint32_t out_len; /* bytes */
	uint32_t in_len;
	struct iovec *iov; /* the caller's */
};

/* Back to unconfigured, the offered size kept. */
void virtq_reset(struct virtq *queue);

/*
 * Checks the addresses and sizes that the driver has set: a power of two within max_size,
 * alignments of 2.7, all three areas in guest memory. False if they are not good.
 */
bool virtq_valid(const struct virtq *queue, const struct guest_memory *memory);

/* Starts a valid queue at index 0, with the features that were negotiated. */
void virtq_start(struct virtq *queue, const struct guest_memory *memory, uint64_t features);

/*
 * The set-up and the indices of a queue of which all that was pushed is published, and nothing that
 * was popped is kept. What is loaded is not checked; max_size stays, and the queue does not run.
 */
void virtq_save(const struct virtq *queue, struct state_writer *out);
void virtq_load(struct virtq *queue, struct state_reader *in);
/* As virtq_start, at the indices that it has. */
void virtq_continue(struct virtq *queue, const struct guest_memory *memory, uint64_t features);

/*
 * Takes the next chain. iov has room for `room` entries, at least VIRTQ_SIZE_MAX. 1 with *chain
 * filled, 0 if there is none, -EPROTO if the driver broke a rule.
 */
int virtq_pop(struct virtq *queue, struct virtq_chain *chain, struct iovec *iov, unsigned int room);

/*
 * Gives the last `count` chains back that were popped, none of which has been pushed: virtq_pop
 * finds them again, as the driver has them by then.
 */
void virtq_unpop(struct virtq *queue, unsigned int count);

/* Whether virtq_pop would find something (a chain or a broken rule). */
bool virtq_has_more(const struct virtq *queue);

/* Returns a chain, `written` bytes of its device-writable part filled; not yet seen by the driver.
 */
void virtq_push(struct virtq *queue, uint16_t head, uint32_t written);

/*
 * Shows the driver everything pushed so far (2.7.8.2). True if it wants an interrupt for that
 * (2.7.7, 2.7.10).
 */
bool virtq_publish(struct virtq *queue);

/*
 * Asks the driver not to notify while the device looks at the queue by itself (2.7.7.2), or to
 * notify again. virtq_enable_notify returns true if a chain has come meanwhile, for which there
 * may be no notification: look again.
 */
void virtq_disable_notify(struct virtq *queue);
bool virtq_enable_notify(struct virtq *queue);

/*
 * The free-running index of the next chain that the driver will make available; and to be notified
 * of that one, though those before it have not been popped. True if it has come meanwhile.
 */
uint16_t virtq_available(const struct virtq *queue);
bool virtq_enable_notify_beyond(struct virtq *queue, uint16_t available);

static inline const char *virtq_error(const struct virtq *queue)
{
	return queue->error;
}

#endif
