/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/control.h from C, with guests on /dev/kvm: what no command line reaches yet. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "vmm/control.h"

#define COUNTER 0x8000

static struct event_base *base;
static struct control control;
static struct vm_end seen_end;
static struct err err;

static void on_ended(void *opaque, const struct vm_end *end)
{
	(void)opaque;
	seen_end = *end;
}

/* Standard input may be what epoll refuses; that is not what is tested. */
static void ignore_libevent(int severity, const char *text)
{
	(void)severity;
	(void)text;
}

static void set_up(void)
{
	log_set_level(LOG_ERROR);
	event_set_log_callback(ignore_libevent);
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	ck_assert_int_eq(control_open(&control, base, &err), 0);
	control.ended = on_ended;
	seen_end.kind = VM_END_NONE;
}

static void tear_down(void)
{
	control_close(&control);
	event_base_free(base);
}

static void configure(const char *guest, int vcpus)
{
	char path[64];
	struct boot_source_config source = { 0 };
	const struct machine_config machine = { .vcpu_count = vcpus, .mem_size_mib = 16 };

	snprintf(path, sizeof(path), "build/guests/%s", guest);
	source.kernel_image_path = strdup(path);
	ck_assert_msg(control_set_boot_source(&control, &source, &err) == 0, "%s", err.text);
	ck_assert_msg(control_set_machine(&control, &machine, &err) == 0, "%s", err.text);
}

static void start(const char *guest, int vcpus)
{
	configure(guest, vcpus);
	ck_assert_msg(control_start(&control, &err) == 0, "%s", err.text);
}

static uint64_t counter(void)
{
	const volatile uint64_t *at = guest_memory_range(&control.machine.memory, COUNTER, 8);

	return *at;
}

static void wait_for_counter_above(uint64_t value)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	/* The guest announces nothing; check's time limit ends a wait in vain. */
	while (counter() <= value)
		nanosleep(&pause, NULL);
}

static int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

START_TEST(paused_guest_stands_still)
{
	const struct timespec while_paused = { .tv_nsec = 20000000 };
	uint64_t at;

	start("counter", 1);
	wait_for_counter_above(0);
	ck_assert_int_eq(control_pause(&control, &err), 0);
	at = counter();
	nanosleep(&while_paused, NULL);
	ck_assert_uint_eq(counter(), at);
	ck_assert_str_eq(control_state_name(&control), "Paused");
	ck_assert_int_eq(control_resume(&control, &err), 0);
	wait_for_counter_above(at);
}
END_TEST

START_TEST(pausing_often_loses_no_io)
{
	start("counter", 1);
	for (int i = 0; i < 300; i++) {
		uint64_t at = counter();

		wait_for_counter_above(at);
		ck_assert_int_eq(control_pause(&control, &err), 0);
		ck_assert_int_eq(control_resume(&control, &err), 0);
	}
	wait_for_counter_above(counter());
}
END_TEST

START_TEST(halted_and_waiting_vcpus_pause_and_resume)
{
	start("ends-halt", 4);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(control_pause(&control, &err), 0);
		ck_assert_int_eq(control_resume(&control, &err), 0);
	}
}
END_TEST

START_TEST(stop_tells_why)
{
	start("counter", 1);
	ck_assert_int_eq(control_stop(&control, "the test wants it", &err), 0);
	event_base_dispatch(base);
	ck_assert_int_eq(seen_end.kind, VM_END_STOPPED);
	ck_assert_str_eq(seen_end.text, "Stopped from the host: the test wants it");
	ck_assert_int_lt(control_pause(&control, &err), 0);
}
END_TEST

START_TEST(stop_while_paused)
{
	start("counter", 2);
	ck_assert_int_eq(control_pause(&control, &err), 0);
	ck_assert_int_eq(control_stop(&control, "enough", &err), 0);
	event_base_dispatch(base);
	ck_assert_int_eq(seen_end.kind, VM_END_STOPPED);
}
END_TEST

