/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/describe.h"

#include <stdint.h>
#include <time.h>

#include "api-socket/bodies.h"
#include "api-socket/cpu_config.h"
#include "base/array.h"
#include "base/firecracker.h"
#include "vmm/control.h"
#include "json/fields.h"

json_t *describe_instance(const struct control *control, const char *id)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "id", id, "state", control_state_name(control),
			 "vmm_version", MOTE_VERSION, "app_name", "mote");
}

/* Clients of Firecracker's read the first to know what they may ask for. */
json_t *describe_version(const struct control *control, const char *id)
{
	(void)control;
	(void)id;
	return json_pack("{s:s, s:s}", "firecracker_version", FIRECRACKER_VERSION, "mote_version",
			 MOTE_VERSION);
}

json_t *describe_machine(const struct control *control, const char *id)
{
	(void)id;
	return fields_write(body_machine.fields, &control->machine_config);
}

static json_t *describe_drives(const struct devices *devices)
{
	const struct device *device = NULL;
	json_t *list = json_array();

	while ((device = devices_next(devices, DEVICE_DRIVE, device)))
		(void)json_array_append_new(list,
					    fields_write(body_drive.fields, &device->config.drive));
	return list;
}

static json_t *describe_interfaces(const struct devices *devices)
{
	const struct device *device = NULL;
	json_t *list = json_array();

	while ((device = devices_next(devices, DEVICE_INTERFACE, device)))
		(void)json_array_append_new(list, fields_write(body_network_interface.fields,
							       &device->config.interface));
	return list;
}

json_t *describe_vm(const struct control *control, const char *id)
{
	/* What a VM of mote's never has, or what Firecracker does not tell. */
	static const char *const nulls[] = { "balloon", "entropy", "logger", "memory-hotplug",
					     "metrics" };
	const struct devices *devices = &control->devices;
	const struct device *vsock = devices_next(devices, DEVICE_VSOCK, NULL);
	json_t *vm = json_object();

	(void)id;
	(void)json_object_set_new(vm, "boot-source",
				  control->has_boot_source ? fields_write(body_boot_source.fields,
									  &control->boot_source)
							   : json_null());
	(void)json_object_set_new(vm, "machine-config",
				  fields_write(body_machine.fields, &control->machine_config));
	(void)json_object_set_new(vm, "cpu-config",
				  control->has_cpu_config ? fields_write(body_cpu_config.fields,
									 &control->cpu_template)
							  : json_null());
	(void)json_object_set_new(vm, "drives", describe_drives(devices));
	(void)json_object_set_new(vm, "network-interfaces", describe_interfaces(devices));
	(void)json_object_set_new(vm, "vsock",
				  vsock ? fields_write(body_vsock.fields, &vsock->config.vsock)
					: json_null());
	(void)json_object_set_new(vm, "mmds-config",
				  control->has_mmds_config
					  ? fields_write(body_mmds.fields, &control->mmds_config)
					  : json_null());
	if (control->serial.serial_out_path || control->serial.buffer_size > 0)
		(void)json_object_set_new(vm, "serial",
					  fields_write(body_serial.fields, &control->serial));
	for (size_t i = 0; i < ARRAY_SIZE(nulls); i++)
		(void)json_object_set_new(vm, nulls[i], json_null());
	(void)json_object_set_new(vm, "pmem", json_array());
	return vm;
}

static json_int_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

json_t *describe_state_event(const struct control *control)
{
	return json_pack("{s:I, s:s, s:s}", "timestamp_ms", now_ms(), "event", "state", "state",
			 control_state_name(control));
}

/* A phase that was not reached is left out. */
json_t *describe_phases_event(const struct control *control)
{
	const struct machine_times times = machine_times(&control->machine);
	const struct {
		const char *name;
		int64_t us;
	} phases[] = {
		{ "kvm_ready_us", times.kvm_ready_us },
		{ "kernel_loaded_us", times.kernel_loaded_us },
		{ "first_instruction_us", times.first_instruction_us },
		{ "init_us", times.init_us },
	};
	json_t *event = json_pack("{s:I, s:s}", "timestamp_ms", now_ms(), "event", "phases");

	for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
		if (phases[i].us >= 0)
			(void)json_object_set_new(event, phases[i].name,
						  json_integer(phases[i].us));
	}
	return event;
}

json_t *describe_end_event(const struct vm_end *end)
{
	static const char *const kinds[] = {
		[VM_END_NONE] = "none",		  [VM_END_POWER_OFF] = "power_off",
		[VM_END_RESET] = "reset",	  [VM_END_STOPPED] = "stopped",
		[VM_END_PANIC] = "panic",	  [VM_END_TRIPLE_FAULT] = "triple_fault",
		[VM_END_KVM_ERROR] = "kvm_error",
	};

	return json_pack("{s:I, s:s, s:s, s:s, s:i}", "timestamp_ms", now_ms(), "event", "ended",
			 "kind", kinds[end->kind], "reason", end->text, "exit_status",
			 vm_end_exit_status(end));
}
