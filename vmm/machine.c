/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/core/device.h"
#include "vmm/boot/acpi.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/mptable.h"
#include "vmm/boot/params.h"
#include "vmm/console_ring.h"
#include "vmm/kvm/registers.h"

void machine_end(struct machine *machine, const struct vm_end *end)
{
	pthread_mutex_lock(&machine->end_lock);
	if (machine->end.kind == VM_END_NONE)
		machine->end = *end;
	pthread_mutex_unlock(&machine->end_lock);
	atomic_store(&machine->vcpus.over, true);
	fd_signal(machine->end_fd);
}

static void vcpu_ended(void *opaque, const struct vm_end *end)
{
	machine_end(opaque, end);
}

static void guest_reset(void *opaque)
{
	const struct vm_end end = { VM_END_RESET, "The guest reset the machine" };

	machine_end(opaque, &end);
}

static void guest_power_off(void *opaque)
{
	const struct vm_end end = { VM_END_POWER_OFF, "The guest powered off" };

	machine_end(opaque, &end);
}

static int64_t since_start_us(const struct machine *machine, int64_t ns)
{
	return ns == 0 ? -1 : (ns - machine->process_start_ns) / NS_PER_US;
}

struct machine_times machine_times(const struct machine *machine)
{
	return (struct machine_times){
		.kvm_ready_us = since_start_us(machine, machine->phases.kvm_ready_ns),
		.kernel_loaded_us = since_start_us(machine, machine->phases.kernel_loaded_ns),
		.first_instruction_us =
			since_start_us(machine, machine->vcpus.vcpus[0].first_run_ns),
		.init_us = since_start_us(machine, machine->phases.init_ns),
	};
}

void machine_log_phases(const struct machine *machine)
{
	const struct machine_times times = machine_times(machine);
	struct timespec cpu;
	int64_t cpu_us;

	if (!machine->boot_timer_logged || times.first_instruction_us < 0)
		return;
	log_info(
		"Boot-phases = kvm_ready %lld us, kernel_loaded %lld us, first_instruction %lld us",
		(long long)times.kvm_ready_us, (long long)times.kernel_loaded_us,
		(long long)times.first_instruction_us);
	if (times.init_us < 0)
		return;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	cpu_us = (int64_t)cpu.tv_sec * 1000000 + cpu.tv_nsec / 1000;
	log_info("Guest-boot-time = %lld us %lld ms, %lld CPU us %lld CPU ms",
		 (long long)times.init_us, (long long)times.init_us / 1000, (long long)cpu_us,
		 (long long)cpu_us / 1000);
}

static void boot_timer_reached(void *opaque)
{
	struct machine *machine = opaque;
	int64_t none = 0;

	/* The first write counts, whichever vCPU it comes from. */
	if (!atomic_compare_exchange_strong(&machine->phases.init_ns, &none, clock_ns()))
		return;
	machine_log_phases(machine);
	fd_signal(machine->init_fd);
}

struct vm_end machine_end_reason(struct machine *machine)
{
	struct vm_end end;

	pthread_mutex_lock(&machine->end_lock);
	end = machine->end;
	pthread_mutex_unlock(&machine->end_lock);
	if (end.kind == VM_END_RESET || end.kind == VM_END_TRIPLE_FAULT) {
		pthread_mutex_lock(&machine->serial.lock);
		if (machine->panic.seen) {
			end.kind = VM_END_PANIC;
			snprintf(end.text, sizeof(end.text), "The guest kernel panicked: %s",
				 machine->panic.cause);
		}
		pthread_mutex_unlock(&machine->serial.lock);
	}
	return end;
}

static void transmitted(void *opaque, uint8_t byte)
{
	struct machine *machine = opaque;

	panic_watch_byte(&machine->panic, byte);
	if (machine->console_ring)
		console_ring_put(machine->console_ring, byte);
}

