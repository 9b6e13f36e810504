/* SPDX-License-Identifier: Apache-2.0 */
#include "rootfs-tools/image/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int read_digest(char name[MANIFEST_NAME_LENGTH + 1], const json_t *descriptor,
		       const char *what, struct err *err)
{
	static const char prefix[] = "sha256:";
	const char *digest = json_string_value(json_object_get(descriptor, "digest"));
	size_t start = sizeof(prefix) - 1;

	if (!digest || strncmp(digest, prefix, start) != 0 ||
	    strlen(digest) != start + MANIFEST_NAME_LENGTH ||
	    strspn(digest + start, "0123456789abcdef") != MANIFEST_NAME_LENGTH)
		return err_set(err, EINVAL, "its manifest: %s has no SHA-256 digest", what);
	memcpy(name, digest + start, MANIFEST_NAME_LENGTH + 1);
	return 0;
}

int manifest_read(struct manifest *manifest, const char *text, size_t length, struct err *err)
{
	json_error_t error;
	json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	json_t *layers = json_object_get(json, "layers"), *layer;
	size_t i;
	int rc;

	manifest->count = 0;
	if (!json)
		return err_set(err, EINVAL, "its manifest: %s", error.text);
	rc = read_digest(manifest->config, json_object_get(json, "config"), "the configuration",
			 err);
	if (rc == 0 && !json_is_array(layers))
		rc = err_set(err, EINVAL, "its manifest: there is no list of layers");
	if (rc == 0 && json_array_size(layers) > MANIFEST_LAYERS_MAX)
		rc = err_set(err, E2BIG, "its manifest: %zu layers are more than %d",
			     json_array_size(layers), MANIFEST_LAYERS_MAX);
	if (rc == 0) {
		json_array_foreach (layers, i, layer) {
			rc = read_digest(manifest->layers[i], layer, "a layer", err);
			if (rc < 0)
				break;
			manifest->count++;
		}
	}
	json_decref(json);
	return rc;
}

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

/* Both get into lines that others read. */
static bool is_word(const char *text)
{
	return !text || text[strspn(text, WORD)] == '\0';
}

int manifest_check_config(const char *text, size_t length, char other[64], struct err *err)
{
	json_error_t error;
	json_t *json = json_loadb(text, length, 0, &error);
	const char *os = json_string_value(json_object_get(json, "os"));
	const char *architecture = json_string_value(json_object_get(json, "architecture"));
	int rc = 0;

	other[0] = '\0';
	if (!json)
		return err_set(err, EINVAL, "its configuration: %s", error.text);
	if (!is_word(os) || !is_word(architecture))
		rc = err_set(err, EINVAL, "its configuration: os and architecture are words");
	else if (os && *os && strcmp(os, "linux") != 0)
		rc = err_set(err, EINVAL, "it is an image for %.32s, not for Linux", os);
	else if (architecture && *architecture && strcmp(architecture, "amd64") != 0 &&
		 strcmp(architecture, "386") != 0)
		snprintf(other, 64, "%s", architecture);
	json_decref(json);
	return rc;
}

static int write_tags(FILE *out, const json_t *tags)
{
	json_t *tag;
	size_t i;

	if (tags && !json_is_null(tags) && !json_is_array(tags))
		return -EINVAL;
	json_array_foreach (tags, i, tag) {
		const char *name = json_string_value(tag);

		if (!name || !*name || name[strspn(name, WORD "/:@[]")])
			return -EINVAL;
		fprintf(out, "%s%s", i > 0 ? " " : "", name);
	}
	fputc('\n', out);
	return 0;
}

int manifest_read_names(const char *text, size_t length, char **names, struct err *err)
{
	json_error_t error;
	json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error), *image;
	size_t size, i;
	FILE *out;
	int rc = 0;

	*names = NULL;
	if (!json)
		return err_set(err, EINVAL, "manifest.json: %s", error.text);
	if (json_array_size(json) > MANIFEST_IMAGES_MAX) {
		rc = err_set(err, E2BIG, "manifest.json: %zu images are more than %d",
			     json_array_size(json), MANIFEST_IMAGES_MAX);
		json_decref(json);
		return rc;
	}
	out = open_memstream(names, &size);
	if (!json_is_array(json) || json_array_size(json) == 0)
		rc = -EINVAL;
	json_array_foreach (json, i, image)
		rc = rc == 0 && out ? write_tags(out, json_object_get(image, "RepoTags")) : rc;
	json_decref(json);
	if (!out || fclose(out) != 0)
		return err_sys(err, ENOMEM, "manifest.json");
	return rc < 0 ? err_set(err, EINVAL, "manifest.json: it is no list of images and names")
		      : 0;
}
