/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/metrics.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/text.h"
#include "mmds/mmds.h"
#include "virtio/block/block.h"
#include "virtio/net/net.h"
#include "virtio/vsock/metrics.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/platform/i8042.h"
#include "vmm/platform/serial.h"

#define COUNT_AND_FAILS(type, kind) METRIC(type, kind##_count), METRIC(type, kind##_fails)

static const struct metric api_server_table[] = {
	METRIC(api_server_metrics, process_startup_time_us),
	METRIC(api_server_metrics, process_startup_time_cpu_us),
	{ NULL },
};
static const struct metric deprecated_api_table[] = {
	METRIC(deprecated_api_metrics, deprecated_http_api_calls),
	{ NULL },
};
static const struct metric get_request_table[] = {
	METRIC(get_request_metrics, instance_info_count),
	METRIC(get_request_metrics, machine_cfg_count),
	METRIC(get_request_metrics, mmds_count),
	METRIC(get_request_metrics, vmm_version_count),
	METRIC_NEVER("hotplug_memory_count"),
	{ NULL },
};
static const struct metric latency_table[] = {
	METRIC(latency_metrics, full_create_snapshot),
	METRIC_NEVER("diff_create_snapshot"),
	METRIC(latency_metrics, load_snapshot),
	METRIC(latency_metrics, pause_vm),
	METRIC(latency_metrics, resume_vm),
	METRIC(latency_metrics, vmm_full_create_snapshot),
	METRIC_NEVER("vmm_diff_create_snapshot"),
	METRIC(latency_metrics, vmm_load_snapshot),
	METRIC(latency_metrics, vmm_pause_vm),
	METRIC(latency_metrics, vmm_resume_vm),
	{ NULL },
};
static const struct metric logger_table[] = {
	METRIC(logger_metrics, metrics_fails),
	METRIC(logger_metrics, missed_metrics_count),
	METRIC(logger_metrics, missed_log_count),
	METRIC(logger_metrics, rate_limited_log_count),
	{ NULL },
};
static const struct metric patch_request_table[] = {
	COUNT_AND_FAILS(patch_request_metrics, drive),
	COUNT_AND_FAILS(patch_request_metrics, machine_cfg),
	COUNT_AND_FAILS(patch_request_metrics, mmds),
	COUNT_AND_FAILS(patch_request_metrics, network),
	METRIC_NEVER("hotplug_memory_count"),
	METRIC_NEVER("hotplug_memory_fails"),
	METRIC_NEVER("pmem_count"),
	METRIC_NEVER("pmem_fails"),
	{ NULL },
};
static const struct metric put_request_table[] = {
	COUNT_AND_FAILS(put_request_metrics, actions),
	COUNT_AND_FAILS(put_request_metrics, boot_source),
	COUNT_AND_FAILS(put_request_metrics, cpu_cfg),
	COUNT_AND_FAILS(put_request_metrics, drive),
	COUNT_AND_FAILS(put_request_metrics, logger),
	COUNT_AND_FAILS(put_request_metrics, machine_cfg),
	COUNT_AND_FAILS(put_request_metrics, metrics),
	COUNT_AND_FAILS(put_request_metrics, mmds),
	COUNT_AND_FAILS(put_request_metrics, network),
	COUNT_AND_FAILS(put_request_metrics, serial),
	COUNT_AND_FAILS(put_request_metrics, vsock),
	METRIC_NEVER("hotplug_memory_count"),
	METRIC_NEVER("hotplug_memory_fails"),
	METRIC_NEVER("pmem_count"),
	METRIC_NEVER("pmem_fails"),
	{ NULL },
};
static const struct metric seccomp_table[] = {
	METRIC(seccomp_metrics, num_faults),
	{ NULL },
};
static const struct metric signal_table[] = {
	METRIC(signal_metrics, sigbus),	 METRIC(signal_metrics, sigsegv),
	METRIC(signal_metrics, sigxfsz), METRIC(signal_metrics, sigxcpu),
	METRIC(signal_metrics, sigpipe), METRIC(signal_metrics, sighup),
	METRIC(signal_metrics, sigill),	 { NULL },
};
static const struct metric vmm_table[] = {
	METRIC(vmm_metrics, panic_count),
	{ NULL },
};

