/* SPDX-License-Identifier: Apache-2.0 */
#include "base/guest_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/fd.h"

#define HUGE_PAGE_SIZE (UINT64_C(2) << 20)

static void add_region(struct guest_memory *memory, uint64_t base, uint64_t size, uint8_t *host)
{
	struct guest_memory_region *region = &memory->regions[memory->region_count++];

	region->base = base;
	region->size = size;
	region->host = host;
}

int guest_memory_open(struct guest_memory *memory, uint64_t size, uint64_t gap_start,
		      uint64_t gap_end, enum huge_pages huge_pages, struct err *err)
{
	/* Guest address 0 is put on a huge page boundary, so that transparent huge pages fit. */
	const uint64_t lead = HUGE_PAGE_SIZE;
	const uint64_t reserved = size + 2 * lead;
	uint64_t low = size < gap_start ? size : gap_start;
	uint8_t *mapping, *host;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	memset(memory, 0, sizeof(*memory));
	if (size == 0 || size % GUEST_PAGE_SIZE || size > (UINT64_C(1) << 46))
		return err_set(err, EINVAL,
			       "guest memory of %llu bytes: not a size that can be mapped",
			       (unsigned long long)size);
	mapping =
		mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapping == MAP_FAILED)
		return err_sys(err, errno, "guest memory of %llu MiB",
			       (unsigned long long)(size >> 20));
	host = (uint8_t *)(((uintptr_t)mapping + GUEST_PAGE_SIZE + HUGE_PAGE_SIZE - 1) &
			   ~(HUGE_PAGE_SIZE - 1));
	/* Reserved here, or a page that the host lacks would show as SIGBUS when it is touched. */
	if (huge_pages == HUGE_PAGES_2M)
		flags = (flags & ~MAP_NORESERVE) | MAP_HUGETLB;
	if (mmap(host, size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) {
		int saved = errno;

		munmap(mapping, reserved);
		return err_sys(err, saved, "guest memory of %llu MiB%s",
			       (unsigned long long)(size >> 20),
			       huge_pages == HUGE_PAGES_2M ? " in 2 MiB huge pages" : "");
	}
	memory->mapping = mapping;
	memory->mapping_size = reserved;
	/* It is the guest's, and nobody's else, also when the VMM crashes. */
	if (madvise(host, size, MADV_DONTDUMP) < 0) {
		int saved = errno;

		guest_memory_close(memory);
		return err_sys(err, saved, "guest memory cannot be kept out of core dumps");
	}
	/* EINVAL: a host without transparent huge pages; they are a wish. */
	if (huge_pages == HUGE_PAGES_TRANSPARENT && madvise(host, size, MADV_HUGEPAGE) < 0 &&
	    errno != EINVAL) {
		int saved = errno;

		guest_memory_close(memory);
		return err_sys(err, saved, "transparent huge pages for guest memory");
	}
	add_region(memory, 0, low, host);
	if (size > low)
		add_region(memory, gap_end, size - low, host + low);
	return 0;
}

void guest_memory_close(struct guest_memory *memory)
{
	if (memory->mapping)
		munmap(memory->mapping, memory->mapping_size);
	memset(memory, 0, sizeof(*memory));
}

uint64_t guest_memory_size(const struct guest_memory *memory)
{
	uint64_t size = 0;

	for (unsigned int i = 0; i < memory->region_count; i++)
		size += memory->regions[i].size;
	return size;
}

void *guest_memory_range(const struct guest_memory *memory, uint64_t addr, uint64_t len)
{
	if (len == 0)
		return NULL;
	for (unsigned int i = 0; i < memory->region_count; i++) {
		const struct guest_memory_region *region = &memory->regions[i];

		if (addr < region->base)
			continue;
		uint64_t offset = addr - region->base;

		if (offset < region->size && len <= region->size - offset)
			return region->host + offset;
	}
	return NULL;
}

int guest_memory_write(const struct guest_memory *memory, uint64_t addr, const void *data,
		       size_t len)
{
	void *to = guest_memory_range(memory, addr, len);

	if (!to)
		return -EFAULT;
	memcpy(to, data, len);
	return 0;
}

int guest_memory_read(const struct guest_memory *memory, uint64_t addr, void *data, size_t len)
{
	const void *from = guest_memory_range(memory, addr, len);

	if (!from)
		return -EFAULT;
	memcpy(data, from, len);
	return 0;
}

int guest_memory_load(const struct guest_memory *memory, uint64_t addr, int fd, uint64_t offset,
		      uint64_t len)
{
	void *to = guest_memory_range(memory, addr, len);

	return to ? fd_pread_exact(fd, to, len, offset) : -EFAULT;
}
