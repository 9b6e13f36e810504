/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/tar_format.h"

#include <stdbool.h>
#include <stddef.h>

uint64_t tar_checksum(const struct tar_header *header)
{
	const unsigned char *bytes = (const unsigned char *)header;
	uint64_t sum = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++) {
		bool is_own = i >= offsetof(struct tar_header, checksum) &&
			      i < offsetof(struct tar_header, type);

		sum += is_own ? ' ' : bytes[i];
	}
	return sum;
}

uint64_t tar_padding(uint64_t size)
{
	return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}
