/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacks a tarball, for build-image.sh, which has confined it:
 *	unpack-tar < TARBALL          into the working directory
 *	unpack-tar --check < LAYER    only looks at the names in a layer of an OCI image
 *
 * libarchive does it, and is told of nothing but tar (ustar, pax, GNU and old ones), plain or
 *compressed with gzip, bzip2, xz or zstd; bsdtar knows some twenty other formats and cannot be told
 *to leave them. Absolute names land inside; a name with "..", one that leads through a symbolic
 *link or a hard link to the outside ends it. Flags of files, like immutable, are not set: they
 *belong to no image. Exits with 0, or with 1 and one sentence.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK (64 << 10)
#define FLAGS                                                                                      \
	(ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |                     \
	 ARCHIVE_EXTRACT_ACL | ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_SECURE_SYMLINKS |           \
	 ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS)

static _Noreturn void die(const char *object, const char *cause)
{
	fprintf(stderr, "%s%s%s\n", object, object[0] ? ": " : "", cause);
	exit(1);
}

static _Noreturn void die_of(struct archive *archive, const char *object)
{
	const char *cause = archive_error_string(archive);
	int errnum = archive_errno(archive);

	/* What there is no room for has to be told by its errno. */
	if (errnum == EFBIG || errnum == ENOSPC)
		cause = strerror(errnum);
	die(object, cause ? cause : "not readable");
}

static struct archive *open_input(void)
{
	struct archive *in = archive_read_new();

	if (!in)
		die("", strerror(ENOMEM));
	archive_read_support_filter_gzip(in);
	archive_read_support_filter_bzip2(in);
	archive_read_support_filter_xz(in);
	archive_read_support_filter_zstd(in);
	archive_read_support_format_tar(in);
	if (archive_read_open_fd(in, STDIN_FILENO, BLOCK) != ARCHIVE_OK)
		die_of(in, "");
	return in;
}

/* The next entry, or NULL at the end. */
static struct archive_entry *next(struct archive *in)
{
	struct archive_entry *entry;
	int rc = archive_read_next_header(in, &entry);

	if (rc == ARCHIVE_EOF)
		return NULL;
	/* Warnings are of what another locale would name differently, say: the bytes are kept. */
	if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
		die_of(in, "");
	if (!archive_entry_pathname(entry))
		die("", "a file without a name");
	return entry;
}

static const char *relative(const char *name)
{
	while (name[0] == '/')
		name++;
	return name[0] ? name : ".";
}

static void make_relative(struct archive_entry *entry)
{
	char *name = strdup(relative(archive_entry_pathname(entry)));
	const char *target = archive_entry_hardlink(entry);
	char *inside = target ? strdup(relative(target)) : NULL;

	if (!name || (target && !inside))
		die("", strerror(ENOMEM));
	archive_entry_copy_pathname(entry, name);
	if (inside)
		archive_entry_copy_hardlink(entry, inside);
	free(name);
	free(inside);
}

static void unpack(struct archive *in)
{
	struct archive *out = archive_write_disk_new();
	struct archive_entry *entry;
	bool is_empty = true;

	if (!out)
		die("", strerror(ENOMEM));
	archive_write_disk_set_options(out, FLAGS);
	while ((entry = next(in)) != NULL) {
		is_empty = false;
		make_relative(entry);
		/* Its error is the archive's that is read. */
		if (archive_read_extract2(in, entry, out) != ARCHIVE_OK)
			die_of(in, archive_entry_pathname(entry));
	}
	/* Zeroes are the end of a tarball, and the beginning of much else. */
	if (is_empty)
		die("", "no file is in it");
	/* Directories get their times and modes last. */
	if (archive_write_close(out) != ARCHIVE_OK)
		die_of(out, "");
	archive_write_free(out);
}

/* Of a whiteout that would name its directory, or the one above it. */
static bool is_hostile(const char *name)
{
	char *copy = strdup(name);
	const char *slash;
	const char *base;
	bool found;

	if (!copy)
		die("", strerror(ENOMEM));
	for (size_t end = strlen(copy); end > 0 && copy[end - 1] == '/'; end--)
		copy[end - 1] = '\0';
	slash = strrchr(copy, '/');
	base = slash ? slash + 1 : copy;
	found = strcmp(base, ".wh.") == 0 || strcmp(base, ".wh..") == 0 ||
		strcmp(base, ".wh...") == 0;
	free(copy);
	return found;
}

static void check(struct archive *in)
{
	struct archive_entry *entry;

	while ((entry = next(in)) != NULL) {
		if (is_hostile(archive_entry_pathname(entry)))
			die(archive_entry_pathname(entry), "a whiteout of no file");
	}
}

int main(int argc, char **argv)
{
	struct archive *in;

	/* Whoever builds, names of pax archives become the bytes that they stand for. */
	setlocale(LC_CTYPE, "C.UTF-8");
	in = open_input();
	if (argc == 2 && strcmp(argv[1], "--check") == 0)
		check(in);
	else
		unpack(in);
	archive_read_free(in);
	return 0;
}
