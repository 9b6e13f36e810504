/* SPDX-License-Identifier: Apache-2.0 */
/* mote run: boots a microVM for one command and passes its input, output and status through. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/agent_client.h"
#include "cli/cli.h"
#include "cli/passt.h"
#include "cli/run_devices.h"
#include "cli/sandbox.h"

#define DEFAULT_KERNEL "microvm"
#define BOOT_ARGS "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1"
/* The guest powers off by itself once its command's status is reported. */
#define POWER_OFF_TIMEOUT_MS 2000
/* How long a VM may be silent that has written something else than frames. */
#define LINE_LOST_TIMEOUT_MS 5000

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

struct run {
	struct sandbox_config config;
	char boot_args[4096]; /* what is longer than the kernel takes, the VMM refuses */
	json_t *env;	      /* owned */
	struct run_devices devices;
	struct passt passt;
	bool timing;
	bool verbose;

	struct sandbox sandbox;
	struct agent_reader reader;
	bool ready; /* the agent has answered, the request is on its way */
	bool stdin_over;
	uint8_t out[PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX]; /* to the agent */
	size_t out_used;
	size_t out_at;
	bool line_lost; /* kernel messages are in between the frames now */
	bool done;
	bool interrupted; /* the command has been sent a signal */
	bool killed;	  /* a signal has ended the VM */
	int signal_fd;
	int status;
	int64_t command_done_ns;
};

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

/* 0 to go on, -1 if *status is to be returned. */
static int parse(struct run *run, int argc, char **argv, int *status)
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
	char own_initrd[NAME_MAX];
	struct err err;
	int option, rc;

	*status = CLI_EXIT_USAGE;
	while ((option = getopt_long(argc, argv, "+", names, NULL)) != -1) {
		switch (option) {
		case CPUS:
			if (parse_number(optarg, &run->config.vcpu_count) < 0)
				return usage_error("--cpus", optarg, "not a number from 1");
			break;
		case MEMORY:
			if (parse_number(optarg, &run->config.mem_size_mib) < 0)
				return usage_error("--memory", optarg, "not a number of MiB");
			break;
		case HUGE_PAGES:
			run->config.huge_pages = optarg;
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
			if (run_devices_rootfs(&run->devices, optarg) < 0)
				return usage_error("--rootfs", optarg, "it can be given once");
			break;
		case DRIVE:
			if (run_devices_drive(&run->devices, optarg) < 0)
				return usage_error("--drive", optarg, "a path is expected");
			break;
		case NET:
			if (run_devices_net(&run->devices, optarg) < 0)
				return usage_error("--net", optarg,
						   "none, user or tap:NAME is expected");
			break;
		case ADDRESS:
			run->devices.address = optarg;
			break;
		case ENV:
			if (!strchr(optarg, '=') ||
			    json_array_append_new(run->env, json_string(optarg)) < 0)
				return usage_error("--env", optarg, "NAME=VALUE is expected");
			break;
		case TIMING:
			run->timing = true;
			break;
		case VERBOSE:
			run->verbose = true;
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
	if (run->devices.address && run->devices.net != RUN_NET_TAP)
		return usage_error("--address", run->devices.address,
				   "it goes with --net tap:NAME");
	*status = CLI_EXIT_SANDBOX;
	rc = run_devices_finish(&run->devices, &err);
	if (rc < 0)
		return cli_fail(*status, &err), -1;
	snprintf(run->boot_args, sizeof(run->boot_args), BOOT_ARGS "%s%s%s", run->devices.boot_args,
		 boot_args ? " " : "", boot_args ? boot_args : "");
	run->config.drives = run->devices.drives;
	run->config.interfaces = run->devices.interfaces;
	rc = cli_find_kernel(kernel, run->config.kernel, &err);
	if (rc == 0 && initrd) {
		rc = snprintf(run->config.initrd, sizeof(run->config.initrd), "%s", initrd) <
				     (int)sizeof(run->config.initrd)
			     ? 0
			     : err_set(&err, ENAMETOOLONG, "--initrd: the path is too long");
	} else if (rc == 0) {
		/* A kernel of somebody else's needs its modules with it. */
		snprintf(own_initrd, sizeof(own_initrd), "initrd-%s.cpio", kernel);
		/* optarg, where it comes from, is set for every option with an argument. */
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
		if (strchr(kernel, '/') || cli_find_own(own_initrd, run->config.initrd, &err) < 0)
			rc = cli_find_own("initrd.cpio", run->config.initrd, &err);
	}
	if (rc < 0)
		return cli_fail(*status, &err), -1;
	return 0;
}

static void finish(struct run *run, int status)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	run->command_done_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	run->status = status;
	run->done = true;
}

