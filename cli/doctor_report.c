/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/doctor_report.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/array.h"
#include "base/fd.h"
#include "base/kvm_needs.h"
#include "cli/cli.h"

/* Those of the processor on which something in KVM or in a guest's CPUID depends. */
static const char *const telling_flags[] = {
	/* of /proc/cpuinfo's flags */
	"hypervisor", "vmx", "svm", "npt", "nrip_save", "decodeassists", "tsc_scale", "flushbyasid",
	"pausefilter", "avic", "x2avic", "vgif", "vnmi", "constant_tsc", "nonstop_tsc",
	"tsc_deadline_timer", "x2apic", "rdrand", "rdseed", "xsave", "xsavec", "xsaves", "avx2",
	"avx512f", "amx_tile", "pku", "shstk", "user_shstk", "ibt", "lam", "fred", "la57",
	"split_lock_detect", "bus_lock_detect",
	/* of its VMX flags */
	"ept", "ept_ad", "vpid", "unrestricted_guest", "posted_intr", "apicv", "preemption_timer",
	"ple", "pml", "shadow_vmcs", "tsc_scaling", "ept_mode_based_exec", "bus_lock_detection",
	"notify_vm_exiting"
};
static const char *const modules[] = { "kvm", "kvm_intel", "kvm_amd", "kvm_pvm" };

static bool is_telling(const char *flag)
{
	for (size_t i = 0; i < ARRAY_SIZE(telling_flags); i++) {
		if (strcmp(flag, telling_flags[i]) == 0)
			return true;
	}
	return false;
}

static void print_flags(char *flags)
{
	char *rest = flags;

	for (char *flag; (flag = strsep(&rest, " \n"));) {
		if (is_telling(flag))
			printf(" %s", flag);
	}
}

/* Of the first processor. */
static void report_processor(void)
{
	static const char *const names[] = { "vendor_id", "cpu family", "model", "stepping",
					     "microcode" };
	FILE *file = fopen("/proc/cpuinfo", "re");
	char *line = NULL, *flags = NULL, *vmx_flags = NULL;
	size_t size = 0;

	while (file && getline(&line, &size, file) > 1) {
		char *value = strstr(line, ": ");

		if (!value)
			continue;
		*value = '\0';
		value += 2;
		line[strcspn(line, "\t")] = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			if (strcmp(line, names[i]) == 0)
				printf("%s: %s", names[i], value);
		}
		if (strcmp(line, "flags") == 0 && !flags)
			flags = strdup(value);
		if (strcmp(line, "vmx flags") == 0 && !vmx_flags)
			vmx_flags = strdup(value);
	}
	if (file)
		fclose(file);
	fputs("flags:", stdout);
	if (flags)
		print_flags(flags);
	if (vmx_flags)
		print_flags(vmx_flags);
	putchar('\n');
	free(line);
	free(flags);
	free(vmx_flags);
}

static void report_parameters(const char *module)
{
	struct dirent **entries = NULL;
	char path[128], value[128];
	int count;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters", module);
	count = scandir(path, &entries, NULL, alphasort);
	if (count < 0)
		return;
	printf("%s:", module);
	for (int i = 0; i < count; i++) {
		FILE *file;

		if (entries[i]->d_name[0] != '.' &&
		    snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module,
			     entries[i]->d_name) < (int)sizeof(path) &&
		    (file = fopen(path, "re"))) {
			if (fgets(value, sizeof(value), file)) {
				value[strcspn(value, "\n")] = '\0';
				cli_clean(value);
				printf(" %s=%s", entries[i]->d_name, value);
			}
			fclose(file);
		}
		free(entries[i]);
	}
	putchar('\n');
	free(entries);
}

static void report_capabilities(void)
{
	static const struct {
		int number;
		const char *name;
	} capabilities[] = {
#define NAMED(capability) { capability, #capability },
		KVM_NEEDS(NAMED) NAMED(KVM_CAP_READONLY_MEM)
#undef NAMED
	};
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	fputs("capabilities:", stdout);
	for (size_t i = 0; fd >= 0 && i < ARRAY_SIZE(capabilities); i++)
		printf(" %s=%d", capabilities[i].name,
		       ioctl(fd, KVM_CHECK_EXTENSION, capabilities[i].number));
	puts(fd < 0 ? " not known" : "");
}

void doctor_report(void)
{
	struct utsname system;

	printf("mote: %s\n", MOTE_VERSION);
	if (uname(&system) == 0)
		printf("kernel: %s\n", system.release);
	report_processor();
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++)
		report_parameters(modules[i]);
	report_capabilities();
}
