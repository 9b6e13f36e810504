/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api-socket/bodies.h"
#include "api-socket/resources.h"
#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/block/block.h"
#include "virtio/net/net.h"
#include "vmm/control.h"
#include "vmm/kvm/vcpu.h"
#include "json/parse.h"

#define OUTPUT "metrics"

static struct metrics metrics;
static struct err err;
static unsigned int fds_before;
static char buffer[METRICS_TEXT_SIZE];

static void set_up(void)
{
	unlink(OUTPUT);
	fds_before = count_open_fds();
	metrics_open(&metrics);
}

static void tear_down(void)
{
	metrics_close(&metrics);
	ck_assert_uint_eq(count_open_fds(), fds_before);
}

static int set_output(const char *path)
{
	struct metrics_config config = { .metrics_path = strdup(path) };
	int rc = metrics_set_output(&metrics, &config, &err);

	ck_assert(rc < 0 || !config.metrics_path);
	metrics_config_free(&config);
	return rc;
}

/* Line `number` of the output, parsed; NULL if there are not so many. */
static json_t *line(unsigned int number)
{
	char *text = read_text(OUTPUT);
	char *at = text;
	json_t *object;

	for (; number > 0 && at; number--) {
		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
	}
	if (!at || !*at) {
		free(text);
		return NULL;
	}
	ck_assert_ptr_nonnull(strchr(at, '\n'));
	*strchr(at, '\n') = '\0';
	object = json_loads(at, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_msg(object != NULL, "not JSON: %s", at);
	free(text);
	return object;
}

static long long in(const json_t *object, const char *group, const char *name)
{
	const json_t *value = json_object_get(json_object_get(object, group), name);

	ck_assert_msg(json_is_integer(value), "no %s.%s", group, name);
	return json_integer_value(value);
}

static long long in_line(unsigned int number, const char *group, const char *name)
{
	json_t *object = line(number);
	long long value;

	ck_assert_msg(object != NULL, "no line %u", number);
	value = in(object, group, name);
	json_decref(object);
	return value;
}

static long long total(const char *group, const char *name)
{
	json_t *object;
	long long value;
	int size = metrics_json(&metrics, buffer, sizeof(buffer));

	ck_assert_int_eq(size, (int)strlen(buffer));
	object = json_loads(buffer, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_ptr_nonnull(object);
	value = in(object, group, name);
	json_decref(object);
	return value;
}

START_TEST(line_tells_what_came_since_the_last)
{
	struct block_metrics one = { .read_bytes = 4096, .read_count = 1 };
	struct block_metrics other = { .read_bytes = 512 };

	ck_assert_int_eq(set_output(OUTPUT), 0);
	metrics_add(&metrics, METRICS_BLOCK, "rootfs", &one, 1, 0);
	metrics_add(&metrics, METRICS_BLOCK, "data", &other, 1, 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	one.read_bytes += 1024;
	one.read_count++;
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(in_line(0, "block_rootfs", "read_bytes"), 4096);
	ck_assert_int_eq(in_line(0, "block_data", "read_bytes"), 512);
	ck_assert_int_eq(in_line(0, "block", "read_bytes"), 4608);
	ck_assert_int_eq(in_line(1, "block_rootfs", "read_bytes"), 1024);
	ck_assert_int_eq(in_line(1, "block_rootfs", "read_count"), 1);
	ck_assert_int_eq(in_line(1, "block_data", "read_bytes"), 0);
	ck_assert_int_eq(in_line(1, "block", "read_bytes"), 1024);
	ck_assert_int_eq(in_line(2, "block_rootfs", "read_bytes"), 0);
	ck_assert_ptr_null(line(3));
	ck_assert_int_eq(total("block", "read_bytes"), 5632);
	ck_assert_int_eq(total("block_rootfs", "read_bytes"), 5120);
}
END_TEST

START_TEST(asking_for_totals_does_not_change_the_next_line)
{
	ck_assert_int_eq(set_output(OUTPUT), 0);
	metrics.put_requests.drive_count = 3;
	ck_assert_int_eq(total("put_api_requests", "drive_count"), 3);
	ck_assert_int_gt(metrics_prometheus(&metrics, buffer, sizeof(buffer)), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(in_line(0, "put_api_requests", "drive_count"), 3);
}
END_TEST

START_TEST(values_are_told_as_they_are)
{
	ck_assert_int_eq(set_output(OUTPUT), 0);
	metrics.api_server.process_startup_time_us = 1500;
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(in_line(1, "api_server", "process_startup_time_us"), 1500);
}
END_TEST

START_TEST(processors_are_added_up)
{
	struct vcpu vcpus[3] = { { .metrics.exit_io_out = 1 },
				 { .metrics.exit_io_out = 10 },
				 { .metrics.exit_io_out = 100 } };

	metrics_add(&metrics, METRICS_VCPU, NULL, &vcpus[0].metrics, 3, sizeof(vcpus[0]));
	ck_assert_int_eq(total("vcpu", "exit_io_out"), 111);
}
END_TEST

/* Also of what the VM does not have. */
START_TEST(every_group_is_there)
{
	json_t *object;

	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	object = line(0);
	for (unsigned int i = 0; i < METRICS_GROUPS; i++)
		ck_assert_msg(json_is_object(json_object_get(object, metrics_groups[i].name)), "%s",
			      metrics_groups[i].name);
	ck_assert_int_gt(json_integer_value(json_object_get(object, "utc_timestamp_ms")),
			 1600000000000);
	json_decref(object);
}
END_TEST

/* A validator of Firecracker's lines takes no field more, and none less. */
START_TEST(line_is_firecrackers_and_totals_are_what_is_counted)
{
	struct block_metrics one = { .engine_sync_count = 7 };
	json_t *object, *block;

	metrics_add(&metrics, METRICS_BLOCK, "a", &one, 1, 0);
	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	object = line(0);
	block = json_object_get(object, "block_a");
	ck_assert_ptr_null(json_object_get(block, "engine_sync_count"));
	ck_assert_int_eq(in(block, "read_agg", "sum_us"), 0);
	ck_assert_int_eq(in(object, "balloon", "inflate_count"), 0);
	ck_assert_ptr_null(json_object_get(object, "id"));
	ck_assert_ptr_null(json_object_get(object, "properties"));
	json_decref(object);
	ck_assert_int_eq(total("block_a", "engine_sync_count"), 7);
	object = json_loads(buffer, 0, NULL);
	ck_assert_ptr_null(json_object_get(object, "balloon"));
	ck_assert_ptr_null(json_object_get(json_object_get(object, "block_a"), "read_agg"));
	json_decref(object);
	ck_assert_int_gt(metrics_prometheus(&metrics, buffer, sizeof(buffer)), 0);
	ck_assert_ptr_null(strstr(buffer, "balloon"));
	assert_contains(buffer, "mote_block_engine_sync_count_total{drive=\"a\"} 7\n");
}
END_TEST

START_TEST(lines_have_the_labels_asked_for)
{
	struct metrics_config config = { .metrics_path = strdup(OUTPUT),
					 .emit_id = true,
					 .properties = strdup("{\"of\":\"me\"}") };
	json_t *object;

	metrics.id = "one";
	ck_assert_int_eq(metrics_set_output(&metrics, &config, &err), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	metrics_fatal(&metrics, SIGILL);
	for (unsigned int i = 0; i < 2; i++) {
		const json_t *properties;

		object = line(i);
		properties = json_object_get(object, "properties");
		ck_assert_str_eq(json_string_value(json_object_get(object, "id")), "one");
		ck_assert_str_eq(json_string_value(json_object_get(properties, "of")), "me");
		json_decref(object);
	}
}
END_TEST

START_TEST(tables_fit)
{
	for (unsigned int i = 0; i < METRICS_GROUPS; i++) {
		unsigned int fields = 0;

		while (metrics_groups[i].table[fields].name)
			fields++;
		ck_assert_uint_gt(fields, 0);
		ck_assert_uint_le(fields, METRICS_FIELDS_MAX);
	}
}
END_TEST

/* The most that a VM can have, with the longest ids and numbers. */
static void add_most(const struct net_metrics *counters)
{
	char id[CONFIG_ID_SIZE_MAX + 1];

	memset(id, 'x', CONFIG_ID_SIZE_MAX);
	id[CONFIG_ID_SIZE_MAX] = '\0';
	for (unsigned int i = 0; i < LAYOUT_VIRTIO_MAX; i++) {
		id[CONFIG_ID_SIZE_MAX - 1] = (char)('a' + i);
		metrics_add(&metrics, METRICS_NET, id, counters, 1, 0);
	}
}

START_TEST(everything_fits_into_the_buffer)
{
	static struct net_metrics counters;
	int size;

	memset(&counters, 0xff, sizeof(counters));
	add_most(&counters);
	for (unsigned int i = 0; i < METRICS_OBJECTS_MAX; i++)
		metrics_add(&metrics, METRICS_VSOCK, NULL, &counters, 1, 0);
	ck_assert_uint_eq(metrics.object_count, METRICS_OBJECTS_MAX);
	size = metrics_json(&metrics, buffer, sizeof(buffer));
	ck_assert_int_gt(size, 20000);
	size = metrics_prometheus(&metrics, buffer, sizeof(buffer));
	ck_assert_int_gt(size, 40000);
	ck_assert_int_eq(size, (int)strlen(buffer));
	ck_assert_int_eq(metrics_prometheus(&metrics, buffer, (size_t)size + 1), size);
	ck_assert_int_eq(metrics_prometheus(&metrics, buffer, (size_t)size), -ENOBUFS);
	ck_assert_int_eq(metrics_json(&metrics, buffer, 1000), -ENOBUFS);
	ck_assert_uint_lt(strlen(buffer), 1000);
}
END_TEST

/* https://prometheus.io/docs/instrumenting/exposition_formats/ */
START_TEST(prometheus_text_is_well_formed)
{
	static const char sample[] =
		"^([a-z_0-9]+)(\\{[a-z]+=\"[A-Za-z0-9_]+\"\\})? (0|[1-9][0-9]*)$";
	const struct block_metrics one = { .read_bytes = 123 }, other = { .read_bytes = 456 };
	char family[100] = "", *save = NULL;
	unsigned int samples = 0;
	regmatch_t match[4];
	regex_t regex;

	metrics_add(&metrics, METRICS_BLOCK, "rootfs", &one, 1, 0);
	metrics_add(&metrics, METRICS_BLOCK, "data", &other, 1, 0);
	ck_assert_int_gt(metrics_prometheus(&metrics, buffer, sizeof(buffer)), 0);
	assert_contains(buffer, "# TYPE mote_block_read_bytes_total counter\n"
				"mote_block_read_bytes_total{drive=\"rootfs\"} 123\n"
				"mote_block_read_bytes_total{drive=\"data\"} 456\n"
				"# TYPE ");
	assert_contains(buffer, "# TYPE mote_api_server_process_startup_time_us gauge\n"
				"mote_api_server_process_startup_time_us 0\n");
	ck_assert_int_eq(buffer[strlen(buffer) - 1], '\n');
	ck_assert_int_eq(regcomp(&regex, sample, REG_EXTENDED), 0);
	for (char *at = strtok_r(buffer, "\n", &save); at; at = strtok_r(NULL, "\n", &save)) {
		if (strncmp(at, "# TYPE ", 7) == 0) {
			ck_assert_int_eq(sscanf(at + 7, "%99s", family), 1);
			continue;
		}
		ck_assert_msg(regexec(&regex, at, 4, match, 0) == 0, "%s", at);
		ck_assert_uint_eq((size_t)match[1].rm_eo, strlen(family));
		ck_assert_int_eq(strncmp(at, family, strlen(family)), 0);
		samples++;
	}
	ck_assert_uint_gt(samples, 50);
	regfree(&regex);
}
END_TEST

START_TEST(output_is_private_and_appended_to)
{
	struct stat st;

	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(stat(OUTPUT, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	metrics_close(&metrics);
	metrics_open(&metrics);
	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	(void)in_line(1, "vmm", "panic_count");
}
END_TEST

START_TEST(second_output_is_refused)
{
	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(set_output("another"), -EEXIST);
	assert_contains(err.text, "metrics_path");
	assert_contains(err.text, OUTPUT);
	ck_assert_int_ne(access("another", F_OK), 0);
}
END_TEST

START_TEST(output_that_cannot_be_opened_is_named)
{
	ck_assert_int_eq(set_output("absent/metrics"), -ENOENT);
	assert_contains(err.text, "metrics_path absent/metrics: No such file or directory");
	ck_assert_int_eq(set_output("."), -EISDIR);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(set_output(OUTPUT), 0);
}
END_TEST

/* Room for a line, and not for many. */
static int open_fifo(void)
{
	int fd;

	ck_assert_int_eq(mkfifo(OUTPUT, 0600), 0);
	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(fcntl(metrics.fd, F_SETPIPE_SZ, 8192), 8192);
	fd = open(OUTPUT, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static size_t drain(int fd, char *text, size_t used)
{
	ssize_t n;

	while ((n = read(fd, text + used, METRICS_TEXT_SIZE - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = '\0';
	return used;
}

START_TEST(fifo_without_room_loses_no_counts)
{
	static char text[METRICS_TEXT_SIZE];
	json_t *object;
	long long sum = 0;
	size_t used = 0;
	int fd = open_fifo();
	int missed = 0;

	for (unsigned int i = 0; i < 20; i++) {
		metrics.put_requests.drive_count++;
		if (metrics_write(&metrics) == -EAGAIN)
			missed++;
	}
	ck_assert_int_gt(missed, 10);
	ck_assert_uint_eq(metrics.logger.missed_metrics_count, (uint64_t)missed);
	used = drain(fd, text, used);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	used = drain(fd, text, used);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	used = drain(fd, text, used);
	ck_assert_uint_gt(used, 4096);
	for (char *save = NULL, *at = strtok_r(text, "\n", &save); at;
	     at = strtok_r(NULL, "\n", &save)) {
		object = json_loads(at, JSON_REJECT_DUPLICATES, NULL);
		ck_assert_msg(object != NULL, "not a whole line: %s", at);
		sum += in(object, "put_api_requests", "drive_count");
		json_decref(object);
	}
	ck_assert_int_eq(sum, 20);
	close(fd);
}
END_TEST

START_TEST(output_that_fails_is_counted)
{
	ck_assert_int_eq(set_output("/dev/full"), 0);
	metrics.put_requests.drive_count = 3;
	ck_assert_int_eq(metrics_write(&metrics), -ENOSPC);
	ck_assert_uint_eq(metrics.logger.metrics_fails, 1);
	ck_assert_uint_eq(metrics.logger.missed_metrics_count, 0);
}
END_TEST

START_TEST(fatal_signal_is_in_the_last_line)
{
	ck_assert_int_eq(set_output(OUTPUT), 0);
	metrics.put_requests.drive_count = 3;
	ck_assert_int_eq(metrics_write(&metrics), 0);
	metrics.put_requests.drive_count = 4;
	metrics_fatal(&metrics, SIGSEGV);
	ck_assert_int_eq(in_line(1, "put_api_requests", "drive_count"), 1);
	ck_assert_int_eq(in_line(1, "signals", "sigsegv"), 1);
	ck_assert_int_eq(in_line(1, "signals", "sigbus"), 0);
	metrics_fatal(&metrics, SIGSYS);
	ck_assert_int_eq(in_line(2, "seccomp", "num_faults"), 1);
}
END_TEST

/* It may come while the main thread is between two writes of a line. */
START_TEST(fatal_signal_begins_a_new_line)
{
	ck_assert_int_eq(set_output(OUTPUT), 0);
	ck_assert_int_eq(metrics_write(&metrics), 0);
	ck_assert_int_eq(truncate(OUTPUT, 100), 0);
	metrics.line_written = 100;
	metrics_fatal(&metrics, SIGBUS);
	ck_assert_int_eq(in_line(1, "signals", "sigbus"), 1);
}
END_TEST

START_TEST(fatal_signal_without_an_output_is_only_counted)
{
	metrics_fatal(&metrics, SIGILL);
	ck_assert_int_eq(total("signals", "sigill"), 1);
}
END_TEST

static int apply(struct control *control, const char *text)
{
	json_t *body = parse_object(text, strlen(text), "body", &err);
	int rc = body ? body_apply(&body_metrics, control, body, &err) : -EINVAL;

	json_decref(body);
	return rc;
}

START_TEST(control_takes_an_output_before_the_start_only)
{
	struct control control;

	ck_assert_int_eq(control_open(&control, NULL, &err), 0);
	ck_assert_int_eq(control_flush_metrics(&control, &err), -EBUSY);
	ck_assert_int_eq(apply(&control, "{}"), -EINVAL);
	assert_contains(err.text, "metrics_path: the field is missing");
	ck_assert_int_eq(apply(&control, "{\"metrics_path\": 1}"), -EINVAL);
	ck_assert_int_eq(apply(&control, "{\"metrics_path\": \"x\", \"emit_id\": 1}"), -EINVAL);
	ck_assert_int_eq(apply(&control, "{\"metrics_path\": \"x\", \"properties\": {\"a\": 1}}"),
			 -EINVAL);
	assert_contains(err.text, "properties.a: a string is expected");
	control.state = CONTROL_RUNNING;
	ck_assert_int_eq(apply(&control, "{\"metrics_path\": \"" OUTPUT "\"}"), -EBUSY);
	ck_assert_int_ne(access(OUTPUT, F_OK), 0);
	control.state = CONTROL_NOT_STARTED;
	ck_assert_int_eq(apply(&control, "{\"metrics_path\": \"" OUTPUT "\"}"), 0);
	ck_assert_int_eq(apply(&control, "{\"metrics_path\": \"" OUTPUT "\"}"), -EEXIST);
	control.state = CONTROL_PAUSED;
	ck_assert_int_eq(control_flush_metrics(&control, &err), 0);
	(void)in_line(0, "vmm", "panic_count");
	control_close(&control);
}
END_TEST

static void count_request(enum http_method method, const char *path, bool failed)
{
	struct meaning meaning;

	(void)resources_find(&meaning, method, path, &err);
	operation_count(meaning.operation, &metrics, failed);
}

START_TEST(requests_are_counted_by_their_path)
{
	static const struct {
		enum http_method method;
		const char *path;
		const char *group;
		const char *counter;
		const char *fails;
	} requests[] = {
		{ HTTP_GET, "/", "get_api_requests", "instance_info_count" },
		{ HTTP_GET, "/version", "get_api_requests", "vmm_version_count" },
		{ HTTP_GET, "/machine-config", "get_api_requests", "machine_cfg_count" },
		{ HTTP_PUT, "/actions", "put_api_requests", "actions_count", "actions_fails" },
		{ HTTP_PUT, "/drives/a", "put_api_requests", "drive_count", "drive_fails" },
		{ HTTP_PUT, "/cpu-config", "put_api_requests", "cpu_cfg_count", "cpu_cfg_fails" },
		{ HTTP_PATCH, "/drives/a", "patch_api_requests", "drive_count", "drive_fails" },
		{ HTTP_PATCH, "/network-interfaces/a", "patch_api_requests", "network_count",
		  "network_fails" },
	};

	count_request(HTTP_GET, "/nowhere", true);
	count_request(HTTP_PUT, "/drives", true);
	count_request(HTTP_DELETE, "/drives/a", false);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		ck_assert_int_eq(total(requests[i].group, requests[i].counter), 0);
		count_request(requests[i].method, requests[i].path, false);
		count_request(requests[i].method, requests[i].path, true);
		ck_assert_int_eq(total(requests[i].group, requests[i].counter), 2);
		if (requests[i].fails)
			ck_assert_int_eq(total(requests[i].group, requests[i].fails), 1);
	}
}
END_TEST

START_TEST(request_with_a_bad_id_is_counted_as_failed)
{
	static const char *const paths[] = { "/drives/", "/drives/a/b" };

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct meaning meaning;

		ck_assert_int_eq(resources_find(&meaning, HTTP_PUT, paths[i], &err), -ENOENT);
		operation_count(meaning.operation, &metrics, true);
		ck_assert_int_eq(total("put_api_requests", "drive_fails"), (int)i + 1);
	}
}
END_TEST

Suite *metrics_suite(void)
{
	return SUITE("metrics", set_up, tear_down, line_tells_what_came_since_the_last,
		     asking_for_totals_does_not_change_the_next_line, values_are_told_as_they_are,
		     processors_are_added_up, requests_are_counted_by_their_path,
		     request_with_a_bad_id_is_counted_as_failed, every_group_is_there,
		     line_is_firecrackers_and_totals_are_what_is_counted,
		     lines_have_the_labels_asked_for, tables_fit, everything_fits_into_the_buffer,
		     prometheus_text_is_well_formed, output_is_private_and_appended_to,
		     second_output_is_refused, output_that_cannot_be_opened_is_named,
		     fifo_without_room_loses_no_counts, output_that_fails_is_counted,
		     fatal_signal_is_in_the_last_line, fatal_signal_begins_a_new_line,
		     fatal_signal_without_an_output_is_only_counted,
		     control_takes_an_output_before_the_start_only);
}
