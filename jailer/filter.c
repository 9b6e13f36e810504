/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"

#define X32_BIT 0x40000000
/* Linux 5.17: the list below knows all calls up to it. */
#define LAST_KNOWN SYS_set_mempolicy_home_node
#define NAMESPACES                                                                                 \
	(CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 CLONE_NEWCGROUP)

static const uint32_t refused[] = {
	/* The file system's shape. */
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_chroot,
	SYS_move_mount,
	SYS_open_tree,
	SYS_fsopen,
	SYS_fsmount,
	SYS_fsconfig,
	SYS_fspick,
	SYS_mount_setattr,
	SYS_swapon,
	SYS_swapoff,
	SYS_quotactl,
	SYS_quotactl_fd,
	SYS_mknod,
	SYS_mknodat,
	/* Handles need no path. */
	SYS_open_by_handle_at,
	SYS_name_to_handle_at,
	/* Namespaces. */
	SYS_unshare,
	SYS_setns,
	/* Other processes. */
	SYS_ptrace,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_kcmp,
	SYS_pidfd_open,
	SYS_pidfd_getfd,
	SYS_pidfd_send_signal,
	SYS_process_madvise,
	SYS_process_mrelease,
	SYS_migrate_pages,
	SYS_move_pages,
	/* Parts of the kernel that a VMM has no use for, and that had their faults. */
	SYS_bpf,
	SYS_perf_event_open,
	SYS_keyctl,
	SYS_add_key,
	SYS_request_key,
	SYS_fanotify_init,
	SYS_splice,
	SYS_tee,
	SYS_vmsplice,
	SYS_io_setup,
	SYS_lookup_dcookie,
	SYS_personality,
	SYS_modify_ldt,
	SYS_vhangup,
	SYS_syslog,
	SYS_uselib,
	SYS_memfd_secret,
	SYS_msgget,
	SYS_semget,
	SYS_shmget,
	SYS_mq_open,
	/* Attributes take space that no limit for files counts. */
	SYS_setxattr,
	SYS_lsetxattr,
	SYS_fsetxattr,
	SYS_removexattr,
	SYS_lremovexattr,
	SYS_fremovexattr,
	/* The machine. */
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_kexec_file_load,
	SYS_reboot,
	SYS_acct,
	SYS_iopl,
	SYS_ioperm,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_clock_adjtime,
	SYS_adjtimex,
	SYS_sethostname,
	SYS_setdomainname,
	/* Other users. */
	SYS_setuid,
	SYS_setgid,
	SYS_setreuid,
	SYS_setregid,
	SYS_setresuid,
	SYS_setresgid,
	SYS_setfsuid,
	SYS_setfsgid,
	SYS_setgroups,
	SYS_capset,
};

#define REFUSED (ARRAY_SIZE(refused))
#define LOW_WORD_OF_ARG(n) (offsetof(struct seccomp_data, args) + (n) * sizeof(uint64_t))

struct program {
	struct sock_filter code[2 * REFUSED + 64];
	unsigned short length;
};

static void add(struct program *program, struct sock_filter instruction)
{
	program->code[program->length++] = instruction;
}

static void load_word(struct program *program, size_t offset)
{
	add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void answer(struct program *program, uint32_t action)
{
	add(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

/* The instructions that follow, `count` of them, are for this value of the accumulator. */
static void only_if(struct program *program, uint32_t value, uint8_t count)
{
	add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count));
}

static void refuse_call(struct program *program, uint32_t number, int errnum)
{
	only_if(program, number, 1);
	answer(program, SECCOMP_RET_ERRNO | (uint32_t)errnum);
}

static void allow_unix_only(struct program *program, uint32_t number)
{
	only_if(program, number, 4);
	load_word(program, LOW_WORD_OF_ARG(0));
	only_if(program, AF_UNIX, 1);
	answer(program, SECCOMP_RET_ALLOW);
	answer(program, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
}

static void build(struct program *program, bool uffd)
{
	program->length = 0;
	load_word(program, offsetof(struct seccomp_data, arch));
	/* Programs of other ABIs have other numbers: none runs here. */
	add(program,
	    (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
	answer(program, SECCOMP_RET_KILL_PROCESS);
	load_word(program, offsetof(struct seccomp_data, nr));
	add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, X32_BIT, 0, 1));
	answer(program, SECCOMP_RET_KILL_PROCESS);
	/* What came to Linux later nobody has looked at; nothing that runs here knows of it. */
	add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_KNOWN, 0, 1));
	answer(program, SECCOMP_RET_ERRNO | ENOSYS);
	for (size_t i = 0; i < REFUSED; i++)
		refuse_call(program, refused[i], EPERM);
	if (!uffd)
		refuse_call(program, SYS_userfaultfd, EPERM);
	/* Its flags are in memory, where they can change; without it, clone() is made use of. */
	refuse_call(program, SYS_clone3, ENOSYS);
	only_if(program, SYS_clone, 4);
	load_word(program, LOW_WORD_OF_ARG(0));
	add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1));
	answer(program, SECCOMP_RET_ERRNO | EPERM);
	answer(program, SECCOMP_RET_ALLOW);
	/* A terminal of no session could become this one's, and be typed into. */
	only_if(program, SYS_ioctl, 6);
	load_word(program, LOW_WORD_OF_ARG(1));
	refuse_call(program, TIOCSCTTY, EPERM);
	refuse_call(program, TIOCSTI, EPERM);
	answer(program, SECCOMP_RET_ALLOW);
	/* What is to leave no dumps of its memory keeps to that. */
	only_if(program, SYS_prctl, 7);
	load_word(program, LOW_WORD_OF_ARG(0));
	only_if(program, PR_SET_DUMPABLE, 4);
	load_word(program, LOW_WORD_OF_ARG(1));
	only_if(program, 0, 1);
	answer(program, SECCOMP_RET_ALLOW);
	answer(program, SECCOMP_RET_ERRNO | EPERM);
	answer(program, SECCOMP_RET_ALLOW);
	/* Networks are reached through descriptors and Unix sockets only. */
	allow_unix_only(program, SYS_socket);
	allow_unix_only(program, SYS_socketpair);
	answer(program, SECCOMP_RET_ALLOW);
}

int filter_enter(bool uffd, struct err *err)
{
	struct program program;
	struct sock_fprog load;

	build(&program, uffd);
	load = (struct sock_fprog){ program.length, program.code };
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &load) < 0)
		return err_sys(err, errno, "the jail's seccomp filter");
	return 0;
}
