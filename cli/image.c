/* SPDX-License-Identifier: Apache-2.0 */
/* mote image: root images, made, listed, shown and removed. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/image_archive.h"
#include "cli/image_build.h"
#include "cli/image_job.h"
#include "host/image_store.h"
#include "host/values.h"

static const char usage[] =
	"usage: mote image build [-t NAME] [--format erofs|ext4] [--max-size SIZE] SOURCE\n"
	"       mote image build [OPTION]... --file DOCKERFILE DIR\n"
	"       mote image build -t NAME [OPTION]... --debian PACKAGE[,PACKAGE]...\n"
	"       mote image pull [-t NAME] [OPTION]... REFERENCE\n"
	"                                  an image of a registry, docker.io if none is named\n"
	"       mote image push [OPTION]... NAME [REFERENCE]\n"
	"                                  to a registry; to where its name tells, or the "
	"reference\n"
	"       mote image save [-o FILE] [OPTION]... NAME\n"
	"                                  as an archive for `docker load`; to standard output\n"
	"       mote image load [-i FILE] [OPTION]...\n"
	"                                  all images of such an archive; from standard input\n"
	"       mote image ls [--json]     the images: name, size, format, digest\n"
	"       mote image inspect NAME    one of them as JSON: its file, how commands run in it\n"
	"       mote image history NAME    how its layers were made, the last first\n"
	"       mote image tag NAME NEW    another name for it\n"
	"       mote image rm NAME...      remove them; what runs from them goes on\n"
	"       mote image prune           remove what builds that were killed have left\n"
	"\n"
	"`build` makes a root image for `mote run NAME -- CMD` from SOURCE, the same bytes from "
	"the\n"
	"same input, and prints its digest. SOURCE is\n"
	"  DIR                    a directory\n"
	"  FILE                   a tarball, compressed or not\n"
	"  oci:DIR[:TAG]          an OCI image layout\n"
	"  oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG]\n"
	"                         as `podman save` and `docker save` write them; an image's\n"
	"                         Entrypoint, Cmd, Env, WorkingDir, User and StopSignal are kept;\n"
	"                         both are known without the prefix, too, compressed or not\n"
	"  docker://REFERENCE     as `mote image pull` takes it\n"
	"\n"
	"  -t, --tag NAME         lower-case letters, digits, '.', '_', '-'; or like\n"
	"                         registry.example.org/app:1 (default: from SOURCE)\n"
	"  --format erofs|ext4    erofs (default): smallest and read-only, what a VM writes stays\n"
	"                         in its memory; ext4: also for `--rootfs FILE:rw`\n"
	"  -f, --file DOCKERFILE  what buildah makes of this with DIR as its context; with the "
	"rights\n"
	"                         that buildah has, and not confined\n"
	"  --debian PACKAGES      Debian 12's essential packages and these, instead of SOURCE\n"
	"  -o, --output FILE      of save; -i, --input FILE  of load\n"
	"  --max-size SIZE        how much all files may be (default 16G)\n";

static int usage_error(const char *what, const char *cause)
{
	fprintf(stderr, "mote image: %s: %s; see mote image --help\n", what, cause);
	return CLI_EXIT_USAGE;
}

/* The last part of a path without endings like .tar.gz, as a name. */
static int name_of(const char *source, char name[IMAGE_NAME_MAX + 1], struct err *err)
{
	static const char *const endings[] = { ".tar",	   ".tgz",    ".txz",	 ".tbz2",
					       ".tzst",	   ".tar.gz", ".tar.xz", ".tar.bz2",
					       ".tar.zst", ".oci" };
	char real[PATH_MAX];
	const char *base;
	size_t len;

	/* For "." and "..", too. */
	if (!realpath(source, real))
		return err_sys(err, errno, "%s: without a path of its own it needs -t NAME",
			       source);
	base = strrchr(real, '/') + 1;
	len = strlen(base);
	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		size_t end = strlen(endings[i]);

		if (strlen(base) > end && strcmp(base + strlen(base) - end, endings[i]) == 0)
			len = strlen(base) - end;
	}
	snprintf(name, IMAGE_NAME_MAX + 1, "%.*s", (int)(len > INT_MAX ? 0 : len), base);
	for (char *at = name; *at; at++)
		*at = (char)tolower((unsigned char)*at);
	return 0;
}

