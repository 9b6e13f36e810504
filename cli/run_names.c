/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_names.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/array.h"

/* glibc and musl ask no more. */
#define SERVERS_MAX 3

static bool is_address(const char *text, struct in6_addr *address, int *family)
{
	*family = strchr(text, ':') ? AF_INET6 : AF_INET;
	return inet_pton(*family, text, address) == 1;
}

/* What a domain name or an option has; it becomes part of a word of the kernel's. */
static bool is_word(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++) {
		if (!isalnum((unsigned char)*text) && !strchr("._-:", *text))
			return false;
	}
	return true;
}

static int append(char list[RUN_NAMES_SIZE], const char *name, const char *equals,
		  const char *value)
{
	const size_t used = strlen(list);
	const int n = snprintf(list + used, RUN_NAMES_SIZE - used, "%s%s%s%s", used ? "," : "",
			       name, equals, value);

	if (n < (int)(RUN_NAMES_SIZE - used))
		return 0;
	list[used] = '\0';
	return -E2BIG;
}

int run_names_hostname(struct run_names *names, const char *value)
{
	if (!is_word(value) || strchr(value, ':') || strlen(value) > 63)
		return -EINVAL;
	names->hostname = value;
	return 0;
}

int run_names_add_host(struct run_names *names, const char *value)
{
	const char *colon = strchr(value, ':');
	struct in6_addr address;
	char name[256];
	int family;

	if (!colon || colon - value >= (int)sizeof(name))
		return -EINVAL;
	snprintf(name, sizeof(name), "%.*s", (int)(colon - value), value);
	return !is_word(name) || !is_address(colon + 1, &address, &family)
		       ? -EINVAL
		       : append(names->hosts, name, "=", colon + 1);
}

int run_names_add_server(struct run_names *names, const char *value)
{
	struct in6_addr address;
	int family;

	return is_address(value, &address, &family) ? append(names->servers, value, "", "")
						    : -EINVAL;
}

int run_names_add_search(struct run_names *names, const char *value)
{
	return is_word(value) ? append(names->search, value, "", "") : -EINVAL;
}

int run_names_add_option(struct run_names *names, const char *value)
{
	return is_word(value) ? append(names->options, value, "", "") : -EINVAL;
}

struct resolver {
	unsigned int servers;
	bool servers_given;
	bool search_given;
	bool options_given;
	const char *forwarders[2]; /* until it was named; IPv4's and IPv6's */
	bool families[2];	   /* what goes further than to the host */
};

/* The guest's own loopback is not the host's, and a link of the host's is none of the guest's. */
static bool is_reachable(const struct in6_addr *address, int family)
{
	return family == AF_INET
		       ? address->s6_addr[0] != 127
		       : !IN6_IS_ADDR_LOOPBACK(address) && !IN6_IS_ADDR_LINKLOCAL(address);
}

static void take_server(struct run_names *names, char *word, struct resolver *resolver)
{
	struct in6_addr address;
	int family, i;

	word[strcspn(word, "%")] = '\0';
	if (!is_address(word, &address, &family))
		return;
	i = family == AF_INET6;
	if ((!resolver->families[i] && is_reachable(&address, family)) ||
	    resolver->servers == SERVERS_MAX)
		return;
	if (resolver->forwarders[i])
		(void)run_names_add_server(names, resolver->forwarders[i]);
	else if (is_reachable(&address, family))
		(void)run_names_add_server(names, word);
	else
		return;
	resolver->forwarders[i] = NULL;
	resolver->servers++;
}

static void take_line(struct run_names *names, char *line, struct resolver *resolver)
{
	const char *key = strtok(line, " \t\n");
	char *word;

	if (!key)
		return;
	/* The last search counts. */
	if (!resolver->search_given && (strcmp(key, "search") == 0 || strcmp(key, "domain") == 0))
		names->search[0] = '\0';
	while ((word = strtok(NULL, " \t\n")) != NULL) {
		if (strcmp(key, "nameserver") == 0) {
			if (!resolver->servers_given)
				take_server(names, word, resolver);
			break;
		}
		if ((strcmp(key, "search") == 0 || strcmp(key, "domain") == 0) &&
		    !resolver->search_given)
			(void)run_names_add_search(names, word);
		if (strcmp(key, "options") == 0 && !resolver->options_given)
			(void)run_names_add_option(names, word);
	}
}

void run_names_take_host(struct run_names *names, const char *path, const char *ipv4,
			 const char *ipv6, bool has_ipv4)
{
	struct resolver resolver = { .servers_given = names->servers[0],
				     .search_given = names->search[0],
				     .options_given = names->options[0],
				     .forwarders = { ipv4, ipv6 },
				     .families = { has_ipv4, ipv6 } };
	FILE *file = fopen(path, "re");
	char line[1024];

	while (file && fgets(line, sizeof(line), file))
		take_line(names, line, &resolver);
	if (file)
		fclose(file);
	/* A host without any may get one while the guest runs. */
	if (!names->servers[0])
		(void)run_names_add_server(names, has_ipv4 ? ipv4 : ipv6);
}

int run_names_words(const struct run_names *names, const char *name, char *words, int size)
{
	const char *hostname = names->hostname ? names->hostname : name;
	const struct {
		const char *key;
		const char *value;
	} known[] = {
		{ "mote.hostname=", hostname ? hostname : "" },
		{ "mote.hosts=", names->hosts },
		{ "mote.dns=", names->servers },
		{ "mote.search=", names->search },
		{ "mote.resolver-options=", names->options },
	};
	int used = 0;

	words[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (*known[i].value)
			used += snprintf(words + used, (size_t)(size - used), " %s%s", known[i].key,
					 known[i].value);
		if (used >= size)
			return -E2BIG;
	}
	return 0;
}
