/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp policies for people to BPF for the kernel, by libseccomp, when mote is built:
 *
 *	compile-policy NAME FILE     C source of `const struct sock_filter NAME[]` and its length
 *	compile-policy --count FILE  how many system calls the policy allows
 *
 * A policy is lines of "CALL" or "CALL: CONDITION, CONDITION...", a condition being
 * "argN == VALUE" or "argN & MASK == VALUE". Values are numbers, names out of the table below, or
 * several of those with '|' between them; they are compared with all 64 bits of the argument. What
 * no line allows kills the process. OWN_PID, alone, is the process that the policy is loaded in.
 */
#include <asm/termbits.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/policies.h"

#define CONDITIONS_MAX 6

#define NAME(name)                                                                                 \
	{                                                                                          \
#name, (uint64_t)(name)                                                            \
	}
static const struct {
	const char *name;
	uint64_t value;
} names[] = {
	NAME(AF_UNIX),
	NAME(BLKDISCARD),
	NAME(BLKGETSIZE64),
	NAME(BLKPBSZGET),
	NAME(BLKSSZGET),
	NAME(F_DUPFD_CLOEXEC),
	NAME(F_GETFD),
	NAME(F_GETFL),
	NAME(F_OFD_SETLK),
	NAME(F_SETFL),
	NAME(IORING_REGISTER_FILES_UPDATE),
	NAME(IORING_UNREGISTER_FILES),
	NAME(KVM_CHECK_EXTENSION),
	NAME(KVM_GET_CLOCK),
	NAME(KVM_GET_CPUID2),
	NAME(KVM_GET_DEBUGREGS),
	NAME(KVM_GET_IRQCHIP),
	NAME(KVM_GET_LAPIC),
	NAME(KVM_GET_MP_STATE),
	NAME(KVM_GET_MSRS),
	NAME(KVM_GET_MSR_INDEX_LIST),
	NAME(KVM_GET_PIT2),
	NAME(KVM_GET_REGS),
	NAME(KVM_GET_SREGS),
	NAME(KVM_GET_STATS_FD),
	NAME(KVM_GET_TSC_KHZ),
	NAME(KVM_GET_VCPU_EVENTS),
	NAME(KVM_GET_XCRS),
	NAME(KVM_GET_XSAVE),
	NAME(KVM_GET_XSAVE2),
	NAME(KVM_RUN),
	NAME(O_CLOEXEC),
	NAME(O_CREAT),
	NAME(O_DIRECTORY),
	NAME(O_EXCL),
	NAME(O_NOFOLLOW),
	NAME(O_TMPFILE),
	NAME(O_TRUNC),
	{ "OWN_PID", POLICY_OWN_PID },
	NAME(PROT_EXEC),
	NAME(SCHED_BATCH),
	NAME(SCHED_OTHER),
	NAME(SOCK_CLOEXEC),
	NAME(TCGETS),
	NAME(TCSETS),
	NAME(TUNSETOFFLOAD),
};

static const char *path;
static unsigned int line_number;

static _Noreturn void fail(const char *what, const char *cause)
{
	fprintf(stderr, "%s:%u: %s: %s\n", path, line_number, what, cause);
	exit(EXIT_FAILURE);
}

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && isspace((unsigned char)end[-1]))
		end--;
	*end = '\0';
	while (isspace((unsigned char)*text))
		text++;
	return text;
}

static uint64_t value_of(char *text)
{
	char *more = strchr(text, '|');
	char *end;
	uint64_t value;

	if (more) {
		*more = '\0';
		return value_of(trim(text)) | value_of(trim(more + 1));
	}
	value = strtoull(text, &end, 0);
	if (end != text && !*end)
		return value;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i].name, text) == 0)
			return names[i].value;
	}
	fail(text, "neither a number nor a known name");
}

static struct scmp_arg_cmp condition_of(char *text)
{
	char *value = strstr(text, "==");
	char *mask = strchr(text, '&');
	struct scmp_arg_cmp condition = { .op = SCMP_CMP_EQ };

	text = trim(text);
	if (!value || strncmp(text, "arg", 3) != 0 || text[3] < '0' || text[3] > '5')
		fail(text, "argN == VALUE or argN & MASK == VALUE is expected");
	condition.arg = (unsigned int)(text[3] - '0');
	*value = '\0';
	condition.datum_a = value_of(trim(value + 2));
	if (mask) {
		condition.op = SCMP_CMP_MASKED_EQ;
		condition.datum_b = condition.datum_a;
		condition.datum_a = value_of(trim(mask + 1));
		*mask = '\0';
	}
	if (trim(text)[4])
		fail(text, "argN is expected");
	return condition;
}

/* True if the line names a call that no line before did. */
static bool add_rule(scmp_filter_ctx filter, char *line, bool *seen)
{
	struct scmp_arg_cmp conditions[CONDITIONS_MAX];
	unsigned int count = 0;
	char *rest = strchr(line, ':');
	bool is_new;
	int call, rc;

	if (rest)
		*rest++ = '\0';
	line = trim(line);
	call = seccomp_syscall_resolve_name(line);
	if (call < 0 || call > 1023)
		fail(line, "no such system call");
	for (char *part = rest ? strtok(rest, ",") : NULL; part; part = strtok(NULL, ",")) {
		if (count == CONDITIONS_MAX)
			fail(line, "too many conditions");
		conditions[count++] = condition_of(part);
	}
	rc = seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, call, count, conditions);
	if (rc < 0)
		fail(line, strerror(-rc));
	is_new = !seen[call];
	seen[call] = true;
	return is_new;
}

static unsigned int read_policy(scmp_filter_ctx filter)
{
	static bool seen[1024];
	FILE *file = fopen(path, "re");
	char line[512];
	unsigned int calls = 0;

	if (!file)
		fail("open", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		char *comment = strchr(line, '#');

		line_number++;
		if (comment)
			*comment = '\0';
		if (*trim(line))
			calls += add_rule(filter, trim(line), seen);
	}
	fclose(file);
	return calls;
}

static void write_source(scmp_filter_ctx filter, const char *name)
{
	struct sock_filter program[4096];
	int memory = memfd_create("bpf", MFD_CLOEXEC);
	ssize_t size;

	if (memory < 0 || seccomp_export_bpf(filter, memory) < 0 || lseek(memory, 0, SEEK_SET) < 0)
		fail("libseccomp", "the filter cannot be exported");
	size = read(memory, program, sizeof(program));
	if (size <= 0 || size == (ssize_t)sizeof(program))
		fail("libseccomp", "the filter is too long");
	printf("/* Made of %s. */\n#include \"vmm/policies.h\"\n\n", path);
	printf("const struct sock_filter %s[] = {\n", name);
	for (size_t i = 0; i < (size_t)size / sizeof(program[0]); i++)
		printf("\t{ 0x%x, %u, %u, 0x%x },\n", program[i].code, program[i].jt, program[i].jf,
		       program[i].k);
	printf("};\nconst unsigned short %s_length = sizeof(%s) / sizeof(%s[0]);\n", name, name,
	       name);
}

int main(int argc, char **argv)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	unsigned int calls;

	if (argc != 3 || !filter) {
		fputs("usage: compile-policy NAME|--count FILE\n", stderr);
		return EXIT_FAILURE;
	}
	path = argv[2];
	/* A binary tree instead of a list. */
	if (seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2) < 0)
		fail("libseccomp", "2.5 or later is needed");
	calls = read_policy(filter);
	if (strcmp(argv[1], "--count") == 0)
		printf("%u\n", calls);
	else
		write_source(filter, argv[1]);
	seccomp_release(filter);
	return EXIT_SUCCESS;
}
