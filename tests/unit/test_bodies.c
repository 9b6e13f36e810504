/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/config_file.h"
#include "api-socket/resources.h"
#include "base/array.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "tests/unit/images.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/control.h"

#define BOOT "\"boot-source\": {\"kernel_image_path\": \"vmlinux\"}"
#define MACHINE(fields) "{" BOOT ", \"machine-config\": {" fields "}}"
#define SIZED(fields) MACHINE("\"vcpu_count\": 2, \"mem_size_mib\": 256, " fields)
#define SECTION(name, value) "{" BOOT ", \"" name "\": " value "}"

static struct control control;
static struct err err;

static void set_up(void)
{
	struct elf_image elf;

	elf_image_init(&elf);
	write_file("vmlinux", &elf, sizeof(elf));
	write_text("initrd.img", "initrd");
	ck_assert_int_eq(control_open(&control, NULL, NULL), 0);
}

static void tear_down(void)
{
	control_close(&control);
}

static int apply(const char *text)
{
	return config_text_apply(&control, text, strlen(text), "vm.json", &err);
}

static void assert_applies(const char *text)
{
	ck_assert_msg(apply(text) == 0, "%s: %s", text, err.text);
}

START_TEST(whole_configuration_is_applied)
{
	assert_applies("{\"boot-source\": {\"kernel_image_path\": \"vmlinux\","
		       "  \"initrd_path\": \"initrd.img\", \"boot_args\": \"console=ttyS0\"},"
		       " \"machine-config\": {\"vcpu_count\": 4, \"mem_size_mib\": 512,"
		       "  \"smt\": true, \"track_dirty_pages\": true, \"huge_pages\": \"2M\","
		       "  \"cpu_template\": \"None\"},"
		       " \"serial\": {\"serial_out_path\": \"console\"},"
		       " \"logger\": {\"level\": \"Debug\", \"log_path\": \"vm.log\","
		       "  \"show_level\": true, \"show_log_origin\": false, \"module\": \"x\"}}");
	ck_assert(control.has_boot_source);
	ck_assert_str_eq(control.files.initrd_path, "initrd.img");
	ck_assert_str_eq(control.boot_source.boot_args, "console=ttyS0");
	ck_assert_int_eq(control.machine_config.vcpu_count, 4);
	ck_assert_int_eq(control.machine_config.mem_size_mib, 512);
	ck_assert(control.machine_config.smt);
	ck_assert(control.machine_config.track_dirty_pages);
	ck_assert_int_eq(control.machine_config.huge_pages, HUGE_PAGES_2M);
	ck_assert_int_ne(control.serial_fd, 1);
	ck_assert(log_wants(LOG_DEBUG));
}
END_TEST

static const char *const good_configs[] = {
	"{" BOOT "}",
	"  {" BOOT "}\n",
	SIZED("\"smt\": null, \"huge_pages\": null, \"cpu_template\": null"),
	SIZED("\"cpu_template\": \"None\""),
	SIZED("\"cpu_template\": \"T2CL\""),
	SIZED("\"huge_pages\": \"None\""),
	SIZED("\"huge_pages\": \"Transparent\""),
	SIZED("\"huge_pages\": \"2M\""),
	MACHINE("\"vcpu_count\": 1, \"mem_size_mib\": 1"),
	MACHINE("\"vcpu_count\": 32, \"mem_size_mib\": 16777216"),
	"{\"boot-source\": {\"kernel_image_path\": \"vmlinux\", \"initrd_path\": null,"
	" \"boot_args\": null}}",
	SECTION("drives", "[]"),
	SECTION("drives", "null"),
	SECTION("network-interfaces", "[]"),
	SECTION("vsock", "null"),
	SECTION("logger", "null"),
	SECTION("logger", "{}"),
	SECTION("serial", "{}"),
	SECTION("serial", "{\"rate_limiter\": null}"),
};

START_TEST(good_configuration_is_taken)
{
	assert_applies(good_configs[_i]);
	ck_assert(control.has_boot_source);
}
END_TEST

