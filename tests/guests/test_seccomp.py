# SPDX-License-Identifier: Apache-2.0
"""The policies of a running VMM's threads: they are there, and they hold."""
import mmap
import os
import pathlib
import re
import subprocess

import pytest

from api import start_api
from host import drive
from support import BUILD, TIME_LIMIT, TOP, wait_until

POLICIES = TOP / "vmm" / "policies"
COMPILER = TOP / "build" / "compile-policy"
ROLES = ["main", "vcpu", "block", "creator"]


def status(task):
    return dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines()
                if ":\t" in line)


def tasks(vmm):
    return [pathlib.Path(f"/proc/{vmm.process.pid}/task/{task}")
            for task in os.listdir(f"/proc/{vmm.process.pid}/task")]


def test_every_thread_is_under_one_filter_once_the_guest_runs(tmp_path):
    with start_api(tmp_path) as vmm:
        assert [status(task)["Seccomp"] for task in tasks(vmm)] == ["0"]
        vmm.start("counter", vcpu_count=4)
        # Some kernels do KVM's own work in one more.
        assert len(tasks(vmm)) in (5, 6)
        # A vCPU enters its own before it enters the guest, which is after the answer.
        wait_until(lambda: all(status(task)["Seccomp"] == "2" for task in tasks(vmm)), "filters")
        for task in tasks(vmm):
            assert status(task)["Seccomp_filters"] == "1"
            assert status(task)["NoNewPrivs"] == "1"


def test_a_start_that_fails_leaves_no_filter(tmp_path):
    with start_api(tmp_path) as vmm:
        assert "boot-source" in vmm.fault("PUT", "/actions", {"action_type": "InstanceStart"})
        assert [status(task)["Seccomp"] for task in tasks(vmm)] == ["0"]


def test_without_seccomp_when_asked_for(tmp_path):
    with start_api(tmp_path, "--no-seccomp") as vmm:
        vmm.start("counter")
        assert {status(task)["Seccomp"] for task in tasks(vmm)} == {"0"}


def test_no_memory_is_writable_and_executable(tmp_path):
    with start_api(tmp_path) as vmm:
        vmm.put("/drives/scratch", drive(tmp_path)[1])
        vmm.start("counter")
        modes = {line.split()[1] for line in
                 pathlib.Path(f"/proc/{vmm.process.pid}/maps").read_text().splitlines()}
    assert not any("w" in mode and "x" in mode for mode in modes)


