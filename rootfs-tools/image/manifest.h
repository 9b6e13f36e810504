/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifest and configuration of an image (OCI image specification), read from hostile bytes, as
 * skopeo leaves them in a directory: manifest.json, and each blob with its digest for a name.
 */
#ifndef MOTE_IMAGE_MANIFEST_H
#define MOTE_IMAGE_MANIFEST_H

#include <stddef.h>

#include "base/err.h"

#define MANIFEST_BYTES_MAX (4 << 20) /* of either; registries take no more either */
#define MANIFEST_LAYERS_MAX 1024     /* docker builds 127 */
#define MANIFEST_IMAGES_MAX 1000     /* of an archive; each is unpacked by itself */
#define MANIFEST_NAME_LENGTH 64

struct manifest {
	char config[MANIFEST_NAME_LENGTH + 1]; /* names of files: SHA-256 in hexadecimal */
	char layers[MANIFEST_LAYERS_MAX][MANIFEST_NAME_LENGTH + 1]; /* the lowest first */
	size_t count;
};

int manifest_read(struct manifest *manifest, const char *text, size_t length, struct err *err);

/*
 * Refuses a configuration of another system than Linux. If it is of another architecture than
 * x86-64 runs, that is in `other` afterwards, else "".
 */
int manifest_check_config(const char *text, size_t length, char other[64], struct err *err);

/*
 * The names ("RepoTags") of the images in an archive, from the manifest.json that `docker save`
 * writes: a line for each image, empty if it has none, with a space between names. They are of
 * letters, digits and "._-/:@[]". The caller's: free().
 */
int manifest_read_names(const char *text, size_t length, char **names, struct err *err);

#endif