#define DRIVE(more)                                                                                \
	SECTION("drives", "[{\"drive_id\": \"a\", \"path_on_host\": \"vmlinux\", "                 \
			  "\"is_root_device\": true, " more "}]")
#define INTERFACE(more)                                                                            \
	SECTION("network-interfaces",                                                              \
		"[{\"iface_id\": \"eth0\", \"host_dev_name\": \"absent0\", " more "}]")

static const struct {
	const char *text;
	const char *says[2]; /* besides the file's name */
} bad_configs[] = {
	{ "", { "line" } },
	{ "not JSON", { "line 1" } },
	{ "[]", { "object" } },
	{ "7", { "line" } },
	{ "{" BOOT, { "line" } },
	{ "{" BOOT "} {}", { "line" } },
	{ "{" BOOT ", \"boot-source\": {}}", { "duplicate", "boot-source" } },
	{ "{}", { "boot-source", "missing" } },
	{ "{\"boot-source\": null}", { "boot-source" } },
	{ "{\"boot-source\": {}}", { "boot-source", "kernel_image_path" } },
	{ "{\"boot-source\": []}", { "boot-source", "object" } },
	{ "{" BOOT ", \"drives\": [{\"drive_id\": \"a\", \"is_root_device\": false, "
	  "\"rate_limiter\": {\"ops\": {\"size\": \"x\", \"refill_time\": 1}}}]}",
	  { "size", "integer" } },
	{ "{\"boot-source\": {\"kernel_image_path\": 7}}", { "boot-source", "kernel_image_path" } },
	{ "{\"boot-source\": {\"kernel_image_path\": null}}",
	  { "boot-source", "kernel_image_path" } },
	{ "{\"boot-source\": {\"kernel_image_path\": \"a\\u0000b\"}}", { "line" } },
	{ "{\"boot-source\": {\"kernel_image_path\": \"absent\"}}", { "boot-source", "absent" } },
	{ "{\"boot-source\": {\"kernel_image_path\": \"vmlinux\", \"kernel\": 1}}",
	  { "boot-source", "kernel: unknown field" } },
	{ "{\"boot-source\": {\"kernel_image_path\": \"vmlinux\", \"initrd_path\": true}}",
	  { "boot-source", "initrd_path" } },
	{ "{\"boot-source\": {\"kernel_image_path\": \"vmlinux\", \"boot_args\": []}}",
	  { "boot-source", "boot_args" } },
	{ MACHINE(""), { "machine-config", "vcpu_count" } },
	{ MACHINE("\"vcpu_count\": 1"), { "machine-config", "mem_size_mib" } },
	{ MACHINE("\"mem_size_mib\": 128"), { "machine-config", "vcpu_count" } },
	{ MACHINE("\"vcpu_count\": null, \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count" } },
	{ MACHINE("\"vcpu_count\": 0, \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count: 0" } },
	{ MACHINE("\"vcpu_count\": 33, \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count: 33" } },
	{ MACHINE("\"vcpu_count\": -1, \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count: -1" } },
	{ MACHINE("\"vcpu_count\": 1.5, \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count" } },
	{ MACHINE("\"vcpu_count\": \"1\", \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count" } },
	{ MACHINE("\"vcpu_count\": true, \"mem_size_mib\": 128"),
	  { "machine-config", "vcpu_count" } },
	{ MACHINE("\"vcpu_count\": 1, \"mem_size_mib\": 0"),
	  { "machine-config", "mem_size_mib: 0" } },
	{ MACHINE("\"vcpu_count\": 1, \"mem_size_mib\": 9223372036854775807"),
	  { "machine-config", "mem_size_mib" } },
	{ MACHINE("\"vcpu_count\": 1, \"mem_size_mib\": 9223372036854775808"), { "line" } },
	{ MACHINE("\"vcpu_count\": 3, \"mem_size_mib\": 128, \"smt\": true"),
	  { "machine-config", "smt" } },
	{ MACHINE("\"vcpu_count\": 1, \"mem_size_mib\": 129, \"huge_pages\": \"2M\""),
	  { "machine-config", "mem_size_mib" } },
	{ SIZED("\"vcpu_count\": 2"), { "duplicate", "vcpu_count" } },
	{ SIZED("\"smt\": 1"), { "machine-config", "smt" } },
	{ SIZED("\"track_dirty_pages\": \"yes\""), { "machine-config", "track_dirty_pages" } },
	{ SIZED("\"huge_pages\": \"1G\""), { "huge_pages", "None, Transparent, 2M" } },
	{ SIZED("\"huge_pages\": \"2m\""), { "machine-config", "huge_pages" } },
	{ SIZED("\"huge_pages\": 2"), { "machine-config", "huge_pages" } },
	{ SIZED("\"cpu_template\": \"T3\""), { "machine-config", "cpu_template" } },
	{ SIZED("\"cpu_template\": 0"), { "machine-config", "cpu_template" } },
	{ SIZED("\"ht_enabled\": false"), { "machine-config", "ht_enabled: unknown field" } },
	{ SIZED("\"\": 1"), { "machine-config", "unknown field" } },
	{ SECTION("machine-config", "[]"), { "machine-config", "object" } },
	{ SECTION("serial", "{\"serial_out_path\": 1}"), { "serial", "serial_out_path" } },
	{ SECTION("serial", "{\"serial_out_path\": \"absent/x\"}"), { "serial", "absent/x" } },
	{ SECTION("serial", "{\"rate_limiter\": {}}"), { "serial", "rate_limiter" } },
	{ SECTION("serial", "{\"out\": \"x\"}"), { "serial", "out: unknown field" } },
	{ SECTION("logger", "{\"level\": \"Loud\"}"), { "logger", "level" } },
	{ SECTION("logger", "{\"level\": 1}"), { "logger", "level" } },
	{ SECTION("logger", "{\"log_path\": \"absent/x\"}"), { "logger", "absent/x" } },
	{ SECTION("logger", "{\"show_level\": \"true\"}"), { "logger", "show_level" } },
	{ SECTION("logger", "{\"colour\": true}"), { "logger", "colour: unknown field" } },
	{ SECTION("drives", "{}"), { "drives: a list" } },
	{ SECTION("drives", "[7]"), { "drives: entry 1", "object" } },
	{ SECTION("drives", "[{\"drive_id\": \"root\"}]"),
	  { "drives: entry 1", "path_on_host: the field is missing" } },
	{ DRIVE("\"is_read_only\": 1"), { "drives: entry 1", "is_read_only" } },
	{ DRIVE("\"cache_type\": \"writeback\""), { "cache_type", "Unsafe, Writeback" } },
	{ DRIVE("\"io_engine\": \"Fast\""), { "io_engine", "Async, Sync" } },
	{ DRIVE("\"socket\": \"/x\""), { "socket", "not supported" } },
	{ DRIVE("\"size\": 1"), { "drives", "size: unknown field" } },
	{ DRIVE("\"rate_limiter\": 5"), { "rate_limiter", "object" } },
	{ DRIVE("\"rate_limiter\": {\"bandwidth\": {\"size\": 1}}"),
	  { "rate_limiter.bandwidth.refill_time", "missing" } },
	{ DRIVE("\"rate_limiter\": {\"ops\": {\"size\": -1, \"refill_time\": 1}}"),
	  { "rate_limiter.ops.size: -1" } },
	{ DRIVE("\"rate_limiter\": {\"iops\": {}}"), { "rate_limiter.iops: unknown field" } },
	{ SECTION("drives", "[{\"drive_id\": \"a-b\", \"path_on_host\": \"vmlinux\", "
			    "\"is_root_device\": false}]"),
	  { "drives: entry 1", "drive_id" } },
	{ SECTION("drives", "[{\"drive_id\": \"a\", \"path_on_host\": \"absent\", "
			    "\"is_root_device\": false}]"),
	  { "drives: entry 1", "absent" } },
	{ SECTION("network-interfaces", "[{}]"), { "network-interfaces: entry 1", "iface_id" } },
	{ INTERFACE("\"mtu\": 67"), { "mtu: 67" } },
	{ INTERFACE("\"rx_rate_limiter\": []"), { "rx_rate_limiter", "object" } },
	{ INTERFACE("\"guest_mac\": \"01:02:03:04:05:06\""), { "there is no tap device absent0" } },
	{ INTERFACE("\"guest_mac\": \"02:02:03:04:05\""), { "guest_mac" } },
	{ INTERFACE("\"passt_socket\": \"x\""), { "host_dev_name", "either" } },
	{ INTERFACE("\"guest_mac\": \"02:02:03:04:05:06\""), { "there is no tap device absent0" } },
	{ SECTION("vsock", "{\"guest_cid\": 3}"), { "vsock", "uds_path" } },
	{ SECTION("vsock", "{\"guest_cid\": 2, \"uds_path\": \"v.sock\"}"),
	  { "vsock", "guest_cid: 2" } },
	{ SECTION("vsock", "{\"guest_cid\": 4294967295, \"uds_path\": \"v.sock\"}"),
	  { "vsock", "guest_cid" } },
	{ SECTION("vsock", "{\"guest_cid\": 3, \"uds_path\": \"absent/v.sock\"}"),
	  { "vsock", "absent/v.sock" } },
	{ SECTION("metrics", "{\"path\": \"x\"}"), { "metrics" } },
	{ SECTION("mmds-config", "{}"), { "mmds-config", "network_interfaces" } },
	{ SECTION("mmds-config", "{\"network_interfaces\": [1]}"),
	  { "mmds-config", "network_interfaces[0]" } },
	{ SECTION("mmds-config", "{\"network_interfaces\": [\"eth0\"]}"),
	  { "mmds-config", "network_interfaces[0]: there is no network interface eth0" } },
	{ SECTION("cpu-config", "\"x\""), { "cpu-config" } },
	{ SECTION("balloon", "{}"), { "balloon" } },
	{ SECTION("entropy", "{}"), { "entropy" } },
	{ SECTION("pmem", "[{}]"), { "pmem" } },
	{ SECTION("memory-hotplug", "{}"), { "memory-hotplug" } },
	{ SECTION("cpu-config", "\"absent.json\""), { "cpu-config", "absent.json" } },
};

