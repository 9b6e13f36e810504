/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a device was saved as, and says which one, or a whole state file, which is read
 * as far as that goes without KVM. What is refused leaves the device as it was, with a sentence;
 * what is taken works on rings that may be anything, and can be saved and restored again. Pieces of
 * memory come to their own addresses, or not at all.
 */
#include <jansson.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/guest_memory.h"
#include "base/log.h"
#include "base/state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/input.h"
#include "virtio/block/block.h"
#include "virtio/core/device.h"
#include "virtio/core/internal.h"
#include "virtio/core/mmio.h"
#include "virtio/net/net.h"
#include "virtio/vsock/vsock.h"
#include "vmm/console_ring.h"
#include "vmm/kvm/cpuid_check.h"
#include "vmm/platform/i8042.h"
#include "vmm/platform/serial.h"
#include "vmm/snapshot/format.h"
#include "vmm/snapshot/memory.h"
#include "json/parse.h"

#define MEMORY_SIZE (UINT64_C(16) << 20)
#define IMAGE_SIZE (UINT64_C(1) << 20)
/* Of the memory that is loaded: a gap that short inputs reach, too. */
#define GAP_START (UINT64_C(14) << 20)
#define GAP_END (UINT64_C(32) << 20)
#define WAIT_NS (10 * NS_PER_S)

/* The first byte: a device, and whether the rest has its sections' headers in it. */
enum kind { BLOCK, NET, VSOCK, SERIAL, I8042, RING, WHOLE, KINDS };
#define WITH_HEADERS 0x80

#define MMIO_SIZE 12u
#define DEVICE_SIZE 29u
#define QUEUE_SIZE 31u

static char dir[] = "/tmp/mote-fuzz-XXXXXX";
static char image[64], uds[64];
static struct guest_memory memory;
static struct event_base *base;
static struct virtio_device *devices[SERIAL];
static uint64_t features[SERIAL];
static int host = -1, memory_fd = -1;
static struct vring_desc descriptors[VIRTQ_SIZE_MAX];

static void remove_files(void)
{
	for (unsigned int i = 0; i < SERIAL; i++)
		virtio_device_close(devices[i]);
	unlink(image);
	rmdir(dir);
}

static void open_devices(void)
{
	const struct block_config block_config = { .id = "rootfs",
						   .path = image,
						   .engine = BLOCK_ENGINE_SYNC };
	const struct vsock_config vsock_config = { 3, uds };
	static const uint8_t mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 1 };
	struct net_config net_config = { .id = "eth0", .mac = mac, .mtu = 1400 };
	struct block *block;
	struct net *net;
	struct vsock *vsock;
	struct err err;
	int pair[2];

	REQUIRE(block_open(&block, &block_config, &err) == 0);
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	host = pair[0];
	net_config.passt_fd = pair[1];
	REQUIRE(net_open(&net, &net_config, &err) == 0);
	REQUIRE(vsock_open(&vsock, &vsock_config, &err) == 0);
	devices[BLOCK] = block_device(block);
	devices[NET] = net_device(net);
	devices[VSOCK] = vsock_device(vsock);
	for (unsigned int i = 0; i < SERIAL; i++) {
		REQUIRE(virtio_device_attach(devices[i], &(struct virtio_host){ &memory, base },
					     &err) == 0);
		features[i] = devices[i]->features;
	}
}

static void open_loaded(struct guest_memory *loaded)
{
	struct err err;

	REQUIRE(guest_memory_open(loaded, MEMORY_SIZE, GAP_START, GAP_END, HUGE_PAGES_NONE, &err) ==
		0);
}

/* Each page has its offset, and one more than that, so that none begins with zeros. */
static void make_memory_file(void)
{
	struct guest_memory loaded;
	uint64_t size;

	open_loaded(&loaded);
	size = memory_file_size(&loaded);
	guest_memory_close(&loaded);
	memory_fd = memfd_create("memory", MFD_CLOEXEC);
	REQUIRE(memory_fd >= 0 && ftruncate(memory_fd, (off_t)size) == 0);
	for (uint64_t offset = 0; offset < size; offset += GUEST_PAGE_SIZE) {
		const uint64_t mark = offset + 1;

		REQUIRE(pwrite(memory_fd, &mark, sizeof(mark), (off_t)offset) == sizeof(mark));
	}
}