def test_counts_are_the_documented_ones():
    counts = dict(line.split() for line in subprocess.run(
        ["make", "--no-print-directory", "policies"], cwd=TOP, capture_output=True, text=True,
        check=True).stdout.splitlines())
    assert list(counts) == ROLES
    page = (TOP / "docs" / "security.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("| seccomp of the VMM |")]
    assert f"{counts['main']}, {counts['vcpu']} and {counts['block']} calls" in line
    (line,) = [line for line in page.splitlines() if line.startswith("| system calls after it |")]
    assert (f"{counts['main']} in one thread, {counts['vcpu']} a vCPU, {counts['block']} a drive's"
            in line)
    assert f"what the {counts['main']}, {counts['vcpu']} and {counts['block']} calls reach" in page
    (line,) = [line for line in page.splitlines() if line.startswith("| creator of files |")]
    assert f"a policy of {counts['creator']} calls" in line
    assert int(counts["main"]) <= 81 and int(counts["vcpu"]) <= 20 and int(counts["block"]) <= 20


@pytest.mark.parametrize("role", ROLES)
def test_what_runs_programs_or_threads_is_in_no_policy(role):
    calls = {re.split(r"[:\s]", line)[0] for line in (POLICIES / f"{role}.policy").read_text()
             .splitlines() if line and not line.startswith("#")}
    assert not calls & {"execve", "execveat", "fork", "vfork", "clone", "clone3", "ptrace", "open",
                        "creat", "io_uring_setup", "memfd_create", "process_vm_writev", "setns",
                        "unshare", "mount", "prctl", "seccomp", "bpf", "userfaultfd", "kill"}


def policy(role):
    """The calls that a policy lists, and those of them that it allows whatever their arguments."""
    lines = [line.split(":") for line in (POLICIES / f"{role}.policy").read_text().splitlines()
             if line and not line.startswith("#")]
    return {line[0].strip() for line in lines}, {line[0].strip() for line in lines
                                                 if len(line) == 1}


def numbers():
    header = pathlib.Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").read_text()
    return {name: int(number) for name, number in
            re.findall(r"#define __NR_(\w+) (\d+)", header)}


# uretprobe and uprobe: Linux 6.11 and 6.16 let them pass every filter, as only the kernel's own
# trampolines can make them; anything else that does is sent SIGILL.
PASSED_BY_LINUX = {335, 336}


@pytest.mark.parametrize("role", ROLES)
def test_every_system_call_is_tried_and_only_those_listed_pass(role):
    """With arguments that no rule asks for, so that calls with a rule need not pass."""
    listed, free = policy(role)
    number = numbers()
    passed = {int(line) for line in subprocess.run(
        [BUILD / "try-syscalls", role, "0", "500"], capture_output=True, text=True, check=True,
        timeout=TIME_LIMIT).stdout.split()} - PASSED_BY_LINUX
    assert {number[name] for name in free} <= passed <= {number[name] for name in listed}
    # Nor do the numbers of other ABIs: x32's.
    assert subprocess.run([BUILD / "try-syscalls", role, "1073741824", "1073741834"],
                          capture_output=True, check=True, timeout=TIME_LIMIT).stdout == b""


KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_STATS_FD = 0xae80, 0x8090ae81, 0x8138ae83, 0xaece
KVM_SET_REGS, KVM_GET_VCPU_EVENTS, KVM_GET_DEBUGREGS = 0x4090ae82, 0x8040ae9f, 0x8080aea1
# What the main thread reads of KVM for a snapshot, and the calls with which it would be changed.
KVM_STATE_READ = [
    0xae03, 0x8030ae7c, 0xc008ae91, KVM_GET_DEBUGREGS, 0xc208ae62, 0x8400ae8e, 0x8004ae98, 0xc008ae88,
    0xc004ae02, 0x8070ae9f, KVM_GET_REGS, KVM_GET_SREGS, 0xaea3, KVM_GET_VCPU_EVENTS, 0x8188aea6,
    0x9000aea4, 0x9000aecf]
KVM_STATE_WRITTEN = [
    0x4030ae7b, 0x4008ae90, 0x4080aea2, 0x8208ae63, 0x4400ae8f, 0x4004ae99, 0x4008ae89, 0x4070aea0,
    KVM_SET_REGS, 0x4138ae84, 0xaea2, 0x4040aea0, 0x4188aea7, 0x5000aea5, 0xaead]
BLKDISCARD, BLKZEROOUT, TUNSETOFFLOAD, TUNSETIFF = 0x1277, 0x127f, 0x400454d0, 0x400454ca
BLKGETSIZE64, BLKSSZGET, BLKPBSZGET = 0x80081272, 0x1268, 0x127b
TCSETS, TIOCSTI, TIOCSCTTY, SIOCGIFNAME, FIONREAD = 0x5402, 0x5412, 0x540e, 0x8910, 0x541b
TMPFILE = 0o20000000 | os.O_DIRECTORY
NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
ABOVE = 1 << 32
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

# By role and call: arguments that a rule of the policy is to let pass, and ones it is to stop.
ARGUMENTS = {
    ("main", "ioctl"): (
        [(-1, number) for number in (BLKDISCARD, BLKGETSIZE64, BLKSSZGET, BLKPBSZGET,
                                     KVM_GET_STATS_FD, TCSETS, *KVM_STATE_READ)],
        [(-1, number) for number in (*KVM_STATE_WRITTEN, BLKZEROOUT, TUNSETIFF, TUNSETOFFLOAD, TIOCSTI, TIOCSCTTY,
                                     SIOCGIFNAME, FIONREAD, KVM_RUN, KVM_SET_REGS, 0xae01,
                                     ABOVE | BLKDISCARD)]),
    ("main", "io_uring_register"): (
        [(-1, 6), (-1, 3)],  # FILES_UPDATE, UNREGISTER_FILES
        [(-1, number) for number in (0, 2, 4, 8, 9, 11, 12, 13, 16, 17, 22, 0x80000006)]),
    ("main", "openat"): (
        [(-1, 0, os.O_CLOEXEC | flags) for flags in (0, os.O_RDWR, os.O_NONBLOCK, os.O_DIRECT)],
        [(-1, 0, 0), (-1, 0, os.O_RDWR)] +
        [(-1, 0, os.O_CLOEXEC | os.O_RDWR | flags) for flags in
         (os.O_CREAT, os.O_CREAT | os.O_EXCL, TMPFILE, os.O_TRUNC, os.O_DIRECTORY)]),
    ("main", "fcntl"): (
        [(-1, number) for number in (1030, 1, 3, 4, 37)],
        # F_DUPFD, F_SETFD, F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ, F_ADD_SEALS
        [(-1, number) for number in (0, 2, 8, 10, 1024, 1026, 1031, 1033)]),
    ("main", "accept4"): ([(-1, 0, 0, os.O_CLOEXEC), (-1, 0, 0, os.O_CLOEXEC | os.O_NONBLOCK)],
                          [(-1, 0, 0, 0), (-1, 0, 0, os.O_NONBLOCK)]),
    ("main", "socket"): ([(1, 1, 0)], [(family, 1, 0) for family in (2, 10, 16, 17, 38, 40)]),
    ("main", "sched_setscheduler"): (
        [(0, 0, 0), (0, 3, 0)],
        [(0, 1, 0), (0, 2, 0), (0, 5, 0), (0, 6, 0), ("other", 0, 0), ("own", 3, 0)]),
    ("main", "tgkill"): ([("own", "own", 0)],
                         [("other", "other", 0), (-1, "own", 0), (0, 0, 0), (1, 1, 0)]),
    ("main", "mmap"): ([(0, 4096, READ_WRITE, 0x22, -1, 0)],
                       [(0, 4096, READ_WRITE | mmap.PROT_EXEC, 0x22, -1, 0),
                        (0, 4096, mmap.PROT_EXEC, 0x22, -1, 0)]),
    ("vcpu", "ioctl"): (
        [(-1, number) for number in (KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_VCPU_EVENTS,
                                     KVM_GET_DEBUGREGS, TUNSETOFFLOAD)],
        [(-1, number) for number in (KVM_SET_REGS, KVM_GET_STATS_FD, TUNSETIFF, BLKDISCARD,
                                     TIOCSTI, 0xae41, ABOVE | KVM_RUN)]),
    ("vcpu", "mmap"): ([(0, 4096, READ_WRITE, 0x22, -1, 0)],
                       [(0, 4096, READ_WRITE | mmap.PROT_EXEC, 0x22, -1, 0)]),
    ("vcpu", "mprotect"): ([(0, 0, READ_WRITE)],
                           [(0, 0, READ_WRITE | mmap.PROT_EXEC), (0, 0, mmap.PROT_EXEC)]),
    ("block", "ioctl"): ([(-1, BLKDISCARD)],
                         [(-1, number) for number in (BLKZEROOUT, BLKGETSIZE64, KVM_RUN, TIOCSTI,
                                                      ABOVE | BLKDISCARD)]),
    ("creator", "openat"): (
        [(-1, 0, NEW_FILE), (-1, 0, NEW_FILE | os.O_RDWR), (-1, 0, os.O_DIRECTORY | os.O_CLOEXEC)],
        [(-1, 0, flags) for flags in
         (0, os.O_CLOEXEC, os.O_RDWR | os.O_CLOEXEC, os.O_CREAT | os.O_CLOEXEC, TMPFILE | os.O_CLOEXEC,
          NEW_FILE & ~os.O_EXCL, NEW_FILE & ~os.O_NOFOLLOW, NEW_FILE & ~os.O_CLOEXEC,
          NEW_FILE | os.O_TRUNC, os.O_DIRECTORY, os.O_DIRECTORY | os.O_CLOEXEC | os.O_RDWR)]),
}


@pytest.mark.parametrize("role", ROLES)
def test_every_rule_has_its_attempts(role):
    listed, free = policy(role)
    assert listed - free == {call for of, call in ARGUMENTS if of == role}


@pytest.mark.parametrize("role,call", ARGUMENTS)
def test_rule_lets_pass_what_it_says_and_nothing_else(role, call):
    number = numbers()[call]
    pass_on, stop = [[",".join(map(str, [number, *arguments])) for arguments in attempts]
                     for attempts in ARGUMENTS[role, call]]
    passed = subprocess.run(
        [BUILD / "try-syscalls", role, *pass_on, *stop], capture_output=True, text=True, check=True,
        timeout=TIME_LIMIT).stdout.split()
    assert passed == pass_on


@pytest.mark.parametrize("text,says", [
    ("no_such_call\n", "no_such_call: no such system call"),
    ("read: arg9 == 1\n", "argN == VALUE"), ("read: arg1\n", "argN == VALUE"),
    ("\nread: arg1 == NO_NAME\n", ":2: NO_NAME: neither a number nor a known name"),
    ("read: arg1 == 1, arg1 == 2\n", "read"),
])
def test_bad_policy_does_not_compile(tmp_path, text, says):
    policy = tmp_path / "bad.policy"
    policy.write_text(text)
    result = subprocess.run([COMPILER, "name", policy], capture_output=True, text=True, check=False,
                            timeout=TIME_LIMIT)
    assert result.returncode == 1
    assert says in result.stderr and str(policy) in result.stderr


def test_drive_is_replaced_under_the_filter(tmp_path):
    """By a file that uses the ring which was made before; both engines."""
    folder = BUILD.parent
    paths = [folder / f"replaced-{name}" for name in ("async", "sync", "other")]
    try:
        for path in paths:
            path.write_bytes(bytes(1 << 20))
        with start_api(tmp_path) as vmm:
            for path, engine in zip(paths, ("Async", "Sync")):
                vmm.put(f"/drives/{engine}", {"drive_id": engine, "path_on_host": str(path),
                                              "is_root_device": False, "io_engine": engine})
            vmm.start("counter")
            for engine in ("Async", "Sync"):
                vmm.patch(f"/drives/{engine}", {"drive_id": engine, "path_on_host": str(paths[2])})
                vmm.patch(f"/drives/{engine}", {
                    "drive_id": engine, "path_on_host": str(paths[engine == "Sync"])})
    finally:
        for path in paths:
            path.unlink()
