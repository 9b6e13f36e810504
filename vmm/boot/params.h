/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel is told at its entry: memory map, command line, initrd and random seed, as a zero
 * page (Documentation/arch/x86/zero-page.rst) or as PVH start info (Xen's
 * public/arch-x86/hvm/start_info.h).
 */
#ifndef MOTE_VMM_BOOT_PARAMS_H
#define MOTE_VMM_BOOT_PARAMS_H

#include <asm/bootparam.h>
#include <stdint.h>

struct err;
struct guest_memory;
struct kernel_image;

#define BOOT_SEED_SIZE 32

struct boot_initrd {
	uint64_t addr; /* guest physical */
	uint64_t size; /* 0: none */
};

/*
 * Fills at most `max` entries and returns how many there are: RAM without the system tables and the
 * MMIO gap.
 */
unsigned int boot_memory_map(const struct guest_memory *memory, struct boot_e820_entry *map,
			     unsigned int max);

/*
 * Loads the file at the top of the first region. -EFBIG with err set if it would overlap the kernel
 * or the low 1 MiB.
 */
int boot_load_initrd(struct guest_memory *memory, int fd, const char *path, uint64_t kernel_end,
		     struct boot_initrd *initrd, struct err *err);

/* -E2BIG with err set if it is longer than the 2,047 bytes that the layout has room for. */
int boot_write_cmdline(const struct guest_memory *memory, const char *cmdline, struct err *err);

/* Both write to the layout's addresses, which every configurable memory size contains. */
void boot_write_zero_page(const struct guest_memory *memory, const struct kernel_image *image,
			  const struct boot_initrd *initrd, uint32_t cmdline_size,
			  const uint8_t seed[BOOT_SEED_SIZE]);
void boot_write_pvh_start_info(const struct guest_memory *memory, const struct boot_initrd *initrd);

#endif
