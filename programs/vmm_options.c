/* SPDX-License-Identifier: Apache-2.0 */
#include "programs/vmm_options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api-socket/file.h"
#include "api-socket/http.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/firecracker.h"
#include "base/log.h"
#include "base/record.h"
#include "base/state.h"
#include "vmm/snapshot/format.h"

#define ID_LENGTH_MAX 64
#define DEFAULT_API_SOCK "/run/firecracker.socket"

static const char usage[] =
	"usage: mote-vmm [--api-sock PATH] [--config-file FILE] [OPTION]...\n"
	"Runs one microVM until its guest ends, driven by JSON over a Unix socket.\n"
	"\n"
	"  --api-sock PATH       where the API is served (default " DEFAULT_API_SOCK ")\n"
	"  --no-api              no API: the VM is what --config-file says, and starts at once\n"
	"  --config-file FILE    configures and starts a VM (JSON, Firecracker's format)\n"
	"  --metadata FILE       the metadata that the guest reads (JSON), as by PUT /mmds\n"
	"  --mmds-size-limit BYTES\n"
	"                        the most of it; by default what --http-api-max-payload-size says\n"
	"  --id ID               the VM's name: 1 to 64 letters, digits and dashes\n"
	"  --log-path FILE       append the log to FILE instead of standard error\n"
	"  --metrics-path FILE   append metrics to FILE: a line at the start, every minute, at the "
	"end\n"
	"  --level LEVEL         Off, Error, Warning, Info (default), Debug or Trace\n"
	"  --show-level          lines of the log name their level (they do without, too)\n"
	"  --show-log-origin     lines of the log name their source file and line\n"
	"  --module PREFIX       only log what source files whose path begins so have to say\n"
	"  --boot-timer          log the boot time and its phases\n"
	"  --no-seccomp          do not limit the system calls of a running VM; for debugging "
	"only\n"
	"  --http-api-max-payload-size BYTES\n"
	"                        the largest body of a request (default 51200)\n"
	"  --record-fd N         an open descriptor to which what /events tells is written, and\n"
	"                        errors\n"
	"  --fd-name N=NAME      what messages call the file that is given as /dev/fd/N;\n"
	"                        repeatable\n"
	"  --enable-pci          taken, with a warning: devices are on virtio-mmio\n"
	"  --start-time-us TIME  when the process was started, microseconds of CLOCK_MONOTONIC\n"
	"  --start-time-cpu-us TIME, --parent-cpu-time-us TIME\n"
	"                        the processor time of before that is not its own, and its "
	"parent's\n"
	"  --snapshot-version    print the version of the snapshots that are written and read\n"
	"  --describe-snapshot FILE\n"
	"                        print the version of that snapshot's state, if it is whole\n"
	"  --version, --help\n"
	"\n"
	"Exit status: 0 the guest powered off or reset, or was stopped; 160 its kernel panicked;\n"
	"161 triple fault; 162 KVM error; 152 bad configuration; 153 bad arguments; 1 other "
	"errors.\n";

static int bad(const char *option, const char *value, const char *cause)
{
	struct err err;

	(void)err_set(&err, EINVAL, "--%s%s%s: %s", option, *value ? " " : "", value, cause);
	fprintf(stderr, "mote-vmm: %s\n", err.text);
	record_error(err.text);
	return EXIT_BAD_ARGUMENTS;
}

static int parse_number(const char *option, const char *text, int64_t max, int64_t *number)
{
	char *end;
	long long value = strtoll(text, &end, 10);

	if (*end || end == text || value < 0 || value > max)
		return bad(option, text, "not a number that is possible");
	*number = value;
	return 0;
}

static int parse_id(const char *id)
{
	size_t len = strlen(id);

	if (len < 1 || len > ID_LENGTH_MAX ||
	    strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != len)
		return bad("id", id, "1 to 64 letters, digits and dashes are expected");
	return 0;
}

static int take_record_fd(const char *option, const char *text)
{
	int64_t number;
	int rc = parse_number(option, text, INT_MAX, &number);

	if (rc != 0)
		return rc;
	if (fcntl((int)number, F_GETFD) < 0)
		return bad(option, text, "no such descriptor is open");
	record_to((int)number);
	return 0;
}

