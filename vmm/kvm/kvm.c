/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "base/kvm_needs.h"
#include "vmm/boot/layout.h"
#include "vmm/kvm/cpu_template.h"

#define KVM_DEVICE "/dev/kvm"

static const struct {
	int number;
	const char *name;
} needed[] = {
#define NAMED(capability) { capability, #capability },
	KVM_NEEDS(NAMED)
#undef NAMED
};

static int check_device(struct kvm *kvm, const struct cpu_template *template, struct err *err)
{
	int version = ioctl(kvm->dev_fd, KVM_GET_API_VERSION, 0);
	int size, rc;

	if (version < 0)
		return err_sys(err, errno, KVM_DEVICE ": KVM_GET_API_VERSION");
	if (version != KVM_API_VERSION)
		return err_set(err, ENOTSUP, KVM_DEVICE ": API version %d, but %d is needed",
			       version, KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (cpu_template_needs(template, (uint32_t)needed[i].number, true) &&
		    ioctl(kvm->dev_fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
			return err_set(err, ENOTSUP,
				       KVM_DEVICE ": the capability %s is missing on this host",
				       needed[i].name);
	}
	rc = cpu_template_check(template, kvm->dev_fd, err);
	if (rc < 0)
		return rc;
	size = ioctl(kvm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return err_set(err, ENOTSUP, KVM_DEVICE ": KVM_GET_VCPU_MMAP_SIZE says %d", size);
	kvm->run_size = (size_t)size;
	kvm->readonly_memory = ioctl(kvm->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
	return 0;
}

int kvm_open(struct kvm *kvm, const struct cpu_template *template, struct err *err)
{
	int rc;

	memset(kvm, 0, sizeof(*kvm));
	kvm->vm_fd = -1;
	kvm->dev_fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
	if (kvm->dev_fd < 0)
		return err_sys(err, errno, KVM_DEVICE);
	rc = check_device(kvm, template, err);
	if (rc == 0) {
		do {
			kvm->vm_fd = ioctl(kvm->dev_fd, KVM_CREATE_VM, 0);
		} while (kvm->vm_fd < 0 && errno == EINTR);
		if (kvm->vm_fd < 0)
			rc = err_sys(err, errno, KVM_DEVICE ": KVM_CREATE_VM");
	}
	if (rc == 0 && ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_TSS) < 0)
		rc = err_sys(err, errno, KVM_DEVICE ": KVM_SET_TSS_ADDR");
	if (rc < 0)
		kvm_close(kvm);
	return rc;
}

void kvm_close(struct kvm *kvm)
{
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (kvm->dev_fd <= 0)
		return;
	fd_close(&kvm->vm_fd);
	fd_close(&kvm->dev_fd);
}

int kvm_set_memory(const struct kvm *kvm, const struct guest_memory *memory, struct err *err)
{
	for (unsigned int i = 0; i < memory->region_count; i++) {
		const struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = memory->regions[i].base,
			.memory_size = memory->regions[i].size,
			.userspace_addr = (uintptr_t)memory->regions[i].host,
		};

		if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
			return err_sys(err, errno,
				       KVM_DEVICE ": KVM_SET_USER_MEMORY_REGION of %llu MiB",
				       (unsigned long long)(slot.memory_size >> 20));
	}
	return 0;
}

int kvm_set_readonly(const struct kvm *kvm, uint32_t slot, uint64_t addr, void *host, uint64_t size,
		     struct err *err)
{
	const struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = KVM_MEM_READONLY,
		.guest_phys_addr = addr,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return err_sys(err, errno,
			       KVM_DEVICE ": KVM_SET_USER_MEMORY_REGION, read-only at 0x%llx",
			       (unsigned long long)addr);
	return 0;
}

int kvm_create_irqchip(const struct kvm *kvm, struct err *err)
{
	const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	if (ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return err_sys(err, errno, KVM_DEVICE ": KVM_CREATE_IRQCHIP");
	if (ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(err, errno, KVM_DEVICE ": KVM_CREATE_PIT2");
	return 0;
}

int kvm_add_irqfd(const struct kvm *kvm, int event_fd, uint32_t gsi, struct err *err)
{
	const struct kvm_irqfd irqfd = { .fd = (uint32_t)event_fd, .gsi = gsi };

	if (ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd) < 0)
		return err_sys(err, errno, KVM_DEVICE ": KVM_IRQFD for interrupt %u", gsi);
	return 0;
}

int kvm_add_ioeventfd(const struct kvm *kvm, int event_fd, uint64_t addr, uint32_t value,
		      struct err *err)
{
	const struct kvm_ioeventfd ioeventfd = {
		.datamatch = value,
		.addr = addr,
		.len = sizeof(value),
		.fd = event_fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	if (ioctl(kvm->vm_fd, KVM_IOEVENTFD, &ioeventfd) < 0)
		return err_sys(err, errno, KVM_DEVICE ": KVM_IOEVENTFD at 0x%llx",
			       (unsigned long long)addr);
	return 0;
}