/* The one place where bytes for the guest wait; false if there is no room for the frame. */
static bool queue_frame(struct run *run, uint8_t type, const void *payload, size_t size)
{
	if (sizeof(run->out) - run->out_used < PROTOCOL_HEADER_SIZE + size)
		return false;
	agent_frame_header(run->out + run->out_used, type, (uint32_t)size);
	memcpy(run->out + run->out_used + PROTOCOL_HEADER_SIZE, payload, size);
	run->out_used += PROTOCOL_HEADER_SIZE + size;
	return true;
}

static void flush_to_guest(struct run *run)
{
	ssize_t n =
		write(run->sandbox.console_in, run->out + run->out_at, run->out_used - run->out_at);

	if (n > 0)
		run->out_at += (size_t)n;
	/* When the VM is gone, its end is noticed by other means. */
	if (run->out_at == run->out_used || (n < 0 && errno != EAGAIN && errno != EINTR))
		run->out_at = run->out_used = 0;
}

static int send_request(struct run *run, char **argv, struct err *err)
{
	json_t *list = json_array();
	json_t *request;
	char *text;
	bool fits;

	for (; *argv; argv++)
		json_array_append_new(list, json_string(*argv));
	request = json_pack("{s:{s:o, s:O}}", "exec", "argv", list, "env", run->env);
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!text)
		return err_set(err, EINVAL, "the command's arguments are not UTF-8");
	fits = strlen(text) <= PROTOCOL_PAYLOAD_MAX &&
	       queue_frame(run, PROTOCOL_REQUEST, text, strlen(text));
	free(text);
	return fits ? 0
		    : err_set(err, E2BIG,
			      "the command and its environment are longer than %d bytes",
			      PROTOCOL_PAYLOAD_MAX);
}

static int exit_status(const struct agent_frame *frame)
{
	json_t *result = json_loadb((const char *)frame->payload, frame->size, 0, NULL);
	const json_t *signal = json_object_get(result, "signal");
	const json_t *code = json_object_get(result, "code");
	int status = CLI_EXIT_SANDBOX;

	if (json_is_integer(signal))
		status = 128 + (int)(json_integer_value(signal) & 0x7f);
	else if (json_is_integer(code))
		status = (int)(json_integer_value(code) & 0xff);
	json_decref(result);
	return status;
}

