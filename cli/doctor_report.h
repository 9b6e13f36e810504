/* SPDX-License-Identifier: Apache-2.0 */
/* What mote doctor --report says of the host: nothing that names the host, a user or an address. */
#ifndef MOTE_CLI_DOCTOR_REPORT_H
#define MOTE_CLI_DOCTOR_REPORT_H

/* Prints the processor, the kernel, KVM's parameters and its capabilities. */
void doctor_report(void);

#endif
