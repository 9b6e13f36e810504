/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image_archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/image_build.h"
#include "cli/image_job.h"

#define CHUNK (256 << 10)

/* Leaves the configuration for the script, as OCI has it. */
static int write_config(const struct image_job *job, const struct image *image,
			const json_t *stored, struct err *err)
{
	json_t *config = json_copy(json_object_get(stored, "oci"));
	json_t *history = json_object_get(stored, "history");
	const char *source = json_string_value(json_object_get(stored, "source"));
	char path[PATH_MAX];
	int rc = 0;

	if (!config && source &&
	    (strncmp(source, "oci:", 4) == 0 || strncmp(source, "docker:", 7) == 0))
		return err_set(err, EINVAL,
			       "image %s: an older mote has made it and has not kept its whole "
			       "configuration; build or pull it again",
			       image->name);
	if (!config)
		config = json_object();
	if (!json_object_get(config, "architecture"))
		json_object_set_new(config, "architecture", json_string("amd64"));
	if (!json_object_get(config, "os"))
		json_object_set_new(config, "os", json_string("linux"));
	if (!json_is_object(json_object_get(config, "config")))
		json_object_set_new(config, "config", json_object());
	if (history)
		json_object_set(config, "history", history);
	snprintf(path, sizeof(path), "%.*s/config", PATH_MAX - 64, job->scratch);
	if (json_dump_file(config, path, JSON_COMPACT) < 0)
		rc = err_sys(err, errno, "%s", path);
	json_decref(config);
	return rc;
}

/* Runs the script about an image. 0, or -1 with *status set and all of it said. */
static int work_on(const struct image_job *job, struct image_store *store,
		   const struct image *image, const char *kind, const char *detail,
		   const char *about, int max_mib, int *status)
{
	CLEANUP_FD int fd = openat(store->dir_fd, image->file, O_RDONLY | O_CLOEXEC);
	json_t *stored;
	struct err err;
	int rc;

	stored = image_store_config(store, image, &err);
	rc = stored ? write_config(job, image, stored, &err) : -EINVAL;
	json_decref(stored);
	if (rc == 0 && fd < 0)
		rc = err_sys(&err, errno, "image %s", image->name);
	if (rc < 0) {
		*status = cli_fail(CLI_EXIT_FAILURE, &err);
		return -1;
	}
	return image_job_run(job, image->format, kind, detail, max_mib, fd, about, status);
}

/* Until a signal ends it, if there is a descriptor to learn that from: -EINTR. Into a file. */
static int copy(int in, int out, int signal_fd)
{
	struct signalfd_siginfo info;
	char *data = malloc(CHUNK);
	ssize_t n = data ? 1 : -1;
	int rc = data ? 0 : -ENOMEM;

	while (rc == 0 && n > 0) {
		n = read(in, data, CHUNK);
		rc = n < 0 ? -errno : fd_write_all(out, data, (size_t)n);
		if (rc == 0 && signal_fd >= 0 && read(signal_fd, &info, sizeof(info)) > 0)
			rc = -EINTR;
	}
	free(data);
	return rc;
}

/* Something that is written to as it is, like a terminal or a pipe. */
static bool is_no_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

/*
 * A file that is there whole or not at all, also where a link leads to one: what is called
 * /dev/stdout may be.
 */
static int copy_to_file(int in, const char *path, int signal_fd, struct err *err)
{
	CLEANUP_FD int out = -1;
	char target[PATH_MAX], new_path[PATH_MAX];
	bool is_there = access(path, F_OK) == 0;
	mode_t mask = umask(0);
	int rc = 0;

	umask(mask);
	if (is_there && !realpath(path, target))
		return err_sys(err, errno, "%s", path);
	if (!is_there)
		rc = snprintf(target, sizeof(target), "%s", path) < PATH_MAX ? 0 : -ENAMETOOLONG;
	if (rc < 0 ||
	    snprintf(new_path, sizeof(new_path), "%s.XXXXXX", target) >= (int)sizeof(new_path))
		return err_sys(err, ENAMETOOLONG, "%s", path);
	out = mkostemp(new_path, O_CLOEXEC);
	if (out < 0)
		return err_sys(err, errno, "%s", path);
	rc = copy(in, out, signal_fd);
	if (rc == 0 &&
	    (fchmod(out, 0666 & ~mask) < 0 || fsync(out) < 0 || rename(new_path, target) < 0))
		rc = -errno;
	if (rc < 0)
		unlink(new_path);
	return rc < 0 ? err_sys(err, -rc, "%s", path) : 0;
}