/* The first signal goes to the command, if it can be told; the next ends the VM. */
static void handle_signal(struct run *run)
{
	struct signalfd_siginfo info;
	uint8_t number;

	if (read(run->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	number = (uint8_t)info.ssi_signo;
	if (run->ready && !run->interrupted && queue_frame(run, PROTOCOL_SIGNAL, &number, 1)) {
		run->interrupted = true;
		return;
	}
	run->killed = true;
	finish(run, 128 + number);
}

/*
 * Passes the command's output on. A reader that is slow is waited for, but signals still work; one
 * that has gone ends the run as it would end the command outside a VM.
 */
static int write_output(struct run *run, int fd, const uint8_t *data, size_t size, struct err *err)
{
	while (size > 0 && !run->done) {
		struct pollfd fds[] = {
			{ .fd = fd, .events = POLLOUT },
			{ .fd = run->signal_fd, .events = POLLIN },
		};
		ssize_t n;

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents) {
			handle_signal(run);
			/* What is to be sent must not wait for the reader. */
			flush_to_guest(run);
		}
		if (!fds[0].revents)
			continue;
		n = write(fd, data, size < PIPE_BUF ? size : PIPE_BUF);
		if (n < 0 && errno == EPIPE) {
			run->killed = true;
			finish(run, 128 + SIGPIPE);
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			return err_sys(err, errno, "standard %s",
				       fd == STDOUT_FILENO ? "output" : "error");
		} else if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

static int handle_frame(struct run *run, const struct agent_frame *frame, char **argv,
			struct err *err)
{
	switch (frame->type) {
	case PROTOCOL_READY:
		if (run->ready)
			return err_set(err, EPROTO, "the guest's agent was started twice");
		run->ready = true;
		return send_request(run, argv, err);
	case PROTOCOL_STDOUT:
	case PROTOCOL_STDERR:
		return write_output(run,
				    frame->type == PROTOCOL_STDOUT ? STDOUT_FILENO : STDERR_FILENO,
				    frame->payload, frame->size, err);
	case PROTOCOL_EXIT:
		finish(run, exit_status(frame));
		return 0;
	case PROTOCOL_ERROR:
		fprintf(stderr, "mote: %.*s\n", (int)frame->size, (const char *)frame->payload);
		finish(run, CLI_EXIT_CANNOT_RUN);
		return 0;
	default:
		return err_set(err, EPROTO, "the guest's agent sent a frame of unknown type %u",
			       frame->type);
	}
}

/* 1 while there may be more, 0 at the end of the line, -errno with err set. */
static int read_console(struct run *run, char **argv, struct err *err)
{
	struct agent_frame frame;
	size_t room;
	uint8_t *to = agent_reader_room(&run->reader, &room);
	ssize_t n = read(run->sandbox.console_out, to, room);
	int rc;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n <= 0)
		return 0;
	if (run->line_lost)
		return 1;
	agent_reader_added(&run->reader, (size_t)n);
	while (!run->done && (rc = agent_reader_next(&run->reader, &frame, err)) != 0) {
		if (rc < 0) {
			/* A kernel that panics or restarts says so on this line: wait for its end.
			 */
			run->line_lost = true;
			return 1;
		}
		rc = handle_frame(run, &frame, argv, err);
		if (rc < 0)
			return rc;
	}
	return 1;
}

static void read_stdin(struct run *run)
{
	uint8_t data[4096]; /* small, as the serial line is slow and a command may not read */
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));

	if (n > 0)
		queue_frame(run, PROTOCOL_STDIN, data, (size_t)n);
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		run->stdin_over = queue_frame(run, PROTOCOL_STDIN_END, "", 0);
}

static int open_signals(struct err *err)
{
	sigset_t signals;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(err, errno, "signalfd") : fd;
}

static int network_ended(const struct run *run, struct err *err)
{
	char why[256];

	passt_last_words(&run->passt, why, sizeof(why));
	return err_set(err, EPIPE, "passt has ended, and with it the network: %s",
		       *why ? why : "it did not say why");
}

static int converse(struct run *run, char **argv, struct err *err)
{
	struct sandbox *sandbox = &run->sandbox;
	bool line_over = false, log_over = false;

	while (!run->done) {
		bool pending = run->out_used > 0;
		struct pollfd fds[] = {
			{ .fd = line_over ? -1 : sandbox->console_out, .events = POLLIN },
			{ .fd = log_over ? -1 : sandbox->log_fd, .events = POLLIN },
			{ .fd = pending ? sandbox->console_in : -1, .events = POLLOUT },
			{ .fd = run->ready && !pending && !run->stdin_over ? STDIN_FILENO : -1,
			  .events = POLLIN },
			{ .fd = run->signal_fd, .events = POLLIN },
			{ .fd = line_over && log_over ? sandbox->pid_fd : -1, .events = POLLIN },
			{ .fd = run->passt.pid > 0 ? run->passt.pid_fd : -1, .events = POLLIN },
		};
		int rc;

		rc = poll(fds, sizeof(fds) / sizeof(fds[0]),
			  run->line_lost ? LINE_LOST_TIMEOUT_MS : -1);
		if (rc == 0)
			return -EPROTO; /* err has been set by the reader */
		if (rc < 0)
			continue;
		if (fds[1].revents)
			log_over = !sandbox_read_log(sandbox);
		if (fds[0].revents) {
			rc = read_console(run, argv, err);
			if (rc < 0)
				return rc;
			line_over = rc == 0;
		}
		if (fds[2].revents)
			flush_to_guest(run);
		if (fds[3].revents)
			read_stdin(run);
		if (fds[4].revents)
			handle_signal(run);
		if (fds[5].revents)
			break;
		if (fds[6].revents && !line_over)
			return network_ended(run, err);
	}
	return 0;
}

