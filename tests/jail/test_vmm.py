# SPDX-License-Identifier: Apache-2.0
"""mote-vmm in the jail, with tiny guests."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile

import pytest

from api import Vmm, answers
from jail import CGROUPS, GID, MEMORY, UID, Jail, cgroups
from support import GUESTS, TIME_LIMIT, VMM, wait_until

pytestmark = pytest.mark.release_build

MANY = 50


@pytest.fixture
def base():
    """With a name so short that the path of a socket in it fits an address."""
    with tempfile.TemporaryDirectory(prefix="jail-") as folder:
        yield pathlib.Path(folder)


@pytest.fixture
def jail(base):
    """Files that a test puts into the root are the owner's, and stay."""
    return Jail(base, exec_file=VMM)


def put_guest(jail, guest, **config):
    """A guest and a configuration file in the jail's root, as its owner does."""
    jail.root.mkdir(parents=True, exist_ok=True)
    (jail.root / "kernel").write_bytes((GUESTS / guest).read_bytes())
    os.chown(jail.root / "kernel", UID, GID)
    (jail.root / "kernel").chmod(0o400)
    (jail.root / "vm.json").write_text(json.dumps(
        {"boot-source": {"kernel_image_path": "/kernel"},
         "machine-config": {"vcpu_count": 1, "mem_size_mib": 16}} | config))


def test_guest_runs(jail):
    put_guest(jail, "hello")
    result = jail.run("--no-api", "--config-file", "/vm.json")
    assert (result.returncode, result.stdout) == (0, "hello\n"), result
    assert {path.name for path in jail.root.iterdir()} == {"kernel", "vm.json"}


@pytest.mark.parametrize("guest,status", [("ends-panic", 160), ("ends-triple-fault", 161),
                                          ("ends-execute-mmio", 162)])
def test_end_of_the_guest_is_the_jailers_status(jail, guest, status):
    put_guest(jail, guest)
    assert jail.run("--no-api", "--config-file", "/vm.json").returncode == status


@contextlib.contextmanager
def jailed_api(jail, *arguments, options=()):
    """A jailed VMM with an API, where Firecracker's SDKs look for its socket."""
    with open(jail.base / "vmm.log", "wb") as log, \
            subprocess.Popen(jail.command(*arguments, options=options), stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=log) as process:
        vmm = Vmm(process, jail.base)
        vmm.socket_path = jail.root / "run" / "firecracker.socket"
        vmm.connection.path = str(vmm.socket_path)
        try:
            wait_until(lambda: answers(vmm.socket_path) or process.poll() is not None, "a socket")
            yield vmm
        finally:
            vmm.connection.close()
            process.send_signal(signal.SIGQUIT)
            process.wait(TIME_LIMIT)


def start(vmm):
    vmm.put("/boot-source", {"kernel_image_path": "/kernel"})
    vmm.put("/machine-config", {"vcpu_count": 2, "mem_size_mib": 16})
    vmm.action("InstanceStart")


def test_api_socket_is_where_clients_look(jail):
    put_guest(jail, "counter")
    with jailed_api(jail) as vmm:
        assert vmm.get("/")["id"] == jail.id
        start(vmm)
        assert vmm.state() == "Running"
    assert not (jail.root / "run").exists()


COUNTER = 0x8000  # of counter.c


def counted(jail):
    """How far the guest was when it was saved."""
    with open(jail.root / "vm.memory", "rb") as memory:
        memory.seek(COUNTER)
        return int.from_bytes(memory.read(8), "little")


def save(vmm, jail):
    vmm.patch("/vm", {"state": "Paused"})
    vmm.put("/snapshot/create", {"snapshot_path": "/vm.snapshot", "mem_file_path": "vm.memory"})
    for name in ("vm.snapshot", "vm.memory"):
        info = (jail.root / name).stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (UID, GID, 0o600)
    return counted(jail)


def test_snapshot_goes_from_jail_to_jail(jail, base):
    """As clients of Firecracker do it: its files are linked into the other root."""
    put_guest(jail, "counter")
    with jailed_api(jail) as vmm:
        start(vmm)
        before = save(vmm, jail)
    other = Jail(base, exec_file=VMM)
    other.root.mkdir(parents=True)
    for name in ("vm.snapshot", "vm.memory"):
        os.link(jail.root / name, other.root / name)
    with jailed_api(other) as vmm:
        vmm.put("/snapshot/load", {"snapshot_path": "/vm.snapshot", "resume_vm": True, "mem_backend": {
            "backend_type": "File", "backend_path": "/vm.memory"}})

        def has_counted():
            more = save(vmm, other) > before
            vmm.patch("/vm", {"state": "Resumed"})
            return more
        wait_until(has_counted, "the count to go on")
    assert counted(jail) == before
    assert {path.name for path in other.root.iterdir()} == {"vm.snapshot", "vm.memory"}


def test_terminated_jailer_ends_the_guest_and_all(jail):
    put_guest(jail, "counter")
    with jailed_api(jail, options=["--cgroup", f"{MEMORY}=64M"]) as vmm:
        start(vmm)
        vmm.process.terminate()
        # The guest is asked first, and a second time its VM ends.
        vmm.process.terminate()
        assert vmm.process.wait(TIME_LIMIT) == 0, (jail.base / "vmm.log").read_text()
    assert not cgroups(jail)