/* To standard output without a path. It waits for readers, and a signal ends the process. */
static int copy_to_stream(int in, const char *path, struct err *err)
{
	CLEANUP_FD int opened = path ? open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC) : -1;
	int rc = path && opened < 0 ? -errno : copy(in, path ? opened : STDOUT_FILENO, -1);

	return rc < 0 ? err_sys(err, -rc, "%s", path ? path : "standard output") : 0;
}

/* The name in an archive, where docker's names have a tag. */
static int name_in_archive(const char *reference, char name[IMAGE_NAME_MAX + 1], struct err *err)
{
	int rc = image_reference_parse(reference, name, err);

	if (rc == 0 && strchr(name, '@'))
		rc = err_set(err, EINVAL,
			     "image %s: a digest is no name in an archive or a registry; give it "
			     "one by `mote image tag`",
			     reference);
	return rc;
}

int image_save(struct image_store *store, const char *name, const char *path, int max_mib)
{
	CLEANUP_FD int made = -1;
	char tag[IMAGE_NAME_MAX + 1], from[PATH_MAX];
	struct image_job job;
	struct image image;
	const bool to_file = path && !is_no_file(path);
	struct err err;
	int status = EXIT_SUCCESS, rc;

	if (!path && isatty(STDOUT_FILENO)) {
		fputs("mote image: save: an archive is not for a terminal; -o FILE or a "
		      "redirection "
		      "is expected\n",
		      stderr);
		return CLI_EXIT_USAGE;
	}
	if (image_store_find(store, name, &image, &err) < 0 ||
	    name_in_archive(image.name, tag, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	if (image_job_open(&job, store, &status) < 0)
		return status;
	if (work_on(&job, store, &image, "save", tag, name, max_mib, &status) == 0) {
		snprintf(from, sizeof(from), "%.*s/image", PATH_MAX - 64, job.scratch);
		made = open(from, O_RDONLY | O_CLOEXEC);
		rc = made < 0 ? err_sys(&err, errno, "%s", from) : 0;
		if (rc == 0 && to_file)
			rc = copy_to_file(made, path, job.signal_fd, &err);
		if (rc < 0)
			status = cli_fail(rc == -EINTR ? 128 + SIGINT : CLI_EXIT_FAILURE, &err);
	}
	image_job_close(&job);
	/* Nothing is left of it any more should a signal end us. */
	if (made >= 0 && !to_file && copy_to_stream(made, path, &err) < 0)
		status = cli_fail(CLI_EXIT_FAILURE, &err);
	return status;
}

int image_push(struct image_store *store, const char *name, const char *reference, int max_mib)
{
	char to[IMAGE_NAME_MAX + 1];
	struct image_job job;
	struct image image;
	struct err err;
	size_t length;
	char *digest;
	int status = EXIT_SUCCESS, rc;

	rc = image_store_find(store, name, &image, &err);
	if (rc == 0 && !reference && !strchr(image.name, '/'))
		rc = err_set(&err, EINVAL,
			     "image %s: its name has no registry; tell where to push it, like "
			     "docker://registry.example.org/team/%s",
			     name, image.name);
	if (rc == 0)
		rc = name_in_archive(reference ? image_reference_without_transport(reference)
					       : image.name,
				     to, &err);
	if (rc < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	if (image_job_open(&job, store, &status) < 0)
		return status;
	if (work_on(&job, store, &image, "push", to, to, max_mib, &status) == 0) {
		digest = image_job_read(&job, "digest", &length, &err);
		if (digest)
			printf("%s@%s\n", to, digest);
		else
			status = cli_fail(CLI_EXIT_FAILURE, &err);
		free(digest);
	}
	image_job_close(&job);
	return status;
}

/* An image of the archive by its number there, and the names that it has. */
static int load_one(struct image_store *store, const char *about, int archive, int number,
		    char *names, int max_mib)
{
	char detail[24], whole[IMAGE_NAME_MAX + 1];
	struct image_build build = {
		.kind = "docker-archive",
		.source = about,
		.detail = detail,
		.source_fd = archive,
		.name = whole,
		.format = "erofs",
		.max_mib = max_mib,
		.is_quiet = true,
	};
	struct image image = { 0 };
	struct err err;
	int status;

	snprintf(detail, sizeof(detail), ":@%d", number);
	if (!*names) {
		err_set(&err, EINVAL,
			"%s: image %d in it has no name (`mote image build -t NAME "
			"docker-archive:FILE%s` takes it)",
			about, number + 1, detail);
		return cli_fail(CLI_EXIT_FAILURE, &err);
	}
	for (char *name = strtok_r(names, " ", &names); name; name = strtok_r(NULL, " ", &names)) {
		if (image_reference_parse(name, whole, &err) < 0)
			return cli_fail(CLI_EXIT_FAILURE, &err);
		if (!image.name[0]) {
			status = image_build(store, &build);
			if (status != EXIT_SUCCESS)
				return status;
			if (image_store_find(store, whole, &image, &err) < 0)
				return cli_fail(CLI_EXIT_FAILURE, &err);
		} else if (image_store_tag(store, &image, whole, &err) < 0) {
			return cli_fail(CLI_EXIT_FAILURE, &err);
		}
		printf("Loaded image: %s\n", whole);
		fflush(stdout);
	}
	return EXIT_SUCCESS;
}

static int load_all(struct image_store *store, const struct image_job *job, const char *about,
		    int archive, int max_mib)
{
	CLEANUP_FD int spooled = -1;
	char path[PATH_MAX];
	struct err err;
	size_t length;
	char *names, *line;
	int status = EXIT_SUCCESS;

	names = image_job_read(job, "image", &length, &err);
	if (!names)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	snprintf(path, sizeof(path), "%.*s/archive", PATH_MAX - 64, job->scratch);
	spooled = open(path, O_RDONLY | O_CLOEXEC);
	line = names;
	for (int number = 0; status == EXIT_SUCCESS && *line; number++) {
		char *end = line + strcspn(line, "\n");
		bool is_last = !*end;

		*end = '\0';
		status = load_one(store, about, spooled < 0 ? archive : spooled, number, line,
				  max_mib);
		line = is_last ? end : end + 1;
	}
	free(names);
	return status;
}

int image_load(struct image_store *store, const char *path, int max_mib)
{
	CLEANUP_FD int opened = -1;
	const char *about = path ? path : "standard input";
	struct image_job job;
	struct err err;
	struct stat st;
	int status = EXIT_SUCCESS;

	if (!path && isatty(STDIN_FILENO)) {
		fputs("mote image: load: no archive comes from a terminal; -i FILE or a "
		      "redirection "
		      "is expected\n",
		      stderr);
		return CLI_EXIT_USAGE;
	}
	if (path) {
		opened = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
		if (opened < 0 || fstat(opened, &st) < 0 ||
		    (S_ISDIR(st.st_mode) && (errno = EISDIR))) {
			err_sys(&err, errno, "%s", path);
			return cli_fail(CLI_EXIT_FAILURE, &err);
		}
	}
	if (image_job_open(&job, store, &status) < 0)
		return status;
	if (image_job_run(&job, "erofs", "names", "", max_mib, opened < 0 ? STDIN_FILENO : opened,
			  about, &status) == 0)
		status = load_all(store, &job, about, opened < 0 ? STDIN_FILENO : opened, max_mib);
	image_job_close(&job);
	return status;
}
