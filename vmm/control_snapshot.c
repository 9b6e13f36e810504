/* SPDX-License-Identifier: Apache-2.0 */
/* A VM to the files of a snapshot, and back. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/state.h"
#include "vmm/control_internal.h"
#include "vmm/machine_state.h"
#include "vmm/snapshot/creator.h"
#include "vmm/snapshot/format.h"
#include "vmm/snapshot/memory.h"

static int save_state(struct control *control, const char *config,
		      const struct memory_pieces *pieces, struct state_writer *file,
		      struct err *err)
{
	size_t section;
	int rc;

	snapshot_begin(file);
	section = state_begin(file, SNAPSHOT_CONFIG, SNAPSHOT_CONFIG_VERSION);
	state_put_bytes(file, config, strlen(config));
	state_end(file, section);
	rc = machine_save(&control->machine, pieces, file, err);
	if (rc < 0)
		return rc;
	section = state_begin(file, SNAPSHOT_CONSOLE, CONSOLE_RING_STATE_VERSION);
	console_ring_save(&control->console_ring, file);
	state_end(file, section);
	snapshot_end(file);
	return file->failed ? err_set(err, EFBIG,
				      "snapshot: its state is too large, or there is "
				      "no memory for it")
			    : 0;
}

static int write_memory(struct control *control, const char *path, struct memory_pieces *pieces,
			struct err *err)
{
	const struct guest_memory *memory = &control->machine.memory;
	CLEANUP_FD int fd = creator_create(&control->creator, path, memory_file_size(memory), err);
	struct err cause;

	if (fd < 0)
		return fd;
	if (memory_file_write(memory, fd, pieces, &cause) < 0)
		return err_set(err, EIO, "snapshot file %s: %s", path, cause.text);
	return fdatasync(fd) < 0 ? err_sys(err, errno, "snapshot file %s", path) : 0;
}

static int write_state(struct control *control, const char *path, const struct state_writer *file,
		       struct err *err)
{
	CLEANUP_FD int fd = creator_create(&control->creator, path, 0, err);
	int rc;

	if (fd < 0)
		return fd;
	rc = fd_write_all(fd, file->data, file->size);
	if (rc == 0 && fdatasync(fd) < 0)
		rc = -errno;
	return rc < 0 ? err_sys(err, -rc, "snapshot file %s", path) : 0;
}

static int write_files(struct control *control, const struct snapshot_create_config *files,
		       const char *config, struct err *err)
{
	CLEANUP_STATE_WRITER struct state_writer state = { 0 };
	CLEANUP_MEMORY_PIECES struct memory_pieces pieces = { 0 };
	int rc = write_memory(control, files->mem_file_path, &pieces, err);

	if (rc == 0)
		rc = save_state(control, config, &pieces, &state, err);
	return rc < 0 ? rc : write_state(control, files->snapshot_path, &state, err);
}

int control_save(struct control *control, const struct snapshot_create_config *files,
		 const char *config, struct err *err)
{
	const int64_t start_ns = clock_ns();
	int rc = control_check(control, CONTROL_OP_SAVE, err);

	if (rc < 0)
		return rc;
	if (files->snapshot_type == SNAPSHOT_DIFF)
		return err_set(err, ENOTSUP, "snapshot_type: there are no diff snapshots yet");
	if (strcmp(files->snapshot_path, files->mem_file_path) == 0)
		return err_set(err, EINVAL, "snapshot_path and mem_file_path are the same file");
	if (control->creator.fd <= 0)
		return err_set(err, ENOTSUP, "snapshots: this VMM was started without an API");
	rc = write_files(control, files, config, err);
	/* An older state goes first, and the new one comes last: where one is, its memory is. */
	if (rc == 0)
		rc = creator_clear(&control->creator, files->snapshot_path, err);
	if (rc == 0)
		rc = creator_keep(&control->creator, files->mem_file_path, err);
	if (rc == 0)
		rc = creator_keep(&control->creator, files->snapshot_path, err);
	if (rc < 0) {
		creator_drop(&control->creator, files->mem_file_path);
		creator_drop(&control->creator, files->snapshot_path);
		return rc;
	}
	control->metrics.latencies.vmm_full_create_snapshot =
		(uint64_t)(clock_ns() - start_ns) / NS_PER_US;
	return 0;
}

int control_check_load(const struct control *control, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_LOAD, err);

	if (rc < 0)
		return rc;
	return control->has_boot_source || control->has_cpu_config || control->has_mmds_config ||
			       control->devices.count > 0
		       ? err_set(err, EBUSY,
				 "Loading a snapshot is not possible after a kernel, a device or "
				 "the CPU has been configured: it has its own")
		       : 0;
}

static int restore_console(struct control *control, struct state_reader *sections, struct err *err)
{
	struct state_section section;
	int rc = snapshot_next(sections, SNAPSHOT_CONSOLE, CONSOLE_RING_STATE_VERSION, &section,
			       err);

	if (rc == 0)
		rc = console_ring_restore(&control->console_ring, &section.body, section.version,
					  err);
	if (rc == 0)
		rc = snapshot_done(&section, err);
	if (rc == 0 && sections->left > 0)
		rc = err_set(err, EINVAL, "there is something after its last section");
	return rc;
}

int control_load(struct control *control, struct state_reader *sections,
		 const struct control_load *load, struct err *err)
{
	const int64_t start_ns = clock_ns();
	int rc = control_create_machine(control, err);

	if (rc == 0)
		rc = control_attach_machine(control, err);
	if (rc == 0)
		rc = machine_restore(&control->machine, load->memory_fd, load->clock_realtime,
				     sections, err);
	if (rc == 0)
		rc = restore_console(control, sections, err);
	if (rc == 0)
		rc = control_begin(control, CONTROL_PAUSED, err);
	if (rc < 0) {
		control_close_machine(control);
		control_forget_config(control);
		return rc;
	}
	control->metrics.latencies.vmm_load_snapshot =
		(uint64_t)(clock_ns() - start_ns) / NS_PER_US;
	return 0;
}
