/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a sequence of operations: packets and rings of a hostile guest, and what programs of
 * the host do at their ends of the Unix sockets. The device must keep its bounds and its counts,
 * and a reset must end everything.
 */
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "virtio/vsock/internal.h"

#define MEMORY_SIZE (UINT64_C(2) << 20)
#define RING_SPACING UINT64_C(0x10000)
#define AVAIL_OFFSET UINT64_C(0x1000)
#define USED_OFFSET UINT64_C(0x2000)
#define TX_DATA UINT64_C(0x40000)
#define RX_DATA UINT64_C(0x80000)
#define QUEUE_SIZE 256
#define GUEST_CID 3
#define SERVER_PORT 5
#define ENDS 8
#define OPERATIONS_MAX 512

enum operation {
	SEND,
	SEND_RAW,
	GIVE,
	GIVE_RAW,
	CONNECT,
	ACCEPT,
	WRITE,
	READ,
	SHUT,
	CLOSE,
	EXPIRE,
	RESTART,
	OPERATIONS,
};

struct input {
	const uint8_t *data;
	size_t size;
};

static char dir[] = "/tmp/mote-fuzz-XXXXXX";
static struct sockaddr_un device_addr = { .sun_family = AF_UNIX };
static struct sockaddr_un server_addr = { .sun_family = AF_UNIX };
static struct guest_memory memory;
static struct event_base *base;
static struct vsock *vsock;
static int server = -1;
static int ends[ENDS];
static uint16_t next_desc[VSOCK_QUEUES];

static uint8_t take(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static uint32_t take_u32(struct input *input)
{
	uint32_t value = 0;

	for (unsigned int i = 0; i < 4; i++)
		value = value << 8 | take(input);
	return value;
}

static void remove_files(void)
{
	virtio_device_close(vsock_device(vsock));
	unlink(server_addr.sun_path);
	rmdir(dir);
}

static void set_up(void)
{
	const struct vsock_config config = { GUEST_CID, device_addr.sun_path };
	struct err err;

	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_ERROR);
	REQUIRE(mkdtemp(dir));
	snprintf(device_addr.sun_path, sizeof(device_addr.sun_path), "%s/v", dir);
	snprintf(server_addr.sun_path, sizeof(server_addr.sun_path), "%s/v_%d", dir, SERVER_PORT);
	REQUIRE(guest_memory_open(&memory, MEMORY_SIZE, UINT64_C(3) << 30, UINT64_C(4) << 30,
				  HUGE_PAGES_NONE, &err) == 0);
	base = event_base_new();
	REQUIRE(base);
	REQUIRE(vsock_open(&vsock, &config, &err) == 0);
	REQUIRE(virtio_device_attach(vsock_device(vsock), &(struct virtio_host){ &memory, base },
				     &err) == 0);
	server = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	REQUIRE(bind(server, (const struct sockaddr *)&server_addr, sizeof(server_addr)) == 0);
	REQUIRE(listen(server, ENDS) == 0);
	for (unsigned int i = 0; i < ENDS; i++)
		ends[i] = -1;
	atexit(remove_files);
}

