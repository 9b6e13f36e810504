/* SPDX-License-Identifier: Apache-2.0 */
/* A VM to the files of a snapshot, and back. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
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

static int write_memory(const struct control *control, int fd, const char *path,
			struct memory_pieces *pieces, struct err *err)
{
	struct err cause;

	if (memory_file_write(&control->machine.memory, fd, pieces, &cause) < 0)
		return err_set(err, EIO, "snapshot file %s: %s", path, cause.text);
	return fdatasync(fd) < 0 ? err_sys(err, errno, "snapshot file %s", path) : 0;
}

static int write_state(int fd, const char *path, const struct state_writer *file, struct err *err)
{
	int rc = fd_write_all(fd, file->data, file->size);

	if (rc == 0 && fdatasync(fd) < 0)
		rc = -errno;
	return rc < 0 ? err_sys(err, -rc, "snapshot file %s", path) : 0;
}

/* A device, say, would have a file in its place. */
static int check_place(const char *path, struct err *err)
{
	const size_t size = strlen(path), suffix_size = strlen(CREATOR_SUFFIX);
	struct stat st;

	if (size > suffix_size && strcmp(path + size - suffix_size, CREATOR_SUFFIX) == 0)
		return err_set(err, EINVAL,
			       "snapshot file %s: its name is one of files that are not whole "
			       "yet, which end with " CREATOR_SUFFIX,
			       path);
	/* What else is wrong shows when the file is created. */
	if (lstat(path, &st) < 0 || S_ISREG(st.st_mode))
		return 0;
	return err_set(err, EEXIST, "snapshot file %s: something is there that is no regular file",
		       path);
}

static int same_file(struct err *err)
{
	return err_set(err, EINVAL, "snapshot_path and mem_file_path are the same file");
}

/* Both are there before anything is written, as what is wrong shows at once. */
static int create_files(struct control *control, const struct snapshot_create_config *files,
			int *memory_fd, int *state_fd, struct err *err)
{
	*memory_fd = creator_create(&control->creator, files->mem_file_path,
				    memory_file_size(&control->machine.memory), err);
	if (*memory_fd < 0)
		return *memory_fd;
	*state_fd = creator_create(&control->creator, files->snapshot_path, 0, err);
	/* By two names of one file. */
	if (*state_fd == -EBUSY)
		return same_file(err);
	return *state_fd < 0 ? *state_fd : 0;
}

/*
 * The state comes last, and one of before goes first: where it is, its memory is, at whichever step
 * all of this ends.
 */
static int put_in_place(struct control *control, const struct snapshot_create_config *files,
			struct err *err)
{
	int rc = creator_clear(&control->creator, files->snapshot_path, err);

	if (rc == 0)
		rc = creator_keep(&control->creator, files->mem_file_path, err);
	return rc < 0 ? rc : creator_keep(&control->creator, files->snapshot_path, err);
}

static int write_files(struct control *control, const struct snapshot_create_config *files,
		       const char *config, struct err *err)
{
	CLEANUP_STATE_WRITER struct state_writer state = { 0 };
	CLEANUP_MEMORY_PIECES struct memory_pieces pieces = { 0 };
	CLEANUP_FD int memory_fd = -1;
	CLEANUP_FD int state_fd = -1;
	int rc = create_files(control, files, &memory_fd, &state_fd, err);

	if (rc == 0)
		rc = write_memory(control, memory_fd, files->mem_file_path, &pieces, err);
	if (rc == 0)
		rc = save_state(control, config, &pieces, &state, err);
	if (rc == 0)
		rc = write_state(state_fd, files->snapshot_path, &state, err);
	if (rc == 0)
		rc = put_in_place(control, files, err);
	if (rc < 0) {
		creator_drop(&control->creator, files->mem_file_path);
		creator_drop(&control->creator, files->snapshot_path);
	}
	return rc;
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
		return same_file(err);
	if (control->creator.fd <= 0)
		return err_set(err, ENOTSUP, "snapshots: this VMM was started without an API");
	rc = check_place(files->snapshot_path, err);
	if (rc == 0)
		rc = check_place(files->mem_file_path, err);
	if (rc == 0)
		rc = write_files(control, files, config, err);
	if (rc == 0)
		control->metrics.latencies.vmm_full_create_snapshot =
			(uint64_t)(clock_ns() - start_ns) / NS_PER_US;
	return rc;
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
