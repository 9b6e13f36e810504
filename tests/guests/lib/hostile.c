/* SPDX-License-Identifier: Apache-2.0 */
#include "hostile.h"

#define NAME_SIZE 40
#define ROUNDS 100
#define BLOCK_QUEUE_SIZE 16

struct block hostile_block;
struct net hostile_net;
struct vsock hostile_vsock;
struct hostile_target *hostile_target;

static bool failed;

void hostile_expect(const char *what, bool good)
{
	if (good)
		return;
	guest_put("FAIL ");
	guest_put(what);
	guest_put("\n");
	failed = true;
}

static bool find_block(void)
{
	return block_find(&hostile_block, 0);
}

static bool start_block(uint64_t features)
{
	features |= BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |
		    BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return block_start(&hostile_block, features, BLOCK_QUEUE_SIZE);
}

/* The host wrote "sector 1". */
static bool good_block(void)
{
	static uint8_t data[SECTOR_SIZE] __attribute__((aligned(SECTOR_SIZE)));

	memset(data, 0, sizeof(data));
	return block_request(&hostile_block, VIRTIO_BLK_T_IN, 1, data, sizeof(data), true) ==
		       VIRTIO_BLK_S_OK &&
	       memcmp(data, "sector 1", 8) == 0;
}

static bool find_net(void)
{
	return net_find(&hostile_net);
}

static bool start_net(uint64_t features)
{
	return net_start(&hostile_net, features);
}

static bool good_net(void)
{
	return net_echo(&hostile_net);
}

/*
 * The device looks for a buffer when a frame comes, which is one that it has sent. More than one,
 * because it may have a good buffer still.
 */
static void provoke_net_rx(void)
{
	const struct virtq_buffer frame = { hostile_net.tx, NET_FRAME_SIZE, false };
	struct virtq *tx = &hostile_net.virtio.queues[NET_TX];

	net_make_frame(&hostile_net);
	for (unsigned int i = 0; i < 3; i++)
		virtq_make_available(tx, virtq_chain(tx, &frame, 1));
	virtio_notify(&hostile_net.virtio, NET_TX);
}

static bool find_vsock(void)
{
	return vsock_find(&hostile_vsock);
}

static bool start_vsock(uint64_t features)
{
	if (!vsock_start(&hostile_vsock, features))
		return false;
	vsock_give_buffers(&hostile_vsock);
	return true;
}

static bool good_vsock(void)
{
	return vsock_echo(&hostile_vsock);
}

/* The answer to such a packet is a RST. */
static void provoke_vsock_rx(void)
{
	virtio_notify(&hostile_vsock.virtio, VSOCK_RX);
	vsock_packet(&hostile_vsock, VIRTIO_VSOCK_OP_RW, 1, 1);
}

static void provoke_by_notification(void)
{
	virtio_notify(hostile_target->virtio, hostile_target->queue);
}

static struct hostile_target targets[] = {
	{ "block", &hostile_block.virtio, 1, 0, false, find_block, start_block, good_block,
	  provoke_by_notification },
	{ "net-rx", &hostile_net.virtio, 2, NET_RX, true, find_net, start_net, good_net,
	  provoke_net_rx },
	{ "net-tx", &hostile_net.virtio, 2, NET_TX, false, find_net, start_net, good_net,
	  provoke_by_notification },
	{ "vsock-rx", &hostile_vsock.virtio, 2, VSOCK_RX, true, find_vsock, start_vsock, good_vsock,
	  provoke_vsock_rx },
	{ "vsock-tx", &hostile_vsock.virtio, 2, VSOCK_TX, false, find_vsock, start_vsock,
	  good_vsock, provoke_by_notification },
};

static bool choose_target(const void *zero_page)
{
	char name[NAME_SIZE];

	guest_option(zero_page, "device", name, sizeof(name));
	for (unsigned int i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		if (guest_same(targets[i].name, name)) {
			hostile_target = &targets[i];
			return hostile_target->find();
		}
	}
	return false;
}

static const struct hostile_case *find_case(const char *name)
{
	const struct hostile_case *at = hostile_cases;

	while (at->name && !guest_same(at->name, name))
		at++;
	return at;
}

static void list_cases(void)
{
	for (const struct hostile_case *at = hostile_cases; at->name; at++) {
		guest_put(at->name);
		guest_put("\n");
	}
}

static void check_outcome(enum hostile_outcome outcome)
{
	switch (outcome) {
	case RUNS_ON:
		hostile_expect("it runs on", hostile_target->good());
		hostile_expect("it needs no reset", !virtio_needs_reset(hostile_target->virtio));
		break;
	case UNHARMED:
		hostile_expect("it needs no reset", !virtio_needs_reset(hostile_target->virtio));
		break;
	case NEEDS_RESET:
		hostile_expect("it needs a reset", virtio_wait_needs_reset(hostile_target->virtio));
		break;
	case EITHER:
		break;
	}
}

/* The host's test looks at the VMM, and goes on by a byte. */
static void pause_at(unsigned int round)
{
	guest_put("round ");
	guest_put_number(round);
	guest_put("\n");
	(void)guest_get();
}

void guest_main(void *zero_page)
{
	unsigned int rounds = guest_number(zero_page, "rounds", ROUNDS);
	const struct hostile_case *chosen;
	char name[NAME_SIZE];

	guest_option(zero_page, "case", name, sizeof(name));
	if (guest_same(name, "list")) {
		list_cases();
		return;
	}
	chosen = find_case(name);
	if (!chosen->name || !choose_target(zero_page)) {
		guest_put("FAIL no such case or device\n");
		return;
	}
	hostile_set_up(zero_page);
	for (unsigned int round = 1; round <= rounds && !failed; round++) {
		virtio_reset(hostile_target->virtio);
		chosen->run();
		check_outcome(chosen->outcome);
		hostile_expect("it starts anew", hostile_target->start(0));
		hostile_expect("it works anew", hostile_target->good());
		if (round == 1 || round == rounds)
			pause_at(round);
	}
	if (failed)
		return;
	guest_put("survived ");
	guest_put(name);
	guest_put("\n");
}