static int add_devices(struct machine *machine, int out_fd, struct err *err)
{
	int rc = serial_open(&machine->serial, out_fd, err);

	if (rc == 0)
		rc = i8042_open(&machine->i8042, err);
	if (rc < 0)
		return rc;
	machine->serial.tap = transmitted;
	machine->serial.tap_opaque = machine;
	machine->i8042.reset = guest_reset;
	machine->i8042.opaque = machine;
	machine->sleep.power_off = guest_power_off;
	machine->sleep.opaque = machine;
	machine->boot_timer.reached = boot_timer_reached;
	machine->boot_timer.opaque = machine;
	if (io_bus_add(&machine->ports, LAYOUT_PORT_SERIAL, SERIAL_PORTS, &serial_ops,
		       &machine->serial) < 0 ||
	    io_bus_add(&machine->ports, LAYOUT_PORT_I8042, I8042_PORTS, &i8042_ops,
		       &machine->i8042) < 0 ||
	    io_bus_add(&machine->ports, LAYOUT_PORT_SLEEP, SLEEP_SIZE, &sleep_registers_ops,
		       &machine->sleep) < 0 ||
	    io_bus_add(&machine->mmio, LAYOUT_BOOT_TIMER, BOOT_TIMER_SIZE, &boot_timer_ops,
		       &machine->boot_timer) < 0)
		return err_set(err, EEXIST, "machine: two devices claim the same address");
	return 0;
}

static uint64_t virtio_window(unsigned int index)
{
	return LAYOUT_VIRTIO + index * LAYOUT_VIRTIO_SIZE;
}

static void hold_vcpus(void *opaque, bool hold)
{
	struct machine *machine = opaque;

	vcpu_group_hold(&machine->vcpus, hold);
}

static int place_virtio(struct machine *machine, struct virtio_device *const *devices,
			unsigned int count, struct err *err)
{
	for (unsigned int i = 0; i < count; i++) {
		machine->virtio[i].device = devices[i];
		if (io_bus_add(&machine->mmio, virtio_window(i), VIRTIO_MMIO_SIZE, &virtio_mmio_ops,
			       &machine->virtio[i]) < 0)
			return err_set(err, EEXIST, "%s: another device claims its address",
				       devices[i]->name);
		devices[i]->hold = hold_vcpus;
		devices[i]->hold_opaque = machine;
	}
	machine->virtio_count = count;
	return 0;
}

