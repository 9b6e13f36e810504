/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"

#define DEFAULT_KERNEL "microvm"
#define BOOT_ARGS "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1"

static const char usage[] =
	"usage: mote run [OPTION]... [--] COMMAND [ARGUMENT]...\n"
	"Boots a microVM, runs COMMAND in it, and exits with its status.\n"
	"\n"
	"  --cpus N           virtual processors, 1 to 32 (default 1)\n"
	"  --memory MIB       guest memory (default 128)\n"
	"  --huge-pages KIND  None: small, the kernel's pages shared with other VMs until "
	"written;\n"
	"                     Transparent (default): starts faster; 2M: reserved by the host\n"
	"  --kernel NAME|PATH a kernel that `mote kernel list` shows, or a file "
	"(default " DEFAULT_KERNEL ")\n"
	"  --initrd PATH      another initramfs with mote-init as its /init\n"
	"  --boot-args TEXT   more for the kernel's command line\n"
	"  --rootfs IMAGE     an ext4 or erofs image as the root, what is written to it in "
	"memory;\n"
	"                     IMAGE:rw writes to the image itself\n"
	"  --drive FILE       a further drive, /dev/vdb and so on (FILE:ro read-only); repeatable\n"
	"  --net KIND         none (default); user: through passt, no privilege needed;\n"
	"                     tap:NAME: a tap device of the host, which --address goes with\n"
	"  --address TEXT     ADDRESS/PREFIX[,GATEWAY[,DNS]] of the guest on its tap device\n"
	"  --env NAME=VALUE   set a variable for COMMAND; repeatable\n"
	"  --timing           print when each phase was reached\n"
	"  --verbose          print the VMM's log\n"
	"\n"
	"Exit status: COMMAND's own; 128 + N if signal N killed it; 125 if the microVM failed,\n"
	"127 if COMMAND could not be run in it; 2 for wrong usage.\n";

static int usage_error(const char *what, const char *value, const char *expected)
{
	fprintf(stderr, "mote run: %s%s%s: %s; see mote run --help\n", what, *value ? " " : "",
		value, expected);
	return -1;
}

static int parse_number(const char *text, int *number)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < 1 || value > INT_MAX)
		return -EINVAL;
	*number = (int)value;
	return 0;
}

/* What the options refer to: the files of the kernel and of the default root. */
static int resolve(struct run_options *options, const char *kernel, const char *initrd,
		   const char *boot_args, struct err *err)
{
	char own_initrd[NAME_MAX];
	int rc = run_devices_finish(&options->devices, err);
	if (rc < 0)
		return rc;
	snprintf(options->boot_args, sizeof(options->boot_args), BOOT_ARGS "%s%s%s",
		 options->devices.boot_args, boot_args ? " " : "", boot_args ? boot_args : "");
	options->config.drives = options->devices.drives;
	options->config.interfaces = options->devices.interfaces;
	rc = cli_find_kernel(kernel, options->config.kernel, err);
	if (rc == 0 && initrd) {
		rc = snprintf(options->config.initrd, sizeof(options->config.initrd), "%s",
			      initrd) < (int)sizeof(options->config.initrd)
			     ? 0
			     : err_set(err, ENAMETOOLONG, "--initrd: the path is too long");
	} else if (rc == 0) {
		/* A kernel of somebody else's needs its modules with it. */
		snprintf(own_initrd, sizeof(own_initrd), "initrd-%s.cpio", kernel);
		/* optarg, where it comes from, is set for every option with an argument. */
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
		if (strchr(kernel, '/') ||
		    cli_find_own(own_initrd, options->config.initrd, err) < 0)
			rc = cli_find_own("initrd.cpio", options->config.initrd, err);
	}
	return rc;
}

