/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of images in registries, as docker reads them:
 * [REGISTRY[:PORT]/]PATH[:TAG][@sha256:DIGEST]. The first part is the registry if it has a dot or a
 * colon or is "localhost"; else that is docker.io, where PATH without a slash is library/PATH.
 * Without a tag and a digest the tag is "latest"; with a digest the tag is nothing.
 */
#ifndef MOTE_HOST_IMAGE_REFERENCE_H
#define MOTE_HOST_IMAGE_REFERENCE_H

#include <stdbool.h>

struct err;

#define IMAGE_REFERENCE_MAX 240 /* with all of it, so that it is the name of a file */

/* The whole reference. 0, or -EINVAL with err set. */
int image_reference_parse(const char *text, char whole[IMAGE_REFERENCE_MAX + 1], struct err *err);

/* What follows "docker://", if it begins so. */
const char *image_reference_without_transport(const char *text);

/* Whether it names its registry itself. */
bool image_reference_has_registry(const char *text);

/*
 * The name of a file for an image's name of at most IMAGE_REFERENCE_MAX bytes: '%' stands for a
 * slash, for no name has one.
 */
void image_reference_file(const char *name, char file[IMAGE_REFERENCE_MAX + 1]);

#endif
