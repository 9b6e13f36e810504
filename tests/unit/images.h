/* SPDX-License-Identifier: Apache-2.0 */
/* Small kernel files, well-formed until a test spoils a field. The structs are the files' bytes. */
#ifndef MOTE_TESTS_UNIT_IMAGES_H
#define MOTE_TESTS_UNIT_IMAGES_H

#include <asm/bootparam.h>
#include <elf.h>
#include <stdint.h>

#include "base/guest_memory.h"

#define ELF_TEXT_ADDR UINT64_C(0x1000000)
#define ELF_DATA_ADDR UINT64_C(0x1200000)
#define ELF_TEXT_SIZE GUEST_PAGE_SIZE
#define ELF_DATA_SIZE (GUEST_PAGE_SIZE + 0x100)
#define ELF_DATA_MEMORY_SIZE (4 * GUEST_PAGE_SIZE)
#define ELF_ENTRY (ELF_TEXT_ADDR + 0x10)
#define ELF_PVH_ENTRY (ELF_TEXT_ADDR + 0x20)

enum { ELF_TEXT, ELF_DATA, ELF_NOTES, ELF_PHDRS_USED, ELF_PHDRS = 20 };

struct elf_image {
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdrs[ELF_PHDRS];
	uint8_t notes[256];
	uint8_t text[ELF_TEXT_SIZE] __attribute__((aligned(4096)));
	uint8_t data[ELF_DATA_SIZE];
	uint8_t symbols[GUEST_PAGE_SIZE - 0x100]; /* in the last page of the data */
};

/* Without notes, so entered by the 64-bit protocol. */
void elf_image_init(struct elf_image *elf);
/* Appends a note, name and description padded to four bytes. */
void elf_image_add_note(struct elf_image *elf, uint32_t type, const char *name, uint32_t name_size,
			const void *desc, uint32_t desc_size);
void elf_image_add_pvh_note(struct elf_image *elf, uint64_t entry);

#define BZIMAGE_PAYLOAD_ADDR UINT64_C(0x100000)
#define BZIMAGE_PAYLOAD_SIZE (2 * GUEST_PAGE_SIZE + 0x100)
#define BZIMAGE_SETUP_SECTORS 3

struct bzimage {
	uint8_t boot_sector[0x1f1];
	struct setup_header header;
	uint8_t setup[(BZIMAGE_SETUP_SECTORS + 1) * 512 - 0x1f1 - sizeof(struct setup_header)];
	uint8_t payload[BZIMAGE_PAYLOAD_SIZE];
} __attribute__((packed));

void bzimage_init(struct bzimage *bzimage);

#endif