START_TEST(bad_configuration_is_refused_by_section_and_field)
{
	ck_assert_msg(apply(bad_configs[_i].text) < 0, "taken: %s", bad_configs[_i].text);
	assert_contains(err.text, "configuration file vm.json");
	for (size_t i = 0; i < ARRAY_SIZE(bad_configs[_i].says) && bad_configs[_i].says[i]; i++)
		assert_contains(err.text, bad_configs[_i].says[i]);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
	char text[6001];

	memset(text, '[', 3000);
	memset(text + 3000, ']', 3000);
	text[6000] = '\0';
	ck_assert_int_eq(apply(text), -EINVAL);
	assert_contains(err.text, "vm.json");
}
END_TEST

START_TEST(unknown_section_is_ignored)
{
	ck_assert_msg(apply(SECTION("disks", "[]")) == 0, "%s", err.text);
	ck_assert(control.has_boot_source);
}
END_TEST

static void assert_told(const char *expected)
{
	json_t *vm = resources_describe(&control, "x"), *value;
	char told[512] = "";
	const char *name;

	json_object_foreach (vm, name, value) {
		strcat(told, name);
		strcat(told, json_is_null(value) ? "- " : " ");
	}
	ck_assert_str_eq(told, expected);
	json_decref(vm);
}

/* Clients of Firecracker's may compare it as text. */
START_TEST(sections_are_told_in_their_order)
{
	assert_told("boot-source- machine-config cpu-config- drives network-interfaces vsock- "
		    "mmds-config- balloon- entropy- logger- memory-hotplug- metrics- pmem ");
	assert_applies("{" BOOT ", \"serial\": {\"buffer_size\": 4096}, \"cpu-config\": {},"
		       " \"logger\": {\"level\": \"Info\"},"
		       " \"vsock\": {\"guest_cid\": 3, \"uds_path\": \"v.sock\"},"
		       " \"mmds-config\": {\"network_interfaces\": [], \"vsock_port\": 80}}");
	assert_told("boot-source machine-config cpu-config drives network-interfaces vsock "
		    "mmds-config serial balloon- entropy- logger- memory-hotplug- metrics- pmem ");
}
END_TEST

