/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/boot/layout.h"
#include "vmm/control_internal.h"
#include "vmm/kvm/cpu_template_named.h"

/*
 * A description of our own for a pipe or terminal, so that writing to it never blocks and
 * O_NONBLOCK does not show in whoever shares it. Without /proc it is written to as it is.
 */
static int open_standard_output(void)
{
	struct stat st;
	int fd = -1;

	if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? STDOUT_FILENO : fd;
}

static void close_serial(struct control *control)
{
	if (control->serial_fd != STDOUT_FILENO)
		fd_close(&control->serial_fd);
	control->serial_fd = STDOUT_FILENO;
}

static void close_files(struct boot_files *files)
{
	kernel_image_close(&files->kernel);
	fd_close(&files->initrd_fd);
	free(files->initrd_path);
	free(files->cmdline);
	files->initrd_path = NULL;
	files->cmdline = NULL;
}

static const struct machine_config machine_default = { .vcpu_count = 1, .mem_size_mib = 128 };

void control_forget_config(struct control *control)
{
	devices_close(&control->devices);
	mmds_config_free(&control->mmds_config);
	control->has_mmds_config = false;
	control->machine_config = machine_default;
}

int control_open_config(struct control *control, struct err *err)
{
	int rc;

	control->machine_config = machine_default;
	control->mmds_size_limit = MMDS_SIZE_LIMIT;
	control->files.initrd_fd = -1;
	control->asked_fd = -1;
	control->serial_fd = open_standard_output();
	rc = console_ring_open(&control->console_ring, CONSOLE_RING_DEFAULT, err);
	if (rc < 0)
		close_serial(control);
	return rc;
}

void control_close_config(struct control *control)
{
	devices_close(&control->devices);
	mmds_close(control->mmds);
	mmds_config_free(&control->mmds_config);
	cpu_template_free(&control->cpu_template);
	close_files(&control->files);
	boot_source_config_free(&control->boot_source);
	close_serial(control);
	serial_config_free(&control->serial);
	console_ring_close(&control->console_ring);
	log_set_module(NULL);
	logger_config_free(&control->logger);
}

/*
 * There is no PCI to be probed for. What stands behind "--" is init's, so that our words go before
 * it.
 */
char *control_cmdline(const struct control *control)
{
	const char *args = control->boot_source.boot_args;
	const char *own = args ? args : CONFIG_DEFAULT_BOOT_ARGS;
	const char *init = strstr(own, " -- ");
	int length = (int)(init ? (size_t)(init - own) : strlen(own));
	char *devices = devices_cmdline(&control->devices);
	char *cmdline;

	if (!devices)
		return NULL;
	if (asprintf(&cmdline, "%.*s pci=off%s%s", length, own, devices, init ? init : "") < 0)
		cmdline = NULL;
	free(devices);
	return cmdline;
}

int control_check_cmdline(const char *cmdline, struct err *err)
{
	if (!cmdline)
		return err_sys(err, ENOMEM, "kernel command line");
	if (strlen(cmdline) >= LAYOUT_CMDLINE_SIZE)
		return err_set(err, E2BIG,
			       "kernel command line of %zu bytes: at most %d are possible",
			       strlen(cmdline), LAYOUT_CMDLINE_SIZE - 1);
	return 0;
}

static int open_files(struct boot_files *files, const struct boot_source_config *config,
		      struct err *err)
{
	const char *initrd = config->initrd_path ? fd_name(config->initrd_path) : NULL;
	struct stat st;
	int rc = kernel_image_open(&files->kernel, config->kernel_image_path, err);

	if (rc < 0)
		return rc;
	if (initrd) {
		files->initrd_fd = fd_open(config->initrd_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (files->initrd_fd < 0)
			return err_sys(err, -files->initrd_fd, "initrd %s", initrd);
		if (fstat(files->initrd_fd, &st) < 0)
			return err_sys(err, errno, "initrd %s", initrd);
		if (!S_ISREG(st.st_mode))
			return err_set(err, EINVAL, "initrd %s: not a regular file", initrd);
		files->initrd_path = strdup(initrd);
		if (!files->initrd_path)
			return err_sys(err, ENOMEM, "initrd %s", initrd);
	}
	return config->boot_args ? control_check_cmdline(config->boot_args, err) : 0;
}

int control_set_boot_source(struct control *control, struct boot_source_config *config,
			    struct err *err)
{
	struct boot_files files = { .initrd_fd = -1 };
	int rc = control_check(control, CONTROL_OP_SET_BOOT_SOURCE, err);

