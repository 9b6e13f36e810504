/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/vsock_guest.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/support.h"

#define RX_DATA DRIVER_DATA
#define TX_DATA (DRIVER_DATA + MIB(2))
#define TX_SLOT UINT64_C(0x11000)
#define TX_SLOTS 128
#define ROUNDS 2000

static void start(struct vsock_guest *guest, unsigned int rx_buffers)
{
	driver_start(&guest->driver, 0, 0);
	guest->rx_next = guest->tx_next = 0;
	guest->fwd_cnt = 0;
	vsock_guest_give(guest, rx_buffers);
	vsock_guest_run(guest);
}

void vsock_guest_open(struct vsock_guest *guest, unsigned int rx_buffers)
{
	const struct vsock_config config = { VSOCK_GUEST_CID, VSOCK_PATH };
	struct err err;

	memset(guest, 0, sizeof(*guest));
	guest->buf_alloc = 256u << 10;
	ck_assert_msg(vsock_open(&guest->vsock, &config, &err) == 0, "%s", err.text);
	driver_open(&guest->driver);
	driver_attach(&guest->driver, vsock_device(guest->vsock));
	start(guest, rx_buffers);
}

void vsock_guest_close(struct vsock_guest *guest)
{
	virtio_device_close(vsock_device(guest->vsock));
	driver_close(&guest->driver);
}

void vsock_guest_restart(struct vsock_guest *guest, unsigned int rx_buffers)
{
	driver_reset(&guest->driver);
	start(guest, rx_buffers);
}

static void give(struct vsock_guest *guest)
{
	const uint64_t addr = RX_DATA + (uint64_t)guest->rx_next * VSOCK_RX_BUFFER;
	const struct driver_buffer buffer = { addr, VSOCK_RX_BUFFER, true };
	uint16_t head = driver_add(&guest->driver, VSOCK_RX_QUEUE, &buffer, 1);

	guest->rx_addr[head] = addr;
	guest->rx_next = (guest->rx_next + 1) % 256;
}

void vsock_guest_give(struct vsock_guest *guest, unsigned int rx_buffers)
{
	for (unsigned int i = 0; i < rx_buffers; i++)
		give(guest);
	driver_notify(&guest->driver, VSOCK_RX_QUEUE);
}

void vsock_guest_run(struct vsock_guest *guest)
{
	for (unsigned int i = 0; i < 8; i++)
		driver_run(&guest->driver);
}

unsigned int vsock_guest_reap(struct vsock_guest *guest)
{
	uint32_t head, len;
	unsigned int count = 0;

	for (; driver_used(&guest->driver, VSOCK_TX_QUEUE, &head, &len); count++)
		ck_assert_uint_eq(len, 0);
	return count;
}

void vsock_guest_send_raw(struct vsock_guest *guest, const struct vsock_header *header,
			  const void *data, size_t data_size, uint32_t size)
{
	const uint64_t addr = TX_DATA + guest->tx_next * TX_SLOT;
	uint8_t *host = driver_memory(&guest->driver, addr, TX_SLOT);
	const struct iovec iov = { host, TX_SLOT };
	const struct driver_buffer buffer = { addr, size, false };

	vsock_header_write(header, &iov);
	if (data_size > 0)
		memcpy(host + VSOCK_HEADER_SIZE, data, data_size);
	driver_add(&guest->driver, VSOCK_TX_QUEUE, &buffer, 1);
	guest->tx_next = (guest->tx_next + 1) % TX_SLOTS;
	driver_notify(&guest->driver, VSOCK_TX_QUEUE);
}

static void send_packet(struct vsock_guest *guest, struct vsock_header *header, const void *data)
{
	header->src_cid = VSOCK_GUEST_CID;
	header->dst_cid = VSOCK_HOST_CID;
	header->type = VIRTIO_VSOCK_TYPE_STREAM;
	header->buf_alloc = guest->buf_alloc;
	header->fwd_cnt = guest->fwd_cnt;
	vsock_guest_send_raw(guest, header, data, header->len,
			     (uint32_t)VSOCK_HEADER_SIZE + header->len);
	driver_run(&guest->driver);
	vsock_guest_reap(guest);
}

void vsock_guest_send(struct vsock_guest *guest, enum virtio_vsock_op op, uint32_t host_port,
		      uint32_t guest_port, uint32_t flags)
{
	struct vsock_header header = {
		.src_port = guest_port,
		.dst_port = host_port,
		.op = (uint16_t)op,
		.flags = flags,
	};

	send_packet(guest, &header, NULL);
}

void vsock_guest_write(struct vsock_guest *guest, uint32_t host_port, uint32_t guest_port,
		       const void *data, size_t size)
{
	struct vsock_header header = {
		.src_port = guest_port,
		.dst_port = host_port,
		.op = VIRTIO_VSOCK_OP_RW,
		.len = (uint32_t)size,
	};

	send_packet(guest, &header, data);
}

