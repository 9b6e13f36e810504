/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_devices.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "host/passt.h"
#include "host/sandbox.h"

void run_devices_open(struct run_devices *devices)
{
	memset(devices, 0, sizeof(*devices));
	devices->drives = json_array();
	devices->interfaces = json_array();
}

void run_devices_close(struct run_devices *devices)
{
	json_decref(devices->drives);
	json_decref(devices->interfaces);
	memset(devices, 0, sizeof(*devices));
}

/* Splits PATH:ENDING; true if the ending is there. */
static bool has_ending(const char *argument, const char *ending, size_t *path_length)
{
	size_t length = strlen(argument), end = strlen(ending);

	*path_length = length;
	if (length <= end || strcmp(argument + length - end, ending) != 0)
		return false;
	*path_length = length - end;
	return true;
}

static int add_drive(struct run_devices *devices, const char *path, size_t length, bool root,
		     bool read_only)
{
	char id[32];

	devices->writable = devices->writable || !read_only;
	snprintf(id, sizeof(id), "drive%zu", json_array_size(devices->drives));
	return length == 0 || json_array_append_new(
				      devices->drives,
				      json_pack("{s:s, s:s%, s:b, s:b, s:s}", "drive_id",
						root ? "rootfs" : id, "path_on_host", path, length,
						"is_root_device", root, "is_read_only", read_only,
						"cache_type", "Writeback")) < 0
		       ? -EINVAL
		       : 0;
}

int run_devices_rootfs(struct run_devices *devices, const char *argument)
{
	size_t length;
	bool writable = has_ending(argument, ":rw", &length);

	if (devices->root_ending)
		return -EINVAL;
	devices->root_ending = writable ? "rw" : "ro";
	return add_drive(devices, argument, length, true, !writable);
}

int run_devices_drive(struct run_devices *devices, const char *argument)
{
	size_t length;
	bool read_only = has_ending(argument, ":ro", &length);

	return add_drive(devices, argument, length, false, read_only);
}

int run_devices_net(struct run_devices *devices, const char *argument)
{
	if (strcmp(argument, "none") == 0) {
		devices->net = RUN_NET_NONE;
	} else if (strcmp(argument, "user") == 0) {
		devices->net = RUN_NET_USER;
	} else if (strncmp(argument, "tap:", 4) == 0 && argument[4]) {
		devices->net = RUN_NET_TAP;
		devices->tap = argument + 4;
	} else {
		return -EINVAL;
	}
	return 0;
}

int run_devices_finish(struct run_devices *devices, struct err *err)
{
	const char *address = devices->address, *ipv6 = NULL;
	char overlay[32] = "";
	json_t *interface = NULL;
	int n = 0;

	if (devices->overlay) {
		size_t number = json_array_size(devices->drives);

		if (add_drive(devices, devices->overlay, strlen(devices->overlay), false, false) <
			    0 ||
		    number > 'z' - 'a')
			return err_set(err, EINVAL, "--overlay %s: this is no path",
				       devices->overlay);
		snprintf(overlay, sizeof(overlay), " mote.overlay=/dev/vd%c", 'a' + (int)number);
	}

	if (devices->net == RUN_NET_USER) {
		const struct passt_families families = passt_families();

		address = families.ipv4 ? PASST_GUEST "/" PASST_PREFIX "," PASST_GATEWAY
					: PASST_GUEST "/" PASST_PREFIX;
		if (families.ipv6)
			ipv6 = PASST_GUEST_IPV6 "/" PASST_PREFIX_IPV6 "," PASST_GATEWAY_IPV6;
		interface =
			json_pack("{s:s, s:i}", "iface_id", "eth0", "passt_fd", SANDBOX_PASST_FD);
	} else if (devices->net == RUN_NET_TAP) {
		interface =
			json_pack("{s:s, s:s}", "iface_id", "eth0", "host_dev_name", devices->tap);
	}
	if (devices->net != RUN_NET_NONE &&
	    json_array_append_new(devices->interfaces, interface) < 0)
		return err_set(err, EINVAL, "--net: the name is not UTF-8");
	/* They become words of the kernel's command line. */
	if (address && strspn(address, "0123456789./,") != strlen(address))
		return err_set(err, EINVAL,
			       "--address %s: ADDRESS/PREFIX[,GATEWAY[,DNS]] is expected", address);
	n = snprintf(devices->boot_args, sizeof(devices->boot_args), "%s%s%s%s%s%s%s",
		     devices->root_ending ? " mote.root=" : "",
		     devices->root_ending ? devices->root_ending : "", overlay,
		     address ? " mote.net=" : "", address ? address : "", ipv6 ? " mote.net6=" : "",
		     ipv6 ? ipv6 : "");
	return n < (int)sizeof(devices->boot_args)
		       ? 0
		       : err_set(err, E2BIG, "--address: longer than any address");
}