def test_terminated_before_it_listens(jail):
    """A signal is not lost while the VMM has no handler for it yet."""
    for _ in range(20):
        with subprocess.Popen(jail.command(), stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            wait_until((jail.root / "mote-vmm.pid").exists, "the process")
            process.terminate()
            assert process.wait(TIME_LIMIT) == 0
        assert not jail.home.exists()


def test_no_memory_is_writable_and_executable(jail):
    """Nor can a mapping be executed that is no part of the program."""
    put_guest(jail, "counter")
    with jailed_api(jail) as vmm:
        for moment in ("before", "after"):
            if moment == "after":
                start(vmm)
            modes = [line.split()[1:] for line in
                     pathlib.Path(f"/proc/{jail.pid()}/maps").read_text().splitlines()]
            assert len(modes) > 10
            assert not [mode for mode in modes if "w" in mode[0] and "x" in mode[0]]
            executable = {mode[-1] for mode in modes if "x" in mode[0]}
            assert executable == {"/mote-vmm", "[vdso]", "[vsyscall]"} & executable
            assert len([mode for mode in modes if mode[-1] == "/mote-vmm" and "x" in mode[0]]) == 1


def test_every_thread_is_under_both_filters(jail):
    put_guest(jail, "counter")
    with jailed_api(jail) as vmm:
        def filters():
            return {line.split()[1] for task in pathlib.Path(f"/proc/{jail.pid()}/task").iterdir()
                    for line in (task / "status").read_text().splitlines()
                    if line.startswith("Seccomp_filters")}
        assert filters() == {"1"}
        start(vmm)
        wait_until(lambda: filters() == {"2"}, "the second filter")


def count_rings(pid):
    links = (os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir())
    return sum(link == "anon_inode:[io_uring]" for link in links)


def test_every_drive_has_the_engine_that_it_is_configured_for(jail):
    """As many rings as there can be drives, also right after a VM of the same user has ended."""
    put_guest(jail, "counter")
    for _ in range(2):
        with jailed_api(jail) as vmm:
            for number in range(19):
                disk = jail.root / f"disk{number}"
                disk.write_bytes(bytes(4096))
                os.chown(disk, UID, GID)
                vmm.put(f"/drives/d{number}", {
                    "drive_id": f"d{number}", "path_on_host": f"/disk{number}",
                    "is_root_device": False, "io_engine": "Async"})
            start(vmm)
            assert count_rings(jail.pid()) == 19, vmm.log()


def test_status_on_the_host_is_an_ordinary_users(jail):
    put_guest(jail, "counter")
    with jailed_api(jail) as vmm:
        start(vmm)
        for task in pathlib.Path(f"/proc/{jail.pid()}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in
                          (task / "status").read_text().splitlines() if ":\t" in line)
            assert status["Uid"].split() == [str(UID)] * 4
            assert status["Gid"].split() == [str(GID)] * 4
            assert status["Groups"].strip() == "" and status["NoNewPrivs"] == "1"
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0
        # Not to be traced or dumped by other processes of its user.
        assert os.stat(f"/proc/{jail.pid()}/environ").st_uid == 0


def host_state(base):
    """What is there of these jails: other tests may be running on the same machine."""
    users = {str(UID + number) for number in range(MANY)}

    def ours(folder):
        with contextlib.suppress(OSError):
            if str(base).encode() in (folder / "cmdline").read_bytes():
                return True
            status = (folder / "status").read_text()
            return (not re.search(r"^State:\tZ", status, re.M) and
                    re.search(r"^Uid:\t(\d+)", status, re.M)[1] in users)
        return False

    return {
        "mounts": [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
                   if str(base) in line],
        "processes": {folder.name for folder in pathlib.Path("/proc").glob("[0-9]*")
                      if ours(folder)},
        "cgroups": {str(path) for pattern in (f"*/mote-vmm/test-{os.getpid()}-*/",
                                              f"mote-vmm/test-{os.getpid()}-*/")
                    for path in CGROUPS.glob(pattern)},
        "files": sorted(map(str, base.rglob("*"))),
    }


def test_50_at_once_then_none(base):
    """Each with a guest that runs; afterwards the host is as it was before."""
    limits = ["--cgroup", f"{MEMORY}=64M", "--cgroup", "pids.max=16"]
    (base / "mote-vmm").mkdir()
    before = host_state(base)
    assert not before["processes"]
    namespaces = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net", "ipc")}
    with contextlib.ExitStack() as stack:
        running = []
        for number in range(MANY):
            jail = Jail(base, exec_file=VMM)
            process = stack.enter_context(subprocess.Popen(
                jail.command(options=limits, uid=UID + number), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            running.append((jail, process))
        for jail, process in running:
            socket = jail.root / "run" / "firecracker.socket"
            wait_until(lambda socket=socket: answers(socket), "a socket")
            (jail.root / "kernel").write_bytes((GUESTS / "counter").read_bytes())
            (jail.root / "kernel").chmod(0o444)
            vmm = Vmm(process, base)
            vmm.connection.path = str(socket)
            start(vmm)
            vmm.connection.close()
        for jail, _ in running:
            (jail.root / "kernel").unlink()
            for kind in ("mnt", "pid", "net", "ipc"):
                namespaces.add(os.readlink(f"/proc/{jail.pid()}/ns/{kind}"))
        assert len(namespaces) == 4 * (MANY + 1)
        now = host_state(base)
        # The jailer's keeper, the VMM, and its creator of files.
        assert len(now["processes"]) == 3 * MANY and len(now["cgroups"]) >= MANY
        for _, process in running:
            process.send_signal(signal.SIGQUIT)
        for _, process in running:
            assert process.wait(TIME_LIMIT) == -signal.SIGKILL
    assert host_state(base) == before