START_TEST(close_of_a_running_vm_leaves_nothing_open)
{
	int before = open_descriptors();

	start("ends-spin", 2);
	control_close(&control);
	ck_assert_int_eq(control_open(&control, base, &err), 0);
	ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

START_TEST(failed_start_leaves_state_and_descriptors_as_they_were)
{
	char initrd[] = "initrd-XXXXXX";
	int fd = mkstemp(initrd);
	struct boot_source_config source = { .kernel_image_path = strdup("build/guests/hello"),
					     .initrd_path = strdup(initrd) };
	int before;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 256 << 20), 0);
	close(fd);
	ck_assert_int_eq(control_set_boot_source(&control, &source, &err), 0);
	unlink(initrd);
	before = open_descriptors();
	for (int i = 0; i < 3; i++) {
		ck_assert_int_lt(control_start(&control, &err), 0);
		ck_assert_str_eq(control_state_name(&control), "Not started");
		ck_assert_int_eq(open_descriptors(), before);
	}
	/* With the fault mended the same control starts. */
	start("counter", 1);
	wait_for_counter_above(0);
}
END_TEST

START_TEST(actions_in_the_wrong_state_are_refused)
{
	start("counter", 1);
	ck_assert_int_lt(control_start(&control, &err), 0);
	ck_assert_str_eq(err.text, "Starting is not possible in the state \"Running\"");
	ck_assert_int_lt(control_set_machine(&control, &control.machine_config, &err), 0);
}
END_TEST

static void count_change(void *opaque)
{
	++*(unsigned int *)opaque;
}

START_TEST(what_is_so_already_changes_nothing)
{
	unsigned int changes = 0;

	start("counter", 1);
	control.opaque = &changes;
	control.state_changed = count_change;
	ck_assert_int_eq(control_resume(&control, &err), 0);
	ck_assert_uint_eq(changes, 0);
	ck_assert_int_eq(control_pause(&control, &err), 0);
	ck_assert_int_eq(control_pause(&control, &err), 0);
	ck_assert_uint_eq(changes, 1);
	control.state_changed = NULL;
}
END_TEST

static int count_lines(const char *path)
{
	FILE *file = fopen(path, "r");
	int count = 0, c;

	ck_assert_ptr_nonnull(file);
	while ((c = fgetc(file)) != EOF)
		count += c == '\n';
	fclose(file);
	return count;
}

START_TEST(metrics_come_at_the_start_each_minute_when_asked_for_and_at_the_end)
{
	struct metrics_config config = { .metrics_path = strdup("metrics-XXXXXX") };
	struct timeval when, now;
	char path[32];
	int fd = mkstemp(config.metrics_path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	snprintf(path, sizeof(path), "%s", config.metrics_path);
	ck_assert_int_eq(control_set_metrics(&control, &config, &err), 0);
	ck_assert_int_eq(count_lines(path), 0);
	ck_assert_int_lt(control_flush_metrics(&control, &err), 0);
	start("counter", 1);
	ck_assert_int_eq(count_lines(path), 1);
	ck_assert_int_eq(control_flush_metrics(&control, &err), 0);
	ck_assert_int_eq(count_lines(path), 2);
	ck_assert(event_pending(control.metrics_timer, EV_TIMEOUT, &when));
	gettimeofday(&now, NULL);
	ck_assert_int_ge(when.tv_sec - now.tv_sec, 58);
	ck_assert_int_le(when.tv_sec - now.tv_sec, 60);
	for (int i = 0; i < 2; i++) {
		ck_assert(event_pending(control.metrics_timer, EV_TIMEOUT, NULL));
		event_active(control.metrics_timer, EV_TIMEOUT, 0);
		event_base_loop(base, EVLOOP_NONBLOCK);
		ck_assert_int_eq(count_lines(path), 3 + i);
	}
	ck_assert_int_eq(control_stop(&control, "enough", &err), 0);
	event_base_dispatch(base);
	ck_assert_int_eq(count_lines(path), 5);
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("control");
	TCase *tcase = tcase_create("with guests");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, paused_guest_stands_still);
	tcase_add_test(tcase, pausing_often_loses_no_io);
	tcase_add_test(tcase, halted_and_waiting_vcpus_pause_and_resume);
	tcase_add_test(tcase, stop_tells_why);
	tcase_add_test(tcase, stop_while_paused);
	tcase_add_test(tcase, close_of_a_running_vm_leaves_nothing_open);
	tcase_add_test(tcase, failed_start_leaves_state_and_descriptors_as_they_were);
	tcase_add_test(tcase, actions_in_the_wrong_state_are_refused);
	tcase_add_test(tcase, what_is_so_already_changes_nothing);
	tcase_add_test(tcase, metrics_come_at_the_start_each_minute_when_asked_for_and_at_the_end);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
