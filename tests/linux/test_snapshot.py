# SPDX-License-Identifier: Apache-2.0
"""Linux guests that are saved to files, and go on from them."""
import contextlib
import ctypes
import os
import socket
import subprocess

import pytest

from agent import STDIN, STDIN_END, Guest, Stream
from api import start_api
from support import BUILD, TIME_LIMIT, kernel, wait_until

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def booted(folder, *, vcpu_count=1, name="microvm", initrd="initrd.cpio", drives=(), tap=None):
    """A VMM whose guest's agent is ready, and the guest."""
    folder.mkdir(exist_ok=True)
    path = folder / "v.sock"
    with socket.socket(socket.AF_UNIX) as listener, start_api(folder) as vmm:
        listener.settimeout(TIME_LIMIT)
        listener.bind(str(path) + "_52")
        listener.listen()
        vmm.put("/machine-config", {"vcpu_count": vcpu_count, "mem_size_mib": 128})
        vmm.put("/boot-source", {
            "kernel_image_path": kernel(name), "initrd_path": str(BUILD / initrd),
            "boot_args": "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1"})
        for drive_id, drive_path in drives:
            vmm.put(f"/drives/{drive_id}", {"drive_id": drive_id, "path_on_host": str(drive_path),
                                            "is_root_device": False})
        if tap:
            vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": tap})
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(path)})
        vmm.action("InstanceStart")
        first = listener.accept()[0]
        first.settimeout(TIME_LIMIT)
        with Stream(sock=first) as stream:
            yield vmm, Guest(vmm.process, path, stream)


@contextlib.contextmanager
def network():
    """A network namespace of this thread, and what makes a tap device in it that is 10.9.0.1."""
    def add_tap(name):
        for command in (f"ip tuntap add {name} mode tap vnet_hdr",
                        f"ip link set {name} address 06:00:00:00:00:01", f"ip addr add 10.9.0.1/24 dev {name}",
                        f"ip link set {name} up"):
            subprocess.run(command.split(), check=True)

    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as outside:
        assert libc.unshare(CLONE_NEWNET) == 0
        try:
            yield add_tap
        finally:
            libc.setns(outside.fileno(), CLONE_NEWNET)


def save(vmm, folder):
    folder.mkdir(exist_ok=True)
    vmm.patch("/vm", {"state": "Paused"})
    vmm.put("/snapshot/create", {"snapshot_path": str(folder / "state"),
                                 "mem_file_path": str(folder / "memory")})
    return folder


@contextlib.contextmanager
def loaded(folder, snapshot, **more):
    folder.mkdir(exist_ok=True)
    path = folder / "v.sock"
    with start_api(folder) as vmm:
        vmm.put("/snapshot/load", {
            "snapshot_path": str(snapshot / "state"),
            "mem_backend": {"backend_type": "File", "backend_path": str(snapshot / "memory")},
            "vsock_override": {"uds_path": str(path)}, "resume_vm": True, **more})
        yield vmm, Guest(vmm.process, path, None)


@pytest.mark.parametrize("vcpu_count", [1, 2])
def test_goes_on_where_it_was(tmp_path, vcpu_count):
    with booted(tmp_path / "a", vcpu_count=vcpu_count) as (vmm, guest):
        guest.sh("echo kept > /run/file")
        uptime = float(guest.sh("cut -d' ' -f1 /proc/uptime"))
        snapshot = save(vmm, tmp_path / "snapshot")
        vmm.patch("/vm", {"state": "Resumed"})
        assert guest.sh("cat /run/file") == "kept\n"  # the one that was saved goes on, too
    size = os.stat(snapshot / "memory")
    assert size.st_size == 128 << 20 and size.st_blocks * 512 < 64 << 20
    for name in ("b", "c"):  # as often as wanted
        with loaded(tmp_path / name, snapshot) as (_, guest):
            assert guest.sh("cat /run/file; echo more >> /run/file") == "kept\n"
            assert uptime <= float(guest.sh("cut -d' ' -f1 /proc/uptime")) < uptime + TIME_LIMIT
            guest.sh("sleep 0.2; for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu sleep 0.1; done")
            assert guest.sh("nproc") == f"{vcpu_count}\n"
            assert guest.sh("dmesg | grep -ci -e lockup -e 'rcu.*stall' || true") == "0\n"


