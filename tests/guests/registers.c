/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads registers of a drive as often as reads=N says, or with writes=N writes one: what the
 * processor's exits are counted for.
 */
#include <linux/virtio_ids.h>

#include "virtio.h"

void guest_main(void *zero_page)
{
	unsigned int reads = guest_number(zero_page, "reads", 0);
	unsigned int writes = guest_number(zero_page, "writes", 0);
	struct virtio device;
	uint32_t sum = 0;

	if (!virtio_find(&device, VIRTIO_ID_BLOCK, 0)) {
		guest_put("FAIL no drive\n");
		return;
	}
	for (unsigned int i = 0; i < reads; i++)
		sum |= virtio_read(&device, VIRTIO_MMIO_INTERRUPT_STATUS) |
		       virtio_read(&device, VIRTIO_MMIO_STATUS) |
		       virtio_read(&device, VIRTIO_MMIO_CONFIG_GENERATION);
	for (unsigned int i = 0; i < writes; i++)
		virtio_write(&device, VIRTIO_MMIO_INTERRUPT_ACK, 0);
	guest_check("nothing has happened", sum == 0);
}
