/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drivers that break the rules of the transport and of initialisation (virtio 1.2; 2.1, 3.1, 4.2):
 * the device ignores what it cannot take, and says so in its log.
 */
#include "cpus.h"
#include "hostile.h"

#define ACKNOWLEDGE VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define FAILED VIRTIO_CONFIG_S_FAILED

#define VERSION_1 BIT(VIRTIO_F_VERSION_1)
#define MEMORY_SIZE UINT64_C(0x1000000) /* as the host's test has it */

#define STORM_TURNS 30

static struct virtio *virtio;
static struct virtq *queue; /* the first one */
static unsigned int cpus;

void hostile_set_up(const void *zero_page)
{
	virtio = hostile_target->virtio;
	queue = &virtio->queues[0];
	cpus = guest_number(zero_page, "cpus", 1);
	virtio_prepare_queue(virtio, 0, 16);
}

static void set_status(uint32_t status)
{
	virtio_write(virtio, VIRTIO_MMIO_STATUS, status);
}

static void expect_status(const char *what, uint32_t status)
{
	hostile_expect(what, virtio_read(virtio, VIRTIO_MMIO_STATUS) == status);
}

static void expect_refused(const char *what)
{
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 1);
	hostile_expect(what, virtio_read(virtio, VIRTIO_MMIO_QUEUE_READY) == 0);
}

/* Up to FEATURES_OK, the first queue prepared. */
static void negotiate(void)
{
	hostile_expect("features are taken", virtio_negotiate(virtio, VERSION_1));
	virtio_prepare_queue(virtio, 0, 16);
}

static void start(void)
{
	hostile_expect("it starts", hostile_target->start(0));
}

static void driver_ok_first(void)
{
	set_status(DRIVER_OK);
	expect_status("DRIVER_OK alone", 0);
	set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
	expect_status("DRIVER_OK without FEATURES_OK", 0);
	set_status(ACKNOWLEDGE | DRIVER);
	set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
	expect_status("DRIVER_OK before FEATURES_OK", ACKNOWLEDGE | DRIVER);
	virtio_notify(virtio, 0);
}

static void status_out_of_order(void)
{
	set_status(DRIVER);
	expect_status("DRIVER without ACKNOWLEDGE", 0);
	set_status(ACKNOWLEDGE | FEATURES_OK);
	expect_status("FEATURES_OK without DRIVER", 0);
}

static void status_cleared(void)
{
	negotiate();
	set_status(ACKNOWLEDGE | DRIVER);
	expect_status("FEATURES_OK cleared", ACKNOWLEDGE | DRIVER | FEATURES_OK);
	start();
	set_status(ACKNOWLEDGE);
	expect_status("DRIVER_OK cleared", ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void status_nonsense(void)
{
	set_status(0xffffff00);
	set_status(0x100);
	set_status(0x30);
	expect_status("unknown bits", 0);
	set_status(UINT32_MAX);
	expect_status("all bits", 0);
}

static void status_failed(void)
{
	start();
	set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
	virtio_notify(virtio, 0);
	expect_status("FAILED", ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
}

static void driver_ok_twice(void)
{
	start();
	for (unsigned int i = 0; i < 3; i++)
		set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void driver_ok_without_queues(void)
{
	hostile_expect("features are taken", virtio_negotiate(virtio, VERSION_1));
	set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	for (unsigned int i = 0; i < 4; i++)
		virtio_notify(virtio, i);
}

static void features_not_offered(void)
{
	hostile_expect("all bits", !virtio_negotiate(virtio, UINT64_MAX));
	virtio_reset(virtio);
	hostile_expect("one bit more", !virtio_negotiate(virtio, VERSION_1 | BIT(40)));
	expect_status("without FEATURES_OK", ACKNOWLEDGE | DRIVER);
}

static void features_without_version_1(void)
{
	hostile_expect("no feature", !virtio_negotiate(virtio, 0));
	hostile_expect("only others",
		       !virtio_negotiate(virtio, virtio_offered(virtio) & ~VERSION_1));
}

/* Whatever is written behind FEATURES_OK, the device knows what was negotiated. */
static void features_too_late(void)
{
	start();
	for (unsigned int i = 0; i < 3; i++) {
		virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	}
}

static void features_select(void)
{
	set_status(ACKNOWLEDGE);
	set_status(ACKNOWLEDGE | DRIVER);
	for (unsigned int i = 2; i < 40; i += 7) {
		virtio_write(virtio, VIRTIO_MMIO_DEVICE_FEATURES_SEL, i);
		hostile_expect("features beyond bit 63",
			       virtio_read(virtio, VIRTIO_MMIO_DEVICE_FEATURES) == 0);
		virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	}
	virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES_SEL, UINT32_MAX);
	virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES, 0);
	start();
}

static void queue_before_features(void)
{
	hostile_expect("set-up in reset", !virtio_set_up_queue(virtio, 0));
	set_status(ACKNOWLEDGE);
	set_status(ACKNOWLEDGE | DRIVER);
	hostile_expect("set-up before FEATURES_OK", !virtio_set_up_queue(virtio, 0));
}

/* The addresses are not taken, and the queue is not stopped. */
static void queue_after_driver_ok(void)
{
	start();
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_SEL, 0);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_NUM, 2);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_DESC_LOW, 0xfffff000);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, UINT32_MAX);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_USED_LOW, 1);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 0);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void queue_changed_when_ready(void)
{
	negotiate();
	hostile_expect("a good queue", virtio_set_up_queue(virtio, 0));
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_NUM, 0);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_DESC_LOW, 3);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_USED_HIGH, UINT32_MAX);
	hostile_expect("still ready", virtio_read(virtio, VIRTIO_MMIO_QUEUE_READY) == 1);
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 2);
	hostile_expect("2 is not ready", virtio_read(virtio, VIRTIO_MMIO_QUEUE_READY) == 0);
}