static void print_phase(const char *name, int64_t us, int64_t *previous_us)
{
	if (us < 0)
		return;
	fprintf(stderr, "  %-26s %9.2f ms  (+%.2f)\n", name, (double)us / 1000,
		(double)(us - *previous_us) / 1000);
	*previous_us = us;
}

static void print_timing(const struct run *run)
{
	const struct sandbox_phases *phases = &run->sandbox.phases;
	int64_t previous = 0;

	fprintf(stderr, "mote: time since exec of mote-vmm:\n");
	print_phase("KVM ready", phases->kvm_ready_us, &previous);
	print_phase("kernel loaded", phases->kernel_loaded_us, &previous);
	print_phase("first guest instruction", phases->first_instruction_us, &previous);
	print_phase("guest init", phases->init_us, &previous);
	print_phase("command done", (run->command_done_ns - run->sandbox.start_ns) / 1000,
		    &previous);
}

/* Says why a VM ended before its command did. */
static int report_early_end(const struct run *run)
{
	const struct sandbox *sandbox = &run->sandbox;

	if (sandbox->last_error[0])
		fprintf(stderr, "mote: %s\n", sandbox->last_error);
	else if (WIFSIGNALED(sandbox->status))
		fprintf(stderr, "mote: mote-vmm was killed by signal %s\n",
			sigabbrev_np(WTERMSIG(sandbox->status)));
	else
		fprintf(stderr, "mote: the guest ended before the command did: %s\n",
			sandbox->last_info);
	return CLI_EXIT_SANDBOX;
}

static int run_command(struct run *run, char **argv)
{
	CLEANUP_FD int signal_fd = -1;
	struct err err;
	int rc;

	signal_fd = open_signals(&err);
	if (signal_fd < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	run->signal_fd = signal_fd;
	if (run->devices.net == RUN_NET_USER) {
		if (passt_start(&run->passt, &err) < 0)
			return cli_fail(CLI_EXIT_SANDBOX, &err);
		run->config.passt_fd = run->passt.socket_fd;
	}
	rc = sandbox_start(&run->sandbox, &run->config, run->verbose, &err);
	passt_close_socket(&run->passt);
	if (rc < 0) {
		passt_close(&run->passt);
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	}
	rc = converse(run, argv, &err);
	sandbox_finish(&run->sandbox, run->done && !run->killed ? POWER_OFF_TIMEOUT_MS : 0);
	if (rc < 0)
		run->status = cli_fail(CLI_EXIT_SANDBOX, &err);
	else if (!run->done)
		run->status = report_early_end(run);
	else if (run->timing)
		print_timing(run);
	sandbox_close(&run->sandbox);
	passt_close(&run->passt);
	return run->status;
}

int cli_run(int argc, char **argv)
{
	static struct run run = { .config = { .boot_args = run.boot_args,
					      .vcpu_count = 1,
					      .mem_size_mib = 128,
					      .huge_pages = "Transparent" },
				  .boot_args = BOOT_ARGS };
	int status;

	run.env = json_array();
	run_devices_open(&run.devices);
	if (parse(&run, argc, argv, &status) == 0)
		status = run_command(&run, argv + optind);
	run_devices_close(&run.devices);
	json_decref(run.env);
	return status;
}