static int take_fd_name(const char *option, const char *text)
{
	char *equals;
	const long number = strtol(text, &equals, 10);

	if (*equals != '=' || equals == text || number <= STDERR_FILENO || number > INT_MAX)
		return bad(option, text, "N=NAME is expected, N from 3");
	if (fd_set_name((int)number, equals + 1) < 0)
		return bad(option, text, "too many of them");
	return 0;
}

/* As Firecracker's, whose versions have three parts. */
static int print_snapshot_version(void)
{
	printf("v%d.0.0\n", SNAPSHOT_FORMAT_VERSION);
	return -1;
}

/* All versions that are read are one, so that there is no other to tell. */
static int describe_snapshot(const char *path)
{
	struct state_reader sections;
	struct err err, cause;
	char *bytes;
	size_t size;
	int rc = file_read("--describe-snapshot", path, STATE_SIZE_MAX, &bytes, &size, &err);

	if (rc == 0) {
		rc = snapshot_check((const uint8_t *)bytes, size, &sections, &cause);
		if (rc < 0)
			(void)err_set(&err, -rc, "--describe-snapshot %s: %s", path, cause.text);
		free(bytes);
	}
	if (rc == 0)
		return print_snapshot_version();
	fprintf(stderr, "mote-vmm: %s\n", err.text);
	record_error(err.text);
	return EXIT_FAILURE;
}

enum option_number {
	API_SOCK,
	NO_API,
	CONFIG_FILE,
	ID,
	LOG_PATH,
	METRICS_PATH,
	LEVEL,
	SHOW_LEVEL,
	SHOW_LOG_ORIGIN,
	MODULE,
	BOOT_TIMER,
	NO_SECCOMP,
	PAYLOAD,
	METADATA,
	MMDS_SIZE,
	START_TIME,
	START_TIME_CPU,
	PARENT_CPU_TIME,
	RECORD_FD,
	FD_NAME,
	ENABLE_PCI,
	SECCOMP_FILTER,
	SNAPSHOT_VERSION,
	DESCRIBE_SNAPSHOT,
	VERSION,
	HELP,
};

static const struct option names[] = {
	{ "api-sock", required_argument, NULL, API_SOCK },
	{ "no-api", no_argument, NULL, NO_API },
	{ "config-file", required_argument, NULL, CONFIG_FILE },
	{ "id", required_argument, NULL, ID },
	{ "log-path", required_argument, NULL, LOG_PATH },
	{ "metrics-path", required_argument, NULL, METRICS_PATH },
	{ "level", required_argument, NULL, LEVEL },
	{ "show-level", no_argument, NULL, SHOW_LEVEL },
	{ "show-log-origin", no_argument, NULL, SHOW_LOG_ORIGIN },
	{ "module", required_argument, NULL, MODULE },
	{ "boot-timer", no_argument, NULL, BOOT_TIMER },
	{ "no-seccomp", no_argument, NULL, NO_SECCOMP },
	{ "http-api-max-payload-size", required_argument, NULL, PAYLOAD },
	{ "metadata", required_argument, NULL, METADATA },
	{ "mmds-size-limit", required_argument, NULL, MMDS_SIZE },
	{ "start-time-us", required_argument, NULL, START_TIME },
	{ "start-time-cpu-us", required_argument, NULL, START_TIME_CPU },
	{ "parent-cpu-time-us", required_argument, NULL, PARENT_CPU_TIME },
	{ "record-fd", required_argument, NULL, RECORD_FD },
	{ "fd-name", required_argument, NULL, FD_NAME },
	{ "enable-pci", no_argument, NULL, ENABLE_PCI },
	{ "seccomp-filter", required_argument, NULL, SECCOMP_FILTER },
	{ "snapshot-version", no_argument, NULL, SNAPSHOT_VERSION },
	{ "describe-snapshot", required_argument, NULL, DESCRIBE_SNAPSHOT },
	{ "version", no_argument, NULL, VERSION },
	{ "help", no_argument, NULL, HELP },
	{ NULL, 0, NULL, 0 },
};

