/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/describe.h"

#include <stdint.h>
#include <time.h>

#include "api-socket/bodies.h"
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
