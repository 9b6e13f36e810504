/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's physical address map. It is part of the compatibility contract: the same addresses
 * as Firecracker on x86-64.
 */
#ifndef MOTE_VMM_BOOT_LAYOUT_H
#define MOTE_VMM_BOOT_LAYOUT_H

#include <stdint.h>

#define LAYOUT_GDT UINT64_C(0x500)
#define LAYOUT_IDT UINT64_C(0x520)
#define LAYOUT_PVH_START_INFO UINT64_C(0x6000)
#define LAYOUT_PVH_MODULES UINT64_C(0x6040)
#define LAYOUT_PVH_MEMORY_MAP UINT64_C(0x7000)
#define LAYOUT_ZERO_PAGE UINT64_C(0x7000)
#define LAYOUT_BOOT_STACK UINT64_C(0x8ff0)
#define LAYOUT_PML4 UINT64_C(0x9000)
#define LAYOUT_PDPT UINT64_C(0xa000)
#define LAYOUT_PD UINT64_C(0xb000)
#define LAYOUT_IDENTITY_MAPPED (UINT64_C(1) << 30) /* bytes from 0, by the tables above */
#define LAYOUT_SETUP_DATA UINT64_C(0xd000)
#define LAYOUT_CMDLINE UINT64_C(0x20000)
#define LAYOUT_CMDLINE_SIZE 2048 /* with the terminating zero */

/* The end of base memory, where older kernels look for the MPTable, then the ACPI tables. */
#define LAYOUT_SYSTEM_TABLES UINT64_C(0x9fc00)
#define LAYOUT_ACPI_TABLES UINT64_C(0xa1000)
#define LAYOUT_SYSTEM_TABLES_END UINT64_C(0xe0000)
#define LAYOUT_RSDP UINT64_C(0xe0000)
#define LAYOUT_HIGH_MEMORY UINT64_C(0x100000)

#define LAYOUT_MMIO_GAP_START (UINT64_C(3) << 30)
#define LAYOUT_MMIO_GAP_END (UINT64_C(4) << 30)
#define LAYOUT_BOOT_TIMER UINT64_C(0xc0000000)
/* One window of VIRTIO_MMIO_SIZE and one interrupt for each virtio device. */
#define LAYOUT_VIRTIO UINT64_C(0xc0001000)
#define LAYOUT_VIRTIO_SIZE UINT64_C(0x1000)
#define LAYOUT_VIRTIO_IRQ 5 /* to 23 */
#define LAYOUT_VIRTIO_MAX 19
#define LAYOUT_IOAPIC UINT64_C(0xfec00000)
#define LAYOUT_LAPIC UINT64_C(0xfee00000)
#define LAYOUT_TSS UINT64_C(0xfffbd000)

#define LAYOUT_PORT_I8042 0x60
#define LAYOUT_PORT_SERIAL 0x3f8
#define LAYOUT_PORT_SLEEP 0x600 /* ACPI sleep control; the status register follows */
#define LAYOUT_IRQ_KEYBOARD 1
#define LAYOUT_IRQ_SERIAL 4

#endif
