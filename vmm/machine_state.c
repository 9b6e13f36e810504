/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine_state.h"

#include <errno.h>

#include "base/clock.h"
#include "base/err.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/kvm/vm_state.h"
#include "vmm/machine.h"
#include "vmm/snapshot/format.h"
#include "vmm/snapshot/memory.h"

/* Of each section that is written here. */
#define MACHINE_VERSION 1
#define MEMORY_VERSION 1
#define VIRTIO_VERSION 1

static void save_size(const struct machine *machine, struct state_writer *file)
{
	size_t section = state_begin(file, SNAPSHOT_MACHINE, MACHINE_VERSION);

	state_put_u64(file, guest_memory_size(&machine->memory));
	state_put_u32(file, machine->vcpus.count);
	state_put_u32(file, machine->virtio_count);
	state_end(file, section);
}

static int save_vcpus(const struct machine *machine, struct state_writer *file, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < machine->vcpus.count && rc == 0; i++) {
		size_t section = state_begin(file, SNAPSHOT_VCPU, VCPU_STATE_VERSION);

		rc = vcpu_state_save(&machine->kvm, machine->vcpus.vcpus[i].fd, file, err);
		state_end(file, section);
	}
	return rc;
}

static void save_devices(const struct machine *machine, struct state_writer *file)
{
	size_t section = state_begin(file, SNAPSHOT_SERIAL, SERIAL_STATE_VERSION);

	serial_save(&machine->serial, file);
	state_end(file, section);
	section = state_begin(file, SNAPSHOT_I8042, I8042_STATE_VERSION);
	i8042_save(&machine->i8042, file);
	state_end(file, section);
	for (unsigned int i = 0; i < machine->virtio_count; i++) {
		section = state_begin(file, SNAPSHOT_VIRTIO, VIRTIO_VERSION);
		virtio_mmio_save(&machine->virtio[i], file);
		state_end(file, section);
	}
}

int machine_save(const struct machine *machine, const struct memory_pieces *pieces,
		 struct state_writer *file, struct err *err)
{
	size_t section;
	int rc;

	save_size(machine, file);
	section = state_begin(file, SNAPSHOT_MEMORY, MEMORY_VERSION);
	memory_pieces_save(pieces, file);
	state_end(file, section);
	rc = save_vcpus(machine, file, err);
	if (rc < 0)
		return rc;
	section = state_begin(file, SNAPSHOT_VM, VM_STATE_VERSION);
	rc = vm_state_save(&machine->kvm, file, err);
	state_end(file, section);
	if (rc == 0)
		save_devices(machine, file);
	return rc;
}

/* What was configured, and what was saved, are the same machine. */
static int check_size(const struct machine *machine, struct state_reader *sections, struct err *err)
{
	struct state_section section;
	uint64_t memory;
	uint32_t vcpus, devices;
	int rc = snapshot_next(sections, SNAPSHOT_MACHINE, MACHINE_VERSION, &section, err);

	if (rc < 0)
		return rc;
	memory = state_get_u64(&section.body);
	vcpus = state_get_u32(&section.body);
	devices = state_get_u32(&section.body);
	if (memory != guest_memory_size(&machine->memory) || vcpus != machine->vcpus.count ||
	    devices != machine->virtio_count)
		return err_set(err, EINVAL,
			       "its machine and its configuration are of different sizes");
	return snapshot_done(&section, err);
}

static int restore_vcpus(struct machine *machine, struct state_reader *sections, struct err *err)
{
	struct state_section section;
	int rc = 0;

	for (unsigned int i = 0; i < machine->vcpus.count && rc == 0; i++) {
		struct err cause;

		rc = snapshot_next(sections, SNAPSHOT_VCPU, VCPU_STATE_VERSION, &section, err);
		if (rc < 0)
			return rc;
		rc = vcpu_state_restore(&machine->kvm, machine->vcpus.vcpus[i].fd, &section.body,
					&cause);
		if (rc < 0)
			return err_set(err, -rc, "vCPU %u: %s", i, cause.text);
		rc = snapshot_done(&section, err);
	}
	return rc;
}

static int restore_devices(struct machine *machine, struct state_reader *sections, struct err *err)
{
	struct state_section section;
	int rc = snapshot_next(sections, SNAPSHOT_SERIAL, SERIAL_STATE_VERSION, &section, err);

	if (rc == 0)
		rc = serial_restore(&machine->serial, &section.body, section.version, err);
	if (rc == 0)
		rc = snapshot_done(&section, err);
	if (rc == 0)
		rc = snapshot_next(sections, SNAPSHOT_I8042, I8042_STATE_VERSION, &section, err);
	if (rc == 0)
		rc = i8042_restore(&machine->i8042, &section.body, section.version, err);
	if (rc == 0)
		rc = snapshot_done(&section, err);
	for (unsigned int i = 0; i < machine->virtio_count && rc == 0; i++) {
		rc = snapshot_next(sections, SNAPSHOT_VIRTIO, VIRTIO_VERSION, &section, err);
		if (rc == 0)
			rc = virtio_mmio_restore(&machine->virtio[i], &section.body, err);
		if (rc == 0)
			rc = snapshot_done(&section, err);
	}
	return rc;
}

int machine_restore(struct machine *machine, int memory_fd, bool clock_realtime,
		    struct state_reader *sections, struct err *err)
{
	struct state_section section;
	int rc = check_size(machine, sections, err);

	if (rc == 0)
		rc = snapshot_next(sections, SNAPSHOT_MEMORY, MEMORY_VERSION, &section, err);
	if (rc == 0)
		rc = memory_file_map(&machine->memory, memory_fd, &section.body, err);
	if (rc < 0)
		return rc;
	machine->phases.kernel_loaded_ns = clock_ns();
	rc = restore_vcpus(machine, sections, err);
	if (rc == 0)
		rc = snapshot_next(sections, SNAPSHOT_VM, VM_STATE_VERSION, &section, err);
	if (rc == 0)
		rc = vm_state_restore(&machine->kvm, clock_realtime, &section.body, err);
	if (rc == 0)
		rc = snapshot_done(&section, err);
	return rc < 0 ? rc : restore_devices(machine, sections, err);
}
