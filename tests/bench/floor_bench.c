/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of starting a VM: a bare program that makes those KVM calls that no VMM with an
 * in-kernel irqchip can do without, in mote-vmm's order, for a guest that writes one byte to a
 * port. Prints the microseconds from main to that first exit; COUNT times over, each in a process
 * of its own.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_SIZE (16 << 20)
#define ENTRY 0x100000
#define CPUID_ENTRIES 128

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void must(int rc, const char *what)
{
	if (rc < 0) {
		perror(what);
		exit(EXIT_FAILURE);
	}
}

/* Long mode with the first 2 MiB mapped, as little as a 64-bit guest needs. */
static void set_long_mode(int vcpu, uint8_t *memory)
{
	const uint64_t pml4 = 0xa003, pdpt = 0xb003, pd = 0x83;
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = ENTRY, .rflags = 2, .rsp = 0x8ff0 };

	memcpy(memory + 0x9000, &pml4, sizeof(pml4));
	memcpy(memory + 0xa000, &pdpt, sizeof(pdpt));
	memcpy(memory + 0xb000, &pd, sizeof(pd));
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs = (struct kvm_segment){ .limit = UINT32_MAX,
					 .selector = 8,
					 .type = 0xb,
					 .present = 1,
					 .s = 1,
					 .l = 1,
					 .g = 1 };
	sregs.ds = sregs.es = sregs.ss = (struct kvm_segment){
		.limit = UINT32_MAX,
		.selector = 16,
		.type = 3,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
	};
	sregs.cr0 = 0x80000011;
	sregs.cr3 = 0x9000;
	sregs.cr4 = 0x20;
	sregs.efer = 0x500;
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void start_once(void)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xf4 }; /* out %al, $0x80; hlt */
	static union {
		struct kvm_cpuid2 kvm;
		char room[sizeof(struct kvm_cpuid2) +
			  CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2)];
	} cpuid = { .kvm.nent = CPUID_ENTRIES };
	const struct kvm_pit_config pit = { 0 };
	int64_t start = now_us();
	int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm, vcpu, size;
	uint8_t *memory;
	struct kvm_run *run;

	must(dev, "/dev/kvm");
	vm = ioctl(dev, KVM_CREATE_VM, 0);
	must(vm, "KVM_CREATE_VM");
	must(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	memcpy(memory + ENTRY, code, sizeof(code));
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION,
		   &(struct kvm_userspace_memory_region){ .memory_size = MEMORY_SIZE,
							  .userspace_addr = (uintptr_t)memory }),
	     "KVM_SET_USER_MEMORY_REGION");
	must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	must(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	must(ioctl(dev, KVM_GET_SUPPORTED_CPUID, &cpuid.kvm), "KVM_GET_SUPPORTED_CPUID");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	must(vcpu, "KVM_CREATE_VCPU");
	size = ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid.kvm), "KVM_SET_CPUID2");
	set_long_mode(vcpu, memory);
	must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO)
		exit(EXIT_FAILURE);
	printf("%lld\n", (long long)(now_us() - start));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1;
	int status;

	for (int i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			start_once();
			_exit(EXIT_SUCCESS);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