static int take(int option, const char *name, struct vmm_options *options, bool *show_origin)
{
	enum log_level level;
	int64_t number;
	int rc;

	switch (option) {
	case API_SOCK:
		options->api_sock = optarg;
		return 0;
	case NO_API:
		options->api_sock = NULL;
		return 0;
	case CONFIG_FILE:
		options->config_file = optarg;
		return 0;
	case ID:
		options->id = optarg;
		return parse_id(optarg);
	case METRICS_PATH:
		options->metrics_path = optarg;
		return 0;
	case LOG_PATH:
		options->log_path = optarg;
		return 0;
	case LEVEL:
		if (!log_level_parse(optarg, &level)) {
			(void)bad(name, optarg, "no such level");
			return EXIT_BAD_CONFIGURATION;
		}
		log_set_level(level);
		return 0;
	case SHOW_LEVEL:
		return 0;
	case SHOW_LOG_ORIGIN:
		*show_origin = true;
		return 0;
	case MODULE:
		log_set_module(optarg);
		return 0;
	case BOOT_TIMER:
		options->boot_timer = true;
		return 0;
	case NO_SECCOMP:
		options->no_seccomp = true;
		return 0;
	case PAYLOAD:
		rc = parse_number(name, optarg, 1 << 30, &number);
		if (rc == 0)
			options->body_max = (size_t)number;
		return rc;
	case METADATA:
		options->metadata = optarg;
		return 0;
	case MMDS_SIZE:
		rc = parse_number(name, optarg, 1 << 30, &number);
		if (rc == 0)
			options->mmds_size_limit = (size_t)number;
		return rc;
	case START_TIME:
		return parse_number(name, optarg, INT64_MAX / 1000, &options->start_time_us);
	case START_TIME_CPU:
		return parse_number(name, optarg, INT64_MAX / 1000, &options->start_cpu_us);
	case PARENT_CPU_TIME:
		return parse_number(name, optarg, INT64_MAX / 1000, &options->parent_cpu_us);
	case RECORD_FD:
		return take_record_fd(name, optarg);
	case FD_NAME:
		return take_fd_name(name, optarg);
	case ENABLE_PCI:
		options->wants_pci = true;
		return 0;
	case SECCOMP_FILTER:
		return bad(name, optarg, "a filter of one's own is not possible: mote's is fixed");
	case SNAPSHOT_VERSION:
		return print_snapshot_version();
	case DESCRIBE_SNAPSHOT:
		return describe_snapshot(optarg);
	case VERSION:
		/* The first line is what clients of Firecracker's parse. */
		printf("Firecracker v" FIRECRACKER_VERSION "\nmote-vmm %s\n", MOTE_VERSION);
		return -1;
	case HELP:
		fputs(usage, stdout);
		return -1;
	default:
		return EXIT_BAD_ARGUMENTS;
	}
}

int vmm_options_parse(int argc, char **argv, struct vmm_options *options)
{
	bool show_origin = false;
	int option, index = 0;

	*options = (struct vmm_options){ .api_sock = DEFAULT_API_SOCK,
					 .id = "anonymous-instance",
					 .body_max = HTTP_BODY_MAX,
					 .mmds_size_limit = SIZE_MAX };
	while ((option = getopt_long(argc, argv, "", names, &index)) != -1) {
		int rc = take(option, names[index].name, options, &show_origin);

		if (rc != 0)
			return rc;
	}
	if (options->mmds_size_limit == SIZE_MAX)
		options->mmds_size_limit = options->body_max;
	if (optind < argc) {
		fprintf(stderr, "mote-vmm: unexpected argument %s\n", argv[optind]);
		return EXIT_BAD_ARGUMENTS;
	}
	if (!options->api_sock && !options->config_file) {
		fputs("mote-vmm: --no-api: --config-file FILE is needed then\n", stderr);
		return EXIT_BAD_ARGUMENTS;
	}
	log_show(true, show_origin);
	log_set_id(options->id);
	return 0;
}