/* docker.io/library/alpine:latest for alpine, which is its name, too. */
static int name_pulled(struct image_build *build, const char *reference,
		       char name[IMAGE_NAME_MAX + 1], struct err *err)
{
	int rc = image_reference_parse(reference, name, err);

	build->kind = "pull";
	build->source = build->detail = name;
	if (rc == 0 && !build->name)
		build->name = name;
	return rc;
}

/* OCI image specification, "Image Layout". */
static bool is_layout(int dir)
{
	return faccessat(dir, "oci-layout", F_OK, 0) == 0 &&
	       faccessat(dir, "index.json", F_OK, 0) == 0;
}

/* Opens it, for good, and says what kind of source it is; a context is not looked into. */
static int open_source(struct image_build *build, bool is_context, struct err *err)
{
	static const char *const transports[] = { "oci", "oci-archive", "docker-archive" };
	char path[PATH_MAX];
	const char *file = build->source;
	struct stat st;

	build->detail = "";
	for (size_t i = 0; i < ARRAY_SIZE(transports); i++) {
		size_t len = strlen(transports[i]);

		if (strncmp(build->source, transports[i], len) != 0 || build->source[len] != ':')
			continue;
		build->kind = transports[i];
		/* As the transports' own syntax has it, a path has no colon. */
		file = build->source + len + 1;
		build->detail = file + strcspn(file, ":");
		snprintf(path, sizeof(path), "%.*s", (int)(build->detail - file), file);
		file = path;
	}
	build->source_fd = open(file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (build->source_fd < 0 || fstat(build->source_fd, &st) < 0)
		return err_sys(err, errno, "%s", build->source);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s: neither a directory nor a tarball", build->source);
	/* A file is looked into where it is unpacked. */
	if (!build->kind)
		build->kind = !S_ISDIR(st.st_mode)			   ? "tar"
			      : !is_context && is_layout(build->source_fd) ? transports[0]
									   : "dir";
	else if (S_ISDIR(st.st_mode) != (build->kind == transports[0]))
		return err_set(err, EINVAL, "%s: it is %s", build->source,
			       S_ISDIR(st.st_mode) ? "a directory, so its transport is oci"
						   : "a file, so it is no OCI image layout");
	return 0;
}

static int build_command(struct image_store *store, int argc, char **argv)
{
	enum { TAG = 't', DOCKERFILE = 'f', FORMAT = 256, DEBIAN, MAX_SIZE, HELP };
	static const struct option names[] = {
		{ "tag", required_argument, NULL, TAG },
		{ "file", required_argument, NULL, DOCKERFILE },
		{ "format", required_argument, NULL, FORMAT },
		{ "debian", required_argument, NULL, DEBIAN },
		{ "max-size", required_argument, NULL, MAX_SIZE },
		{ "help", no_argument, NULL, HELP },
		{ NULL, 0, NULL, 0 },
	};
	struct image_build build = { .format = "erofs", .source_fd = -1, .max_mib = IMAGE_MAX_MIB };
	bool is_pull = strcmp(argv[0], "pull") == 0;
	char name[IMAGE_NAME_MAX + 1], reference[IMAGE_NAME_MAX + 1], whole[IMAGE_NAME_MAX + 1];
	const char *dockerfile = NULL;
	struct err err;
	int option, status, rc = 0;

	while ((option = getopt_long(argc, argv, "t:f:", names, NULL)) != -1) {
		switch (option) {
		case TAG:
			build.name = optarg;
			break;
		case DOCKERFILE:
			dockerfile = optarg;
			break;
		case FORMAT:
			if (strcmp(optarg, "erofs") != 0 && strcmp(optarg, "ext4") != 0)
				return usage_error(optarg, "--format is erofs or ext4");
			build.format = optarg;
			break;
		case DEBIAN:
			build.kind = "debian";
			build.source = build.detail = optarg;
			break;
		case MAX_SIZE:
			if (value_mib(optarg, &build.max_mib) < 0)
				return usage_error(optarg, "--max-size is like 512M or 16G");
			break;
		case HELP:
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			return CLI_EXIT_USAGE;
		}
	}
	if (dockerfile && (is_pull || build.source))
		return usage_error("--file", "it goes with a directory as SOURCE");
	if (is_pull && (build.source || argc - optind != 1))
		return usage_error("pull", "one name of an image is expected");
	if (argc - optind != (build.source ? 0 : 1))
		return usage_error("build", build.source ? "--debian goes without SOURCE"
							 : "one SOURCE is expected");
	if (build.source && !build.name)
		return usage_error("build", "--debian needs -t NAME");
	if (!build.source)
		build.source = argv[optind];
	if (is_pull || image_reference_without_transport(build.source) != build.source)
		rc = name_pulled(&build, image_reference_without_transport(build.source), reference,
				 &err);
	else if (!build.kind)
		rc = open_source(&build, dockerfile != NULL, &err);
	if (rc == 0 && dockerfile) {
		build.detail = dockerfile;
		if (strcmp(build.kind, "dir") != 0)
			rc = err_set(&err, EINVAL, "%s: --file goes with a directory",
				     build.source);
		build.kind = "dockerfile";
	}
	if (rc == 0 && !build.name)
		rc = name_of(build.source, name, &err);
	if (rc == 0 && !build.name)
		build.name = name;
	if (rc == 0)
		rc = image_name_check(build.name, whole, &err);
	if (rc == 0)
		build.name = whole;
	status = rc < 0 ? cli_fail(CLI_EXIT_FAILURE, &err) : image_build(store, &build);
	fd_close(&build.source_fd);
	return status;
}

static json_t *describe(const struct image_store *store, const struct image *image)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:o}", "name", image->name, "digest", image->digest,
			 "format", image->format, "size", (json_int_t)image->size, "file",
			 json_sprintf("%s/%s", store->dir, image->file));
}

