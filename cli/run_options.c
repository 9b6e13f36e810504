/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent-protocol/protocol.h"
#include "base/array.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/image_build.h"
#include "cli/request_options.h"
#include "host/paths.h"
#include "host/values.h"

#define RESOLVER "/etc/resolv.conf"
#define DEFAULT_KERNEL "microvm"
#define BOOT_ARGS "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1"

#define TEXT_OF(number) #number
#define WORD_OF(name, number) " " name "=" TEXT_OF(number)
#define METADATA_WORD WORD_OF("mote.metadata", PROTOCOL_METADATA_PORT)

static const char usage[] =
	"usage: mote run [OPTION]... [IMAGE] [--] [COMMAND [ARGUMENT]...]\n"
	"Boots a microVM, runs COMMAND in it, and exits with its status. IMAGE is one that\n"
	"`mote image ls` shows, or a file if it has a slash; without IMAGE (mote run -- COMMAND) "
	"the\n"
	"root is a small busybox. Without COMMAND the image's own is run.\n"
	"\n"
	"The microVM\n"
	"  --cpus N             virtual processors, 1 to 32 (default 1)\n"
	"  -m, --memory SIZE    guest memory, as 512M or 2G (default 128M)\n"
	"  --net KIND           none (default); user: through passt, no privilege needed;\n"
	"                       tap:NAME: a tap device of the host, which --address goes with\n"
	"  --address TEXT       ADDRESS/PREFIX[,GATEWAY[,DNS]] of the guest on its tap device\n"
	"  -p, --publish [ADDRESS:]HOST:GUEST[/udp]\n"
	"                       a port of the host that leads to one of the guest, with --net "
	"user\n"
	"  --metadata FILE      what programs in it read at http://169.254.169.254/ (a JSON "
	"object),\n"
	"                       whatever --net is\n"
	"  --name NAME          what to call it, and its host name (default: a random id)\n"
	"\n"
	"The command\n" REQUEST_HELP RUN_SETTINGS_HELP "  -v, --volume DIR:PATH[:ro]\n"
	"                       copy a directory of the host to PATH before it runs, and without "
	":ro\n"
	"                       what is new or changed back behind it; what it removed stays. It\n"
	"                       belongs to USER in the guest, and hides what the image has there. "
	"Back\n"
	"                       come 16 GiB, a million files at most, in ten minutes\n"
	"  -d, --detach         go on in the background, and print its name: see mote exec, logs, "
	"kill;\n"
	"                       without COMMAND the microVM just runs\n"
	"  --rm                 with --detach: forget it when it has ended, as is done without\n"
	"\n"
	"Drives and the kernel\n"
	"  --rootfs FILE        an ext4 or erofs image as the root, what is written to it in "
	"memory;\n"
	"                       FILE:rw writes to the image itself\n"
	"  --overlay FILE       an ext4 image that keeps what is written to the root\n"
	"  --drive FILE         a further drive, the next of /dev/vda, /dev/vdb and so on "
	"(FILE:ro\n"
	"                       read-only); repeatable\n"
	"  --kernel NAME|PATH   a kernel that `mote kernel list` shows, or a file "
	"(default " DEFAULT_KERNEL ")\n"
	"  --initrd PATH        another initramfs with mote-init as its /init\n"
	"  --boot-args TEXT     more for the kernel's command line\n"
	"  --huge-pages KIND    what backs the memory: Transparent (default): huge pages if there "
	"are any;\n"
	"                       None: the host's own policy; 2M: huge pages that the host "
	"reserved\n"
	"\n"
	"What is told\n"
	"  --json-result[=FILE] one JSON object about how it ended and what it took, as the last "
	"line\n"
	"                       of standard error or in FILE\n"
	"  --timing             print when each phase was reached\n"
	"  --verbose            print the VMM's log\n"
	"  --weaker-jail cgroup go on without limits of the VMM where no cgroup can be made\n"
	"  --no-jail            run the VMM outside of a jail, as oneself\n"
	"\n"
	"Signals go to COMMAND; a second INT, TERM, HUP or QUIT ends the microVM.\n"
	"\n"
	"Exit status: COMMAND's own; 128 + N if signal N killed it (137: by force, or for want of\n"
	"memory); 124 if its time was over; 125 if the microVM failed; 126 if COMMAND cannot be "
	"run,\n"
	"127 if it is not there; 2 for wrong usage.\n";

static int usage_error(const char *what, const char *value, const char *expected)
{
	return request_usage_error("run", what, value, expected);
}

/* Where the other files are; NULL or 0: the default. */
struct choices {
	const char *kernel;
	const char *initrd;
	const char *boot_args;
	bool dashes; /* the words came behind "--" */
};

