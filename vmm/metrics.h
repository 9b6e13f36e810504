/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All counters of one VM, as a line of JSON with what came since the last line, and as totals in
 * JSON or in Prometheus' text format. Objects and names are Firecracker's. Main thread, but for
 * metrics_fatal.
 */
#ifndef MOTE_VMM_METRICS_H
#define MOTE_VMM_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/metrics.h"
#include "vmm/boot/layout.h"
#include "vmm/config.h"

struct err;
struct text;

struct metrics_config {
	char *metrics_path; /* a file, which is appended to, a fifo or a device */
	bool emit_id;	    /* lines have the VM's id */
	char *properties;   /* an object as JSON that lines have; NULL: none */
};

#define METRICS_PROPERTIES_MAX (48 << 10) /* bytes */

void metrics_config_free(struct metrics_config *config);

/* Of the API's requests: how many there were, and how many of them failed. */
struct get_request_metrics {
	uint64_t instance_info_count;
	uint64_t machine_cfg_count;
	uint64_t mmds_count;
	uint64_t vmm_version_count;
};

struct put_request_metrics {
	uint64_t actions_count, actions_fails;
	uint64_t boot_source_count, boot_source_fails;
	uint64_t cpu_cfg_count, cpu_cfg_fails;
	uint64_t drive_count, drive_fails;
	uint64_t logger_count, logger_fails;
	uint64_t machine_cfg_count, machine_cfg_fails;
	uint64_t metrics_count, metrics_fails;
	uint64_t mmds_count, mmds_fails;
	uint64_t network_count, network_fails;
	uint64_t serial_count, serial_fails;
	uint64_t vsock_count, vsock_fails;
};

struct patch_request_metrics {
	uint64_t drive_count, drive_fails;
	uint64_t machine_cfg_count, machine_cfg_fails;
	uint64_t mmds_count, mmds_fails;
	uint64_t network_count, network_fails;
};

struct deprecated_api_metrics {
	uint64_t deprecated_http_api_calls;
};

/* Values, not counters: they do not become differences. */
struct api_server_metrics {
	uint64_t process_startup_time_us; /* from --start-time-us to the socket that answers */
	/* The process's own until then, from --start-time-cpu-us, and --parent-cpu-time-us. */
	uint64_t process_startup_time_cpu_us;
};

/* Microseconds that the last one took; values, too. */
struct latency_metrics {
	uint64_t full_create_snapshot; /* with the request's own part, as the next three */
	uint64_t load_snapshot;
	uint64_t pause_vm;
	uint64_t resume_vm;
	uint64_t vmm_full_create_snapshot;
	uint64_t vmm_load_snapshot;
	uint64_t vmm_pause_vm;
	uint64_t vmm_resume_vm;
};

struct logger_metrics {
	uint64_t metrics_fails;	       /* lines that could not be written */
	uint64_t missed_metrics_count; /* lines for which there was no room */
	uint64_t missed_log_count;
	uint64_t rate_limited_log_count;
};

struct seccomp_metrics {
	uint64_t num_faults;
};

struct signal_metrics {
	uint64_t sigbus, sigsegv, sigxfsz, sigxcpu, sigpipe, sighup, sigill;
};

struct vmm_metrics {
	uint64_t panic_count; /* calls of abort() */
};

/* In the order in which they are told. */
enum metrics_group_id {
	METRICS_API_SERVER,
	METRICS_BLOCK,
	METRICS_DEPRECATED_API,
	METRICS_GET_REQUESTS,
	METRICS_I8042,
	METRICS_LATENCIES,
	METRICS_LOGGER,
	METRICS_MMDS,
	METRICS_NET,
	METRICS_PATCH_REQUESTS,
	METRICS_PUT_REQUESTS,
	METRICS_SECCOMP,
	METRICS_SIGNALS,
	METRICS_UART,
	METRICS_VCPU,
	METRICS_VMM,
	METRICS_VSOCK,
	METRICS_BALLOON,
	METRICS_ENTROPY,
	METRICS_INTERRUPTS,
	METRICS_MEMORY_HOTPLUG,
	METRICS_PMEM,
	METRICS_GROUPS,
};

struct metrics_group {
	const char *name;
	const struct metric *table;
	const char *label; /* what an object's id is called; NULL: they have none */
	bool values;	   /* not counters */
};

extern const struct metrics_group metrics_groups[METRICS_GROUPS];

#define METRICS_FIELDS_MAX 32 /* of a table */
#define METRICS_OBJECTS_MAX (METRICS_GROUPS + LAYOUT_VIRTIO_MAX)

struct metrics_object {
	enum metrics_group_id group;
	char id[CONFIG_ID_SIZE_MAX + 1];
	const void *counters; /* not owned; `count` structs, `stride` bytes apart, that are added */
	unsigned int count;
	size_t stride;
	uint64_t now[METRICS_FIELDS_MAX];
	uint64_t last[METRICS_FIELDS_MAX]; /* in the last line that was written */
};

/* Room for every text below. */
#define METRICS_TEXT_SIZE (128 << 10)

struct metrics {
	/* Whoever counts them does it here. */
	struct get_request_metrics get_requests;
	struct put_request_metrics put_requests;
	struct patch_request_metrics patch_requests;
	struct deprecated_api_metrics deprecated_api;
	struct api_server_metrics api_server;
	struct latency_metrics latencies;
	struct logger_metrics logger;
	struct seccomp_metrics seccomp;
	struct signal_metrics signals;
	struct vmm_metrics vmm;

	struct metrics_object objects[METRICS_OBJECTS_MAX];
	unsigned int object_count;

	const char *id;		      /* the VM's, of [A-Za-z0-9-]; not owned; NULL: none */
	struct metrics_config config; /* owned */
	int fd;			      /* owned; -1: no lines are written */
	char *line;		      /* owned; METRICS_TEXT_SIZE */
	size_t line_size;
	size_t line_written; /* less than line_size: a fifo had no room for the rest */
	struct log_limit log_limit;
};

/* The counters that are its own; must stay where it is. */
void metrics_open(struct metrics *metrics);
void metrics_close(struct metrics *metrics);

/*
 * Adds an object of a group, whose counters must live until metrics_close; id is NULL where the
 * group has no label. What does not fit, which is more than a VM can have, is left out.
 */
void metrics_add(struct metrics *metrics, enum metrics_group_id group, const char *id,
		 const void *counters, unsigned int count, size_t stride);

/*
 * Opens where the lines go, and takes the configuration's path. Once only; a fifo needs no reader.
 * 0 or -errno with err set.
 */
int metrics_set_output(struct metrics *metrics, struct metrics_config *config, struct err *err);

/*
 * Writes a line, if there is an output. What it told is not told again; a line for which there is
 * no room is counted, and its counters come with the next one. 0 or -errno.
 */
int metrics_write(struct metrics *metrics);

/* The totals; length, or -ENOBUFS where it does not fit (METRICS_TEXT_SIZE is always enough). */
int metrics_json(struct metrics *metrics, char *buffer, size_t size);
/* Prometheus' text exposition format, version 0.0.4. */
int metrics_prometheus(struct metrics *metrics, char *buffer, size_t size);

/*
 * For the handler of a signal that ends the process: counts the signal and writes a last line.
 * Async-signal-safe (signal-safety(7)), on any thread. The argument is a struct metrics.
 */
void metrics_fatal(void *metrics, int signal);

/* metrics_text.c: of the values in `now`, minus those in `last` for a line. */
void metrics_text_json(struct text *text, const struct metrics *metrics, bool line);
void metrics_text_prometheus(struct text *text, const struct metrics *metrics);

#endif