static void queue_sizes(void)
{
	static const uint32_t sizes[] = {
		0, 3, 255, 257, 512, 0x8000, 0x10000, 0x10010, UINT32_MAX
	};

	negotiate();
	hostile_expect("a good queue", virtio_set_up_queue(virtio, 0));
	virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 0);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_NUM, sizes[i]);
		expect_refused("a queue of no possible size");
	}
}

static void queue_addresses(void)
{
	static const struct {
		uint64_t addr;
		uint8_t area; /* 0 descriptors, 1 available, 2 used */
	} bad[] = {
		{ 0x400008, 0 },	  { 0x400001, 1 },	   { 0x400002, 2 },
		{ MEMORY_SIZE, 0 },	  { MEMORY_SIZE - 16, 0 }, { MEMORY_SIZE - 2, 1 },
		{ MEMORY_SIZE - 4, 2 },	  { VIRTIO_BASE, 0 },	   { VIRTIO_BASE, 2 },
		{ UINT64_C(1) << 32, 1 }, { UINT64_MAX - 15, 0 },  { UINT64_MAX - 1, 1 },
		{ UINT64_MAX - 3, 2 },
	};

	negotiate();
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t offset =
			VIRTIO_MMIO_QUEUE_DESC_LOW +
			bad[i].area * (VIRTIO_MMIO_QUEUE_AVAIL_LOW - VIRTIO_MMIO_QUEUE_DESC_LOW);

		hostile_expect("a good queue", virtio_set_up_queue(virtio, 0));
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 0);
		virtio_write(virtio, offset, (uint32_t)bad[i].addr);
		virtio_write(virtio, offset + 4, (uint32_t)(bad[i].addr >> 32));
		expect_refused("a queue at no possible address");
		virtio_write(virtio, offset + 4, 0);
	}
}

static void queue_select(void)
{
	static const uint32_t absent[] = { 3, 18, 0x10000, UINT32_MAX };

	negotiate();
	for (unsigned int i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_SEL, absent[i]);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_NUM, 16);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)(uint64_t)queue->desc);
		hostile_expect("its size", virtio_read(virtio, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0);
		expect_refused("its readiness");
	}
}