static void set_up(void)
{
	uint64_t random = 1;
	struct err err;
	FILE *file;

	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_ERROR);
	REQUIRE(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/disk", dir);
	snprintf(uds, sizeof(uds), "%s/v", dir);
	file = fopen(image, "w");
	REQUIRE(file && ftruncate(fileno(file), IMAGE_SIZE) == 0);
	fclose(file);
	REQUIRE(guest_memory_open(&memory, MEMORY_SIZE, UINT64_C(3) << 30, UINT64_C(4) << 30,
				  HUGE_PAGES_NONE, &err) == 0);
	base = event_base_new();
	REQUIRE(base);
	make_memory_file();
	open_devices();
	atexit(remove_files);
	for (unsigned int i = 0; i < VIRTQ_SIZE_MAX; i++) {
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		descriptors[i] = (struct vring_desc){
			.addr = random >> 20 & (MEMORY_SIZE - 1),
			.len = 1 + (random >> 50 & 0xfff),
			.flags = random >> 44 & 3,
			.next = random >> 12 & 0xff,
		};
	}
}

static void run(void)
{
	uint8_t bytes[4096];

	/* Some turns: rings that lie on each other may have work for ever. */
	for (unsigned int i = 0; i < 12; i++)
		REQUIRE(event_base_loop(base, EVLOOP_NONBLOCK | EVLOOP_ONCE) >= 0);
	while (recv(host, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

/* A few chains in each of its queues. */
static void fill_rings(struct virtio_device *device, unsigned int count)
{
	for (unsigned int i = 0; i < device->queue_count; i++) {
		const struct virtq *queue = &device->queues[i];

		if (!device->active || !queue->ready)
			continue;
		memcpy((void *)(uintptr_t)queue->desc, descriptors,
		       sizeof(descriptors[0]) * queue->size);
		for (unsigned int at = 0; at < queue->size; at++)
			queue->avail->ring[at] = (uint16_t)(at * 7 % queue->size);
		queue->avail->idx = (uint16_t)(queue->next_avail + count % queue->size);
	}
}

static void reset(struct virtio_device *device, uint64_t offered)
{
	pthread_mutex_lock(&device->lock);
	virtio_device_reset(device);
	pthread_mutex_unlock(&device->lock);
	for (int64_t end = clock_ns() + WAIT_NS; device->resetting;) {
		REQUIRE(clock_ns() < end);
		run();
	}
	virtio_device_thaw(device);
	run();
	device->features = offered;
	REQUIRE(device->status == 0 && !device->active);
}

/* 0 or -errno; then the device is as it was. */
static int restore(struct virtio_mmio *mmio, const struct state_writer *bytes)
{
	struct state_reader reader = { .at = bytes->data, .left = bytes->size };
	const uint64_t offered = mmio->device->features;
	struct err err = { "" };
	int rc = virtio_mmio_restore(mmio, &reader, &err);

	if (rc < 0) {
		REQUIRE(strlen(err.text) > 0);
		REQUIRE(mmio->device->status == 0 && !mmio->device->active);
		REQUIRE(!mmio->device->frozen && mmio->device->features == offered);
	} else {
		REQUIRE(mmio->device->frozen);
	}
	return rc;
}

static void try_device(enum kind kind, const struct state_writer *bytes, uint8_t chains)
{
	struct virtio_device *device = devices[kind];
	struct virtio_mmio mmio = { .device = device };
	struct state_writer again = { 0 };

	if (restore(&mmio, bytes) == 0) {
		fill_rings(device, chains);
		virtio_device_thaw(device);
		run();
		REQUIRE(virtio_device_freeze(device, clock_ns() + WAIT_NS));
		virtio_mmio_save(&mmio, &again);
		reset(device, features[kind]);
		mmio = (struct virtio_mmio){ .device = device };
		REQUIRE(restore(&mmio, &again) == 0);
		state_writer_free(&again);
	}
	reset(device, features[kind]);
	if (kind == BLOCK)
		block_set_limiter(block_of(device), &(struct rate_limiter_config){ 0 });
	if (kind == NET)
		net_set_limiters(net_of(device), &(struct rate_limiter_config){ 0 },
				 &(struct rate_limiter_config){ 0 });
}

static void try_serial(struct state_reader reader)
{
	struct state_writer again = { 0 };
	struct serial serial;
	uint8_t byte = 'x';
	struct err err;

	REQUIRE(serial_open(&serial, -1, &err) == 0);
	if (serial_restore(&serial, &reader, SERIAL_STATE_VERSION, &err) == 0) {
		serial_save(&serial, &again);
		reader = (struct state_reader){ .at = again.data, .left = again.size };
		REQUIRE(serial_restore(&serial, &reader, SERIAL_STATE_VERSION, &err) == 0);
		REQUIRE(serial_service(&serial).input_room <= SERIAL_BUFFER);
		(void)serial_receive(&serial, &byte, 1);
		for (unsigned int reg = 0; reg < SERIAL_PORTS; reg++) {
			serial_ops.read(&serial, reg, &byte, 1);
			serial_ops.write(&serial, reg, &byte, 1);
		}
		REQUIRE(!serial_flush(&serial).output);
	}
	state_writer_free(&again);
	serial_close(&serial);
}

static void ignore(void *opaque)
{
	(void)opaque;
}

static void try_i8042(struct state_reader reader)
{
	struct i8042 i8042 = { .reset = ignore };
	struct state_writer again = { 0 };
	uint8_t byte = 0x60;
	struct err err;

	REQUIRE(i8042_open(&i8042, &err) == 0);
	if (i8042_restore(&i8042, &reader, I8042_STATE_VERSION, &err) == 0) {
		i8042_save(&i8042, &again);
		reader = (struct state_reader){ .at = again.data, .left = again.size };
		REQUIRE(i8042_restore(&i8042, &reader, I8042_STATE_VERSION, &err) == 0);
		i8042_ops.write(&i8042, 4, &byte, 1);
		for (unsigned int i = 0; i < 2 * I8042_OUTPUT; i++)
			i8042_ops.read(&i8042, 0, &byte, 1);
		REQUIRE(i8042.head == i8042.tail);
	}
	state_writer_free(&again);
	i8042_close(&i8042);
}

static void try_ring(struct state_reader reader)
{
	const size_t size = reader.left;
	struct console_ring ring;
	uint64_t seen = 0;
	size_t kept = 0;
	struct err err;

	REQUIRE(console_ring_open(&ring, 64, &err) == 0);
	if (console_ring_restore(&ring, &reader, CONSOLE_RING_STATE_VERSION, &err) == 0) {
		free(console_ring_read(&ring, &seen, &kept));
		REQUIRE(kept + sizeof(uint32_t) == size && kept <= 64);
	}
	console_ring_close(&ring);
}

static void try_memory(struct state_reader reader)
{
	struct state_reader again = reader;
	struct guest_memory loaded;
	struct err err = { "" };

	open_loaded(&loaded);
	if (memory_file_map(&loaded, memory_fd, &reader, &err) < 0) {
		REQUIRE(strlen(err.text) > 0);
		again.left = 0;
	}
	while (again.left > 0) {
		const uint64_t start = state_get_u64(&again), end = state_get_u64(&again);
		uint64_t mark;

		REQUIRE(guest_memory_range(&loaded, start, end - start));
		REQUIRE(guest_memory_read(&loaded, start, &mark, sizeof(mark)) == 0);
		REQUIRE(mark == start + 1);
		REQUIRE(guest_memory_read(&loaded, end - GUEST_PAGE_SIZE, &mark, sizeof(mark)) ==
			0);
		REQUIRE(mark == end - GUEST_PAGE_SIZE + 1);
	}
	guest_memory_close(&loaded);
}

static void try_vcpu(struct state_reader reader)
{
	static union cpuid_table cpuid, host;
	struct state_writer again = { 0 };
	struct err err = { "" };

	cpuid_code(&(struct state_codec){ .in = &reader }, &cpuid);
	REQUIRE(cpuid.kvm.nent <= CPUID_ENTRIES);
	if (reader.failed)
		return;
	REQUIRE(cpuid_compare(&cpuid, &cpuid, &err) == 0);
	if (cpuid_compare(&cpuid, &host, &err) < 0)
		REQUIRE(strlen(err.text) > 0);
	cpuid_code(&(struct state_codec){ .out = &again }, &cpuid);
	REQUIRE(memcmp(again.data, reader.at - again.size, again.size) == 0);
	state_writer_free(&again);
}

static void try_virtio(const struct state_reader *body, enum kind kind, uint8_t chains)
{
	struct state_writer bytes = { 0 };

	state_put_bytes(&bytes, body->at, body->left);
	try_device(kind, &bytes, chains);
	state_writer_free(&bytes);
}

static void try_section(const struct state_section *section, enum kind *device, uint8_t chains)
{
	struct err err = { "" };

	switch (section->kind) {
	case SNAPSHOT_CONFIG:
		json_decref(parse_object((const char *)section->body.at, section->body.left,
					 "configuration", &err));
		break;
	case SNAPSHOT_MEMORY:
		try_memory(section->body);
		break;
	case SNAPSHOT_VCPU:
		try_vcpu(section->body);
		break;
	case SNAPSHOT_SERIAL:
		try_serial(section->body);
		break;
	case SNAPSHOT_I8042:
		try_i8042(section->body);
		break;
	case SNAPSHOT_VIRTIO:
		try_virtio(&section->body, *device, chains);
		*device = (enum kind)((*device + 1) % SERIAL);
		break;
	case SNAPSHOT_CONSOLE:
		try_ring(section->body);
		break;
	default:
		break;
	}
}

/* A whole file; with a checksum that is made good, as nobody would guess it. */
static void try_file(struct state_writer *file, uint8_t chains)
{
	enum kind device = BLOCK;
	struct state_reader sections;
	struct err err = { "" };

	if (snapshot_check(file->data, file->size, &sections, &err) < 0) {
		REQUIRE(strlen(err.text) > 0);
		if (file->size > sizeof(uint64_t))
			file->size -= sizeof(uint64_t);
		snapshot_end(file);
		if (snapshot_check(file->data, file->size, &sections, &err) < 0)
			return;
	}
	for (unsigned int count = 0; count < 64 && sections.left >= sizeof(uint32_t); count++) {
		struct state_reader ahead = sections;
		const uint32_t kind = state_get_u32(&ahead);
		struct state_section section;

		if (snapshot_next(&sections, (enum snapshot_section)kind, 1, &section, &err) < 0)
			break;
		try_section(&section, &device, chains);
	}
}

static void put(struct state_writer *out, struct input *input, size_t size)
{
	if (size > input->size)
		size = input->size;
	state_put_bytes(out, input->data, size);
	input->data += size;
	input->size -= size;
}

/* The sections around what the input has for them. */
static void put_sections(struct state_writer *out, struct input *input, enum kind kind)
{
	const struct virtio_device *device = devices[kind];
	size_t mmio, common, own;

	mmio = state_begin(out, VIRTIO_STATE_MMIO, 1);
	put(out, input, MMIO_SIZE);
	common = state_begin(out, VIRTIO_STATE_DEVICE, 1);
	put(out, input, DEVICE_SIZE + QUEUE_SIZE * device->queue_count);
	own = state_begin(out, device->type, device->ops->state_version);
	put(out, input, input->size);
	state_end(out, own);
	state_end(out, common);
	state_end(out, mmio);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct state_writer bytes = { 0 };
	uint8_t first, chains;
	enum kind kind;

	if (!base)
		set_up();
	first = take(&input);
	chains = take(&input);
	kind = (enum kind)((first & ~WITH_HEADERS) % KINDS);
	if (kind < SERIAL && !(first & WITH_HEADERS))
		put_sections(&bytes, &input, kind);
	else
		put(&bytes, &input, input.size);
	switch (kind) {
	case SERIAL:
		try_serial((struct state_reader){ .at = bytes.data, .left = bytes.size });
		break;
	case I8042:
		try_i8042((struct state_reader){ .at = bytes.data, .left = bytes.size });
		break;
	case RING:
		try_ring((struct state_reader){ .at = bytes.data, .left = bytes.size });
		break;
	case WHOLE:
		try_file(&bytes, chains);
		break;
	default:
		try_device(kind, &bytes, chains);
		break;
	}
	state_writer_free(&bytes);
	return 0;
}
