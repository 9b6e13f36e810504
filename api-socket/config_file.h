/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: one JSON object of the API's bodies (Firecracker's format). */
#ifndef MOTE_API_SOCKET_CONFIG_FILE_H
#define MOTE_API_SOCKET_CONFIG_FILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct control;
struct err;

/*
 * Applies a whole configuration file. 0 or -errno with
 * err naming the file and the field.
 */
int config_text_apply(struct control *control, const char *text, size_t len, const char *path,
		      struct err *err);
int config_file_apply(struct control *control, const char *path, struct err *err);

/*
 * Applies those sections of a configuration that take effect early, or those that do not; others
 * are not looked at. An empty path: what is wrong is told alone.
 */
int config_apply(struct control *control, const json_t *file, bool early, const char *path,
		 struct err *err);

/* The file's JSON becomes the metadata (PUT /mmds). 0 or -errno with err naming the file. */
int metadata_file_apply(struct control *control, const char *path, struct err *err);

#endif
