# SPDX-License-Identifier: Apache-2.0
"""While a VM is paused nothing writes its memory, whatever its devices were at."""
import hashlib
import os
import socket
import struct
import threading

import pytest

import host
from api import start_api
from slow_disk import slow_disk
from support import TIME_LIMIT, wait_until

MIB = 1 << 20
SIZE, SIZE_MAX = 16 * MIB, 64 * MIB  # of a mapping that may be the guest's memory


def memory(vmm, guest):
    """A hash of the guest's memory, as its process has it mapped; it is found by the guest's program."""
    program = (host.GUESTS / guest).read_bytes()[4096:4160]  # which lies at 1 MiB
    with open(f"/proc/{vmm.process.pid}/maps", encoding="ascii") as maps, \
            open(f"/proc/{vmm.process.pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            area, permissions, _, _, inode, *name = line.split()
            start, end = (int(address, 16) for address in area.split("-"))
            if permissions != "rw-p" or inode != "0" or name or \
                    not SIZE <= end - start <= SIZE_MAX:
                continue
            mem.seek(start)
            content = mem.read(end - start)
            if content[MIB:].startswith(program):
                yield hashlib.sha256(content).digest()


@pytest.fixture(name="vmm")
def vmm_fixture(tmp_path):
    with start_api(tmp_path) as vmm:
        yield vmm


def pause(vmm, guest):
    vmm.patch("/vm", {"state": "Paused"})
    before = list(memory(vmm, guest))
    assert len(before) == 1
    return before


def drive(vmm, name, path, engine):
    vmm.put(f"/drives/{name}", {
        "drive_id": name, "path_on_host": str(path), "is_root_device": False,
        "is_read_only": False, "io_engine": engine, "cache_type": "Writeback"})


def start(vmm, guest, **options):
    vmm.set_guest(guest)
    vmm.put("/boot-source", {
        "kernel_image_path": str(host.GUESTS / guest),
        "boot_args": " ".join(f"{name}={value}" for name, value in options.items())})
    vmm.action("InstanceStart")


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_drive_that_is_never_idle(tmp_path, vmm, engine):
    path, _ = host.drive(tmp_path, content=os.urandom(host.CAPACITY))
    drive(vmm, "scratch", path, engine)
    start(vmm, "latency", reads=1 << 20)
    count = lambda: vmm.get("/metrics")["block"]["read_count"]
    for _ in range(5):
        reads = count()
        wait_until(lambda: count() > reads + 100, "reads")
        before = pause(vmm, "latency")
        reads = count()
        assert list(memory(vmm, "latency")) == before
        assert count() == reads
        vmm.patch("/vm", {"state": "Resumed"})


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a FUSE file system so")
@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_disk_that_does_not_answer(tmp_path, vmm, engine):
    """A read could come at any time: the VM cannot be paused, says why, and goes on."""
    with slow_disk(tmp_path) as disk:
        drive(vmm, "data", disk.path, engine)
        disk.free.clear()
        start(vmm, "stall", type=0, requests=30)
        assert disk.waits.wait(TIME_LIMIT)
        assert vmm.fault("PATCH", "/vm", {"state": "Paused"}) == (
            "drive data: what is in flight does not end in time, and the VM goes on")
        assert vmm.state() == "Running"
        disk.free.set()
        assert vmm.process.wait(TIME_LIMIT) == 0
    assert vmm.console_path.read_text() == "in flight\ndone\n"


def test_frame_that_comes_meanwhile(tmp_path, vmm):
    came, paused = threading.Event(), threading.Event()

    def echo_frames(connection):
        with connection.makefile("rb") as frames:
            while length := frames.read(4):
                frame = frames.read(struct.unpack(">I", length)[0])
                came.set()
                assert paused.wait(TIME_LIMIT)
                connection.sendall(length + frame)

    count = lambda name: vmm.get("/metrics")["net"][name]
    with host.listener(tmp_path / "passt", echo_frames):
        vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", "guest_mac": host.GUEST_MAC,
                                             "passt_socket": str(tmp_path / "passt")})
        vmm.start("net")
        assert came.wait(TIME_LIMIT)
        before = pause(vmm, "net")
        events = count("rx_tap_event_count")
        paused.set()
        wait_until(lambda: count("rx_tap_event_count") > events, "the frame")
        assert list(memory(vmm, "net")) == before
        assert count("rx_packets_count") == 0
        vmm.patch("/vm", {"state": "Resumed"})
        assert vmm.process.wait(TIME_LIMIT) == 0
    assert "ok frames return" in vmm.console_path.read_text()


def test_bytes_that_come_meanwhile(tmp_path, vmm):
    came, paused = threading.Event(), threading.Event()

    def echo(connection):
        while data := connection.recv(65536):
            came.set()
            assert paused.wait(TIME_LIMIT)
            connection.sendall(data)

    path = tmp_path / "v"
    with host.listener(f"{path}_{host.ECHO_PORT}", echo):
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(path)})
        vmm.start("vsock")
        assert came.wait(TIME_LIMIT)
        before = pause(vmm, "vsock")
        paused.set()
        # A client, too, which is taken in and hears nothing yet.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"CONNECT 77\n")
            assert vmm.get("/metrics")["vsock"]["rx_bytes_count"] == 0
            assert list(memory(vmm, "vsock")) == before
        vmm.patch("/vm", {"state": "Resumed"})
        wait_until(lambda: "ok listening" in vmm.console_path.read_text(), "the conversations")
