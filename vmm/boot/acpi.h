/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware-reduced ACPI tables (ACPI 6.5, chapters 4.1 and 5.2): RSDP, XSDT, FADT, MADT, DSDT. The
 * DSDT names the serial port, the virtio devices (LNRO0005) and the sleep state S5; power-off is a
 * write to the sleep control register, reset one to the i8042.
 */
#ifndef MOTE_VMM_BOOT_ACPI_H
#define MOTE_VMM_BOOT_ACPI_H

struct err;
struct guest_memory;

/*
 * virtio_count windows from LAYOUT_VIRTIO are in use. 0, or -ENOSPC with err set if the tables
 * outgrow their place in the layout.
 */
int acpi_write(const struct guest_memory *memory, unsigned int vcpu_count,
	       unsigned int virtio_count, struct err *err);

#endif
