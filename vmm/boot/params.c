/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/params.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "vmm/boot/kernel_image.h"
#include "vmm/boot/layout.h"

#define E820_RAM 1
#define E820_RESERVED 2

#define LOADER_UNDEFINED 0xff
#define KERNEL_ALIGNMENT 0x1000000
#define SETUP_RNG_SEED 9

#define PVH_MAGIC 0x336ec578
#define PVH_MEMORY_MAP_ENTRIES 8

struct pvh_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct pvh_module {
	uint64_t paddr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};

struct pvh_memory_map_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

struct rng_seed {
	struct setup_data head;
	uint8_t seed[BOOT_SEED_SIZE];
};

unsigned int boot_memory_map(const struct guest_memory *memory, struct boot_e820_entry *map,
			     unsigned int max)
{
	const struct guest_memory_region *low = &memory->regions[0];
	const struct boot_e820_entry all[] = {
		{ 0, LAYOUT_SYSTEM_TABLES, E820_RAM },
		{ LAYOUT_SYSTEM_TABLES, LAYOUT_HIGH_MEMORY - LAYOUT_SYSTEM_TABLES, E820_RESERVED },
		{ LAYOUT_HIGH_MEMORY, low->size - LAYOUT_HIGH_MEMORY, E820_RAM },
		{ memory->regions[1].base, memory->regions[1].size, E820_RAM },
	};
	unsigned int count = memory->region_count > 1 ? 4 : 3;

	if (count > max)
		count = max;
	memcpy(map, all, count * sizeof(all[0]));
	return count;
}

int boot_load_initrd(struct guest_memory *memory, int fd, const char *path, uint64_t kernel_end,
		     struct boot_initrd *initrd, struct err *err)
{
	const struct guest_memory_region *low = &memory->regions[0];
	struct stat st;
	uint64_t size, addr;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "initrd %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return err_set(err, EINVAL, "initrd %s: %s", path,
			       S_ISREG(st.st_mode) ? "the file is empty" : "not a regular file");
	size = (uint64_t)st.st_size;
	addr = size > low->size ? 0 : (low->size - size) & ~(GUEST_PAGE_SIZE - 1);
	if (addr < kernel_end || addr < LAYOUT_HIGH_MEMORY)
		return err_set(err, EFBIG,
			       "initrd %s: %llu KiB do not fit beside the kernel into %llu MiB of "
			       "guest memory",
			       path, (unsigned long long)(size + 1023) >> 10,
			       (unsigned long long)(guest_memory_size(memory) >> 20));
	rc = guest_memory_load(memory, addr, fd, 0, size);
	if (rc < 0)
		return err_sys(err, -rc, "initrd %s", path);
	initrd->addr = addr;
	initrd->size = size;
	return 0;
}

int boot_write_cmdline(const struct guest_memory *memory, const char *cmdline, struct err *err)
{
	size_t size = strlen(cmdline) + 1;

	if (size > LAYOUT_CMDLINE_SIZE)
		return err_set(err, E2BIG,
			       "kernel command line of %zu bytes: at most %d are possible",
			       size - 1, LAYOUT_CMDLINE_SIZE - 1);
	return guest_memory_write(memory, LAYOUT_CMDLINE, cmdline, size);
}

void boot_write_zero_page(const struct guest_memory *memory, const struct kernel_image *image,
			  const struct boot_initrd *initrd, uint32_t cmdline_size,
			  const uint8_t seed[BOOT_SEED_SIZE])
{
	struct rng_seed rng = { .head = { .type = SETUP_RNG_SEED, .len = BOOT_SEED_SIZE } };
	struct boot_params params;

	memset(&params, 0, sizeof(params));
	params.hdr = image->header;
	params.hdr.type_of_loader = LOADER_UNDEFINED;
	params.hdr.boot_flag = 0xaa55;
	params.hdr.header = 0x53726448;
	if (params.hdr.kernel_alignment == 0)
		params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
	params.hdr.cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
	params.hdr.cmdline_size = cmdline_size;
	params.hdr.setup_data = LAYOUT_SETUP_DATA;
	if (initrd->size > 0) {
		/* The first region ends below 3 GiB, so neither needs its ext_ half. */
		params.hdr.ramdisk_image = (uint32_t)initrd->addr;
		params.hdr.ramdisk_size = (uint32_t)initrd->size;
	}
	params.acpi_rsdp_addr = LAYOUT_RSDP;
	params.e820_entries =
		(uint8_t)boot_memory_map(memory, params.e820_table, E820_MAX_ENTRIES_ZEROPAGE);
	memcpy(rng.seed, seed, BOOT_SEED_SIZE);
	(void)guest_memory_write(memory, LAYOUT_SETUP_DATA, &rng, sizeof(rng));
	(void)guest_memory_write(memory, LAYOUT_ZERO_PAGE, &params, sizeof(params));
	explicit_bzero(&rng, sizeof(rng));
}

void boot_write_pvh_start_info(const struct guest_memory *memory, const struct boot_initrd *initrd)
{
	struct boot_e820_entry e820[PVH_MEMORY_MAP_ENTRIES];
	struct pvh_memory_map_entry map[PVH_MEMORY_MAP_ENTRIES] = { 0 };
	const struct pvh_module module = { .paddr = initrd->addr, .size = initrd->size };
	struct pvh_start_info info = {
		.magic = PVH_MAGIC,
		.version = 1,
		.nr_modules = initrd->size > 0 ? 1 : 0,
		.modlist_paddr = initrd->size > 0 ? LAYOUT_PVH_MODULES : 0,
		.cmdline_paddr = LAYOUT_CMDLINE,
		.rsdp_paddr = LAYOUT_RSDP,
		.memmap_paddr = LAYOUT_PVH_MEMORY_MAP,
	};

	info.memmap_entries = boot_memory_map(memory, e820, PVH_MEMORY_MAP_ENTRIES);
	for (unsigned int i = 0; i < info.memmap_entries; i++)
		map[i] = (struct pvh_memory_map_entry){ e820[i].addr, e820[i].size, e820[i].type,
							0 };
	(void)guest_memory_write(memory, LAYOUT_PVH_START_INFO, &info, sizeof(info));
	(void)guest_memory_write(memory, LAYOUT_PVH_MODULES, &module, sizeof(module));
	(void)guest_memory_write(memory, LAYOUT_PVH_MEMORY_MAP, map, sizeof(map));
}
