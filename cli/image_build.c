/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image_build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/image_job.h"

static bool is_list_of_strings(const json_t *list)
{
	json_t *value;
	size_t i;

	json_array_foreach (list, i, value) {
		if (!json_is_string(value))
			return false;
	}
	return json_is_array(list);
}

static int take_members(json_t *ours, const json_t *theirs, struct err *err)
{
	static const struct {
		const char *theirs, *ours;
		bool is_list;
	} members[] = {
		{ "Entrypoint", "entrypoint", true },
		{ "Cmd", "cmd", true },
		{ "Env", "env", true },
		{ "WorkingDir", "workdir", false },
		{ "User", "user", false },
		{ "StopSignal", "stop_signal", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		json_t *value = json_object_get(theirs, members[i].theirs);

		if (!value || json_is_null(value))
			continue;
		if (members[i].is_list ? !is_list_of_strings(value) : !json_is_string(value))
			return err_set(err, EINVAL, "the image's configuration: %s is not %s",
				       members[i].theirs,
				       members[i].is_list ? "a list of strings" : "a string");
		/* What was not set is an empty string, too. */
		if (members[i].is_list || json_string_length(value) > 0)
			json_object_set(ours, members[i].ours, value);
	}
	return 0;
}

/* All that an archive of it has to say again, but what is about its layers. */
static json_t *rest_of(const json_t *theirs)
{
	json_t *rest = json_is_object(theirs) ? json_copy((json_t *)(uintptr_t)theirs) : NULL;

	json_object_del(rest, "rootfs");
	json_object_del(rest, "history");
	return rest;
}

json_t *image_build_config(const char *text, size_t length, struct err *err)
{
	json_t *ours = json_object(), *theirs = NULL;
	json_error_t error;
	int rc = 0;

	if (length > 0) {
		theirs = json_loadb(text, length, 0, &error);
		if (json_is_array(json_object_get(theirs, "history")))
			json_object_set(ours, "history", json_object_get(theirs, "history"));
		json_object_set_new(ours, "oci", rest_of(theirs));
		rc = theirs ? take_members(ours, json_object_get(theirs, "config"), err)
			    : err_set(err, EINVAL, "the image's configuration: %s", error.text);
	}
	json_decref(theirs);
	if (rc == 0)
		return ours;
	json_decref(ours);
	return NULL;
}

/* What was pulled is named with the digest of its manifest. */
static json_t *describe_source(const struct image_build *build, const struct image_job *job)
{
	bool is_file = strcmp(build->kind, "dir") == 0 || strcmp(build->kind, "tar") == 0 ||
		       strcmp(build->kind, "debian") == 0;
	struct err err;
	size_t length;
	json_t *source;
	char *digest;

	if (strcmp(build->kind, "pull") != 0)
		return is_file ? json_sprintf("%s:%s", build->kind, build->source)
			       : json_sprintf("oci:%s", build->source);
	digest = image_job_read(job, "pulled.digest", &length, &err);
	source = json_sprintf("docker://%.*s@%s", (int)strcspn(build->detail, "@"), build->detail,
			      digest ? digest : "");
	free(digest);
	return source;
}

static int keep(struct image_store *store, const struct image_build *build,
		const struct image_job *job, struct err *err)
{
	char file[PATH_MAX];
	struct image image = { 0 };
	json_t *config = NULL;
	size_t length = 0;
	char *text;
	int rc;

	snprintf(file, sizeof(file), "%.*s/image", PATH_MAX - 64, job->scratch);
	text = image_job_read(job, "digest", &length, err);
	if (!text)
		return -EIO;
	snprintf(image.digest, sizeof(image.digest), "%.*s", IMAGE_DIGEST_LENGTH, text);
	free(text);
	snprintf(image.name, sizeof(image.name), "%s", build->name);
	snprintf(image.format, sizeof(image.format), "%s", build->format);
	snprintf(image.file, sizeof(image.file), "blobs/%s.%s", image.digest, image.format);
	text = image_job_read(job, "config", &length, err);
	config = text ? image_build_config(text, length, err) : NULL;
	free(text);
	if (!config)
		return -EINVAL;
	json_object_set_new(config, "source", describe_source(build, job));
	rc = image_store_add(store, file, &image, config, err);
	json_decref(config);
	if (rc == 0 && !build->is_quiet)
		printf("%s\n", image.digest);
	return rc;
}

static int build_in(struct image_store *store, const struct image_build *build,
		    const struct image_job *job)
{
	struct err err;
	int status;

	if (image_job_run(job, build->format, build->kind, build->detail, build->max_mib,
			  build->source_fd, build->source, &status) < 0)
		return status;
	return keep(store, build, job, &err) < 0 ? cli_fail(CLI_EXIT_FAILURE, &err) : EXIT_SUCCESS;
}

int image_build(struct image_store *store, const struct image_build *build)
{
	struct image_job job;
	int status;

	if (image_job_open(&job, store, &status) < 0)
		return status;
	status = build_in(store, build, &job);
	image_job_close(&job);
	return status;
}

int image_pull(const char *reference, struct err *err)
{
	char name[IMAGE_NAME_MAX + 1];
	struct image_build build = {
		.kind = "pull",
		.source = name,
		.detail = name,
		.source_fd = -1,
		.name = name,
		.format = "erofs",
		.max_mib = IMAGE_MAX_MIB,
		.is_quiet = true,
	};
	struct image_store store;
	int rc = image_reference_parse(reference, name, err);

	if (rc == 0)
		rc = image_store_open(&store, err);
	if (rc < 0)
		return rc;
	if (image_build(&store, &build) != EXIT_SUCCESS)
		rc = err_set(err, EIO, "image %s: it could not be pulled", reference);
	image_store_close(&store);
	return rc;
}
