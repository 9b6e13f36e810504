/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests, configurations and references of images. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "host/image_reference.h"
#include "rootfs-tools/image/manifest.h"
#include "tests/fuzz/fuzz.h"

static void try_reference(const char *text)
{
	char whole[IMAGE_REFERENCE_MAX + 1], again[IMAGE_REFERENCE_MAX + 1];
	char file[IMAGE_REFERENCE_MAX + 1];
	struct err err;

	if (image_reference_parse(text, whole, &err) < 0)
		return;
	/* What is whole stays as it is, and is the name of one file. */
	REQUIRE(image_reference_has_registry(whole));
	REQUIRE(image_reference_parse(whole, again, &err) == 0 && strcmp(whole, again) == 0);
	image_reference_file(whole, file);
	REQUIRE(!strchr(file, '/') && file[0] != '.');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct manifest manifest;
	char other[64], *text = malloc(size + 1), *names;
	struct err err;

	memcpy(text, data, size);
	text[size] = '\0';
	try_reference(text);
	if (manifest_read(&manifest, text, size, &err) == 0) {
		for (size_t i = 0; i < manifest.count; i++)
			REQUIRE(!strchr(manifest.layers[i], '/') &&
				strlen(manifest.layers[i]) == MANIFEST_NAME_LENGTH);
	}
	(void)manifest_check_config(text, size, other, &err);
	if (manifest_read_names(text, size, &names, &err) == 0)
		REQUIRE(strspn(names,
			       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			       "_.-/:@[] \n") == strlen(names));
	free(names);
	free(text);
	return 0;
}
