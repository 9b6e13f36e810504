/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's driver of the socket device, and the host's programs at its Unix sockets. */
#ifndef MOTE_TESTS_UNIT_VSOCK_GUEST_H
#define MOTE_TESTS_UNIT_VSOCK_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/driver.h"
#include "virtio/vsock/internal.h"

#define VSOCK_GUEST_CID 3
#define VSOCK_PATH "v.sock"
#define VSOCK_PORT 52	      /* of the guest, where nothing else is said */
#define VSOCK_HOST_PORT 1024  /* where "v.sock_1024" listens */
#define VSOCK_RX_BUFFER 4096u /* bytes */

struct vsock_guest {
	struct driver driver;
	struct vsock *vsock;
	uint64_t rx_addr[256]; /* by descriptor */
	unsigned int rx_next;
	unsigned int tx_next;
	bool keep_rx; /* received buffers are not made available again */
	/* Goes into each packet sent. */
	uint32_t buf_alloc;
	uint32_t fwd_cnt;
	bool keep_credit; /* fwd_cnt does not follow what is received */
	/* The last packet received. */
	struct vsock_header header;
	uint8_t payload[VSOCK_RX_BUFFER];
};

/* Opens, attaches and starts the device, with so many rx buffers. */
void vsock_guest_open(struct vsock_guest *guest, unsigned int rx_buffers);
void vsock_guest_close(struct vsock_guest *guest);
/* Resets and starts the device again. */
void vsock_guest_restart(struct vsock_guest *guest, unsigned int rx_buffers);

void vsock_guest_give(struct vsock_guest *guest, unsigned int rx_buffers);

/* Sends exactly this packet, but its bytes on the ring are `size`. */
void vsock_guest_send_raw(struct vsock_guest *guest, const struct vsock_header *header,
			  const void *data, size_t data_size, uint32_t size);
/* The next packet of the stream between these ports. Runs the event loop. */
void vsock_guest_send(struct vsock_guest *guest, enum virtio_vsock_op op, uint32_t host_port,
		      uint32_t guest_port, uint32_t flags);
void vsock_guest_write(struct vsock_guest *guest, uint32_t host_port, uint32_t guest_port,
		       const void *data, size_t size);
/* Returns the chains that the device has done with. */
unsigned int vsock_guest_reap(struct vsock_guest *guest);

/* Takes the next packet into header and payload; false if there is none. */
bool vsock_guest_receive(struct vsock_guest *guest);
/* The same, running the loop until there is one; it must have that op. */
void vsock_guest_expect(struct vsock_guest *guest, enum virtio_vsock_op op);
void vsock_guest_expect_nothing(struct vsock_guest *guest);
/* Runs the loop until everything that can happen has happened. */
void vsock_guest_run(struct vsock_guest *guest);

/* A non-blocking client connected to VSOCK_PATH. */
int vsock_client_connect(void);
void vsock_client_write(int fd, const void *data, size_t size);
/* Reads exactly these bytes, running the loop meanwhile. */
void vsock_client_expect(struct vsock_guest *guest, int fd, const void *data, size_t size);
/* The stream has ended, running the loop meanwhile. */
void vsock_client_expect_end(struct vsock_guest *guest, int fd);

/* A listening socket for VSOCK_HOST_PORT. */
int vsock_server_listen(int backlog);

/* An established stream between VSOCK_PORT and a client's socket; *host_port is the device's. */
int vsock_guest_accept(struct vsock_guest *guest, uint32_t *host_port);
/* The same, by the guest: to VSOCK_HOST_PORT from guest_port; returns the server's end. */
int vsock_guest_connect(struct vsock_guest *guest, int server, uint32_t guest_port);

#endif
