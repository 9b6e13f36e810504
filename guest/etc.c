/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/etc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* NULL if it is to be kept, or cannot be made. */
static FILE *replace(const char *path, bool keep)
{
	FILE *file;
	int fd;

	if (!keep)
		(void)unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	/* An image without /etc. */
	if (fd < 0 && errno == ENOENT && mkdir("/etc", 0755) == 0)
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file && !(keep && errno == EEXIST))
		fprintf(stderr, "mote-init: %s: %s\n", path, strerrordesc_np(errno));
	if (!file && fd >= 0)
		close(fd);
	return file;
}

/* NAME=ADDRESS as hosts has it. */
static void put_host(FILE *file, const char *word, int length)
{
	const char *equals = memchr(word, '=', (size_t)length);

	if (equals)
		fprintf(file, "%.*s\t%.*s\n", (int)(word + length - equals - 1), equals + 1,
			(int)(equals - word), word);
}

void etc_write_names(const struct etc_names *names)
{
	FILE *file = replace("/etc/hostname", names->keep);

	if (file) {
		fprintf(file, "%s\n", names->hostname);
		fclose(file);
	}
	file = replace("/etc/hosts", names->keep);
	if (!file)
		return;
	fputs("127.0.0.1\tlocalhost\n"
	      "::1\tlocalhost ip6-localhost ip6-loopback\n"
	      "fe00::0\tip6-localnet\n"
	      "ff00::0\tip6-mcastprefix\n"
	      "ff02::1\tip6-allnodes\n"
	      "ff02::2\tip6-allrouters\n",
	      file);
	for (const char *word = names->hosts; word; word = strchr(word, ',')) {
		word += *word == ',';
		put_host(file, word, (int)strcspn(word, ","));
	}
	fprintf(file, "%s\t%s\n", names->address ? names->address : "127.0.0.1", names->hostname);
	fclose(file);
}

/* The words behind a name, each on a line of its own or all on one. */
static void put_words(FILE *file, const char *name, const char *words, bool lines)
{
	if (!words || !*words)
		return;
	fputs(name, file);
	for (; *words; words++) {
		if (*words != ',')
			fputc(*words, file);
		else if (lines)
			fprintf(file, "\n%s", name);
		else
			fputc(' ', file);
	}
	fputc('\n', file);
}

void etc_write_resolver(const struct etc_resolver *resolver)
{
	FILE *file = replace("/etc/resolv.conf", false);

	if (!file)
		return;
	put_words(file, "nameserver ", resolver->servers, true);
	put_words(file, "search ", resolver->search, false);
	put_words(file, "options ", resolver->options, false);
	fclose(file);
}
