/* SPDX-License-Identifier: Apache-2.0 */
/* mote: what people type. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/fd.h"
#include "cli/cli.h"

static const char usage[] = "usage: mote COMMAND [ARGUMENT]...\n"
			    "\n"
			    "  run      boot a microVM and run a command in it\n"
			    "  exec     run a command in one that runs\n"
			    "  cp       copy files into one and out of it\n"
			    "  ps       list the running ones\n"
			    "  kill     end them\n"
			    "  logs     print what one's console has written\n"
			    "  stats    print what they use\n"
			    "  inspect  print what is known of them, as JSON\n"
			    "  rm       forget those that have ended\n"
			    "  api      send a request to the API of a microVM\n"
			    "  doctor   say whether this host can run microVMs\n"
			    "  image    make root images, list and remove them\n"
			    "  kernel   list the guest kernels, or print the path of one\n"
			    "\n"
			    "mote COMMAND --help tells more; mote --version prints the version.\n";

static const struct {
	const char *name;
	int (*function)(int argc, char **argv);
} commands[] = {
	{ "run", cli_run },	  { "exec", cli_exec },	      { "cp", cli_cp },
	{ "ps", cli_ps },	  { "kill", cli_kill },	      { "logs", cli_logs },
	{ "stats", cli_stats },	  { "inspect", cli_inspect }, { "rm", cli_rm },
	{ "api", cli_api },	  { "doctor", cli_doctor },   { "image", cli_image },
	{ "kernel", cli_kernel },
};

/* One that the caller has closed does not take what is written to it, in silence least of all. */
static void prepare_output(void)
{
	const bool closed = fcntl(STDOUT_FILENO, F_GETFD) < 0;
	int fd;

	fd_reserve_standard();
	fd = closed ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0)
		(void)dup2(fd, STDOUT_FILENO);
	fd_close(&fd);
}

/* The command's status; one that went well did not, if what it printed has not arrived. */
static int finish(int status)
{
	const bool failed = ferror(stdout);

	errno = 0;
	if (status != EXIT_SUCCESS || (fflush(stdout) == 0 && !failed))
		return status;
	fprintf(stderr, "mote: standard output: %s\n",
		errno ? strerror(errno) : "not all of it could be written");
	return CLI_EXIT_FAILURE;
}

static int run_command(int argc, char **argv)
{
	static char help[] = "--help";
	const char *name = argc > 1 ? argv[1] : "";

	/* No command has another -h. */
	if (argc > 2 && strcmp(argv[2], "-h") == 0)
		argv[2] = help;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(name, commands[i].name) == 0)
			return commands[i].function(argc - 1, argv + 1);
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (strcmp(name, "--version") == 0) {
		printf("mote %s\n", MOTE_VERSION);
		return EXIT_SUCCESS;
	}
	if (*name)
		fprintf(stderr, "mote: %s: no such command\n", name);
	fputs(usage, stderr);
	return CLI_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	prepare_output();
	return finish(run_command(argc, argv));
}
