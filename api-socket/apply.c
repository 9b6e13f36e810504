/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/apply.h"

#include <errno.h>

#include "api-socket/bodies.h"
#include "base/err.h"
#include "base/log.h"
#include "mmds/store.h"
#include "vmm/control.h"

int apply_boot_source(struct control *control, const json_t *body, struct err *err)
{
	struct boot_source_config config = { 0 };
	int rc = body_boot_source(body, &config, err);

	if (rc == 0)
		rc = control_set_boot_source(control, &config, err);
	boot_source_config_free(&config);
	return rc;
}

int apply_machine(struct control *control, const json_t *body, struct err *err)
{
	struct machine_config config = { 0 };
	int rc = body_machine(body, &config, err);

	return rc < 0 ? rc : control_set_machine(control, &config, err);
}

int apply_serial(struct control *control, const json_t *body, struct err *err)
{
	struct serial_config config = { 0 };
	int rc = body_serial(body, &config, err);

	if (rc == 0)
		rc = control_set_serial(control, &config, err);
	serial_config_free(&config);
	return rc;
}

int apply_drive(struct control *control, const json_t *body, struct err *err)
{
	struct drive_config config = { 0 };
	int rc = body_drive(body, &config, err);

	if (rc == 0)
		rc = control_set_drive(control, &config, err);
	drive_config_free(&config);
	return rc;
}

int apply_network_interface(struct control *control, const json_t *body, struct err *err)
{
	struct network_interface_config config = { 0 };
	int rc = body_network_interface(body, &config, err);

	if (rc == 0)
		rc = control_set_interface(control, &config, err);
	network_interface_config_free(&config);
	return rc;
}

int apply_vsock(struct control *control, const json_t *body, struct err *err)
{
	struct vsock_device_config config = { 0 };
	int rc = body_vsock(body, &config, err);

	if (rc == 0)
		rc = control_set_vsock(control, &config, err);
	vsock_device_config_free(&config);
	return rc;
}

int apply_mmds(struct control *control, const json_t *body, struct err *err)
{
	struct mmds_config config = { 0 };
	int rc = body_mmds(body, &config, err);

	if (rc == 0)
		rc = control_set_mmds(control, &config, err);
	mmds_config_free(&config);
	return rc;
}

int apply_metadata(struct control *control, const json_t *body, struct err *err)
{
	struct mmds *mmds = NULL;
	int rc = control_metadata(control, &mmds, err);

	return rc < 0 ? rc : mmds_put(mmds, body, err);
}

int apply_metadata_update(struct control *control, const json_t *body, struct err *err)
{
	struct mmds *mmds = NULL;
	int rc = control_metadata(control, &mmds, err);

	return rc < 0 ? rc : mmds_patch(mmds, body, err);
}

int apply_logger(struct control *control, const json_t *body, struct err *err)
{
	struct logger_config config = { 0 };
	int rc = body_logger(body, &config, err);

	if (rc == 0)
		rc = control_set_logger(control, &config, err);
	logger_config_free(&config);
	return rc;
}

int apply_machine_update(struct control *control, const json_t *body, struct err *err)
{
	struct machine_config config = control->machine_config;
	int rc = body_machine_update(body, &config, err);

	return rc < 0 ? rc : control_set_machine(control, &config, err);
}

int apply_drive_update(struct control *control, const json_t *body, struct err *err)
{
	struct drive_update update = { 0 };
	int rc = body_drive_update(body, &update, err);

	if (rc == 0)
		rc = control_update_drive(control, &update, err);
	drive_update_free(&update);
	return rc;
}

int apply_network_interface_update(struct control *control, const json_t *body, struct err *err)
{
	struct network_interface_update update = { 0 };
	int rc = body_network_interface_update(body, &update, err);

	if (rc == 0)
		rc = control_update_interface(control, &update, err);
	network_interface_update_free(&update);
	return rc;
}

int apply_action(struct control *control, const json_t *body, struct err *err)
{
	enum body_action action;
	int rc = body_action(body, &action, err);

	if (rc < 0)
		return rc;
	switch (action) {
	case ACTION_INSTANCE_START:
		return control_start(control, err);
	case ACTION_SEND_CTRL_ALT_DEL:
		return control_send_ctrl_alt_del(control, err);
	case ACTION_FLUSH_METRICS:
		return control_flush_metrics(control, err);
	}
	return -EINVAL;
}

int apply_vm_state(struct control *control, const json_t *body, struct err *err)
{
	enum body_vm_state state;
	int rc = body_vm_state(body, &state, err);

	if (rc < 0)
		return rc;
	return state == VM_STATE_PAUSED ? control_pause(control, err)
					: control_resume(control, err);
}