static void notify_nowhere(void)
{
	static const uint32_t absent[] = { 0, 1, 2, 3, 18, 0x10000, UINT32_MAX };

	for (unsigned int i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
		virtio_notify(virtio, absent[i]);
	negotiate();
	virtio_set_up_queue(virtio, 0);
	virtio_notify(virtio, 0);
	start();
	for (unsigned int i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
		virtio_notify(virtio, absent[i]);
}

static void notify_odd_sizes(void)
{
	start();
	for (unsigned int i = 0; i < 4; i++) {
		*(volatile uint8_t *)(virtio->base + VIRTIO_MMIO_QUEUE_NOTIFY + i) = 0;
		*(volatile uint16_t *)(virtio->base + VIRTIO_MMIO_QUEUE_NOTIFY + i) = 0;
		*(volatile uint64_t *)(virtio->base + VIRTIO_MMIO_QUEUE_NOTIFY + i) = 0;
		*(volatile uint32_t *)(virtio->base + VIRTIO_MMIO_QUEUE_NOTIFY + i) = 0;
	}
}

static void access_oddly(uint64_t addr)
{
	(void)*(volatile uint8_t *)addr;
	(void)*(volatile uint16_t *)addr;
	(void)*(volatile uint64_t *)addr;
	*(volatile uint8_t *)addr = 0xff;
	*(volatile uint16_t *)addr = 0xffff;
	*(volatile uint64_t *)addr = UINT64_MAX;
	if (addr % sizeof(uint32_t)) {
		(void)*(volatile uint32_t *)addr;
		*(volatile uint32_t *)addr = UINT32_MAX;
	}
}

/* No register but as an aligned word of 32 bits: nothing has any effect. */
static void odd_accesses(void)
{
	start();
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset += 3)
		access_oddly(virtio->base + offset);
	access_oddly(virtio->base + VIRTIO_MMIO_CONFIG - 1);
	access_oddly(virtio->base + VIRTIO_WINDOW - 1);
	access_oddly(virtio->base + VIRTIO_WINDOW - 3);
}

/* Registers that are read-only are written, and those that do not exist are, too. */
static void registers_not_there(void)
{
	start();
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset += 4) {
		switch (offset) {
		case VIRTIO_MMIO_STATUS:
		case VIRTIO_MMIO_QUEUE_NOTIFY:
			break;
		default:
			(void)virtio_read(virtio, offset);
			virtio_write(virtio, offset, UINT32_MAX);
		}
	}
}

static void config_written(void)
{
	uint32_t before[16];

	start();
	for (unsigned int i = 0; i < 16; i++)
		before[i] = virtio_read(virtio, VIRTIO_MMIO_CONFIG + 4 * i);
	for (unsigned int i = 0; i < 64; i++) {
		*(volatile uint8_t *)(virtio->base + VIRTIO_MMIO_CONFIG + i) = 0xff;
		*(volatile uint64_t *)(virtio->base + VIRTIO_MMIO_CONFIG + i) = UINT64_MAX;
	}
	for (unsigned int i = 0; i < 16; i++)
		hostile_expect("the configuration is as it was",
			       virtio_read(virtio, VIRTIO_MMIO_CONFIG + 4 * i) == before[i]);
}

static void config_beyond(void)
{
	start();
	for (uint64_t offset = VIRTIO_MMIO_CONFIG + 0x60; offset < VIRTIO_WINDOW; offset += 0x1ff)
		hostile_expect("zero", virtio_read(virtio, offset & ~UINT64_C(3)) == 0);
	(void)*(volatile uint64_t *)(virtio->base + VIRTIO_WINDOW - 4);
}

