/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine: KVM, memory, devices and vCPUs put together, to the reason of its end. It is
 * created first, and then given a state to begin with: that of a kernel's entry.
 */
#ifndef MOTE_VMM_MACHINE_H
#define MOTE_VMM_MACHINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/guest_memory.h"
#include "base/io_bus.h"
#include "virtio/core/mmio.h"
#include "vmm/boot/kernel_image.h"
#include "vmm/boot/layout.h"
#include "vmm/config.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/platform/boot_timer.h"
#include "vmm/platform/i8042.h"
#include "vmm/platform/panic_watch.h"
#include "vmm/platform/serial.h"
#include "vmm/platform/sleep.h"
#include "vmm/vm_end.h"

struct console_ring;
struct cpu_template;
struct err;
struct virtio_device;

/* What a machine is made of. All of it is the caller's; what is pointed to stays as long as it. */
struct machine_parts {
	const struct machine_config *config;
	const struct cpu_template *cpu_template;
	struct virtio_device *const *devices; /* take their places in this order */
	unsigned int device_count;	      /* at most LAYOUT_VIRTIO_MAX */
	int serial_fd;			      /* what the serial port writes to */
};

/* What the machine boots; opened and checked when it was configured. */
struct boot_files {
	struct kernel_image kernel;
	int initrd_fd;	   /* owned; -1 none */
	char *initrd_path; /* owned */
	char *cmdline;	   /* owned; whole, with what the devices add */
};

/* CLOCK_MONOTONIC in nanoseconds; 0 where not reached. */
struct machine_phases {
	int64_t kvm_ready_ns;	  /* /dev/kvm checked, VM created */
	int64_t kernel_loaded_ns; /* guest memory filled */
	_Atomic int64_t init_ns;  /* boot timer first written */
};

struct machine {
	struct kvm kvm;
	struct guest_memory memory;
	struct io_bus ports;
	struct io_bus mmio;
	struct vcpu_group vcpus;
	struct serial serial;
	struct i8042 i8042;
	struct boot_timer boot_timer;
	struct sleep_registers sleep;
	struct virtio_mmio virtio[LAYOUT_VIRTIO_MAX];
	unsigned int virtio_count;
	void *virtio_pages; /* owned; what the guest reads of them; NULL: exits are taken */
	/* Where the serial port's output is kept; not owned; NULL, or set before the vCPUs run. */
	struct console_ring *console_ring;
	struct panic_watch panic; /* under the serial port's lock while vCPUs run */
	struct machine_phases phases;
	int64_t process_start_ns; /* CLOCK_MONOTONIC; what the logged phases count from */
	bool boot_timer_logged;

	bool memory_in_use; /* by what a disk still does: machine_close() leaves it mapped */
	int init_fd;	    /* owned; becomes readable when the boot timer is first written */
	int end_fd;	    /* owned; becomes readable when the VM has ended */
	pthread_mutex_t end_lock;
	struct vm_end end; /* under end_lock; the first reason stays */
};

/*
 * Builds the machine, its memory empty and its vCPUs paused. 0 or -errno with err set; on failure
 * there is nothing to close.
 */
int machine_create(struct machine *machine, const struct machine_parts *parts, struct err *err);
/*
 * Puts the kernel and what it is told into memory, and the vCPUs to its entry, where they are still
 * paused. Once, of a new machine. 0 or -errno with err set; then it is only good to be closed.
 */
int machine_boot(struct machine *machine, const struct boot_files *files, struct err *err);
/* Stops the vCPUs and frees everything. Safe on a zeroed or already closed object. */
void machine_close(struct machine *machine);

/* Ends the VM from the host's side; a reason that came before stays. */
void machine_end(struct machine *machine, const struct vm_end *end);

/* Microseconds from process_start_ns; negative where not reached. */
struct machine_times {
	int64_t kvm_ready_us;
	int64_t kernel_loaded_us;
	int64_t first_instruction_us;
	int64_t init_us;
};

/* Any thread. */
struct machine_times machine_times(const struct machine *machine);
/* If boot_timer_logged: writes the phases reached so far to the log. */
void machine_log_phases(const struct machine *machine);

/* Why it ended; VM_END_NONE while it runs. Call with the vCPUs stopped for the final answer. */
struct vm_end machine_end_reason(struct machine *machine);

#endif
