# SPDX-License-Identifier: Apache-2.0
"""
The requests of firecracker-go-sdk's Machine.Start, in its order, against mote-vmm as its VMCommandBuilder
starts it, and in a jail as its JailerCommandBuilder does.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest

import host
from api import Vmm, answers
from jail import CGROUP_VERSION, CGROUPS, GID, JAILER, MEMORY, UID
from support import BUILD, GUESTS, TIME_LIMIT, running, vmm_with, wait_until, watchdog


class Fifo:
    """One that the client made, and of which it reads every line."""

    def __init__(self, path):
        os.mkfifo(path, 0o600)
        self.path, self.lines = path, []
        # The client's own end for writing, so that reading does not end when the VMM opens it anew.
        self.fd = os.open(path, os.O_RDWR)
        self.came = threading.Event()

    def read(self):
        with os.fdopen(self.fd, encoding="utf-8", closefd=False) as file:
            for line in file:
                if line == "end\n":
                    return
                self.lines.append(line)
                self.came.set()

    def end(self):
        os.write(self.fd, b"end\n")

    def close(self):
        os.close(self.fd)


def start_as_the_sdk_does(vmm, log, metrics, kernel, drive, vsock, tap=None):
    """What the handlers send, in the order of their list; paths are the VMM's."""
    wait_until(lambda: answers(vmm.socket_path) and vmm.get("/machine-config"), "the API")
    vmm.put("/logger", {"level": "Debug", "log_path": log, "show_level": True,
                        "show_log_origin": False})
    vmm.put("/metrics", {"metrics_path": metrics})
    machine = {"mem_size_mib": 16, "smt": False, "track_dirty_pages": False, "vcpu_count": 2}
    vmm.put("/machine-config", machine)
    assert vmm.get("/machine-config").items() >= machine.items()
    vmm.put("/boot-source", {"boot_args": "console=ttyS0 reboot=k panic=1",
                             "kernel_image_path": kernel})
    vmm.put("/drives/root", {"drive_id": "root", "is_read_only": True, "is_root_device": True,
                             "path_on_host": drive,
                             "rate_limiter": {"bandwidth": {"refill_time": 100, "size": 1 << 20},
                                              "ops": {"refill_time": 100, "size": 10}}})
    if tap:
        vmm.put("/network-interfaces/1", {"guest_mac": "AA:FC:00:00:00:01", "host_dev_name": tap,
                                          "iface_id": "1"})
    vmm.put("/vsock", {"guest_cid": 3, "uds_path": vsock, "vsock_id": "root"})
    vmm.action("InstanceStart")
    assert vmm.get("/")["state"] == "Running"


@pytest.fixture(name="base")
def short_folder():
    """With a name so short that the path of a socket in a jail fits an address."""
    with tempfile.TemporaryDirectory(prefix="sdk-") as folder:
        yield pathlib.Path(folder)


@contextlib.contextmanager
def fifos(folder, owner=None):
    made = [Fifo(folder / name) for name in ("log.fifo", "metrics.fifo")]
    for fifo in made:
        if owner:
            os.chown(fifo.path, *owner)
    try:
        with running(*(fifo.read for fifo in made), stop=lambda: [fifo.end() for fifo in made]):
            yield made
    finally:
        for fifo in made:
            fifo.close()


def end_as_the_sdk_does(vmm, process, log, metrics):
    """Machine.Shutdown, Machine.StopVMM."""
    vmm.action("SendCtrlAltDel")
    vmm.connection.close()
    process.terminate()
    assert process.wait(TIME_LIMIT) == 0
    wait_until(lambda: any("exiting successfully" in line for line in log.lines), "the last line")
    assert any("Running" in line or "API server" in line for line in log.lines)
    wait_until(lambda: len(metrics.lines) >= 2, "the last line of metrics")
    assert all("utc_timestamp_ms" in json.loads(line) for line in metrics.lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a tap device")
def test_machine_start(tmp_path):
    (tmp_path / "rootfs").write_bytes(bytes(1 << 20))
    path = tmp_path / "api.sock"
    with host.tap() as tap, fifos(tmp_path) as (log, metrics), \
            subprocess.Popen(vmm_with("--api-sock", path, "--id", "sdk-1"),
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL) as process, watchdog(process.kill):
        vmm = Vmm(process, tmp_path)
        start_as_the_sdk_does(vmm, str(log.path), str(metrics.path), str(GUESTS / "waits"),
                              str(tmp_path / "rootfs"), str(tmp_path / "v.sock"),
                              tap["host_dev_name"])
        end_as_the_sdk_does(vmm, process, log, metrics)


def end_jail(pid_file):
    """The VMM that it names, if it is there still, with all that its jailer made."""
    with contextlib.suppress(OSError):
        os.kill(int(pid_file.read_text()), 9)
    wait_until(lambda: not pid_file.exists(), "the jail's end")


@pytest.mark.release_build
@pytest.mark.skipif(os.geteuid() != 0, reason="the jail is root's")
@pytest.mark.parametrize("daemonize", [False, True])
def test_jailed_machine_start(base, daemonize):
    name, parent = f"sdk-{os.getpid()}", "mote-sdk"
    vmm_path = base / "bin" / "firecracker"
    vmm_path.parent.mkdir()
    shutil.copy(BUILD / "mote-vmm", vmm_path)
    (base / "kernel").write_bytes((GUESTS / "waits").read_bytes())
    (base / "rootfs").write_bytes(bytes(1 << 20))
    root = base / "jails" / "firecracker" / name / "root"
    command = [JAILER, "--id", name, "--uid", str(UID), "--gid", str(GID), "--exec-file", vmm_path,
               "--cgroup", f"{MEMORY}=1073741824", "--cgroup-version", str(CGROUP_VERSION),
               "--parent-cgroup", parent, "--chroot-base-dir", base / "jails",
               *(["--daemonize"] if daemonize else []),
               "--", "--api-sock", "/run/firecracker.socket"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process, watchdog(process.kill), \
            contextlib.ExitStack() as ends:
        socket_path = root / "run" / "firecracker.socket"
        ends.callback(end_jail, root / "firecracker.pid")
        wait_until(lambda: answers(socket_path), "the API")
        # What the chroot strategy links into the jail once it is there.
        for file in ("kernel", "rootfs"):
            os.link(base / file, root / file)
            os.chown(root / file, UID, GID)
        pid = int((root / "firecracker.pid").read_text())
        with fifos(root, (UID, GID)) as (log, metrics):
            vmm = Vmm(process, base)
            vmm.socket_path = socket_path
            vmm.connection.path = str(socket_path)
            start_as_the_sdk_does(vmm, "log.fifo", "metrics.fifo", "kernel", "rootfs", "v.sock")
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            assert f"Uid:\t{UID}" in status and f"Gid:\t{GID}" in status
            if daemonize:
                assert process.wait(TIME_LIMIT) == 0
                vmm.action("SendCtrlAltDel")
                vmm.connection.close()
                os.kill(pid, 15)
                wait_until(lambda: not (root / "firecracker.pid").exists(), "the jail's end")
            else:
                end_as_the_sdk_does(vmm, process, log, metrics)
    # The owner's files are the owner's to remove.
    assert {file.name for file in root.iterdir()} == {"kernel", "rootfs", "log.fifo", "metrics.fifo"}
    for folder in CGROUPS.glob(f"{parent}" if CGROUP_VERSION == 2 else f"*/{parent}"):
        folder.rmdir()
