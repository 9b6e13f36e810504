/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/kernel_image.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "vmm/boot/layout.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define NOTES_SIZE_MAX 65536

#define BZIMAGE_SECTOR 512
#define BZIMAGE_BOOT_FLAG 0xaa55
#define BZIMAGE_MAGIC 0x53726448 /* "HdrS" */
#define BZIMAGE_VERSION_MIN 0x20c
#define BZIMAGE_64_BIT_ENTRY 0x200

static int add_segment(struct kernel_image *image, const struct kernel_segment *segment,
		       uint64_t file_size, struct err *err)
{
	const char *path = image->path;
	unsigned int i = image->segment_count;

	if (i == KERNEL_IMAGE_SEGMENTS)
		return err_set(err, ENOEXEC, "kernel image %s: more than %d loadable segments",
			       path, KERNEL_IMAGE_SEGMENTS);
	if (segment->file_size > segment->memory_size)
		return err_set(err, ENOEXEC,
			       "kernel image %s: segment %u: p_filesz is larger than p_memsz", path,
			       i);
	if (segment->offset > file_size || segment->file_size > file_size - segment->offset)
		return err_set(err, ENOEXEC,
			       "kernel image %s: segment %u: p_offset and p_filesz reach past the "
			       "end of the file",
			       path, i);
	if (segment->addr < LAYOUT_HIGH_MEMORY || segment->addr >= LAYOUT_MMIO_GAP_START ||
	    segment->memory_size > LAYOUT_MMIO_GAP_START - segment->addr)
		return err_set(err, ENOEXEC,
			       "kernel image %s: segment %u: p_paddr 0x%llx with p_memsz 0x%llx is "
			       "not between 1 MiB and 3 GiB",
			       path, i, (unsigned long long)segment->addr,
			       (unsigned long long)segment->memory_size);
	for (unsigned int j = 0; j < i; j++) {
		const struct kernel_segment *other = &image->segments[j];

		if (segment->addr < other->addr + other->memory_size &&
		    other->addr < segment->addr + segment->memory_size)
			return err_set(
				err, ENOEXEC,
				"kernel image %s: segments %u and %u overlap at p_paddr 0x%llx",
				path, j, i, (unsigned long long)segment->addr);
	}
	image->segments[image->segment_count++] = *segment;
	if (segment->addr + segment->memory_size > image->end)
		image->end = segment->addr + segment->memory_size;
	return 0;
}

static bool entry_is_loaded(const struct kernel_image *image)
{
	for (unsigned int i = 0; i < image->segment_count; i++) {
		const struct kernel_segment *segment = &image->segments[i];

		if (image->entry >= segment->addr &&
		    image->entry - segment->addr < segment->file_size)
			return true;
	}
	return false;
}

/* Looks for Xen's PHYS32_ENTRY among the notes: 1 found, 0 not there. */
static int find_pvh_entry(const uint8_t *notes, size_t size, uint64_t *entry)
{
	size_t at = 0;

	while (size - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;

		memcpy(&note, notes + at, sizeof(note));
		at += sizeof(note);
		size_t name_size = ((size_t)note.n_namesz + 3) & ~(size_t)3;

		if (name_size > size - at)
			return 0;
		const uint8_t *name = notes + at;

		at += name_size;
		size_t desc_size = ((size_t)note.n_descsz + 3) & ~(size_t)3;

		if (desc_size > size - at)
			return 0;
		if (note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.n_namesz == 4 &&
		    memcmp(name, "Xen", 4) == 0 && (note.n_descsz == 4 || note.n_descsz == 8)) {
			*entry = 0;
			memcpy(entry, notes + at, note.n_descsz);
			return 1;
		}
		at += desc_size;
	}
	return 0;
}

static int read_notes(struct kernel_image *image, const Elf64_Phdr *phdr, uint64_t file_size,
		      struct err *err)
{
	uint64_t entry;
	uint8_t *notes;
	int rc;

