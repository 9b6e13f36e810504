/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_TESTS_UNIT_SUITES_H
#define MOTE_TESTS_UNIT_SUITES_H

#include <check.h>

Suite *acpi_suite(void);
Suite *agent_client_suite(void);
Suite *aml_suite(void);
Suite *block_suite(void);
Suite *block_device_suite(void);
Suite *bodies_suite(void);
Suite *boot_timer_suite(void);
Suite *control_suite(void);
Suite *cpuid_suite(void);
Suite *err_suite(void);
Suite *fd_suite(void);
Suite *guest_memory_suite(void);
Suite *i8042_suite(void);
Suite *io_bus_suite(void);
Suite *kernel_image_suite(void);
Suite *log_suite(void);
Suite *mptable_suite(void);
Suite *panic_watch_suite(void);
Suite *params_suite(void);
Suite *registers_suite(void);
Suite *serial_suite(void);
Suite *sleep_suite(void);

#endif
