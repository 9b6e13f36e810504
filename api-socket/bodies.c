/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/bodies.h"

#include <errno.h>
#include <limits.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "mmds/store.h"
#include "virtio/block/block.h"
#include "virtio/vsock/vsock.h"
#include "vmm/control.h"
#include "vmm/kvm/cpu_template_named.h"
#include "json/fields.h"

static const char *const huge_pages_choices[] = {
	[HUGE_PAGES_NONE] = "None",
	[HUGE_PAGES_TRANSPARENT] = "Transparent",
	[HUGE_PAGES_2M] = "2M",
	NULL,
};
static const char *const cache_type_choices[] = {
	[CACHE_UNSAFE] = "Unsafe",
	[CACHE_WRITEBACK] = "Writeback",
	NULL,
};
static const char *const io_engine_choices[] = {
	[BLOCK_ENGINE_ASYNC] = "Async",
	[BLOCK_ENGINE_SYNC] = "Sync",
	NULL,
};

static const struct field boot_source_fields[] = {
	{ "kernel_image_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(boot_source_config, kernel_image_path) },
	{ "initrd_path", FIELD_STRING, .min = 1, FIELD_AT(boot_source_config, initrd_path),
	  .null_if_absent = true },
	{ "boot_args", FIELD_STRING, FIELD_AT(boot_source_config, boot_args),
	  .null_if_absent = true },
	{ NULL },
};

static const struct field machine_fields[] = {
	{ "vcpu_count", FIELD_INTEGER, .required = true, FIELD_AT(machine_config, vcpu_count),
	  .min = CONFIG_VCPU_MIN, .max = CONFIG_VCPU_MAX },
	{ "mem_size_mib", FIELD_INTEGER, .required = true, FIELD_AT(machine_config, mem_size_mib),
	  .min = CONFIG_MEMORY_MIN_MIB, .max = CONFIG_MEMORY_MAX_MIB },
	{ "smt", FIELD_BOOL, FIELD_AT(machine_config, smt) },
	{ "track_dirty_pages", FIELD_BOOL, FIELD_AT(machine_config, track_dirty_pages) },
	{ "huge_pages", FIELD_CHOICE, FIELD_AT(machine_config, huge_pages),
	  .choices = huge_pages_choices },
	{ "cpu_template", FIELD_CHOICE, FIELD_AT(machine_config, cpu_template),
	  .choices = cpu_template_names, .first_left_out = true,
	  .given = offsetof(struct machine_config, has_cpu_template) },
	{ NULL },
};

static const struct field serial_fields[] = {
	{ "serial_out_path", FIELD_STRING, .min = 1, FIELD_AT(serial_config, serial_out_path) },
	{ "buffer_size", FIELD_INTEGER, FIELD_AT(serial_config, buffer_size), .min = 1,
	  .max = CONSOLE_RING_MAX },
	{ "rate_limiter", FIELD_ABSENT },
	{ NULL },
};

static const struct field token_bucket_fields[] = {
	{ "size", FIELD_INTEGER, .required = true, FIELD_AT(token_bucket_config, size),
	  .max = INT64_MAX },
	{ "refill_time", FIELD_INTEGER, .required = true,
	  FIELD_AT(token_bucket_config, refill_time), .max = INT64_MAX },
	{ "one_time_burst", FIELD_INTEGER, FIELD_AT(token_bucket_config, one_time_burst),
	  .max = INT64_MAX, .null_if_absent = true },
	{ NULL, .others = OTHERS_LOGGED },
};

static const struct field rate_limiter_fields[] = {
	{ "bandwidth", FIELD_OBJECT, FIELD_AT(rate_limiter_config, bandwidth),
	  .fields = token_bucket_fields, .null_if_absent = true },
	{ "ops", FIELD_OBJECT, FIELD_AT(rate_limiter_config, ops), .fields = token_bucket_fields,
	  .null_if_absent = true },
	{ NULL },
};

static const struct field drive_fields[] = {
	{ "drive_id", FIELD_STRING, .required = true, FIELD_AT(drive_config, drive_id) },
	{ "path_on_host", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(drive_config, path_on_host) },
	{ "is_root_device", FIELD_BOOL, .required = true, FIELD_AT(drive_config, is_root_device) },
	{ "is_read_only", FIELD_BOOL, FIELD_AT(drive_config, is_read_only) },
	{ "partuuid", FIELD_STRING, FIELD_AT(drive_config, partuuid), .null_if_absent = true },
	{ "cache_type", FIELD_CHOICE, FIELD_AT(drive_config, cache_type),
	  .choices = cache_type_choices },
	{ "io_engine", FIELD_CHOICE, FIELD_AT(drive_config, io_engine),
	  .choices = io_engine_choices },
	{ "rate_limiter", FIELD_OBJECT, FIELD_AT(drive_config, rate_limiter),
	  .fields = rate_limiter_fields, .null_if_absent = true },
	{ "socket", FIELD_ABSENT, .null_if_absent = true },
	{ NULL },
};

static const struct field drive_update_fields[] = {
	{ "drive_id", FIELD_STRING, .required = true, FIELD_AT(drive_update, drive_id) },
	{ "path_on_host", FIELD_STRING, .min = 1, FIELD_AT(drive_update, path_on_host) },
	{ "rate_limiter", FIELD_OBJECT, FIELD_AT(drive_update, rate_limiter),
	  .fields = rate_limiter_fields, .given = offsetof(struct drive_update, has_rate_limiter) },
	{ NULL },
};

static const struct field network_interface_fields[] = {
	{ "iface_id", FIELD_STRING, .required = true,
	  FIELD_AT(network_interface_config, iface_id) },
	{ "host_dev_name", FIELD_STRING, .min = 1,
	  FIELD_AT(network_interface_config, host_dev_name) },
	{ "passt_socket", FIELD_STRING, .min = 1,
	  FIELD_AT(network_interface_config, passt_socket) },
	{ "passt_fd", FIELD_INTEGER, FIELD_AT(network_interface_config, passt_fd), .min = 3,
	  .max = INT_MAX },
	{ "guest_mac", FIELD_STRING, FIELD_AT(network_interface_config, guest_mac),
	  .null_if_absent = true },
	{ "mtu", FIELD_INTEGER, FIELD_AT(network_interface_config, mtu), .min = 68, .max = 65535,
	  .null_if_absent = true },
	{ "rx_rate_limiter", FIELD_OBJECT, FIELD_AT(network_interface_config, rx_rate_limiter),
	  .fields = rate_limiter_fields, .null_if_absent = true },
	{ "tx_rate_limiter", FIELD_OBJECT, FIELD_AT(network_interface_config, tx_rate_limiter),
	  .fields = rate_limiter_fields, .null_if_absent = true },
	{ NULL },
};

static const struct field network_interface_update_fields[] = {
	{ "iface_id", FIELD_STRING, .required = true,
	  FIELD_AT(network_interface_update, iface_id) },
	{ "rx_rate_limiter", FIELD_OBJECT, FIELD_AT(network_interface_update, rx_rate_limiter),
	  .fields = rate_limiter_fields,
	  .given = offsetof(struct network_interface_update, has_rx_rate_limiter) },
	{ "tx_rate_limiter", FIELD_OBJECT, FIELD_AT(network_interface_update, tx_rate_limiter),
	  .fields = rate_limiter_fields,
	  .given = offsetof(struct network_interface_update, has_tx_rate_limiter) },
	{ NULL },
};

static const struct field vsock_fields[] = {
	{ "guest_cid", FIELD_INTEGER, .required = true, FIELD_AT(vsock_device_config, guest_cid),
	  .min = VSOCK_GUEST_CID_MIN, .max = VSOCK_GUEST_CID_MAX },
	{ "uds_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(vsock_device_config, uds_path) },
	{ "vsock_id", FIELD_STRING, FIELD_AT(vsock_device_config, vsock_id) },
	{ NULL },
};

static const char *const mmds_version_choices[] = {
	[MMDS_V1] = "V1",
	[MMDS_V2] = "V2",
	NULL,
};

static const struct field mmds_interface = { .type = FIELD_STRING, .size = sizeof(char *) };

static const struct field mmds_fields[] = {
	{ "network_interfaces", FIELD_LIST, .required = true,
	  FIELD_AT(mmds_config, network_interfaces), .each = &mmds_interface },
	{ "version", FIELD_CHOICE, FIELD_AT(mmds_config, version),
	  .choices = mmds_version_choices },
	{ "ipv4_address", FIELD_STRING, FIELD_AT(mmds_config, ipv4_address) },
	{ "imds_compat", FIELD_BOOL, FIELD_AT(mmds_config, imds_compat) },
	/* mote's own. */
	{ "vsock_port", FIELD_INTEGER, .min = 1, .max = UINT32_MAX - 1,
	  FIELD_AT(mmds_config, vsock_port) },
	{ NULL },
};

static const struct field logger_fields[] = {
	{ "log_path", FIELD_STRING, .min = 1, FIELD_AT(logger_config, log_path) },
	{ "level", FIELD_STRING, FIELD_AT(logger_config, level) },
	{ "show_level", FIELD_BOOL, FIELD_AT(logger_config, show_level) },
	{ "show_log_origin", FIELD_BOOL, FIELD_AT(logger_config, show_log_origin) },
	{ "module", FIELD_STRING, FIELD_AT(logger_config, module) },
	{ NULL },
};

static const struct field metrics_fields[] = {
	{ "metrics_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(metrics_config, metrics_path) },
	{ "emit_id", FIELD_BOOL, FIELD_AT(metrics_config, emit_id) },
	{ "properties", FIELD_TEXTS, FIELD_AT(metrics_config, properties),
	  .max = METRICS_PROPERTIES_MAX },
	{ NULL, .others = OTHERS_LOGGED },
};

struct action {
	enum { INSTANCE_START, FLUSH_METRICS, SEND_CTRL_ALT_DEL } type;
};

static const char *const action_choices[] = {
	[INSTANCE_START] = "InstanceStart",
	[FLUSH_METRICS] = "FlushMetrics",
	[SEND_CTRL_ALT_DEL] = "SendCtrlAltDel",
	NULL,
};

static const struct field action_fields[] = {
	{ "action_type", FIELD_CHOICE, .required = true, FIELD_AT(action, type),
	  .choices = action_choices },
	{ NULL },
};

struct vm_state {
	enum { PAUSED, RESUMED } state;
};

static const char *const vm_state_choices[] = {
	[PAUSED] = "Paused",
	[RESUMED] = "Resumed",
	NULL,
};

static const struct field vm_state_fields[] = {
	{ "state", FIELD_CHOICE, .required = true, FIELD_AT(vm_state, state),
	  .choices = vm_state_choices },
	{ NULL },
};

static int act(struct control *control, const struct action *action, struct err *err)
{
	switch (action->type) {
	case INSTANCE_START:
		return control_start(control, err);
	case SEND_CTRL_ALT_DEL:
		return control_send_ctrl_alt_del(control, err);
	case FLUSH_METRICS:
		return control_flush_metrics(control, err);
	}
	return -EINVAL;
}

static int change_state(struct control *control, const struct vm_state *state, struct err *err)
{
	return state->state == PAUSED ? control_pause(control, err) : control_resume(control, err);
}

static const void *machine_before(const struct control *control)
{
	return &control->machine_config;
}

static int take_metadata(struct control *control, const json_t *object, struct err *err)
{
	struct mmds *mmds = NULL;
	int rc = control_metadata(control, &mmds, err);

	return rc < 0 ? rc : mmds_put(mmds, object, err);
}

static int take_metadata_update(struct control *control, const json_t *object, struct err *err)
{
	struct mmds *mmds = NULL;
	int rc = control_metadata(control, &mmds, err);

	return rc < 0 ? rc : mmds_patch(mmds, object, err);
}

BODY(boot_source, boot_source_fields, boot_source_config, control_set_boot_source);
BODY(machine, machine_fields, machine_config, control_set_machine);
BODY(machine_update, machine_fields, machine_config, control_set_machine, .before = machine_before,
     .nothing = "no field is there that is to be changed");
BODY(serial, serial_fields, serial_config, control_set_serial);
BODY(drive, drive_fields, drive_config, control_set_drive);
BODY(drive_update, drive_update_fields, drive_update, control_update_drive,
     .nothing = "neither path_on_host nor rate_limiter is there");
BODY(network_interface, network_interface_fields, network_interface_config, control_set_interface);
BODY(network_interface_update, network_interface_update_fields, network_interface_update,
     control_update_interface);
BODY(vsock, vsock_fields, vsock_device_config, control_set_vsock);
BODY(mmds, mmds_fields, mmds_config, control_set_mmds);
BODY(logger, logger_fields, logger_config, control_set_logger);
BODY(metrics, metrics_fields, metrics_config, control_set_metrics);
BODY(action, action_fields, action, act);
BODY(vm_state, vm_state_fields, vm_state, change_state);
const struct body body_metadata = { .take = take_metadata };
const struct body body_metadata_update = { .take = take_metadata_update };
