/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/stats.h"

#include <linux/kvm.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/log.h"

#define STATS_MAX 256
#define NAME_SIZE_MAX 128

static void log_stat(int fd, const struct kvm_stats_header *header, const uint8_t *descriptor,
		     unsigned int vcpu_id)
{
	const struct kvm_stats_desc *stat = (const void *)descriptor;
	const char *name = (const char *)(descriptor + sizeof(*stat));
	uint32_t type = stat->flags & KVM_STATS_TYPE_MASK;
	uint64_t value;

	if (stat->size != 1 || type > KVM_STATS_TYPE_PEAK)
		return; /* a histogram */
	if (fd_pread_exact(fd, &value, sizeof(value), header->data_offset + stat->offset) == 0 &&
	    value > 0)
		log_debug("vCPU %u: %.*s = %llu", vcpu_id, (int)header->name_size, name,
			  (unsigned long long)value);
}

void stats_log(int vcpu_fd, unsigned int vcpu_id)
{
	CLEANUP_FD int fd = ioctl(vcpu_fd, KVM_GET_STATS_FD, NULL);
	struct kvm_stats_header header;
	size_t descriptor_size, size;
	uint8_t *descriptors;

	if (fd < 0 || fd_pread_exact(fd, &header, sizeof(header), 0) < 0 ||
	    header.num_desc > STATS_MAX || header.name_size > NAME_SIZE_MAX)
		return;
	descriptor_size = sizeof(struct kvm_stats_desc) + header.name_size;
	size = descriptor_size * header.num_desc;
	descriptors = malloc(size + 1);
	if (descriptors && fd_pread_exact(fd, descriptors, size, header.desc_offset) == 0) {
		for (uint32_t i = 0; i < header.num_desc; i++)
			log_stat(fd, &header, descriptors + i * descriptor_size, vcpu_id);
	}
	free(descriptors);
}