/* Beside a kernel that was installed by its name, where it has any. */
static bool has_modules(const char *kernel)
{
	const char *slash = strrchr(kernel, '/');
	char path[PATH_MAX];

	return slash &&
	       snprintf(path, sizeof(path), "%.*s/lib/modules", (int)(slash - kernel), kernel) <
		       (int)sizeof(path) &&
	       access(path, F_OK) == 0;
}

static int find_initrd(struct run_options *options, const struct choices *choices, struct err *err)
{
	char own_initrd[NAME_MAX];

	if (choices->initrd)
		return snprintf(options->config.initrd, sizeof(options->config.initrd), "%s",
				choices->initrd) < (int)sizeof(options->config.initrd)
			       ? 0
			       : err_set(err, ENAMETOOLONG, "--initrd: the path is too long");
	if (!strchr(choices->kernel, '/')) {
		snprintf(own_initrd, sizeof(own_initrd), "initrd-%s.cpio", choices->kernel);
		if (paths_own(own_initrd, options->config.initrd, NULL) == 0)
			return 0;
		if (has_modules(options->config.kernel))
			return err_set(err, ENOENT,
				       "kernel %s: its drivers are modules, which come in %s, and "
				       "that is not there (\"make build/release/%s\" builds it)",
				       choices->kernel, own_initrd, own_initrd);
	}
	return paths_own("initrd.cpio", options->config.initrd, err);
}

static void take_host_resolver(struct run_names *names)
{
	const struct passt_families families = passt_families();

	run_names_take_host(names, RESOLVER, PASST_DNS, families.ipv6 ? PASST_DNS_IPV6 : NULL,
			    families.ipv4);
}

/* What the options refer to: the files of the kernel and of the default root. */
static int resolve(struct run_options *options, const struct choices *choices, struct err *err)
{
	char names_words[4 * RUN_NAMES_SIZE];
	int rc = run_devices_finish(&options->devices, err);

	if (rc < 0)
		return rc;
	if (options->devices.net == RUN_NET_USER)
		take_host_resolver(&options->settings.names);
	if (run_names_words(&options->settings.names, options->name, names_words,
			    sizeof(names_words)) < 0 ||
	    snprintf(options->boot_args, sizeof(options->boot_args), BOOT_ARGS "%s%s%s%s%s%s",
		     options->devices.boot_args, names_words, options->settings.tmpfs,
		     options->config.metadata ? METADATA_WORD : "", choices->boot_args ? " " : "",
		     choices->boot_args ? choices->boot_args : "") >=
		    (int)sizeof(options->boot_args))
		return err_set(err, E2BIG,
			       "the kernel's command line: names and options are "
			       "longer than it takes");
	options->config.drives = options->devices.drives;
	options->config.interfaces = options->devices.interfaces;
	rc = paths_kernel(choices->kernel, options->config.kernel, err);
	return rc < 0 ? rc : find_initrd(options, choices, err);
}

/* Variables of the image first, so that those of the command line count. */
static int set_command(struct run_options *options, char **words, struct err *err)
{
	const struct image_config *image = &options->image_config;
	struct session_request *request = &options->request;
	const char *const entrypoint = options->settings.entrypoint;
	json_t *env = json_array();

	if (image_config_add(env, image->env) < 0 || json_array_extend(env, request->env) < 0) {
		json_decref(env);
		return err_set(err, ENOMEM, "the command: no memory");
	}
	json_decref(request->env);
	request->env = env;
	request_add_terminal(request);
	request->make_cwd = true;
	if (!request->cwd)
		request->cwd = image->workdir;
	if (!request->user)
		request->user = image->user;
	request->argv = image_config_command(image, entrypoint, words);
	if (options->settings.stop_signal == 0)
		options->settings.stop_signal = image->stop_signal;
	if (!request->argv)
		return err_set(err, ENOMEM, "the command: no memory");
	return 0;
}

/* The words behind the options. 0, or -errno with err set. */
static int take_words(struct run_options *options, const struct choices *choices, char **words,
		      struct err *err)
{
	int rc;

	if (!choices->dashes && *words) {
		const char *name = *words++;
		bool is_file;

		options->image_name = name;
		rc = paths_image(name, options->image, &is_file, err);
		if (rc == -ENOENT && image_reference_has_registry(name)) {
			rc = image_pull(name, err);
			if (rc == 0)
				rc = paths_image(name, options->image, &is_file, err);
		}
		/* What lies beside a file of somebody's says nothing about it. */
		if (rc == 0 && !is_file)
			rc = image_config_open(&options->image_config, options->image, err);
		if (rc < 0)
			return rc;
		if (run_devices_rootfs(&options->devices, options->image) < 0)
			return err_set(err, EINVAL, "--rootfs: IMAGE %s is the root already",
				       options->image);
		if (*words && strcmp(*words, "--") == 0)
			words++;
	}
	return set_command(options, words, err);
}