bool vsock_guest_receive(struct vsock_guest *guest)
{
	struct iovec iov = { .iov_len = VSOCK_RX_BUFFER };
	uint32_t head, len;

	if (!driver_used(&guest->driver, VSOCK_RX_QUEUE, &head, &len))
		return false;
	iov.iov_base = driver_memory(&guest->driver, guest->rx_addr[head], VSOCK_RX_BUFFER);
	vsock_header_read(&guest->header, &iov);
	ck_assert_uint_eq(len, VSOCK_HEADER_SIZE + guest->header.len);
	memcpy(guest->payload, (uint8_t *)iov.iov_base + VSOCK_HEADER_SIZE, guest->header.len);
	ck_assert_uint_eq(guest->header.op == VIRTIO_VSOCK_OP_RW, guest->header.len > 0);
	if (!guest->keep_credit)
		guest->fwd_cnt += guest->header.len;
	if (!guest->keep_rx)
		vsock_guest_give(guest, 1);
	return true;
}

void vsock_guest_expect(struct vsock_guest *guest, enum virtio_vsock_op op)
{
	const struct timeval tick = { .tv_usec = 10000 };

	for (unsigned int i = 0; !vsock_guest_receive(guest); i++) {
		ck_assert_msg(i < ROUNDS, "waited in vain for op %d", (int)op);
		event_base_loopexit(guest->driver.base, &tick);
		event_base_loop(guest->driver.base, EVLOOP_ONCE);
	}
	ck_assert_msg(guest->header.op == op, "op %u instead of %d", guest->header.op, (int)op);
	ck_assert_uint_eq(guest->header.dst_cid, VSOCK_GUEST_CID);
	ck_assert_uint_eq(guest->header.src_cid, VSOCK_HOST_CID);
}

void vsock_guest_expect_nothing(struct vsock_guest *guest)
{
	vsock_guest_run(guest);
	ck_assert_msg(!vsock_guest_receive(guest), "op %u", guest->header.op);
}

int vsock_client_connect(void)
{
	const struct sockaddr_un addr = { AF_UNIX, VSOCK_PATH };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

void vsock_client_write(int fd, const void *data, size_t size)
{
	ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
}

static ssize_t read_some(struct vsock_guest *guest, int fd, void *data, size_t size)
{
	const struct timeval tick = { .tv_usec = 10000 };
	ssize_t n = read(fd, data, size);

	for (unsigned int i = 0; n < 0 && errno == EAGAIN; i++) {
		ck_assert_msg(i < ROUNDS, "waited in vain for the host's side");
		event_base_loopexit(guest->driver.base, &tick);
		event_base_loop(guest->driver.base, EVLOOP_ONCE);
		n = read(fd, data, size);
	}
	return n;
}

void vsock_client_expect(struct vsock_guest *guest, int fd, const void *data, size_t size)
{
	const uint8_t *expected = data;
	uint8_t got[4096];

	while (size > 0) {
		ssize_t n = read_some(guest, fd, got, size < sizeof(got) ? size : sizeof(got));

		ck_assert_int_gt(n, 0);
		ck_assert_mem_eq(got, expected, (size_t)n);
		expected += n;
		size -= (size_t)n;
	}
}

void vsock_client_expect_end(struct vsock_guest *guest, int fd)
{
	uint8_t byte;
	ssize_t n = read_some(guest, fd, &byte, 1);

	ck_assert(n == 0 || (n < 0 && errno == ECONNRESET));
}

int vsock_server_listen(int backlog)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s_%d", VSOCK_PATH, VSOCK_HOST_PORT);
	unlink(addr.sun_path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, backlog), 0);
	return fd;
}

int vsock_guest_accept(struct vsock_guest *guest, uint32_t *host_port)
{
	static const char command[] = "CONNECT 52\n";
	int client = vsock_client_connect();
	char answer[32];

	vsock_client_write(client, command, sizeof(command) - 1);
	vsock_guest_expect(guest, VIRTIO_VSOCK_OP_REQUEST);
	ck_assert_uint_eq(guest->header.dst_port, VSOCK_PORT);
	*host_port = guest->header.src_port;
	vsock_guest_send(guest, VIRTIO_VSOCK_OP_RESPONSE, *host_port, VSOCK_PORT, 0);
	snprintf(answer, sizeof(answer), "OK %u\n", *host_port);
	vsock_client_expect(guest, client, answer, strlen(answer));
	return client;
}

int vsock_guest_connect(struct vsock_guest *guest, int server, uint32_t guest_port)
{
	int fd;

	vsock_guest_send(guest, VIRTIO_VSOCK_OP_REQUEST, VSOCK_HOST_PORT, guest_port, 0);
	vsock_guest_expect(guest, VIRTIO_VSOCK_OP_RESPONSE);
	ck_assert_uint_eq(guest->header.src_port, VSOCK_HOST_PORT);
	ck_assert_uint_eq(guest->header.dst_port, guest_port);
	fd = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	ck_assert_int_ge(fd, 0);
	return fd;
}