/* Of devices that mote does not have, and of what it does not count. */
static const struct metric balloon_table[] = {
	METRIC_NEVER("activate_fails"),
	METRIC_NEVER("inflate_count"),
	METRIC_NEVER("stats_updates_count"),
	METRIC_NEVER("stats_update_fails"),
	METRIC_NEVER("deflate_count"),
	METRIC_NEVER("event_fails"),
	METRIC_NEVER("free_page_report_count"),
	METRIC_NEVER("free_page_report_freed"),
	METRIC_NEVER("free_page_report_fails"),
	METRIC_NEVER("free_page_hint_count"),
	METRIC_NEVER("free_page_hint_freed"),
	METRIC_NEVER("free_page_hint_fails"),
	{ NULL },
};
static const struct metric entropy_table[] = {
	METRIC_NEVER("activate_fails"),		  METRIC_NEVER("entropy_event_fails"),
	METRIC_NEVER("entropy_event_count"),	  METRIC_NEVER("entropy_bytes"),
	METRIC_NEVER("host_rng_fails"),		  METRIC_NEVER("entropy_rate_limiter_throttled"),
	METRIC_NEVER("rate_limiter_event_count"), { NULL },
};
static const struct metric interrupts_table[] = {
	METRIC(interrupt_metrics, triggers),
	METRIC_NEVER("config_updates"),
	{ NULL },
};
static const struct metric memory_hotplug_table[] = {
	METRIC_NEVER("activate_fails"),
	METRIC_NEVER("queue_event_fails"),
	METRIC_NEVER("queue_event_count"),
	METRIC_NEVER("plug_count"),
	METRIC_NEVER("plug_bytes"),
	METRIC_NEVER("plug_fails"),
	METRIC_NEVER_TIMED("plug_agg"),
	METRIC_NEVER("unplug_count"),
	METRIC_NEVER("unplug_bytes"),
	METRIC_NEVER("unplug_fails"),
	METRIC_NEVER("unplug_discard_fails"),
	METRIC_NEVER_TIMED("unplug_agg"),
	METRIC_NEVER("state_count"),
	METRIC_NEVER("state_fails"),
	METRIC_NEVER_TIMED("state_agg"),
	METRIC_NEVER("unplug_all_count"),
	METRIC_NEVER("unplug_all_fails"),
	METRIC_NEVER_TIMED("unplug_all_agg"),
	{ NULL },
};
static const struct metric pmem_table[] = {
	METRIC_NEVER("activate_fails"),
	METRIC_NEVER("cfg_fails"),
	METRIC_NEVER("event_fails"),
	METRIC_NEVER("queue_event_count"),
	METRIC_NEVER("rate_limiter_throttled_events"),
	METRIC_NEVER("rate_limiter_event_count"),
	{ NULL },
};

const struct metrics_group metrics_groups[METRICS_GROUPS] = {
	[METRICS_API_SERVER] = { "api_server", api_server_table, .values = true },
	[METRICS_BLOCK] = { "block", block_metric_table, "drive" },
	[METRICS_DEPRECATED_API] = { "deprecated_api", deprecated_api_table },
	[METRICS_GET_REQUESTS] = { "get_api_requests", get_request_table },
	[METRICS_I8042] = { "i8042", i8042_metric_table },
	[METRICS_LATENCIES] = { "latencies_us", latency_table, .values = true },
	[METRICS_LOGGER] = { "logger", logger_table },
	[METRICS_MMDS] = { "mmds", mmds_metric_table },
	[METRICS_NET] = { "net", net_metric_table, "interface" },
	[METRICS_PATCH_REQUESTS] = { "patch_api_requests", patch_request_table },
	[METRICS_PUT_REQUESTS] = { "put_api_requests", put_request_table },
	[METRICS_SECCOMP] = { "seccomp", seccomp_table },
	[METRICS_SIGNALS] = { "signals", signal_table },
	[METRICS_UART] = { "uart", serial_metric_table },
	[METRICS_VCPU] = { "vcpu", vcpu_metric_table },
	[METRICS_VMM] = { "vmm", vmm_table },
	[METRICS_BALLOON] = { "balloon", balloon_table },
	[METRICS_ENTROPY] = { "entropy", entropy_table },
	[METRICS_INTERRUPTS] = { "interrupts", interrupts_table },
	[METRICS_MEMORY_HOTPLUG] = { "memory_hotplug", memory_hotplug_table },
	[METRICS_PMEM] = { "pmem", pmem_table },
	[METRICS_VSOCK] = { "vsock", vsock_metric_table },
};

