/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON bodies to configuration: strict, by one table of fields a body. The same readers serve the
 * configuration file.
 */
#ifndef MOTE_API_SOCKET_BODIES_H
#define MOTE_API_SOCKET_BODIES_H

#include <jansson.h>
#include <stddef.h>

#include "vmm/config.h"

struct control;
struct err;

struct logger_config {
	char *log_path;
	char *level;
	bool show_level;
	bool show_log_origin;
	char *module;
};

void logger_config_free(struct logger_config *config);

/*
 * Parses text of len bytes as one JSON object, refusing duplicate keys. NULL with err set; `what`
 * names the text in the sentence. The caller owns the object.
 */
json_t *body_parse(const char *text, size_t len, const char *what, struct err *err);

/*
 * Each fills *config, which the caller has set to the defaults and frees in any case. Unknown
 * fields, wrong types, values out of range and missing fields: -EINVAL with err naming the field.
 */
int body_boot_source(const json_t *body, struct boot_source_config *config, struct err *err);
int body_machine(const json_t *body, struct machine_config *config, struct err *err);
int body_serial(const json_t *body, struct serial_config *config, struct err *err);
int body_logger(const json_t *body, struct logger_config *config, struct err *err);

/*
 * Applies a whole configuration file (Firecracker's format: one object of bodies). 0 or -errno with
 * err naming the file and the field.
 */
int config_text_apply(struct control *control, const char *text, size_t len, const char *path,
		      struct err *err);
int config_file_apply(struct control *control, const char *path, struct err *err);

#endif