enum option_number {
	CPUS = 256,
	HUGE_PAGES,
	KERNEL,
	INITRD,
	BOOT_ARGS_MORE,
	ROOTFS,
	OVERLAY,
	DRIVE,
	NET,
	ADDRESS,
	METADATA,
	NAME,
	REMOVE,
	JSON_RESULT,
	TIMING,
	VERBOSE,
	NO_JAIL,
	WEAKER_JAIL,
	HELP,
};

static const struct option own_names[] = {
	{ "cpus", required_argument, NULL, CPUS },
	{ "memory", required_argument, NULL, 'm' },
	{ "huge-pages", required_argument, NULL, HUGE_PAGES },
	{ "kernel", required_argument, NULL, KERNEL },
	{ "initrd", required_argument, NULL, INITRD },
	{ "boot-args", required_argument, NULL, BOOT_ARGS_MORE },
	{ "rootfs", required_argument, NULL, ROOTFS },
	{ "overlay", required_argument, NULL, OVERLAY },
	{ "drive", required_argument, NULL, DRIVE },
	{ "net", required_argument, NULL, NET },
	{ "address", required_argument, NULL, ADDRESS },
	{ "metadata", required_argument, NULL, METADATA },
	{ "name", required_argument, NULL, NAME },
	REQUEST_LONG,
	{ "volume", required_argument, NULL, 'v' },
	{ "publish", required_argument, NULL, 'p' },
	{ "detach", no_argument, NULL, 'd' },
	{ "rm", no_argument, NULL, REMOVE },
	{ "json-result", optional_argument, NULL, JSON_RESULT },
	{ "timing", no_argument, NULL, TIMING },
	{ "verbose", no_argument, NULL, VERBOSE },
	{ "no-jail", no_argument, NULL, NO_JAIL },
	{ "weaker-jail", required_argument, NULL, WEAKER_JAIL },
	{ "help", no_argument, NULL, HELP },
};

#define OWN_COUNT (ARRAY_SIZE(own_names))

/* Both tables as one, for getopt_long; to be freed, NULL without memory. */
static struct option *all_names(void)
{
	struct option *names = calloc(OWN_COUNT + RUN_SETTINGS_COUNT + 1, sizeof(*names));

	if (names) {
		memcpy(names, own_names, sizeof(own_names));
		run_settings_options(names + OWN_COUNT);
	}
	return names;
}

/* The options about devices; 0 or -1, all said. */
static int take_device(struct run_options *options, int option, const char *value)
{
	struct run_devices *devices = &options->devices;

	switch (option) {
	case ROOTFS:
		if (run_devices_rootfs(devices, value) < 0)
			return usage_error("--rootfs", value, "it can be given once");
		break;
	case OVERLAY:
		devices->overlay = value;
		break;
	case DRIVE:
		if (run_devices_drive(devices, value) < 0)
			return usage_error("--drive", value, "a path is expected");
		break;
	case NET:
		if (run_devices_net(devices, value) < 0)
			return usage_error("--net", value, "none, user or tap:NAME is expected");
		break;
	default:
		devices->address = value;
		break;
	}
	return 0;
}

static int take_volume(struct run_options *options, char *value, int *status)
{
	struct err err = { .text = "" };

	if (run_volumes_add(&options->volumes, value, &err) == 0)
		return 0;
	if (!err.text[0])
		return usage_error("--volume", value, "DIR:/PATH[:ro] is expected");
	*status = cli_fail(CLI_EXIT_SANDBOX, &err);
	return -1;
}