void metrics_config_free(struct metrics_config *config)
{
	free(config->metrics_path);
	free(config->properties);
	memset(config, 0, sizeof(*config));
}

void metrics_add(struct metrics *metrics, enum metrics_group_id group, const char *id,
		 const void *counters, unsigned int count, size_t stride)
{
	struct metrics_object *object = &metrics->objects[metrics->object_count];
	struct text name;

	if (metrics->object_count == METRICS_OBJECTS_MAX)
		return;
	memset(object, 0, sizeof(*object));
	name = text_in(object->id, sizeof(object->id));
	text_add(&name, id ? id : "");
	object->group = group;
	object->counters = counters;
	object->count = count;
	object->stride = stride;
	metrics->object_count++;
}

void metrics_open(struct metrics *metrics)
{
	memset(metrics, 0, sizeof(*metrics));
	metrics->fd = -1;
	metrics_add(metrics, METRICS_API_SERVER, NULL, &metrics->api_server, 1, 0);
	metrics_add(metrics, METRICS_DEPRECATED_API, NULL, &metrics->deprecated_api, 1, 0);
	metrics_add(metrics, METRICS_GET_REQUESTS, NULL, &metrics->get_requests, 1, 0);
	metrics_add(metrics, METRICS_LATENCIES, NULL, &metrics->latencies, 1, 0);
	metrics_add(metrics, METRICS_LOGGER, NULL, &metrics->logger, 1, 0);
	metrics_add(metrics, METRICS_PATCH_REQUESTS, NULL, &metrics->patch_requests, 1, 0);
	metrics_add(metrics, METRICS_PUT_REQUESTS, NULL, &metrics->put_requests, 1, 0);
	metrics_add(metrics, METRICS_SECCOMP, NULL, &metrics->seccomp, 1, 0);
	metrics_add(metrics, METRICS_SIGNALS, NULL, &metrics->signals, 1, 0);
	metrics_add(metrics, METRICS_VMM, NULL, &metrics->vmm, 1, 0);
}

void metrics_close(struct metrics *metrics)
{
	fd_close(&metrics->fd);
	free(metrics->line);
	metrics->line = NULL;
	metrics_config_free(&metrics->config);
	metrics->object_count = 0;
}

