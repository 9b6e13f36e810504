/* SPDX-License-Identifier: Apache-2.0 */
/* What a good driver does with a network device; the host sends each frame back. */
#include "net.h"

#define FRAMES 20

static struct net net;

static bool echo_many(void)
{
	for (unsigned int i = 0; i < FRAMES; i++) {
		if (!net_echo(&net))
			return false;
	}
	return true;
}

void guest_main(void *zero_page)
{
	bool found = net_find(&net);

	(void)zero_page;
	guest_check("found", found);
	guest_check("address", virtio_read(&net.virtio, VIRTIO_MMIO_CONFIG) == 0x0a000206);
	guest_check("started", net_start(&net, BIT(VIRTIO_NET_F_MAC)));
	guest_check("frames return", echo_many());
	guest_check("started anew",
		    net_start(&net, BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_RING_F_EVENT_IDX)));
	guest_check("frames return", echo_many());
}
