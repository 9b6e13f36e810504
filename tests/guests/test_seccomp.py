# SPDX-License-Identifier: Apache-2.0
"""The policies of a running VMM's threads: they are there, and they hold."""
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


def test_counts_are_within_what_is_promised():
    counts = dict(line.split() for line in subprocess.run(
        ["make", "--no-print-directory", "policies"], cwd=TOP, capture_output=True, text=True,
        check=True).stdout.splitlines())
    assert int(counts["main"]) <= 81
    assert int(counts["vcpu"]) <= 20


@pytest.mark.parametrize("role", ["main", "vcpu"])
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


@pytest.mark.parametrize("role", ["main", "vcpu"])
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