/* 0 to go on, -1 if *status is to be returned. */
static int parse(struct run_options *options, int argc, char **argv, int *status)
{
	enum {
		CPUS,
		MEMORY,
		HUGE_PAGES,
		KERNEL,
		INITRD,
		BOOT_ARGS_MORE,
		ROOTFS,
		DRIVE,
		NET,
		ADDRESS,
		ENV,
		TIMING,
		VERBOSE,
		HELP
	};
	static const struct option names[] = {
		{ "cpus", required_argument, NULL, CPUS },
		{ "memory", required_argument, NULL, MEMORY },
		{ "huge-pages", required_argument, NULL, HUGE_PAGES },
		{ "kernel", required_argument, NULL, KERNEL },
		{ "initrd", required_argument, NULL, INITRD },
		{ "boot-args", required_argument, NULL, BOOT_ARGS_MORE },
		{ "rootfs", required_argument, NULL, ROOTFS },
		{ "drive", required_argument, NULL, DRIVE },
		{ "net", required_argument, NULL, NET },
		{ "address", required_argument, NULL, ADDRESS },
		{ "env", required_argument, NULL, ENV },
		{ "timing", no_argument, NULL, TIMING },
		{ "verbose", no_argument, NULL, VERBOSE },
		{ "help", no_argument, NULL, HELP },
		{ NULL, 0, NULL, 0 },
	};
	const char *kernel = DEFAULT_KERNEL;
	const char *initrd = NULL;
	const char *boot_args = NULL;
	struct err err;
	int option;

	*status = CLI_EXIT_USAGE;
	while ((option = getopt_long(argc, argv, "+", names, NULL)) != -1) {
		switch (option) {
		case CPUS:
			if (parse_number(optarg, &options->config.vcpu_count) < 0)
				return usage_error("--cpus", optarg, "not a number from 1");
			break;
		case MEMORY:
			if (parse_number(optarg, &options->config.mem_size_mib) < 0)
				return usage_error("--memory", optarg, "not a number of MiB");
			break;
		case HUGE_PAGES:
			options->config.huge_pages = optarg;
			break;
		case KERNEL:
			kernel = optarg;
			break;
		case INITRD:
			initrd = optarg;
			break;
		case BOOT_ARGS_MORE:
			boot_args = optarg;
			break;
		case ROOTFS:
			if (run_devices_rootfs(&options->devices, optarg) < 0)
				return usage_error("--rootfs", optarg, "it can be given once");
			break;
		case DRIVE:
			if (run_devices_drive(&options->devices, optarg) < 0)
				return usage_error("--drive", optarg, "a path is expected");
			break;
		case NET:
			if (run_devices_net(&options->devices, optarg) < 0)
				return usage_error("--net", optarg,
						   "none, user or tap:NAME is expected");
			break;
		case ADDRESS:
			options->devices.address = optarg;
			break;
		case ENV:
			if (!strchr(optarg, '=') ||
			    json_array_append_new(options->env, json_string(optarg)) < 0)
				return usage_error("--env", optarg, "NAME=VALUE is expected");
			break;
		case TIMING:
			options->timing = true;
			break;
		case VERBOSE:
			options->verbose = true;
			break;
		case HELP:
			fputs(usage, stdout);
			*status = EXIT_SUCCESS;
			return -1;
		default:
			return -1;
		}
	}
	if (optind == argc)
		return usage_error("COMMAND", "", "the command to run is missing");
	if (options->devices.address && options->devices.net != RUN_NET_TAP)
		return usage_error("--address", options->devices.address,
				   "it goes with --net tap:NAME");
	*status = CLI_EXIT_SANDBOX;
	return resolve(options, kernel, initrd, boot_args, &err) < 0 ? (cli_fail(*status, &err), -1)
								     : 0;
}

bool run_options_parse(struct run_options *options, int argc, char **argv, int *status)
{
	*options = (struct run_options){
		.config = { .boot_args = options->boot_args,
			    .vcpu_count = 1,
			    .mem_size_mib = 128,
			    .huge_pages = "Transparent" },
		.env = json_array(),
	};
	run_devices_open(&options->devices);
	return parse(options, argc, argv, status) == 0;
}

void run_options_close(struct run_options *options)
{
	run_devices_close(&options->devices);
	json_decref(options->env);
}