static int print_json(json_t *json)
{
	cli_print_json(json);
	json_decref(json);
	return EXIT_SUCCESS;
}

static int list_command(struct image_store *store, int argc, char **argv)
{
	bool as_json = argc == 2 && strcmp(argv[1], "--json") == 0;
	json_t *all = json_array();
	struct image *images;
	struct err err;
	int count;

	if (argc > 1 && !as_json)
		return usage_error(argv[1], "ls takes --json alone");
	count = image_store_list(store, &images, &err);
	if (count < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	for (int i = 0; i < count; i++) {
		if (as_json)
			json_array_append_new(all, describe(store, &images[i]));
		else
			printf("%-24s %9.1f MiB  %-5s  %.12s\n", images[i].name,
			       (double)images[i].size / (1 << 20), images[i].format,
			       images[i].digest);
	}
	free(images);
	if (as_json)
		return print_json(all);
	json_decref(all);
	if (count == 0)
		fprintf(stderr, "mote: there is no image yet (`mote image build` makes them)\n");
	return EXIT_SUCCESS;
}

static int inspect_command(struct image_store *store, int argc, char **argv)
{
	json_t *json, *config;
	struct image image;
	struct err err;

	if (argc != 2)
		return usage_error("inspect", "the name of an image is expected");
	if (image_store_find(store, argv[1], &image, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	config = image_store_config(store, &image, &err);
	if (!config)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	json = describe(store, &image);
	json_object_update_missing(json, config);
	json_decref(config);
	return print_json(json);
}

static int remove_command(struct image_store *store, int argc, char **argv)
{
	int status = EXIT_SUCCESS;
	struct err err;

	if (argc < 2)
		return usage_error("rm", "the name of an image is expected");
	for (int i = 1; i < argc; i++) {
		if (image_store_remove(store, argv[i], &err) < 0)
			status = cli_fail(CLI_EXIT_FAILURE, &err);
	}
	return status;
}

static int tag_command(struct image_store *store, int argc, char **argv)
{
	struct image image;
	struct err err;

	if (argc != 3)
		return usage_error("tag", "the name of an image and another name are expected");
	if (image_store_find(store, argv[1], &image, &err) < 0 ||
	    image_store_tag(store, &image, argv[2], &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	return EXIT_SUCCESS;
}

/* push, save and load. */
static int move_command(struct image_store *store, int argc, char **argv)
{
	enum { OUTPUT = 'o', INPUT = 'i', MAX_SIZE = 256 };
	static const struct option names[] = {
		{ "output", required_argument, NULL, OUTPUT },
		{ "input", required_argument, NULL, INPUT },
		{ "max-size", required_argument, NULL, MAX_SIZE },
		{ NULL, 0, NULL, 0 },
	};
	const bool is_push = strcmp(argv[0], "push") == 0, is_save = strcmp(argv[0], "save") == 0;
	const char *path = NULL;
	int option, count, max_mib = IMAGE_MAX_MIB;

	while ((option = getopt_long(argc, argv,
				     is_push   ? ""
				     : is_save ? "o:"
					       : "i:",
				     names, NULL)) != -1) {
		if (option == '?')
			return CLI_EXIT_USAGE;
		if (option == MAX_SIZE && value_mib(optarg, &max_mib) < 0)
			return usage_error(optarg, "--max-size is like 512M or 16G");
		if (option != MAX_SIZE && (is_push || is_save != (option == OUTPUT)))
			return usage_error(argv[0], is_push   ? "it goes without a file"
						    : is_save ? "-o FILE is expected"
							      : "-i FILE is expected");
		path = option != MAX_SIZE ? optarg : path;
	}
	count = argc - optind;
	if (is_push && count != 1 && count != 2)
		return usage_error("push", "the name of an image is expected, and where to");
	if (is_save && count != 1)
		return usage_error("save", "the name of an image is expected");
	if (!is_push && !is_save && count != 0)
		return usage_error(argv[optind], "load takes -i FILE or standard input");
	return is_push	 ? image_push(store, argv[optind], argv[optind + 1], max_mib)
	       : is_save ? image_save(store, argv[optind], path, max_mib)
			 : image_load(store, path, max_mib);
}

static int prune_command(struct image_store *store, int argc, char **argv)
{
	return argc == 1 ? image_prune(store) : usage_error(argv[1], "prune takes nothing");
}

/* It has words of the image's. */
static void print_step(const json_t *step)
{
	const char *when = json_string_value(json_object_get(step, "created"));
	const char *what = json_string_value(json_object_get(step, "created_by"));
	char *line = NULL;

	if (asprintf(&line, "%-20.19s  %s", when ? when : "", what ? what : "") < 0)
		return;
	cli_clean(line);
	puts(line);
	free(line);
}

static int history_command(struct image_store *store, int argc, char **argv)
{
	json_t *config, *history;
	struct image image;
	struct err err;

	if (argc != 2)
		return usage_error("history", "the name of an image is expected");
	if (image_store_find(store, argv[1], &image, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	config = image_store_config(store, &image, &err);
	if (!config)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	history = json_object_get(config, "history");
	for (size_t i = json_array_size(history); i > 0; i--)
		print_step(json_array_get(history, i - 1));
	json_decref(config);
	return EXIT_SUCCESS;
}

int cli_image(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*function)(struct image_store *store, int argc, char **argv);
	} commands[] = {
		{ "build", build_command },	{ "pull", build_command },
		{ "ls", list_command },		{ "inspect", inspect_command },
		{ "history", history_command }, { "tag", tag_command },
		{ "rm", remove_command },	{ "prune", prune_command },
		{ "push", move_command },	{ "save", move_command },
		{ "load", move_command },
	};
	const char *name = argc > 1 ? argv[1] : "";
	struct image_store store;
	struct err err;
	int status;

	if (cli_is_help(name) || (argc > 2 && cli_is_help(argv[2]))) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(name, commands[i].name) != 0)
			continue;
		if (image_store_open(&store, &err) < 0)
			return cli_fail(CLI_EXIT_FAILURE, &err);
		status = commands[i].function(&store, argc - 1, argv + 1);
		image_store_close(&store);
		return status;
	}
	fputs(usage, stderr);
	return CLI_EXIT_USAGE;
}