	if (rc < 0)
		return rc;
	rc = open_files(&files, config, err);
	if (rc < 0) {
		close_files(&files);
		return rc;
	}
	close_files(&control->files);
	control->files = files;
	boot_source_config_free(&control->boot_source);
	control->boot_source = *config;
	memset(config, 0, sizeof(*config));
	control->has_boot_source = true;
	return 0;
}

/* There is one, be it named or given in full: the last that was set. */
static void take_template(struct control *control, struct cpu_template *template)
{
	cpu_template_free(&control->cpu_template);
	control->cpu_template = *template;
	memset(template, 0, sizeof(*template));
}

int control_set_machine(struct control *control, const struct machine_config *config,
			struct err *err)
{
	struct cpu_template template;
	int before;
	int rc = control_check(control, CONTROL_OP_SET_MACHINE, err);

	if (rc < 0)
		return rc;
	if (config->vcpu_count < CONFIG_VCPU_MIN || config->vcpu_count > CONFIG_VCPU_MAX)
		return err_set(err, EINVAL, "vcpu_count: %lld is not between %d and %d",
			       (long long)config->vcpu_count, CONFIG_VCPU_MIN, CONFIG_VCPU_MAX);
	if (config->smt && config->vcpu_count > 1 && config->vcpu_count % 2)
		return err_set(err, EINVAL, "vcpu_count: with smt it is 1 or even, not %lld",
			       (long long)config->vcpu_count);
	if (config->mem_size_mib < CONFIG_MEMORY_MIN_MIB ||
	    config->mem_size_mib > CONFIG_MEMORY_MAX_MIB)
		return err_set(err, EINVAL, "mem_size_mib: %lld is not between %d and %d",
			       (long long)config->mem_size_mib, CONFIG_MEMORY_MIN_MIB,
			       CONFIG_MEMORY_MAX_MIB);
	if (config->huge_pages == HUGE_PAGES_2M && config->mem_size_mib % 2)
		return err_set(err, EINVAL, "mem_size_mib: with 2M huge pages it is even, not %lld",
			       (long long)config->mem_size_mib);
	if (config->has_cpu_template) {
		rc = cpu_template_named((enum cpu_template_name)config->cpu_template, &template,
					err);
		if (rc < 0)
			return rc;
		take_template(control, &template);
		control->has_cpu_config = false;
	}
	if (config->track_dirty_pages && !control->machine_config.track_dirty_pages)
		log_warn(
			"track_dirty_pages: nothing comes of it, since there are no snapshots yet");
	before = control->machine_config.cpu_template;
	control->machine_config = *config;
	if (!config->has_cpu_template)
		control->machine_config.cpu_template = before;
	control->machine_config.has_cpu_template = false;
	return 0;
}

int control_set_logger(struct control *control, struct logger_config *config, struct err *err)
{
	enum log_level level = LOG_INFO;
	int rc = control_check(control, CONTROL_OP_SET_LOGGER, err);

	if (rc == 0 && config->level && !log_level_parse(config->level, &level))
		rc = err_set(err, EINVAL,
			     "level: one of Error, Warning, Info, Debug, Trace, Off is expected");
	if (rc == 0 && config->log_path)
		rc = log_open(config->log_path, err);
	if (rc < 0)
		return rc;
	if (config->level)
		log_set_level(level);
	log_show(config->show_level, config->show_log_origin);
	log_set_module(config->module);
	logger_config_free(&control->logger);
	control->logger = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

int control_set_serial(struct control *control, struct serial_config *config, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SET_SERIAL, err);
	int fd;

	if (rc < 0)
		return rc;
	if (!config->serial_out_path) {
		fd = open_standard_output();
	} else {
		fd = fd_open_append(config->serial_out_path);
		if (fd < 0)
			return err_sys(err, -fd, "serial_out_path %s", config->serial_out_path);
	}
	rc = console_ring_resize(
		&control->console_ring,
		config->buffer_size > 0 ? (size_t)config->buffer_size : CONSOLE_RING_DEFAULT, err);
	if (rc < 0) {
		if (fd != STDOUT_FILENO)
			fd_close(&fd);
		return rc;
	}
	close_serial(control);
	control->serial_fd = fd;
	serial_config_free(&control->serial);
	control->serial = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

int control_set_drive(struct control *control, struct drive_config *config, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SET_DRIVE, err);

	return rc < 0 ? rc : devices_set_drive(&control->devices, config, err);
}

int control_set_interface(struct control *control, struct network_interface_config *config,
			  struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SET_INTERFACE, err);