/* 0 to go on, -1 if all is said and *status is to be returned. */
static int take(struct run_options *options, struct choices *choices, int option, int *status)
{
	const int rc = run_settings_option(&options->settings, &options->request, option, optarg);

	if (rc != 0)
		return rc > 0 ? 0 : -1;
	switch (option) {
	case CPUS:
		if (value_number(optarg, &options->config.vcpu_count) < 0)
			return usage_error("--cpus", optarg, "not a number from 1");
		return 0;
	case 'm':
		if (value_mib(optarg, &options->config.mem_size_mib) < 0)
			return usage_error("--memory", optarg, "a size as 512M or 2G is expected");
		return 0;
	case HUGE_PAGES:
		options->config.huge_pages = optarg;
		return 0;
	case KERNEL:
		choices->kernel = optarg;
		return 0;
	case INITRD:
		choices->initrd = optarg;
		return 0;
	case BOOT_ARGS_MORE:
		choices->boot_args = optarg;
		return 0;
	case ROOTFS:
	case OVERLAY:
	case DRIVE:
	case NET:
	case ADDRESS:
		return take_device(options, option, optarg);
	case METADATA:
		options->config.metadata = optarg;
		return 0;
	case NAME:
		options->name = optarg;
		return 0;
	case 'v':
		return take_volume(options, optarg, status);
	case 'p':
		return passt_publish(&options->ports, optarg) == 0
			       ? 0
			       : usage_error("--publish", optarg,
					     "[ADDRESS:]HOST:GUEST[/udp] is expected");
	case 'd':
		options->detach = true;
		return 0;
	case REMOVE:
		options->forget = true;
		return 0;
	case JSON_RESULT:
		options->json_result = true;
		options->json_path = optarg;
		return 0;
	case TIMING:
		options->timing = true;
		return 0;
	case VERBOSE:
		options->verbose = true;
		return 0;
	case NO_JAIL:
		options->jail.none = true;
		return 0;
	case WEAKER_JAIL:
		if (strcmp(optarg, "cgroup") != 0)
			return usage_error("--weaker-jail", optarg,
					   "cgroup is what can be left out");
		options->jail.weaker_cgroup = true;
		return 0;
	case HELP:
		fputs(usage, stdout);
		*status = EXIT_SUCCESS;
		return -1;
	default:
		return request_option(&options->request, "run", option, optarg) > 0 ? 0 : -1;
	}
}

/* What is given must go together. 0 or -1, all said. */
static int check(const struct run_options *options)
{
	const struct run_devices *devices = &options->devices;

	if (devices->address && devices->net != RUN_NET_TAP)
		return usage_error("--address", devices->address, "it goes with --net tap:NAME");
	if (options->ports.count > 0 && devices->net != RUN_NET_USER)
		return usage_error("--publish", "", "it goes with --net user");
	if (options->detach && options->request.tty)
		return usage_error("--detach", "", "it does not go with --tty");
	if (options->detach && options->json_result && !options->json_path)
		return usage_error("--json-result", "", "with --detach a file is needed");
	return 0;
}

/* 0 to go on, -1 if *status is to be returned. *value is the last option's. */
static int take_all(struct run_options *options, struct choices *choices, int argc, char **argv,
		    const char **value, int *status)
{
	struct option *names = all_names();
	int option, rc = names ? 0 : -1;

	while (rc == 0 &&
	       (option = getopt_long(argc, argv, "+m:v:p:d" REQUEST_SHORT, names, NULL)) != -1) {
		*value = optarg;
		rc = take(options, choices, option, status);
	}
	free(names);
	return rc;
}

/* 0 to go on, -1 if *status is to be returned. */
static int parse(struct run_options *options, int argc, char **argv, int *status)
{
	struct choices choices = { .kernel = DEFAULT_KERNEL };
	const char *value = NULL;
	struct err err;

	*status = CLI_EXIT_USAGE;
	if (take_all(options, &choices, argc, argv, &value, status) < 0)
		return -1;
	/* Not if it is the value of the last option. */
	choices.dashes = argv[optind - 1] != value && strcmp(argv[optind - 1], "--") == 0;
	if (check(options) < 0)
		return -1;
	if (take_words(options, &choices, argv + optind, &err) < 0) {
		*status = cli_fail(CLI_EXIT_SANDBOX, &err);
		return -1;
	}
	if (json_array_size(options->request.argv) == 0 && !options->detach)
		return usage_error("COMMAND", "", "the command to run is missing");
	if (options->devices.overlay &&
	    (!options->devices.root_ending || strcmp(options->devices.root_ending, "ro") != 0))
		return usage_error("--overlay", options->devices.overlay,
				   "it goes with an image as the root that is not written to");
	if (resolve(options, &choices, &err) < 0) {
		*status = cli_fail(CLI_EXIT_SANDBOX, &err);
		return -1;
	}
	return 0;
}

bool run_options_parse(struct run_options *options, int argc, char **argv, int *status)
{
	*options = (struct run_options){
		.config = { .boot_args = options->boot_args,
			    .vcpu_count = 1,
			    .mem_size_mib = 128,
			    .huge_pages = "Transparent" },
		.request = { .env = json_array() },
		.settings = { .stop_timeout_ms = DEFAULT_STOP_TIMEOUT_MS, .labels = json_object() },
	};
	run_devices_open(&options->devices);
	return parse(options, argc, argv, status) == 0;
}

void run_options_close(struct run_options *options)
{
	run_devices_close(&options->devices);
	run_volumes_close(&options->volumes);
	image_config_close(&options->image_config);
	json_decref(options->request.argv);
	json_decref(options->request.env);
	json_decref(options->request.rlimits);
	run_settings_close(&options->settings);
}
