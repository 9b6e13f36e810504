/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM is made of, as its owner configures it: the fields of the API's bodies, whose names and
 * defaults are Firecracker's. Strings are owned (malloc) and may be NULL where not given.
 */
#ifndef MOTE_VMM_CONFIG_H
#define MOTE_VMM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rate_limiter.h"

/* The bounds that bodies and control both hold. */
#define CONFIG_VCPU_MIN 1
#define CONFIG_VCPU_MAX 32
#define CONFIG_MEMORY_MIN_MIB 1
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
	int64_t vcpu_count;   /* CONFIG_VCPU_MIN to _MAX; with smt 1 or even */
	int64_t mem_size_mib; /* CONFIG_MEMORY_MIN_MIB to _MAX_MIB */
	bool smt;
	bool track_dirty_pages; /* for snapshots; without effect until they exist */
	int huge_pages;		/* enum huge_pages */
	int cpu_template;	/* enum cpu_template_name */
	bool has_cpu_template;	/* given just now, and takes the place of one set before */
};

struct serial_config {
	char *serial_out_path; /* NULL: standard output */
	int64_t buffer_size;   /* mote's own: bytes that /console begins with; 0: the default */
};

struct logger_config {
	char *log_path; /* NULL: as it is */
	char *level;	/* the same; log_level_parse takes it */
	char *module;	/* only what files whose path begins so have to say; NULL: all */
	bool show_level;
	bool show_log_origin;
};

#define CONFIG_ID_SIZE_MAX 64

enum cache_type { CACHE_UNSAFE, CACHE_WRITEBACK };

struct drive_config {
	char *drive_id;
	char *path_on_host;
	bool is_root_device;
	bool is_read_only;
	char *partuuid; /* of the partition to boot from; the root device's only */
	int cache_type; /* enum cache_type */
	int io_engine;	/* enum block_engine_kind */
	struct rate_limiter_config rate_limiter;
};

struct drive_update {
	char *drive_id;
	char *path_on_host; /* NULL: as it is */
	bool has_rate_limiter;
	struct rate_limiter_config rate_limiter;
};

struct network_interface_config {
	char *iface_id;
	char *host_dev_name; /* a tap device; or */
	char *passt_socket;  /* mote's own: the path of passt's socket; or */
	int64_t passt_fd;    /* a socket inherited that is connected to it; 0: none */
	char *guest_mac;     /* NULL: none is told */
	int64_t mtu;	     /* 0: none is told */
	struct rate_limiter_config rx_rate_limiter;
	struct rate_limiter_config tx_rate_limiter;
};

struct network_interface_update {
	char *iface_id;
	bool has_rx_rate_limiter;
	bool has_tx_rate_limiter;
	struct rate_limiter_config rx_rate_limiter;
	struct rate_limiter_config tx_rate_limiter;
};

struct vsock_device_config {
	int64_t guest_cid; /* VSOCK_GUEST_CID_MIN to _MAX */
	char *uds_path;
	char *vsock_id; /* deprecated, without effect */
};

struct mmds_config {
	char **network_interfaces; /* ids; NULL-terminated */
	int version;		   /* enum mmds_version */
	char *ipv4_address;	   /* NULL: MMDS_ADDRESS */
	bool imds_compat;
	int64_t vsock_port; /* mote's own: of the host, where it answers, too; 0: none */
};

struct snapshot_create_config {
	char *snapshot_path;
	char *mem_file_path;
	int snapshot_type; /* enum snapshot_type */
};

enum snapshot_type { SNAPSHOT_FULL, SNAPSHOT_DIFF };

void drive_config_free(struct drive_config *config);
void network_interface_config_free(struct network_interface_config *config);
void vsock_device_config_free(struct vsock_device_config *config);
void mmds_config_free(struct mmds_config *config);
void boot_source_config_free(struct boot_source_config *config);
void logger_config_free(struct logger_config *config);
void serial_config_free(struct serial_config *config);

#endif