static void run(void)
{
	for (unsigned int i = 0; i < 3; i++)
		REQUIRE(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
}

static void check(void)
{
	const struct vsock_connection *at;
	unsigned int count = 0, handshakes = 0;

	TAILQ_FOREACH(at, &vsock->table.all, all)
	{
		count++;
		handshakes += at->state == VSOCK_HANDSHAKE;
		REQUIRE(at->buffer.used <= VSOCK_BUFFER_SIZE);
		REQUIRE(!at->buffer.data == (at->buffer.used == 0));
		REQUIRE(at->fd >= 0 || at->buffer.used == 0);
		if (at->fd >= 0 && at->state != VSOCK_HANDSHAKE)
			REQUIRE(at->received - at->forwarded == at->buffer.used);
		if (at->has_ports)
			REQUIRE(vsock_table_find(&vsock->table, at->host_port, at->guest_port) ==
				at);
		if (at->state == VSOCK_RESETTING)
			REQUIRE(at->replies == VSOCK_REPLY_RST && at->is_waiting);
		if (at->state == VSOCK_LINGERING)
			REQUIRE(at->fd >= 0 && at->buffer.used > 0);
	}
	REQUIRE(count == vsock->table.count && count <= VSOCK_CONNECTIONS_MAX);
	REQUIRE(handshakes == vsock->table.handshakes);
	REQUIRE(vsock->rx.reset_count <= VSOCK_RESETS_MAX);
	if (!vsock->device.active)
		REQUIRE(count == 0);
}

static void reset(void)
{
	pthread_mutex_lock(&vsock->device.lock);
	virtio_device_reset(&vsock->device);
	pthread_mutex_unlock(&vsock->device.lock);
}

static void start(uint8_t features)
{
	struct virtio_device *device = &vsock->device;

	memset(guest_memory_range(&memory, 0, TX_DATA), 0, TX_DATA);
	memset(next_desc, 0, sizeof(next_desc));
	pthread_mutex_lock(&device->lock);
	for (unsigned int i = 0; i < VSOCK_QUEUES; i++) {
		struct virtq *queue = &device->queues[i];

		queue->size = QUEUE_SIZE;
		queue->desc_addr = RING_SPACING * i;
		queue->avail_addr = queue->desc_addr + AVAIL_OFFSET;
		queue->used_addr = queue->desc_addr + USED_OFFSET;
		queue->ready = true;
		REQUIRE(virtq_valid(queue, &memory));
	}
	device->driver_features = (uint64_t)(features & 3) << VIRTIO_RING_F_INDIRECT_DESC;
	virtio_device_activate(device);
	pthread_mutex_unlock(&device->lock);
}

static void notify(unsigned int queue)
{
	const uint64_t one = 1;

	REQUIRE(write(vsock->device.notify_fds[queue], &one, sizeof(one)) == sizeof(one));
}

static void add_descriptor(unsigned int queue, struct vring_desc desc, bool last)
{
	uint8_t *ring = guest_memory_range(&memory, RING_SPACING * queue, RING_SPACING);
	struct vring_desc *table = (struct vring_desc *)ring;
	uint16_t head = next_desc[queue];

	next_desc[queue] = (uint16_t)((head + 1) % QUEUE_SIZE);
	if (!last) {
		desc.flags |= VRING_DESC_F_NEXT;
		desc.next = next_desc[queue];
	}
	table[head] = desc;
}

static void make_available(unsigned int queue, uint16_t head)
{
	uint8_t *ring = guest_memory_range(&memory, RING_SPACING * queue, RING_SPACING);
	struct vring_avail *avail = (struct vring_avail *)(ring + AVAIL_OFFSET);

	avail->ring[avail->idx % QUEUE_SIZE] = head;
	avail->idx++;
	notify(queue);
}

/* A port that exists, if the input says so. */
static void choose_ports(struct input *input, struct virtio_vsock_hdr *header)
{
	const struct vsock_connection *at = TAILQ_FIRST(&vsock->table.all);
	uint8_t choice = take(input);

	header->dst_port = SERVER_PORT;
	header->src_port = choice % 16;
	if (choice & 0x80) {
		for (unsigned int i = 0; at && i < (choice & 7u); i++)
			at = TAILQ_NEXT(at, all) ? TAILQ_NEXT(at, all) : at;
		if (at) {
			header->dst_port = at->host_port;
			header->src_port = at->guest_port;
		}
	} else if (choice & 0x40) {
		header->dst_port = take_u32(input);
	}
}

static void send_packet(struct input *input)
{
	struct virtio_vsock_hdr header = {
		.src_cid = GUEST_CID,
		.dst_cid = VSOCK_HOST_CID,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
	};
	uint8_t op = take(input);
	uint32_t size;
	uint16_t head = next_desc[VSOCK_TX_QUEUE];

	choose_ports(input, &header);
	header.op = op % 9;
	header.flags = op >> 6;
	header.buf_alloc = (uint32_t)take(input) << 12;
	header.fwd_cnt = op & 0x20 ? take_u32(input) : 0;
	if (header.op == VIRTIO_VSOCK_OP_RW)
		header.len = (uint32_t)take(input) << (op & 0x10 ? 8 : 1);
	size = header.len;
	if (op & 0x08 && header.op == VIRTIO_VSOCK_OP_RW) {
		uint8_t wrong = take(input);

		size = wrong;
		header.type = wrong & 1 ? header.type : wrong;
		header.src_cid = wrong & 2 ? header.src_cid : wrong;
		header.dst_cid = wrong & 4 ? header.dst_cid : wrong;
	}
	memcpy(guest_memory_range(&memory, TX_DATA, sizeof(header)), &header, sizeof(header));
	if (op & 0x04) {
		uint32_t first = 1 + take(input) % 43u;

		add_descriptor(VSOCK_TX_QUEUE, (struct vring_desc){ TX_DATA, first }, false);
		add_descriptor(VSOCK_TX_QUEUE,
			       (struct vring_desc){ TX_DATA + first,
						    (uint32_t)sizeof(header) - first + size },
			       true);
	} else {
		add_descriptor(VSOCK_TX_QUEUE,
			       (struct vring_desc){ TX_DATA, (uint32_t)sizeof(header) + size },
			       true);
	}
	make_available(VSOCK_TX_QUEUE, head);
}

static void add_raw(struct input *input, unsigned int queue)
{
	const struct vring_desc desc = {
		.addr = take_u32(input),
		.len = take_u32(input),
		.flags = take(input),
		.next = take(input),
	};
	uint16_t head = next_desc[queue];

	add_descriptor(queue, desc, true);
	make_available(queue, head);
}

static void give(struct input *input)
{
	uint8_t choice = take(input);
	uint32_t size = choice & 0x80 ? 64u << 10 : choice & 0x40 ? 45 : 4096;

	for (unsigned int i = 0; i < (choice & 31u); i++) {
		uint16_t head = next_desc[VSOCK_RX_QUEUE];

		if (choice & 0x20) {
			add_descriptor(VSOCK_RX_QUEUE,
				       (struct vring_desc){ RX_DATA, 20, VRING_DESC_F_WRITE },
				       false);
			add_descriptor(
				VSOCK_RX_QUEUE,
				(struct vring_desc){ RX_DATA + 20, size - 20, VRING_DESC_F_WRITE },
				true);
		} else {
			add_descriptor(VSOCK_RX_QUEUE,
				       (struct vring_desc){ RX_DATA, size, VRING_DESC_F_WRITE },
				       true);
		}
		make_available(VSOCK_RX_QUEUE, head);
	}
}

static int *choose_end(struct input *input)
{
	return &ends[take(input) % ENDS];
}

static void close_end(int *end)
{
	if (*end >= 0)
		close(*end);
	*end = -1;
}

static void connect_client(struct input *input)
{
	static const char command[] = "CONNECT 9\nmore";
	uint8_t choice = take(input);
	int *end = &ends[choice % ENDS];

	close_end(end);
	*end = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	REQUIRE(*end >= 0);
	if (connect(*end, (const struct sockaddr *)&device_addr, sizeof(device_addr)) < 0) {
		close_end(end);
		return;
	}
	if (choice & 0x80)
		(void)!write(*end, command, sizeof(command) - 1);
}

static void write_end(struct input *input)
{
	static uint8_t bulk[100000];
	int *end = choose_end(input);
	uint8_t size = take(input);

	if (*end < 0)
		return;
	if (size & 0x80) {
		(void)!write(*end, bulk, sizeof(bulk) >> (size & 7u));
		return;
	}
	size = size < input->size ? size : (uint8_t)input->size;
	(void)!write(*end, input->data, size);
	input->data += size;
	input->size -= size;
}

static void read_end(struct input *input)
{
	static uint8_t bytes[200000];
	int *end = choose_end(input);

	if (*end >= 0)
		(void)!read(*end, bytes, sizeof(bytes));
}

static void operate(struct input *input)
{
	uint8_t first = take(input);
	int *end;

	switch ((enum operation)(first % OPERATIONS)) {
	case SEND:
		send_packet(input);
		break;
	case SEND_RAW:
		add_raw(input, VSOCK_TX_QUEUE);
		break;
	case GIVE:
		give(input);
		break;
	case GIVE_RAW:
		add_raw(input, VSOCK_RX_QUEUE);
		break;
	case CONNECT:
		connect_client(input);
		break;
	case ACCEPT:
		end = choose_end(input);
		close_end(end);
		*end = accept4(server, NULL, NULL, SOCK_NONBLOCK);
		break;
	case WRITE:
		write_end(input);
		break;
	case READ:
		read_end(input);
		break;
	case SHUT:
		end = choose_end(input);
		if (*end >= 0)
			shutdown(*end, take(input) % 3);
		break;
	case CLOSE:
		close_end(choose_end(input));
		break;
	case EXPIRE:
		vsock->table.timeouts = (struct vsock_timeouts){ 0 };
		break;
	default:
		reset();
		if (first & 0x80)
			run();
		start(take(input));
		break;
	}
	/* Several at once, sometimes. */
	if (!(first & 0x80)) {
		run();
		check();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	int rest;

	if (!vsock)
		set_up();
	vsock->table.timeouts = (struct vsock_timeouts){ 60000, 60000, 60000, 60000 };
	start(take(&input));
	for (unsigned int i = 0; i < OPERATIONS_MAX && input.size > 0; i++)
		operate(&input);
	run();
	check();
	reset();
	for (unsigned int i = 0; i < ENDS; i++)
		close_end(&ends[i]);
	run();
	check();
	REQUIRE(vsock->table.count == 0);
	while ((rest = accept4(server, NULL, NULL, SOCK_NONBLOCK)) >= 0)
		close(rest);
	return 0;
}