static void interrupt_acknowledged(void)
{
	start();
	virtio_write(virtio, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	hostile_expect("nothing is pending",
		       virtio_read(virtio, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	virtio_write(virtio, VIRTIO_MMIO_INTERRUPT_STATUS, UINT32_MAX);
}

/* The queue is full of requests when the device is reset, again and again. */
static void reset_in_flight(void)
{
	static uint8_t data[SECTOR_SIZE] __attribute__((aligned(SECTOR_SIZE)));

	for (unsigned int i = 0; i < 8; i++) {
		hostile_expect("it starts", block_start(&hostile_block, 0, 256));
		hostile_block.header->type = i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
		hostile_block.header->sector = 100;
		for (unsigned int request = 0; request < 85; request++)
			block_add(&hostile_block, data, sizeof(data), i % 2);
		virtio_notify(virtio, 0);
		virtio_reset(virtio);
		/* What was in flight is over: nothing is written into a queue that is ours. */
		hostile_expect("nothing is used after a reset",
			       hostile_block.virtio.queues[0].used->idx <= 85);
	}
}

/* From several processors at once, each with the whole of 3.1.1, while others notify. */
static volatile uint32_t storm_turn, storm_done;
static uint8_t storm_buffer[64];

static uint16_t storm_flags(void)
{
	return hostile_target->writable ? VRING_DESC_F_WRITE : 0;
}

static void storm(unsigned int index)
{
	for (unsigned int i = 0; i < STORM_TURNS; i++) {
		if (index % 2) {
			virtio_notify(virtio, 0);
			virtio_write(virtio, VIRTIO_MMIO_QUEUE_NOTIFY, i % 3);
			continue;
		}
		set_status(0);
		set_status(ACKNOWLEDGE);
		set_status(ACKNOWLEDGE | DRIVER);
		virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
		virtio_write(virtio, VIRTIO_MMIO_DRIVER_FEATURES, 1);
		set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
		for (unsigned int j = 0; j < hostile_target->queue_count; j++)
			virtio_set_up_queue(virtio, j);
		set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
		virtio_notify(virtio, 0);
	}
}

static void storm_on_cpu(unsigned int index)
{
	uint32_t seen = 0;

	for (;;) {
		while (storm_turn == seen)
			__asm__ volatile("pause");
		seen = storm_turn;
		storm(index);
		__atomic_fetch_add(&storm_done, 1, __ATOMIC_SEQ_CST);
	}
}

static void reset_storm(void)
{
	if (storm_turn == 0)
		cpus_start(cpus - 1, storm_on_cpu);
	start();
	/* Something to find for each notification: one descriptor, as often as there is room. */
	for (unsigned int i = 0; i < hostile_target->queue_count; i++) {
		struct virtq *at = &virtio->queues[i];

		at->desc[0].addr = (uint64_t)storm_buffer;
		at->desc[0].len = sizeof(storm_buffer);
		at->desc[0].flags = i != hostile_target->queue ? 0 : storm_flags();
		at->avail->idx = at->size;
	}
	storm_done = 0;
	storm_turn++;
	storm(0);
	while (storm_done < cpus - 1)
		__asm__ volatile("pause");
}

const struct hostile_case hostile_cases[] = {
	{ "driver-ok-first", UNHARMED, driver_ok_first },
	{ "status-out-of-order", UNHARMED, status_out_of_order },
	{ "status-cleared", RUNS_ON, status_cleared },
	{ "status-nonsense", UNHARMED, status_nonsense },
	{ "status-failed", UNHARMED, status_failed },
	{ "driver-ok-twice", RUNS_ON, driver_ok_twice },
	{ "driver-ok-without-queues", EITHER, driver_ok_without_queues },
	{ "features-not-offered", UNHARMED, features_not_offered },
	{ "features-without-version-1", UNHARMED, features_without_version_1 },
	{ "features-too-late", RUNS_ON, features_too_late },
	{ "features-select", RUNS_ON, features_select },
	{ "queue-before-features", UNHARMED, queue_before_features },
	{ "queue-after-driver-ok", RUNS_ON, queue_after_driver_ok },
	{ "queue-changed-when-ready", UNHARMED, queue_changed_when_ready },
	{ "queue-sizes", UNHARMED, queue_sizes },
	{ "queue-addresses", UNHARMED, queue_addresses },
	{ "queue-select", UNHARMED, queue_select },
	{ "notify-nowhere", RUNS_ON, notify_nowhere },
	{ "notify-odd-sizes", RUNS_ON, notify_odd_sizes },
	{ "odd-accesses", RUNS_ON, odd_accesses },
	{ "registers-not-there", RUNS_ON, registers_not_there },
	{ "config-written", RUNS_ON, config_written },
	{ "config-beyond", RUNS_ON, config_beyond },
	{ "interrupt-acknowledged", RUNS_ON, interrupt_acknowledged },
	{ "reset-in-flight", UNHARMED, reset_in_flight },
	{ "reset-storm", EITHER, reset_storm },
	{ NULL },
};
