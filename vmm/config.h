/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM is made of, as its owner configures it: the fields of the API's bodies, whose names and
 * defaults are Firecracker's. Strings are owned (malloc) and may be NULL where not given.
 */
#ifndef MOTE_VMM_CONFIG_H
#define MOTE_VMM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_VCPU_MAX 32
#define CONFIG_MEMORY_MIN_MIB 16
#define CONFIG_MEMORY_MAX_MIB (16 * 1024 * 1024)
#define CONFIG_DEFAULT_BOOT_ARGS                                                                   \
	"reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd "         \
	"swiotlb=noforce"

struct boot_source_config {
	char *kernel_image_path;
	char *initrd_path;
	char *boot_args; /* NULL: CONFIG_DEFAULT_BOOT_ARGS */
};

struct machine_config {
	int64_t vcpu_count;   /* 1 to CONFIG_VCPU_MAX; with smt 1 or even */
	int64_t mem_size_mib; /* CONFIG_MEMORY_MIN_MIB and more */
	bool smt;
	bool track_dirty_pages; /* for snapshots; without effect until they exist */
	int huge_pages;		/* enum huge_pages */
};

struct serial_config {
	char *serial_out_path; /* NULL: standard output */
};

void boot_source_config_free(struct boot_source_config *config);
void serial_config_free(struct serial_config *config);

#endif