	return rc < 0 ? rc : devices_set_interface(&control->devices, config, err);
}

int control_set_vsock(struct control *control, struct vsock_device_config *config, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SET_VSOCK, err);

	return rc < 0 ? rc : devices_set_vsock(&control->devices, config, err);
}

int control_set_cpu_config(struct control *control, struct cpu_template *template, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SET_CPU_CONFIG, err);

	if (rc < 0)
		return rc;
	take_template(control, template);
	control->has_cpu_config = true;
	control->machine_config.cpu_template = CPU_TEMPLATE_NONE;
	return 0;
}

int control_metadata(struct control *control, struct mmds **mmds, struct err *err)
{
	int rc = 0;

	if (control->state != CONTROL_NOT_STARTED && !control->has_mmds_config)
		return err_set(
			err, ENODEV,
			"metadata: no network interface answers for it, nor a vsock_port: that is "
			"configured before the start");
	if (!control->mmds)
		rc = mmds_open(&control->mmds, control->mmds_size_limit, err);
	*mmds = control->mmds;
	return rc;
}

int control_set_mmds(struct control *control, struct mmds_config *config, struct err *err)
{
	struct mmds *mmds = NULL;
	uint32_t address;
	int rc = control_check(control, CONTROL_OP_SET_MMDS, err);

	if (rc < 0)
		return rc;
	if (!config->ipv4_address)
		config->ipv4_address = strdup(MMDS_ADDRESS);
	if (!config->ipv4_address)
		return err_sys(err, ENOMEM, "ipv4_address");
	if (!mmds_address_parse(config->ipv4_address, &address))
		return err_set(err, EINVAL,
			       "ipv4_address: one from 169.254.1.0 to 169.254.254.255 is expected");
	if (!config->network_interfaces[0] && !config->vsock_port)
		return err_set(err, EINVAL,
			       "network_interfaces: at least one is expected, or a vsock_port");
	rc = devices_check_interfaces(&control->devices, config->network_interfaces, err);
	if (rc < 0)
		return rc;
	rc = control_metadata(control, &mmds, err);
	if (rc < 0)
		return rc;
	mmds_configure(mmds, (enum mmds_version)config->version, config->imds_compat);
	mmds_config_free(&control->mmds_config);
	control->mmds_config = *config;
	control->has_mmds_config = true;
	memset(config, 0, sizeof(*config));
	return 0;
}

int control_set_metrics(struct control *control, struct metrics_config *config, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SET_METRICS, err);

	return rc < 0 ? rc : metrics_set_output(&control->metrics, config, err);
}

int control_remove_drive(struct control *control, const char *id, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_REMOVE_DRIVE, err);

	return rc < 0 ? rc : devices_remove_drive(&control->devices, id, err);
}

int control_remove_interface(struct control *control, const char *id, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_REMOVE_INTERFACE, err);

	return rc < 0 ? rc : devices_remove_interface(&control->devices, id, err);
}

int control_update_drive(struct control *control, const struct drive_update *update,
			 struct err *err)
{
	int rc = control_check(control, CONTROL_OP_UPDATE_DRIVE, err);

	return rc < 0 ? rc : devices_update_drive(&control->devices, update, err);
}

int control_update_interface(struct control *control, const struct network_interface_update *update,
			     struct err *err)
{
	int rc = control_check(control, CONTROL_OP_UPDATE_INTERFACE, err);

	return rc < 0 ? rc : devices_update_interface(&control->devices, update, err);
}
