/* SPDX-License-Identifier: Apache-2.0 */
/* What an image says about how its program is run, as container images do. */
#ifndef MOTE_HOST_IMAGE_CONFIG_H
#define MOTE_HOST_IMAGE_CONFIG_H

#include <jansson.h>

struct err;

/* All owned; NULL where the image says nothing. */
struct image_config {
	char **entrypoint; /* lists that end with NULL */
	char **cmd;
	char **env;
	char *workdir;
	char *user;
	int stop_signal; /* 0: it says nothing about it */
};

/* Reads what is beside an image of the store, if it is there. 0 or -errno with err set. */
int image_config_open(struct image_config *config, const char *image, struct err *err);
/* Safe on a zeroed object. */
void image_config_close(struct image_config *config);

/* Appends words, which need not be UTF-8 nor be there, to a list. 0 or -ENOMEM. */
int image_config_add(json_t *list, char *const *words);

/*
 * The entry point, then `words` or the image's command if there are none.
 * Another entry point, unless NULL, stands for both of the image's; "" for none. A new list; NULL
 * without memory.
 */
json_t *image_config_command(const struct image_config *config, const char *entrypoint,
			     char *const *words);

#endif
