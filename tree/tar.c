/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/tar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* A header's fields, at their places (POSIX, "ustar Interchange Format"). */
struct header {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char checksum[8];
	char type;
	char link[100];
	char magic[8]; /* with the version */
	char user[32];
	char group[32];
	char major[8];
	char minor[8];
	char prefix[155];
	char padding[12];
};

_Static_assert(sizeof(struct header) == TAR_BLOCK, "a header is a block");

#define GNU_LONG_NAME 'L'
#define GNU_LONG_LINK 'K'
#define PAX_NEXT 'x'
#define PAX_GLOBAL 'g'
/* Of what precedes an entry to describe it. */
#define EXTRA_MAX 65536
#define BASE_256 0x80
#define OCTAL_SIZE_MAX UINT64_C(077777777777)
#define OCTAL_ID_MAX 07777777

/* What precedes an entry. */
struct extra {
	bool has_path, has_link, has_size, has_mtime;
	struct tar_entry entry;
};

static int read_exactly(struct tar_reader *reader, void *data, size_t size, struct err *err)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = reader->read(reader->opaque, (char *)data + done, size - done);

		if (n <= 0)
			return err_set(err, EINVAL, "the tar stream ends in the middle");
		done += (size_t)n;
	}
	return 0;
}

static bool is_zero(const void *block)
{
	static const char zero[TAR_BLOCK];

	return memcmp(block, zero, TAR_BLOCK) == 0;
}

/* Octal digits with blanks around, or GNU's base 256; false if it is neither, or too large. */
static bool parse_number(const char *field, size_t size, uint64_t *number)
{
	uint64_t value = 0;
	size_t i = 0;

	if ((unsigned char)field[0] & BASE_256) {
		/* Negative ones begin with 0xff. */
		if ((unsigned char)field[0] != BASE_256)
			return false;
		for (i = 1; i < size; i++) {
			if (value >> 55)
				return false;
			value = value << 8 | (unsigned char)field[i];
		}
		*number = value;
		return true;
	}
	while (i < size && field[i] == ' ')
		i++;
	for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (uint64_t)(field[i] - '0');
	for (; i < size; i++) {
		if (field[i] != ' ' && field[i] != '\0')
			return false;
	}
	*number = value;
	return true;
}

static uint64_t checksum_of(const struct header *header)
{
	const unsigned char *bytes = (const unsigned char *)header;
	uint64_t sum = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++) {
		bool is_own =
			i >= offsetof(struct header, checksum) && i < offsetof(struct header, type);

		sum += is_own ? ' ' : bytes[i];
	}
	return sum;
}