int metrics_set_output(struct metrics *metrics, struct metrics_config *config, struct err *err)
{
	int fd;

	if (metrics->fd >= 0)
		return err_set(err, EEXIST, "metrics_path: it has been set already, to %s",
			       metrics->config.metrics_path);
	fd = fd_open_append(config->metrics_path);
	if (fd < 0)
		return err_sys(err, -fd, "metrics_path %s", config->metrics_path);
	metrics->line = malloc(METRICS_TEXT_SIZE);
	if (!metrics->line) {
		fd_close(&fd);
		return err_sys(err, ENOMEM, "metrics_path %s", config->metrics_path);
	}
	metrics->line_size = metrics->line_written = 0;
	metrics->fd = fd;
	metrics->config = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

static void read_counters(struct metrics *metrics)
{
	metrics->logger.missed_log_count = log_missed_count();
	metrics->logger.rate_limited_log_count = log_withheld_count();
	for (unsigned int i = 0; i < metrics->object_count; i++) {
		struct metrics_object *object = &metrics->objects[i];
		const struct metric *table = metrics_groups[object->group].table;

		for (unsigned int field = 0; table[field].name; field++) {
			const char *counters = object->counters;
			uint64_t value = 0;

			for (unsigned int n = 0; n < object->count; n++)
				value += metric_value(&table[field], counters + n * object->stride);
			object->now[field] = value;
		}
	}
}

static void commit(struct metrics *metrics)
{
	for (unsigned int i = 0; i < metrics->object_count; i++)
		memcpy(metrics->objects[i].last, metrics->objects[i].now,
		       sizeof(metrics->objects[i].last));
}

static void make_line(struct text *text, struct metrics *metrics)
{
	read_counters(metrics);
	metrics_text_json(text, metrics, true);
	text_add(text, "\n");
}

/* As much of the line as there is room for. */
static int write_rest(struct metrics *metrics)
{
	while (metrics->line_written < metrics->line_size) {
		ssize_t n = write(metrics->fd, metrics->line + metrics->line_written,
				  metrics->line_size - metrics->line_written);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		metrics->line_written += (size_t)n;
	}
	return 0;
}

static int failed(struct metrics *metrics, int rc)
{
	if (rc == -EAGAIN) {
		metrics->logger.missed_metrics_count++;
		return rc;
	}
	metrics->logger.metrics_fails++;
	log_limited_line(&metrics->log_limit, LOG_WARN, "metrics_path %s: %s",
			 metrics->config.metrics_path, strerrordesc_np(-rc));
	return rc;
}

int metrics_write(struct metrics *metrics)
{
	struct text text;
	int rc;

	if (metrics->fd < 0)
		return 0;
	/* What is left of the last line, or readers would lose this one, too. */
	rc = write_rest(metrics);
	if (rc < 0)
		return failed(metrics, rc);
	text = text_in(metrics->line, METRICS_TEXT_SIZE);
	make_line(&text, metrics);
	if (text.cut)
		return failed(metrics, -ENOBUFS);
	metrics->line_written = 0;
	metrics->line_size = text.used;
	rc = write_rest(metrics);
	if (metrics->line_written == 0 && rc < 0) {
		metrics->line_size = 0;
		return failed(metrics, rc);
	}
	commit(metrics);
	return 0;
}

static int result(const struct text *text)
{
	return text->cut ? -ENOBUFS : (int)text->used;
}

int metrics_json(struct metrics *metrics, char *buffer, size_t size)
{
	struct text text = text_in(buffer, size);

	read_counters(metrics);
	metrics_text_json(&text, metrics, false);
	return result(&text);
}

int metrics_prometheus(struct metrics *metrics, char *buffer, size_t size)
{
	struct text text = text_in(buffer, size);

	read_counters(metrics);
	metrics_text_prometheus(&text, metrics);
	return result(&text);
}

static void count_signal(struct metrics *metrics, int signal)
{
	const struct {
		int signal;
		uint64_t *counter;
	} counters[] = {
		{ SIGBUS, &metrics->signals.sigbus },	{ SIGSEGV, &metrics->signals.sigsegv },
		{ SIGXFSZ, &metrics->signals.sigxfsz }, { SIGXCPU, &metrics->signals.sigxcpu },
		{ SIGPIPE, &metrics->signals.sigpipe }, { SIGHUP, &metrics->signals.sighup },
		{ SIGILL, &metrics->signals.sigill },	{ SIGSYS, &metrics->seccomp.num_faults },
		{ SIGABRT, &metrics->vmm.panic_count },
	};

	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		if (counters[i].signal == signal)
			++*counters[i].counter;
	}
}

void metrics_fatal(void *opaque, int signal)
{
	/* The main thread may be putting a line together just now, in its own buffer. */
	static char line[METRICS_TEXT_SIZE];
	struct metrics *metrics = opaque;
	struct text text = text_in(line, sizeof(line));

	count_signal(metrics, signal);
	if (metrics->fd < 0)
		return;
	if (metrics->line_written > 0 && metrics->line_written < metrics->line_size)
		text_add(&text, "\n");
	make_line(&text, metrics);
	(void)fd_write_all(metrics->fd, line, text.used);
}