static int add_notifications(struct machine *machine, struct err *err)
{
	for (unsigned int i = 0; i < machine->virtio_count; i++) {
		const struct virtio_device *device = machine->virtio[i].device;

		for (unsigned int queue = 0; queue < device->queue_count; queue++) {
			int rc = kvm_add_ioeventfd(&machine->kvm, device->notify_fds[queue],
						   virtio_window(i) + VIRTIO_MMIO_QUEUE_NOTIFY,
						   queue, err);

			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

/* One slot for all devices: what their drivers read is then no exit. */
static int show_virtio(struct machine *machine, struct err *err)
{
	const size_t size = machine->virtio_count * VIRTIO_MMIO_SIZE;
	void *pages;
	int rc;

	if (machine->virtio_count == 0 || !machine->kvm.readonly_memory)
		return 0;
	pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		     -1, 0);
	if (pages == MAP_FAILED)
		return err_sys(err, errno, "machine: the devices' registers");
	machine->virtio_pages = pages;
	rc = kvm_set_readonly(&machine->kvm, machine->memory.region_count, virtio_window(0), pages,
			      size, err);
	for (unsigned int i = 0; i < machine->virtio_count && rc == 0; i++)
		virtio_mmio_show(&machine->virtio[i], (uint8_t *)pages + i * VIRTIO_MMIO_SIZE);
	return rc;
}

static void hide_virtio(struct machine *machine)
{
	if (!machine->virtio_pages)
		return;
	for (unsigned int i = 0; i < machine->virtio_count; i++)
		virtio_mmio_hide(&machine->virtio[i]);
	munmap(machine->virtio_pages, machine->virtio_count * VIRTIO_MMIO_SIZE);
}

static int add_interrupts(struct machine *machine, struct err *err)
{
	int rc = kvm_add_irqfd(&machine->kvm, machine->serial.irq_fd, LAYOUT_IRQ_SERIAL, err);

	if (rc == 0)
		rc = kvm_add_irqfd(&machine->kvm, machine->i8042.irq_fd, LAYOUT_IRQ_KEYBOARD, err);
	for (unsigned int i = 0; i < machine->virtio_count && rc == 0; i++)
		rc = kvm_add_irqfd(&machine->kvm, machine->virtio[i].device->irq_fd,
				   LAYOUT_VIRTIO_IRQ + i, err);
	return rc;
}

static int open_parts(struct machine *machine, const struct machine_parts *parts, struct err *err)
{
	const struct machine_config *config = parts->config;
	int rc = kvm_open(&machine->kvm, parts->cpu_template, err);

	if (rc < 0)
		return rc;
	machine->phases.kvm_ready_ns = clock_ns();
	rc = guest_memory_open(&machine->memory, (uint64_t)config->mem_size_mib << 20,
			       LAYOUT_MMIO_GAP_START, LAYOUT_MMIO_GAP_END,
			       (enum huge_pages)config->huge_pages, err);
	if (rc == 0)
		rc = add_devices(machine, parts->serial_fd, err);
	if (rc == 0)
		rc = place_virtio(machine, parts->devices, parts->device_count, err);
	/*
	 * All memory slots before the first notification: what KVM defers after each of those, a
	 * change of the slots would wait for, two ticks long.
	 */
	if (rc == 0)
		rc = kvm_set_memory(&machine->kvm, &machine->memory, err);
	if (rc == 0)
		rc = show_virtio(machine, err);
	if (rc == 0)
		rc = add_notifications(machine, err);
	if (rc == 0)
		rc = kvm_create_irqchip(&machine->kvm, err);
	if (rc == 0)
		rc = add_interrupts(machine, err);
	if (rc < 0)
		return rc;
	machine->vcpus.ports = &machine->ports;
	machine->vcpus.mmio = &machine->mmio;
	machine->vcpus.cpu_template = parts->cpu_template;
	machine->vcpus.ended = vcpu_ended;
	machine->vcpus.opaque = machine;
	return vcpu_group_open(&machine->vcpus, &machine->kvm, (unsigned int)config->vcpu_count,
			       config->smt && config->vcpu_count > 1 ? 2 : 1, err);
}

int machine_create(struct machine *machine, const struct machine_parts *parts, struct err *err)
{
	int rc;

	memset(machine, 0, sizeof(*machine));
	machine->init_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	machine->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (machine->init_fd < 0 || machine->end_fd < 0) {
		rc = err_sys(err, errno, "machine: eventfd");
		fd_close(&machine->init_fd);
		fd_close(&machine->end_fd);
		memset(machine, 0, sizeof(*machine));
		return rc;
	}
	pthread_mutex_init(&machine->end_lock, NULL);
	rc = open_parts(machine, parts, err);
	if (rc < 0)
		machine_close(machine);
	return rc;
}

static int load_guest(struct machine *machine, const struct boot_files *files, struct err *err)
{
	const struct guest_memory *memory = &machine->memory;
	const struct kernel_image *kernel = &files->kernel;
	const unsigned int vcpu_count = machine->vcpus.count;
	struct boot_initrd initrd = { 0 };
	uint8_t seed[BOOT_SEED_SIZE];
	int rc = kernel_image_load(kernel, &machine->memory, err);

	if (rc == 0 && files->initrd_fd >= 0)
		rc = boot_load_initrd(&machine->memory, files->initrd_fd, files->initrd_path,
				      kernel->end, &initrd, err);
	if (rc == 0)
		rc = boot_write_cmdline(memory, files->cmdline, err);
	if (rc == 0)
		rc = acpi_write(memory, vcpu_count, machine->virtio_count, err);
	if (rc < 0)
		return rc;
	mptable_write(memory, vcpu_count);
	registers_write_tables(memory, kernel->entry_kind);
	if (kernel->entry_kind == KERNEL_ENTRY_PVH) {
		boot_write_pvh_start_info(memory, &initrd);
		return 0;
	}
	if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		return err_sys(err, errno, "random seed for the guest");
	boot_write_zero_page(memory, kernel, &initrd, (uint32_t)strlen(files->cmdline), seed);
	explicit_bzero(seed, sizeof(seed));
	return 0;
}

int machine_boot(struct machine *machine, const struct boot_files *files, struct err *err)
{
	int rc = load_guest(machine, files, err);

	machine->phases.kernel_loaded_ns = clock_ns();
	return rc < 0 ? rc : vcpu_group_boot(&machine->vcpus, &files->kernel, err);
}

void machine_close(struct machine *machine)
{
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (machine->end_fd <= 0)
		return;
	vcpu_group_close(&machine->vcpus);
	for (unsigned int i = 0; i < machine->virtio_count; i++)
		machine->virtio[i].device->hold = NULL;
	hide_virtio(machine);
	i8042_close(&machine->i8042);
	serial_close(&machine->serial);
	kvm_close(&machine->kvm);
	if (!machine->memory_in_use)
		guest_memory_close(&machine->memory);
	fd_close(&machine->init_fd);
	fd_close(&machine->end_fd);
	pthread_mutex_destroy(&machine->end_lock);
	memset(machine, 0, sizeof(*machine));
}
