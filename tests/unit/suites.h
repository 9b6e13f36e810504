/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_TESTS_UNIT_SUITES_H
#define MOTE_TESTS_UNIT_SUITES_H

#include <check.h>

/* Every suite there is: test_NAME.c defines NAME_suite(). */
// clang-format off
#define UNIT_SUITES(X) \
	X(acpi) \
	X(agent_client) \
	X(agent_stream) \
	X(aml) \
	X(api_client) \
	X(api_reader) \
	X(batching) \
	X(block) \
	X(block_device) \
	X(block_engines) \
	X(block_io) \
	X(block_queue) \
	X(block_replace) \
	X(block_state) \
	X(bodies) \
	X(boot_timer) \
	X(control) \
	X(cpu_config) \
	X(cpuid) \
	X(cpuid_check) \
	X(device_state) \
	X(err) \
	X(fatal) \
	X(fd) \
	X(fields) \
	X(filter) \
	X(guest_memory) \
	X(http_server) \
	X(i8042) \
	X(image) \
	X(io_bus) \
	X(jail_steps) \
	X(jailer_args) \
	X(kernel_image) \
	X(log) \
	X(metrics) \
	X(mmio) \
	X(mmds_answer) \
	X(mmds_net) \
	X(mmds_responder) \
	X(mmds_tcp) \
	X(mmds_server) \
	X(mmds_store) \
	X(mptable) \
	X(net) \
	X(net_state) \
	X(panic_watch) \
	X(own_dir) \
	X(params) \
	X(platform_state) \
	X(printable) \
	X(queue) \
	X(rate_limiter) \
	X(record) \
	X(registers) \
	X(serial) \
	X(serial_output) \
	X(sleep) \
	X(snapshot_creator) \
	X(snapshot_files) \
	X(snapshot_format) \
	X(snapshot_memory) \
	X(state) \
	X(tar) \
	X(text) \
	X(tree_attributes) \
	X(tree_unpack) \
	X(unix_socket) \
	X(bytes) \
	X(run_names) \
	X(signals) \
	X(values) \
	X(vm) \
	X(vsock) \
	X(vsock_close) \
	X(vsock_host) \
	X(vsock_limits) \
	X(vsock_state)
// clang-format on

#define DECLARE_SUITE(name) Suite *name##_suite(void);
UNIT_SUITES(DECLARE_SUITE)
#undef DECLARE_SUITE

#endif
