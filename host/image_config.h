/* SPDX-License-Identifier: Apache-2.0 */
/* What an image says about how its program is run, as container images do. */
#ifndef MOTE_HOST_IMAGE_CONFIG_H
#define MOTE_HOST_IMAGE_CONFIG_H

#include <jansson.h>

struct err;

struct image_config {
	json_t *json;	    /* owned; NULL if the image says nothing. The rest is in it, or NULL */
	json_t *entrypoint; /* lists of strings */
	json_t *cmd;
	json_t *env;
	const char *workdir;
	const char *user;
	int stop_signal; /* 0: it says nothing about it */
};

/* Reads what is beside an image of the store, if it is there. 0 or -errno with err set. */
int image_config_open(struct image_config *config, const char *image, struct err *err);
/* Safe on a zeroed object. */
void image_config_close(struct image_config *config);

/*
 * The entry point, then `words`, which need not be UTF-8, or the image's command if there are none.
 * Another entry point, unless NULL, stands for both of the image's; "" for none. A new list; NULL
 * without memory.
 */
json_t *image_config_command(const struct image_config *config, const char *entrypoint,
			     char *const *words);

#endif
