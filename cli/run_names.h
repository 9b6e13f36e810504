/* SPDX-License-Identifier: Apache-2.0 */
/* The names that a guest is given: its own, of others, and who resolves the rest. */
#ifndef MOTE_CLI_RUN_NAMES_H
#define MOTE_CLI_RUN_NAMES_H

#include <stdbool.h>

#define RUN_NAMES_SIZE 1024

struct run_names {
	const char *hostname; /* NULL: the microVM's name */
	/* Lists with commas, as the kernel's command line has them. */
	char hosts[RUN_NAMES_SIZE];
	char servers[RUN_NAMES_SIZE];
	char search[RUN_NAMES_SIZE];
	char options[RUN_NAMES_SIZE];
};

/* Each 0, or -EINVAL if the value is none; -E2BIG if there are too many. */
int run_names_hostname(struct run_names *names, const char *value);
int run_names_add_host(struct run_names *names, const char *value); /* NAME:ADDRESS */
int run_names_add_server(struct run_names *names, const char *value);
int run_names_add_search(struct run_names *names, const char *value);
int run_names_add_option(struct run_names *names, const char *value);

/*
 * What the host's resolver has, of what was not given. Of its servers the first of either kind of
 * address is the forwarder for that kind; NULL: the guest has no such addresses. Without has_ipv4
 * it has none that lead further than to the host itself.
 */
void run_names_take_host(struct run_names *names, const char *path, const char *ipv4,
			 const char *ipv6, bool has_ipv4);

/* Words for the kernel's command line, each after a space; the name is the default host name. */
int run_names_words(const struct run_names *names, const char *name, char *words, int size);

#endif
