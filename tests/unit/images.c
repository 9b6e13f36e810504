/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/images.h"

#include <stddef.h>
#include <string.h>

#include "tests/unit/support.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

void elf_image_init(struct elf_image *elf)
{
	memset(elf, 0, sizeof(*elf));
	elf->ehdr = (Elf64_Ehdr){
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			     EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = ELF_ENTRY,
		.e_phoff = offsetof(struct elf_image, phdrs),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = ELF_PHDRS_USED,
	};
	elf->phdrs[ELF_TEXT] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = offsetof(struct elf_image, text),
		.p_paddr = ELF_TEXT_ADDR,
		.p_filesz = ELF_TEXT_SIZE,
		.p_memsz = ELF_TEXT_SIZE,
	};
	elf->phdrs[ELF_DATA] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = offsetof(struct elf_image, data),
		.p_paddr = ELF_DATA_ADDR,
		.p_filesz = ELF_DATA_SIZE,
		.p_memsz = ELF_DATA_MEMORY_SIZE,
	};
	elf->phdrs[ELF_NOTES] = (Elf64_Phdr){
		.p_type = PT_NOTE,
		.p_offset = offsetof(struct elf_image, notes),
	};
	fill_pattern(elf->text, sizeof(elf->text));
	fill_pattern(elf->data, sizeof(elf->data));
	memset(elf->symbols, 0xee, sizeof(elf->symbols));
}

static void append_padded(struct elf_image *elf, const void *data, size_t size)
{
	Elf64_Phdr *phdr = &elf->phdrs[ELF_NOTES];
	size_t padded = (size + 3) & ~(size_t)3;

	ck_assert_uint_le(phdr->p_filesz + padded, sizeof(elf->notes));
	memcpy(elf->notes + phdr->p_filesz, data, size);
	phdr->p_filesz += padded;
}

void elf_image_add_note(struct elf_image *elf, uint32_t type, const char *name, uint32_t name_size,
			const void *desc, uint32_t desc_size)
{
	const Elf64_Nhdr nhdr = { name_size, desc_size, type };

	append_padded(elf, &nhdr, sizeof(nhdr));
	append_padded(elf, name, name_size);
	append_padded(elf, desc, desc_size);
}

void elf_image_add_pvh_note(struct elf_image *elf, uint64_t entry)
{
	elf_image_add_note(elf, XEN_ELFNOTE_PHYS32_ENTRY, "Xen", 4, &entry, sizeof(entry));
}

void bzimage_init(struct bzimage *bzimage)
{
	memset(bzimage, 0, sizeof(*bzimage));
	bzimage->header = (struct setup_header){
		.setup_sects = BZIMAGE_SETUP_SECTORS,
		.boot_flag = 0xaa55,
		.header = 0x53726448,
		.version = 0x20f,
		.loadflags = LOADED_HIGH,
		.xloadflags = XLF_KERNEL_64,
		.kernel_alignment = 0x200000,
		.pref_address = BZIMAGE_PAYLOAD_ADDR,
		.init_size = 16 * (uint32_t)GUEST_PAGE_SIZE,
	};
	fill_pattern(bzimage->payload, sizeof(bzimage->payload));
}