/* What comes first says where the log and the counters of the others go. */
START_TEST(logger_takes_effect_before_what_is_wrong)
{
	ck_assert_int_lt(apply("{" BOOT ", \"machine-config\": 7,"
			       " \"logger\": {\"log_path\": \"vm.log\"}}"),
			 0);
	assert_contains(err.text, "machine-config: ");
	ck_assert_str_eq(control.logger.log_path, "vm.log");
}
END_TEST

START_TEST(failed_reconfiguration_leaves_the_machine_as_it_was)
{
	assert_applies(MACHINE("\"vcpu_count\": 2, \"mem_size_mib\": 256"));
	ck_assert_int_lt(apply(MACHINE("\"vcpu_count\": 3, \"mem_size_mib\": 512, \"smt\": true")),
			 0);
	ck_assert_int_eq(control.machine_config.vcpu_count, 2);
	ck_assert_int_eq(control.machine_config.mem_size_mib, 256);
	ck_assert(!control.machine_config.smt);
}
END_TEST

START_TEST(failed_reconfiguration_leaves_the_boot_source_as_it_was)
{
	assert_applies("{" BOOT "}");
	ck_assert_int_lt(apply("{\"boot-source\": {\"kernel_image_path\": \"absent\"}}"), 0);
	ck_assert(control.has_boot_source);
	ck_assert_str_eq(control.files.kernel.path, "vmlinux");
}
END_TEST