	if (phdr->p_offset > file_size || phdr->p_filesz > file_size - phdr->p_offset ||
	    phdr->p_filesz > NOTES_SIZE_MAX)
		return err_set(
			err, ENOEXEC,
			"kernel image %s: the note segment (p_offset 0x%llx, p_filesz 0x%llx) "
			"is not inside the file or too large",
			image->path, (unsigned long long)phdr->p_offset,
			(unsigned long long)phdr->p_filesz);
	notes = malloc(phdr->p_filesz + 1);
	if (!notes)
		return err_sys(err, ENOMEM, "kernel image %s: notes", image->path);
	rc = fd_pread_exact(image->fd, notes, phdr->p_filesz, phdr->p_offset);
	if (rc == 0 && find_pvh_entry(notes, phdr->p_filesz, &entry)) {
		image->entry_kind = KERNEL_ENTRY_PVH;
		image->entry = entry;
	}
	free(notes);
	if (rc < 0)
		return err_sys(err, -rc, "kernel image %s: reading the notes", image->path);
	return 0;
}

static int open_elf(struct kernel_image *image, const Elf64_Ehdr *ehdr, uint64_t file_size,
		    struct err *err)
{
	const char *path = image->path;
	int rc;

	if (ehdr->e_ident[EI_CLASS] != ELFCLASS64 || ehdr->e_ident[EI_DATA] != ELFDATA2LSB ||
	    ehdr->e_machine != EM_X86_64)
		return err_set(err, ENOEXEC, "kernel image %s: not a 64-bit x86-64 ELF file", path);
	if (ehdr->e_type != ET_EXEC)
		return err_set(err, ENOEXEC,
			       "kernel image %s: e_type is %u, not that of an executable (vmlinux)",
			       path, ehdr->e_type);
	if (ehdr->e_phentsize != sizeof(Elf64_Phdr) || ehdr->e_phnum == 0)
		return err_set(
			err, ENOEXEC,
			"kernel image %s: e_phentsize %u with e_phnum %u: no program headers "
			"to load",
			path, ehdr->e_phentsize, ehdr->e_phnum);
	image->entry_kind = KERNEL_ENTRY_64;
	image->entry = ehdr->e_entry;
	for (unsigned int i = 0; i < ehdr->e_phnum; i++) {
		Elf64_Phdr phdr;

		if (ehdr->e_phoff > file_size)
			return err_set(
				err, ENOEXEC,
				"kernel image %s: e_phoff 0x%llx is past the end of the file", path,
				(unsigned long long)ehdr->e_phoff);
		rc = fd_pread_exact(image->fd, &phdr, sizeof(phdr),
				    ehdr->e_phoff + i * sizeof(phdr));
		if (rc < 0)
			return err_set(
				err, ENOEXEC,
				"kernel image %s: program header %u is past the end of the file",
				path, i);
		if (phdr.p_type == PT_LOAD && phdr.p_memsz > 0) {
			const struct kernel_segment segment = { phdr.p_paddr, phdr.p_offset,
								phdr.p_filesz, phdr.p_memsz };

			rc = add_segment(image, &segment, file_size, err);
		} else if (phdr.p_type == PT_NOTE) {
			rc = read_notes(image, &phdr, file_size, err);
		}
		if (rc < 0)
			return rc;
	}
	if (!entry_is_loaded(image))
		return err_set(err, ENOEXEC,
			       "kernel image %s: the entry point 0x%llx is in no loaded segment",
			       path, (unsigned long long)image->entry);
	return 0;
}

static int open_bzimage(struct kernel_image *image, const struct setup_header *header,
			uint64_t file_size, struct err *err)
{
	const char *path = image->path;
	unsigned int setup_sectors = header->setup_sects ? header->setup_sects : 4;
	uint64_t setup_size = (setup_sectors + 1) * (uint64_t)BZIMAGE_SECTOR;
	uint64_t decompressed = LAYOUT_HIGH_MEMORY;
	struct kernel_segment segment;
	int rc;

	if (header->version < BZIMAGE_VERSION_MIN)
		return err_set(
			err, ENOEXEC,
			"kernel image %s: boot protocol %u.%02u, but 2.12 or later is needed", path,
			header->version >> 8, header->version & 0xff);
	if (!(header->xloadflags & XLF_KERNEL_64))
		return err_set(err, ENOEXEC,
			       "kernel image %s: xloadflags: the kernel has no 64-bit entry", path);
	if (!(header->loadflags & LOADED_HIGH))
		return err_set(err, ENOEXEC, "kernel image %s: loadflags: not a bzImage", path);
	if (setup_size + BZIMAGE_64_BIT_ENTRY >= file_size)
		return err_set(err, ENOEXEC,
			       "kernel image %s: the file ends within the %u set-up sectors", path,
			       setup_sectors);
	/* It decompresses to its preferred address when that is above where it was loaded. */
	if (header->pref_address > decompressed)
		decompressed = header->pref_address;
	if (decompressed >= LAYOUT_MMIO_GAP_START ||
	    header->init_size > LAYOUT_MMIO_GAP_START - decompressed)
		return err_set(
			err, ENOEXEC,
			"kernel image %s: init_size 0x%x from pref_address 0x%llx reaches past "
			"3 GiB",
			path, header->init_size, (unsigned long long)header->pref_address);
	segment.addr = LAYOUT_HIGH_MEMORY;
	segment.offset = setup_size;
	segment.file_size = file_size - setup_size;
	segment.memory_size = segment.file_size;
	/* Decompression happens in place: the kernel says how much it needs from its load address.
	 */
	if (header->init_size > segment.memory_size)
		segment.memory_size = header->init_size;
	rc = add_segment(image, &segment, file_size, err);
	if (rc < 0)
		return rc;
	if (decompressed + header->init_size > image->end)
		image->end = decompressed + header->init_size;
	image->entry_kind = KERNEL_ENTRY_64;
	image->entry = segment.addr + BZIMAGE_64_BIT_ENTRY;
	image->header = *header;
	return 0;
}