static uint64_t padding_of(uint64_t size)
{
	return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

/* Nanoseconds of ".5" and the like, as far as it is that. */
static uint32_t parse_fraction(const char *text)
{
	uint32_t ns = 0;

	if (*text++ != '.')
		return 0;
	for (uint32_t unit = 100000000; unit > 0 && *text >= '0' && *text <= '9'; unit /= 10)
		ns += (uint32_t)(*text++ - '0') * unit;
	return ns;
}

/* The text of one field of a pax header. */
static int take_pax_field(struct extra *extra, const char *key, const char *value, struct err *err)
{
	char *end;

	if (strcmp(key, "path") == 0) {
		extra->has_path = true;
		snprintf(extra->entry.path, sizeof(extra->entry.path), "%s", value);
	} else if (strcmp(key, "linkpath") == 0) {
		extra->has_link = true;
		snprintf(extra->entry.link, sizeof(extra->entry.link), "%s", value);
	} else if (strcmp(key, "size") == 0) {
		extra->has_size = true;
		errno = 0;
		extra->entry.size = strtoull(value, &end, 10);
		if (*end || errno || value[0] < '0' || value[0] > '9' ||
		    extra->entry.size > INT64_MAX)
			return err_set(err, EINVAL, "the tar stream has a size that cannot be");
	} else if (strcmp(key, "mtime") == 0) {
		extra->has_mtime = true;
		extra->entry.mtime = strtoll(value, &end, 10);
		extra->entry.mtime_ns = parse_fraction(end);
	} else if (strncmp(key, "GNU.sparse.", 11) == 0) {
		return err_set(err, EINVAL, "the tar stream has a sparse file");
	}
	return 0;
}

/* Records "LENGTH KEY=VALUE\n". */
static int take_pax(struct extra *extra, char *text, size_t size, struct err *err)
{
	while (size > 0) {
		char *end, *equals;
		unsigned long length = strtoul(text, &end, 10);

		if (text[0] < '1' || text[0] > '9' || *end != ' ' || length > size ||
		    text + length < end + 2 || text[length - 1] != '\n')
			return err_set(err, EINVAL, "the tar stream has a bad pax header");
		text[length - 1] = '\0';
		equals = strchr(++end, '=');
		if (!equals)
			return err_set(err, EINVAL, "the tar stream has a bad pax header");
		*equals = '\0';
		if (take_pax_field(extra, end, equals + 1, err) < 0)
			return -1;
		text += length;
		size -= length;
	}
	return 0;
}

static int take_extra(struct tar_reader *reader, struct extra *extra, char type, uint64_t size,
		      struct err *err)
{
	char *text;
	int rc;

	if (size > EXTRA_MAX)
		return err_set(err, EINVAL, "the tar stream has a name that is too long");
	text = malloc(size + 1);
	if (!text)
		return err_sys(err, ENOMEM, "tar");
	reader->left = 0;
	reader->padding = padding_of(size);
	rc = read_exactly(reader, text, size, err);
	text[size] = '\0';
	if (rc == 0 && type == PAX_NEXT)
		rc = take_pax(extra, text, size, err);
	else if (rc == 0 && type == GNU_LONG_NAME)
		rc = take_pax_field(extra, "path", text, err);
	else if (rc == 0 && type == GNU_LONG_LINK)
		rc = take_pax_field(extra, "linkpath", text, err);
	free(text);
	return rc;
}

static int skip(struct tar_reader *reader, struct err *err)
{
	char data[8 * TAR_BLOCK];

	while (reader->left > 0 || reader->padding > 0) {
		uint64_t left = reader->left + reader->padding;
		size_t part = left < sizeof(data) ? (size_t)left : sizeof(data);

		if (read_exactly(reader, data, part, err) < 0)
			return -1;
		reader->padding -= part > reader->left ? part - reader->left : 0;
		reader->left -= part > reader->left ? reader->left : part;
	}
	return 0;
}

static void copy_name(char *to, const struct header *header)
{
	bool has_prefix = memcmp(header->magic, "ustar\0", 6) == 0 && header->prefix[0];

	snprintf(to, PATH_MAX, "%.*s%s%.*s", has_prefix ? (int)sizeof(header->prefix) : 0,
		 header->prefix, has_prefix ? "/" : "", (int)sizeof(header->name), header->name);
}

static int fill_entry(struct tar_entry *entry, const struct header *header,
		      const struct extra *extra, uint64_t size, struct err *err)
{
	uint64_t mode, uid, gid, mtime, major = 0, minor = 0;

	if (!parse_number(header->mode, sizeof(header->mode), &mode) ||
	    !parse_number(header->uid, sizeof(header->uid), &uid) ||
	    !parse_number(header->gid, sizeof(header->gid), &gid) ||
	    !parse_number(header->mtime, sizeof(header->mtime), &mtime))
		return err_set(err, EINVAL, "the tar stream has a number that cannot be");
	(void)parse_number(header->major, sizeof(header->major), &major);
	(void)parse_number(header->minor, sizeof(header->minor), &minor);
	memset(entry, 0, sizeof(*entry));
	entry->mode = (mode_t)mode & 07777;
	entry->uid = (uid_t)uid;
	entry->gid = (gid_t)gid;
	entry->mtime = extra->has_mtime ? extra->entry.mtime : (int64_t)mtime;
	entry->mtime_ns = extra->entry.mtime_ns;
	entry->size = size;
	entry->major = (unsigned int)major;
	entry->minor = (unsigned int)minor;
	if (extra->has_path)
		memcpy(entry->path, extra->entry.path, sizeof(entry->path));
	else
		copy_name(entry->path, header);
	if (extra->has_link)
		memcpy(entry->link, extra->entry.link, sizeof(entry->link));
	else
		snprintf(entry->link, sizeof(entry->link), "%.*s", (int)sizeof(header->link),
			 header->link);
	/* Old ones, contiguous ones, and directories that are told by their name. */
	entry->type = header->type == '\0' || header->type == '7' ? TAR_FILE
								  : (enum tar_type)header->type;
	if (entry->type == TAR_FILE && entry->path[0] &&
	    entry->path[strlen(entry->path) - 1] == '/')
		entry->type = TAR_DIRECTORY;
	if (entry->type < TAR_FILE || entry->type > TAR_FIFO)
		return err_set(err, EINVAL, "%.200s: an entry of an unknown type", entry->path);
	/* Only files have data, whatever the size says of others. */
	if (entry->type != TAR_FILE)
		entry->size = 0;
	return 0;
}

int tar_next(struct tar_reader *reader, struct tar_entry *entry, struct err *err)
{
	struct extra extra = { 0 };

	for (;;) {
		struct header header;
		uint64_t sum, size;

		if (skip(reader, err) < 0 || read_exactly(reader, &header, sizeof(header), err) < 0)
			return -1;
		/* Two blocks of zeroes are the end; what follows is read by nobody. */
		if (is_zero(&header))
			return 0;
		if (!parse_number(header.checksum, sizeof(header.checksum), &sum) ||
		    sum != checksum_of(&header))
			return err_set(err, EINVAL, "this is no tar stream");
		if (!parse_number(header.size, sizeof(header.size), &size) || size > INT64_MAX)
			return err_set(err, EINVAL, "the tar stream has a size that cannot be");
		if (header.type == GNU_LONG_NAME || header.type == GNU_LONG_LINK ||
		    header.type == PAX_NEXT || header.type == PAX_GLOBAL) {
			if (take_extra(reader, &extra, header.type, size, err) < 0)
				return -1;
			continue;
		}
		if (extra.has_size)
			size = extra.entry.size;
		if (fill_entry(entry, &header, &extra, size, err) < 0)
			return -1;
		reader->left = entry->size;
		reader->padding = padding_of(entry->size);
		return 1;
	}
}

ssize_t tar_data(struct tar_reader *reader, void *data, size_t size, struct err *err)
{
	ssize_t n;

	if (reader->left == 0)
		return 0;
	n = reader->read(reader->opaque, data, reader->left < size ? (size_t)reader->left : size);
	if (n <= 0)
		return err_set(err, EINVAL, "the tar stream ends in the middle");
	reader->left -= (uint64_t)n;
	return n;
}

static void put_number(char *field, size_t size, uint64_t number, uint64_t octal_max)
{
	if (number <= octal_max) {
		/* The last byte stays zero. */
		for (size_t i = size - 1; i > 0; i--) {
			field[i - 1] = (char)('0' + (number & 7));
			number >>= 3;
		}
		return;
	}
	field[0] = (char)BASE_256;
	for (size_t i = size - 1; i > 0; i--) {
		field[i] = (char)number;
		number >>= 8;
	}
}

static void put_checksum(struct header *header)
{
	memset(header->checksum, ' ', sizeof(header->checksum));
	snprintf(header->checksum, sizeof(header->checksum) - 1, "%06llo",
		 (unsigned long long)checksum_of(header));
}

/* A name that does not fit into the header precedes it. */
static int put_long(struct tar_writer *writer, char type, const char *name)
{
	struct header header = { .name = "././@LongLink", .magic = "ustar  ", .type = type };
	size_t size = strlen(name) + 1;

	put_number(header.size, sizeof(header.size), size, OCTAL_SIZE_MAX);
	put_number(header.mode, sizeof(header.mode), 0, OCTAL_ID_MAX);
	put_number(header.uid, sizeof(header.uid), 0, OCTAL_ID_MAX);
	put_number(header.gid, sizeof(header.gid), 0, OCTAL_ID_MAX);
	put_number(header.mtime, sizeof(header.mtime), 0, OCTAL_SIZE_MAX);
	put_checksum(&header);
	return writer->write(writer->opaque, &header, sizeof(header)) < 0 ||
			       writer->write(writer->opaque, name, size) < 0
		       ? -1
		       : tar_pad(writer, size);
}

/* The header has no room for a part of a second: pax has. */
static int put_exact_time(struct tar_writer *writer, const struct tar_entry *entry)
{
	struct header header = { .name = "././@PaxHeader", .magic = "ustar  ", .type = PAX_NEXT };
	char record[64];
	/* A record begins with its own length: of two digits, with these. */
	size_t size = (size_t)snprintf(record, sizeof(record), "00 mtime=%lld.%09u\n",
				       (long long)entry->mtime, entry->mtime_ns);

	record[0] = (char)('0' + size / 10);
	record[1] = (char)('0' + size % 10);
	put_number(header.size, sizeof(header.size), size, OCTAL_SIZE_MAX);
	put_checksum(&header);
	return writer->write(writer->opaque, &header, sizeof(header)) < 0 ||
			       writer->write(writer->opaque, record, size) < 0
		       ? -1
		       : tar_pad(writer, size);
}

/* Without the terminating zero where it fills its field. */
static int put_name(struct tar_writer *writer, char type, char *field, size_t size,
		    const char *name)
{
	size_t length = strlen(name);

	memcpy(field, name, length < size ? length : size);
	return length > size ? put_long(writer, type, name) : 0;
}

int tar_put(struct tar_writer *writer, const struct tar_entry *entry)
{
	struct header header = { .magic = "ustar  ", .type = (char)entry->type };

	put_number(header.mode, sizeof(header.mode), entry->mode, OCTAL_ID_MAX);
	put_number(header.uid, sizeof(header.uid), entry->uid, OCTAL_ID_MAX);
	put_number(header.gid, sizeof(header.gid), entry->gid, OCTAL_ID_MAX);
	put_number(header.size, sizeof(header.size), entry->size, OCTAL_SIZE_MAX);
	put_number(header.mtime, sizeof(header.mtime),
		   entry->mtime < 0 ? 0 : (uint64_t)entry->mtime, OCTAL_SIZE_MAX);
	if (entry->type == TAR_CHARACTER_DEVICE || entry->type == TAR_BLOCK_DEVICE) {
		put_number(header.major, sizeof(header.major), entry->major, OCTAL_ID_MAX);
		put_number(header.minor, sizeof(header.minor), entry->minor, OCTAL_ID_MAX);
	}
	if (entry->mtime >= 0 && entry->mtime_ns > 0 && put_exact_time(writer, entry) < 0)
		return -1;
	if (put_name(writer, GNU_LONG_NAME, header.name, sizeof(header.name), entry->path) < 0 ||
	    put_name(writer, GNU_LONG_LINK, header.link, sizeof(header.link), entry->link) < 0)
		return -1;
	put_checksum(&header);
	return writer->write(writer->opaque, &header, sizeof(header));
}

int tar_pad(struct tar_writer *writer, uint64_t size)
{
	static const char zero[TAR_BLOCK];
	size_t padding = (size_t)padding_of(size);

	return padding > 0 ? writer->write(writer->opaque, zero, padding) : 0;
}

int tar_finish(struct tar_writer *writer)
{
	static const char zero[2 * TAR_BLOCK];

	return writer->write(writer->opaque, zero, sizeof(zero));
}