START_TEST(file_is_read_and_applied)
{
	write_text("vm.json", "{" BOOT "}");
	ck_assert_int_eq(config_file_apply(&control, "vm.json", &err), 0);
	ck_assert(control.has_boot_source);
}
END_TEST

static void assert_file_refused(const char *path, int expected)
{
	unsigned int fds = count_open_fds();

	ck_assert_int_eq(config_file_apply(&control, path, &err), expected);
	assert_contains(err.text, path);
	ck_assert_uint_eq(count_open_fds(), fds);
}

START_TEST(missing_file_is_named)
{
	assert_file_refused("absent.json", -ENOENT);
}
END_TEST

START_TEST(directory_is_no_configuration)
{
	assert_file_refused(".", -EINVAL);
}
END_TEST

START_TEST(file_of_more_than_1_mib_is_refused)
{
	static char spaces[(1 << 20) + 1];

	memset(spaces, ' ', sizeof(spaces));
	write_file("large.json", spaces, sizeof(spaces));
	assert_file_refused("large.json", -EINVAL);
}
END_TEST

START_TEST(text_that_is_not_utf8_is_refused)
{
	ck_assert_int_eq(apply("{\"boot-source\": {\"kernel_image_path\": \"\xff\"}}"), -EINVAL);
}
END_TEST

Suite *bodies_suite(void)
{
	Suite *suite = SUITE(
		"bodies", set_up, tear_down, whole_configuration_is_applied,
		deep_nesting_is_refused, unknown_section_is_ignored,
		sections_are_told_in_their_order, logger_takes_effect_before_what_is_wrong,
		failed_reconfiguration_leaves_the_machine_as_it_was,
		failed_reconfiguration_leaves_the_boot_source_as_it_was, file_is_read_and_applied,
		missing_file_is_named, directory_is_no_configuration,
		file_of_more_than_1_mib_is_refused, text_that_is_not_utf8_is_refused);

	add_table_test(suite, set_up, tear_down, good_configuration_is_taken,
		       ARRAY_SIZE(good_configs));
	add_table_test(suite, set_up, tear_down, bad_configuration_is_refused_by_section_and_field,
		       ARRAY_SIZE(bad_configs));
	return suite;
}