static int open_image(struct kernel_image *image, struct err *err)
{
	const uint64_t header_at = offsetof(struct boot_params, hdr);
	struct setup_header header;
	Elf64_Ehdr ehdr;
	struct stat st;

	if (fstat(image->fd, &st) < 0)
		return err_sys(err, errno, "kernel image %s", image->path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ENOEXEC, "kernel image %s: not a regular file", image->path);
	if (fd_pread_exact(image->fd, &ehdr, sizeof(ehdr), 0) == 0 &&
	    memcmp(ehdr.e_ident, ELFMAG, SELFMAG) == 0)
		return open_elf(image, &ehdr, (uint64_t)st.st_size, err);
	if (fd_pread_exact(image->fd, &header, sizeof(header), header_at) == 0 &&
	    header.boot_flag == BZIMAGE_BOOT_FLAG && header.header == BZIMAGE_MAGIC)
		return open_bzimage(image, &header, (uint64_t)st.st_size, err);
	return err_set(err, ENOEXEC, "kernel image %s: not an ELF or bzImage file", image->path);
}

int kernel_image_open(struct kernel_image *image, const char *path, struct err *err)
{
	int rc;

	memset(image, 0, sizeof(*image));
	/* O_NONBLOCK: a fifo in this place is refused, not waited for. */
	image->fd = fd_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (image->fd < 0)
		return err_sys(err, -image->fd, "kernel image %s", fd_name(path));
	image->path = strdup(fd_name(path));
	if (!image->path) {
		fd_close(&image->fd);
		return err_sys(err, ENOMEM, "kernel image %s", path);
	}
	rc = open_image(image, err);
	if (rc == 0 && image->entry_kind == KERNEL_ENTRY_64 && image->end > LAYOUT_IDENTITY_MAPPED)
		rc = err_set(
			err, ENOEXEC,
			"kernel image %s: it reaches up to 0x%llx, but the 64-bit entry maps only "
			"the first GiB",
			image->path, (unsigned long long)image->end);
	if (rc < 0)
		kernel_image_close(image);
	return rc;
}

void kernel_image_close(struct kernel_image *image)
{
	if (!image->path)
		return;
	fd_close(&image->fd);
	free(image->path);
	memset(image, 0, sizeof(*image));
}

int kernel_image_load(const struct kernel_image *image, struct guest_memory *memory,
		      struct err *err)
{
	const uint64_t mib = UINT64_C(1) << 20;

	if (!guest_memory_range(memory, 0, image->end))
		return err_set(
			err, EFBIG,
			"kernel image %s: needs %llu MiB, but the guest has %llu MiB of memory",
			image->path, (unsigned long long)((image->end + mib - 1) / mib),
			(unsigned long long)(guest_memory_size(memory) / mib));
	for (unsigned int i = 0; i < image->segment_count; i++) {
		const struct kernel_segment *segment = &image->segments[i];
		int rc = 0;

		if (segment->file_size > 0)
			rc = guest_memory_load(memory, segment->addr, image->fd, segment->offset,
					       segment->file_size);
		if (rc < 0)
			return err_sys(err, -rc, "kernel image %s: segment %u", image->path, i);
	}
	return 0;
}