def test_drive_under_load(tmp_path):
    """Saved at any moment while a file system is written to, it is whole afterwards."""
    drive = tmp_path / "drive"
    with open(drive, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", drive], check=True)
    # Each file's name is what its content must be.
    write = ("cd /mnt; n=0; while true; do n=$((n + 1)); mkdir -p $((n % 8)); rm -f $((n % 8))/*; "
             "head -c 100000 /dev/urandom > new; mv new $((n % 8))/$(sha256sum new | cut -d' ' -f1); "
             "test $((n % 5)) != 0 || sync; done")
    check = ("cd /mnt; n=0; for file in */*; do n=$((n + 1)); case $file in lost+found*) ;; "
             "*/$(sha256sum $file | cut -d' ' -f1)) ;; *) echo $file;; esac; done; cd /; sync; umount /mnt; "
             "test $n -gt 3 || echo $n files")
    with booted(tmp_path / "a", drives=[("scratch", drive)]) as (vmm, guest):
        guest.sh("mkdir -p /mnt; mount -t ext4 /dev/vda /mnt")
        stream = guest.start("sh", "-c", write)
        wait_until(lambda: vmm.get("/metrics")["block"]["write_count"] > 100, "writes")
        snapshot = save(vmm, tmp_path / "snapshot0")
        stream.socket.close()
    for cycle in range(1, 4):
        with loaded(tmp_path / str(cycle), snapshot) as (vmm, guest), guest.start("sh", "-c", write):
            before = vmm.get("/metrics")["block"]["write_count"]
            wait_until(lambda: vmm.get("/metrics")["block"]["write_count"] > before + 50, "writes")
            snapshot = save(vmm, tmp_path / f"snapshot{cycle}")
    with loaded(tmp_path / "last", snapshot) as (_, guest):
        assert guest.sh(check) == ""
    subprocess.run(["e2fsck", "-fn", drive], check=True, stdout=subprocess.DEVNULL)


def test_streams_end_and_new_ones_begin(tmp_path):
    """The guest hears that its connections are gone: what the agent ran for them ends."""
    count = "ps | grep -c '[s]leep 1000' || true"
    with booted(tmp_path / "a") as (vmm, guest), contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(guest.start("sleep", "1000"))
        wait_until(lambda: guest.sh(count) == "20\n", "all to run")
        snapshot = save(vmm, tmp_path / "snapshot")
    with loaded(tmp_path / "b", snapshot) as (_, guest):
        wait_until(lambda: guest.sh(count) == "0\n", "the streams' end")
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(guest.start("cat")) for _ in range(20)]
            for number, stream in enumerate(streams):
                stream.send(STDIN, b"%d" % number)
                stream.send(STDIN_END)
            assert [stream.finish()[0] for stream in streams] == [b"%d" % n for n in range(20)]


def test_another_tap(tmp_path):
    with network() as add_tap:
        add_tap("tap0")
        with booted(tmp_path / "a", tap="tap0") as (vmm, guest):
            guest.sh("ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; "
                     "ping -c 1 -W 20 10.9.0.1 > /dev/null")
            snapshot = save(vmm, tmp_path / "snapshot")
        subprocess.run(["ip", "link", "delete", "tap0"], check=True)
        add_tap("tap1")
        override = [{"iface_id": "eth0", "host_dev_name": "tap1"}]
        with loaded(tmp_path / "b", snapshot, network_overrides=override) as (_, guest):
            guest.sh("ping -c 3 -i 0.2 -W 20 10.9.0.1 > /dev/null")


def test_stock_kernel(tmp_path):
    """Debian's, whose drivers are modules, and which finds its devices by ACPI."""
    with booted(tmp_path / "a", name="debian-cloud", initrd="initrd-debian-cloud.cpio") as (vmm, guest):
        release = guest.sh("uname -r")
        snapshot = save(vmm, tmp_path / "snapshot")
    with loaded(tmp_path / "b", snapshot) as (vmm, guest):
        assert guest.sh("uname -r; sleep 0.1") == release
        # QEMU's processor forgets the task's permission to use I/O ports (tests/testhost/README.md),
        # so that the guest cannot power off: it is not asked to.
        vmm.patch("/vm", {"state": "Paused"})


@pytest.mark.parametrize("broken", ["state", "memory"])
def test_half_a_snapshot(tmp_path, broken):
    with booted(tmp_path / "a") as (vmm, _):
        snapshot = save(vmm, tmp_path / "snapshot")
    os.truncate(snapshot / broken, os.stat(snapshot / broken).st_size // 2)
    with start_api(tmp_path / "a") as vmm:
        fault = vmm.fault("PUT", "/snapshot/load", {
            "snapshot_path": str(snapshot / "state"), "mem_file_path": str(snapshot / "memory")})
        assert str(snapshot / "state") in fault
        assert vmm.state() == "Not started"
