/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar stream as it comes from a guest or a client: the first byte says how many bytes come at a
 * time; the entries may not depend on it.
 */
#include <string.h>

#include "base/err.h"
#include "tests/fuzz/fuzz.h"
#include "tree/tar.h"

struct input {
	const uint8_t *data;
	size_t left;
	size_t chunk;
};

struct outcome {
	uint64_t hash; /* of paths, links and data */
	unsigned int entries;
	int rc;
};

static ssize_t give(void *opaque, void *data, size_t size)
{
	struct input *input = opaque;

	REQUIRE(size > 0);
	if (size > input->left)
		size = input->left;
	if (size > input->chunk)
		size = input->chunk;
	memcpy(data, input->data, size);
	input->data += size;
	input->left -= size;
	return (ssize_t)size;
}

static void add(struct outcome *outcome, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++)
		outcome->hash = (outcome->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
}

static void add_attributes(struct outcome *outcome, const struct attributes *attributes)
{
	struct attribute attribute;
	size_t names = 0;

	REQUIRE(attributes->size <= ATTRIBUTES_MAX);
	for (size_t at = 0; attributes_next(attributes, &at, &attribute);) {
		REQUIRE(attribute.name[0] && strlen(attribute.name) <= 255);
		REQUIRE(attribute.size <= 65536);
		names += strlen(attribute.name) + 1;
		add(outcome, attribute.name, strlen(attribute.name) + 1);
		add(outcome, attribute.value, attribute.size);
	}
	REQUIRE(names <= ATTRIBUTES_NAMES_MAX);
}

static struct outcome feed(const uint8_t *data, size_t size, size_t chunk)
{
	static struct tar_entry entry;
	struct input input = { data, size, chunk };
	struct tar_reader reader = { .read = give, .opaque = &input };
	struct err err = { .text = "" };
	struct outcome outcome = { 0 };

	while ((outcome.rc = tar_next(&reader, &entry, &err)) > 0) {
		uint8_t bytes[1000];
		uint64_t total = 0;
		ssize_t n;

		REQUIRE(memchr(entry.path, '\0', sizeof(entry.path)) != NULL);
		REQUIRE(memchr(entry.link, '\0', sizeof(entry.link)) != NULL);
		REQUIRE(entry.type >= TAR_FILE && entry.type <= TAR_FIFO);
		add(&outcome, entry.path, strlen(entry.path));
		add(&outcome, entry.link, strlen(entry.link));
		add_attributes(&outcome, entry.attributes);
		/* Every other one's data is skipped. */
		while (outcome.entries % 2 == 0 &&
		       (n = tar_data(&reader, bytes, sizeof(bytes), &err)) != 0) {
			if (n < 0)
				break;
			add(&outcome, bytes, (size_t)n);
			total += (uint64_t)n;
		}
		REQUIRE(total <= entry.size);
		outcome.entries++;
	}
	tar_reader_free(&reader);
	if (outcome.rc < 0)
		REQUIRE(err.text[0]);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, parts;

	if (size < 1)
		return 0;
	whole = feed(data + 1, size - 1, SIZE_MAX);
	parts = feed(data + 1, size - 1, (size_t)data[0] + 1);
	REQUIRE(whole.entries == parts.entries);
	REQUIRE(whole.rc == parts.rc);
	/* Where data are cut, more or less of them may have been seen. */
	REQUIRE(whole.rc < 0 || whole.hash == parts.hash);
	return 0;
}
