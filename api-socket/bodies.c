/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/bodies.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "mmds/mmds.h"
#include "virtio/block/block.h"
#include "vmm/console_ring.h"
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
	  .min = 1, .max = CONFIG_VCPU_MAX },
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
	{ NULL, .others_ignored = true },
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
	  .min = 3, .max = UINT32_MAX - 1 },
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

static const char *const action_choices[] = {
	[ACTION_INSTANCE_START] = "InstanceStart",
	[ACTION_FLUSH_METRICS] = "FlushMetrics",
	[ACTION_SEND_CTRL_ALT_DEL] = "SendCtrlAltDel",
	NULL,
};
static const char *const vm_state_choices[] = {
	[VM_STATE_PAUSED] = "Paused",
	[VM_STATE_RESUMED] = "Resumed",
	NULL,
};

static const struct field action_fields[] = {
	{ "action_type", FIELD_CHOICE, .required = true, .choices = action_choices },
	{ NULL },
};

static const struct field vm_state_fields[] = {
	{ "state", FIELD_CHOICE, .required = true, .choices = vm_state_choices },
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

int body_boot_source(const json_t *body, struct boot_source_config *config, struct err *err)
{
	return fields_read(body, boot_source_fields, config, err);
}

int body_machine(const json_t *body, struct machine_config *config, struct err *err)
{
	return fields_read(body, machine_fields, config, err);
}

static bool changes_nothing(const json_t *body, const char *besides)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)body, name, value) {
		if (!json_is_null(value) && (!besides || strcmp(name, besides) != 0))
			return false;
	}
	return true;
}

int body_machine_update(const json_t *body, struct machine_config *config, struct err *err)
{
	int rc = fields_read_some(body, machine_fields, config, err);

	if (rc == 0 && changes_nothing(body, NULL))
		return err_set(err, EINVAL, "no field is there that is to be changed");
	return rc;
}

int body_serial(const json_t *body, struct serial_config *config, struct err *err)
{
	return fields_read(body, serial_fields, config, err);
}

int body_drive(const json_t *body, struct drive_config *config, struct err *err)
{
	return fields_read(body, drive_fields, config, err);
}

int body_drive_update(const json_t *body, struct drive_update *update, struct err *err)
{
	int rc = fields_read(body, drive_update_fields, update, err);

	if (rc == 0 && changes_nothing(body, "drive_id"))
		return err_set(err, EINVAL, "neither path_on_host nor rate_limiter is there");
	return rc;
}

int body_network_interface(const json_t *body, struct network_interface_config *config,
			   struct err *err)
{
	return fields_read(body, network_interface_fields, config, err);
}

int body_network_interface_update(const json_t *body, struct network_interface_update *update,
				  struct err *err)
{
	return fields_read(body, network_interface_update_fields, update, err);
}

int body_vsock(const json_t *body, struct vsock_device_config *config, struct err *err)
{
	return fields_read(body, vsock_fields, config, err);
}

int body_mmds(const json_t *body, struct mmds_config *config, struct err *err)
{
	return fields_read(body, mmds_fields, config, err);
}

int body_action(const json_t *body, enum body_action *action, struct err *err)
{
	int choice = 0;
	int rc = fields_read(body, action_fields, &choice, err);

	*action = (enum body_action)choice;
	return rc;
}

int body_vm_state(const json_t *body, enum body_vm_state *state, struct err *err)
{
	int choice = 0;
	int rc = fields_read(body, vm_state_fields, &choice, err);

	*state = (enum body_vm_state)choice;
	return rc;
}

int body_logger(const json_t *body, struct logger_config *config, struct err *err)
{
	return fields_read(body, logger_fields, config, err);
}

json_t *body_of_boot_source(const struct boot_source_config *config)
{
	return fields_write(boot_source_fields, config);
}

json_t *body_of_machine(const struct machine_config *config)
{
	return fields_write(machine_fields, config);
}

json_t *body_of_serial(const struct serial_config *config)
{
	return fields_write(serial_fields, config);
}

json_t *body_of_drive(const struct drive_config *config)
{
	return fields_write(drive_fields, config);
}

json_t *body_of_network_interface(const struct network_interface_config *config)
{
	return fields_write(network_interface_fields, config);
}

json_t *body_of_vsock(const struct vsock_device_config *config)
{
	return fields_write(vsock_fields, config);
}

json_t *body_of_mmds(const struct mmds_config *config)
{
	return fields_write(mmds_fields, config);
}
