/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/control.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "guest/failure.h"
#include "guest/network.h"

#define ENTROPY_MAX 256

static json_int_t read_available(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	if (file)
		fclose(file);
	return (json_int_t)kib << 10;
}

/* All processors' time since the start that was not idle, microseconds. */
static json_int_t read_busy(void)
{
	FILE *file = fopen("/proc/stat", "re");
	unsigned long long user = 0, nice = 0, system = 0;

	if (file) {
		if (fscanf(file, "cpu %llu %llu %llu", &user, &nice, &system) != 3)
			user = nice = system = 0;
		fclose(file);
	}
	return (json_int_t)(user + nice + system) * 1000000 / sysconf(_SC_CLK_TCK);
}

json_t *control_stats(unsigned int streams, const json_t *value, struct failure *failure)
{
	struct sysinfo info;
	struct statvfs root;

	if (!json_is_object(value) || json_object_size(value) > 0) {
		failure_set(failure, "stats: {} is expected");
		return NULL;
	}
	if (sysinfo(&info) < 0 || statvfs("/", &root) < 0) {
		failure_sys(failure, errno, "stats");
		return NULL;
	}
	return json_pack(
		"{s:I, s:I, s:I, s:I, s:i, s:I, s:I, s:i}", "uptime_s", (json_int_t)info.uptime,
		"cpu_us", read_busy(), "memory_total_bytes",
		(json_int_t)info.totalram * info.mem_unit, "memory_available_bytes",
		read_available(), "processes", (int)info.procs, "root_total_bytes",
		(json_int_t)root.f_blocks * (json_int_t)root.f_frsize, "root_available_bytes",
		(json_int_t)root.f_bavail * (json_int_t)root.f_frsize, "streams", (int)streams);
}

static int set_clock(json_int_t unix_time_ns, struct failure *failure)
{
	const struct timespec now = { .tv_sec = unix_time_ns / 1000000000,
				      .tv_nsec = unix_time_ns % 1000000000 };

	if (unix_time_ns <= 0 || clock_settime(CLOCK_REALTIME, &now) < 0)
		return failure_sys(failure, errno ? errno : EINVAL, "resume: unix_time_ns");
	return 0;
}

/* Hexadecimal digits; the generator is seeded anew with them. */
static int add_entropy(const char *text, struct failure *failure)
{
	/* struct rand_pool_info, with room. */
	struct {
		int entropy_count;
		int buf_size;
		uint8_t buf[ENTROPY_MAX];
	} pool;
	size_t size = strlen(text) / 2;
	int fd, rc;

	if (size > ENTROPY_MAX || strlen(text) % 2 != 0)
		return failure_set(failure, "resume: entropy: up to %d bytes are expected",
				   ENTROPY_MAX);
	for (size_t i = 0; i < size; i++) {
		unsigned int byte;

		if (strspn(text, "0123456789abcdefABCDEF") < 2 * size ||
		    sscanf(text + 2 * i, "%2x", &byte) != 1)
			return failure_set(failure,
					   "resume: entropy: hexadecimal digits are expected");
		pool.buf[i] = (uint8_t)byte;
	}
	pool.entropy_count = (int)size * 8;
	pool.buf_size = (int)size;
	fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	rc = fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0
		     ? failure_sys(failure, errno, "resume: entropy")
		     : 0;
	if (fd >= 0)
		close(fd);
	return rc;
}

json_t *control_resume(int64_t *last_epoch, const json_t *value, struct failure *failure)
{
	json_int_t epoch = 0, unix_time_ns = 0;
	const char *entropy = NULL, *hostname = NULL, *network = NULL;
	json_error_t error;

	/* json_unpack_ex only reads its root. */
	if (json_unpack_ex((json_t *)(uintptr_t)value, &error, 0, "{s:I, s?I, s?s, s?s, s?s !}",
			   "epoch", &epoch, "unix_time_ns", &unix_time_ns, "entropy", &entropy,
			   "hostname", &hostname, "network", &network) < 0) {
		failure_set(failure, "resume: %s", error.text);
		return NULL;
	}
	/* A request that was made for an earlier life of this guest. */
	if (epoch <= *last_epoch) {
		failure_set(failure, "resume: epoch: more than %lld is expected",
			    (long long)*last_epoch);
		return NULL;
	}
	errno = 0;
	if ((entropy && add_entropy(entropy, failure) < 0) ||
	    (unix_time_ns && set_clock(unix_time_ns, failure) < 0) ||
	    network_change(network, hostname, failure) < 0)
		return NULL;
	*last_epoch = epoch;
	return json_pack("{s:I}", "epoch", epoch);
}
