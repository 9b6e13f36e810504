/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of each version of the format that there was, up to where KVM comes in: what a section has
 * must not change without its version.
 */
#include <errno.h>
#include <event2/event.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api-socket/config_file.h"
#include "base/err.h"
#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/core/mmio.h"
#include "vmm/control.h"
#include "vmm/kvm/cpuid_check.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/kvm/vm_state.h"
#include "vmm/snapshot/format.h"
#include "vmm/snapshot/memory.h"
#include "json/parse.h"

/* Where the tests are built, which need not be where they run. */
__asm__(".section .rodata\n"
	"format_1: .incbin \"tests/snapshots/format-1\"\n"
	"format_1_end:\n"
	".previous\n");
extern const uint8_t format_1[], format_1_end[];

/* What a section of KVM's has after CPUID: its own code reads it, as the guests' tests see. */
#define VM_SIZE 316u

static struct control control;
static struct guest_memory memory;
static struct event_base *base;
static struct err err;
static int passt = -1;

static void listen_as_passt(void)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "passt" };

	passt = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(passt, 0);
	ck_assert_int_eq(bind(passt, (const struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(passt, 1), 0);
}

static void set_up(void)
{
	write_text("scratch", "");
	ck_assert_int_eq(truncate("scratch", MIB(1)), 0);
	listen_as_passt();
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	open_guest_memory(&memory, MIB(16));
	ck_assert_int_eq(control_open(&control, base, &err), 0);
}

static void tear_down(void)
{
	for (unsigned int i = 0; i < control.devices.count; i++)
		(void)virtio_device_detach(control.devices.list[i].virtio, 0);
	control_close(&control);
	guest_memory_close(&memory);
	event_base_free(base);
	close(passt);
	unlink("passt");
	unlink("scratch");
}

static void configure(const struct state_section *section)
{
	json_t *config =
		parse_object((const char *)section->body.at, section->body.left, "config", &err);

	ck_assert_msg(config != NULL, "%s", err.text);
	ck_assert_msg(config_apply(&control, config, false, "", &err) == 0, "%s", err.text);
	json_decref(config);
}

static struct state_section next(struct state_reader *sections, enum snapshot_section kind)
{
	struct state_section section;

	/* Of whatever version this program writes. */
	ck_assert_msg(snapshot_next(sections, kind, UINT32_MAX, &section, &err) == 0, "%s",
		      err.text);
	ck_assert_uint_eq(section.version, 1);
	return section;
}

static void check_done(const struct state_section *section, int rc)
{
	ck_assert_msg(rc == 0, "%s", err.text);
	ck_assert_msg(snapshot_done(section, &err) == 0, "%s", err.text);
}

static void restore_devices(struct state_reader *sections)
{
	for (unsigned int i = 0; i < control.devices.count; i++) {
		struct virtio_device *device = control.devices.list[i].virtio;
		struct virtio_mmio mmio = { .device = device };
		struct state_section section = next(sections, SNAPSHOT_VIRTIO);

		ck_assert_int_eq(
			virtio_device_attach(device, &(struct virtio_host){ &memory, base }, &err),
			0);
		check_done(&section, virtio_mmio_restore(&mmio, &section.body, &err));
		ck_assert(device->frozen);
		/* The drive's driver was at work; the others' were not there. */
		ck_assert_uint_eq(device->status,
				  control.devices.list[i].kind == DEVICE_DRIVE ? 15 : 0);
	}
}

/* Of a file of nothing but zeros: what was in it is not kept. */
static int map_memory(struct state_reader *pieces)
{
	int fd = memfd_create("memory", MFD_CLOEXEC), rc;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)memory_file_size(&memory)), 0);
	rc = memory_file_map(&memory, fd, pieces, &err);
	close(fd);
	return rc;
}

static void check_vcpu(struct state_section section)
{
	static union cpuid_table table;
	const struct state_codec codec = { .in = &section.body };

	cpuid_code(&codec, &table);
	ck_assert(!section.body.failed);
	ck_assert_uint_gt(table.kvm.nent, 10);
	ck_assert_int_eq(cpuid_compare(&table, &table, &err), 0);
}

START_TEST(format_1_loads)
{
	const size_t size = (size_t)(format_1_end - format_1);
	struct state_reader sections;
	struct state_section section;
	struct serial serial;
	struct i8042 i8042 = { 0 };

	ck_assert_msg(snapshot_check(format_1, size, &sections, &err) == 0, "%s", err.text);
	section = next(&sections, SNAPSHOT_CONFIG);
	configure(&section);
	ck_assert_uint_eq(control.devices.count, 3);
	section = next(&sections, SNAPSHOT_MACHINE);
	ck_assert_uint_eq(state_get_u64(&section.body), MIB(16));
	ck_assert_uint_eq(state_get_u32(&section.body), 1);
	ck_assert_uint_eq(state_get_u32(&section.body), 3);
	check_done(&section, 0);
	section = next(&sections, SNAPSHOT_MEMORY);
	ck_assert_uint_gt(section.body.left, 0);
	check_done(&section, map_memory(&section.body));
	check_vcpu(next(&sections, SNAPSHOT_VCPU));
	ck_assert_uint_eq(next(&sections, SNAPSHOT_VM).body.left, VM_SIZE);
	section = next(&sections, SNAPSHOT_SERIAL);
	ck_assert_int_eq(serial_open(&serial, -1, &err), 0);
	check_done(&section, serial_restore(&serial, &section.body, section.version, &err));
	serial_close(&serial);
	section = next(&sections, SNAPSHOT_I8042);
	ck_assert_int_eq(i8042_open(&i8042, &err), 0);
	check_done(&section, i8042_restore(&i8042, &section.body, section.version, &err));
	i8042_close(&i8042);
	restore_devices(&sections);
	section = next(&sections, SNAPSHOT_CONSOLE);
	check_done(&section, console_ring_restore(&control.console_ring, &section.body,
						  section.version, &err));
	ck_assert_uint_eq(sections.left, 0);
}
END_TEST

Suite *snapshot_files_suite(void)
{
	return SUITE("snapshot_files", set_up, tear_down, format_1_loads);
}
