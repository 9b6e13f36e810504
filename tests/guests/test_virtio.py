# SPDX-License-Identifier: Apache-2.0
"""Freestanding guests that use their virtio devices as a good driver does."""
import os
import re
import socket

import pytest

import host
from support import TIME_LIMIT

SECTOR = 512


def run_guest(config):
    """Runs a guest of checks to its end; its log."""
    with host.start_vmm(config) as vmm:
        output, log = vmm.communicate()
    lines = output.decode().splitlines()
    assert lines and all(line.startswith("ok ") for line in lines), (lines, log.decode())
    assert vmm.returncode == 0
    assert b"WARN" not in log and b"ERROR" not in log, log.decode()
    return log.decode()


@pytest.fixture(name="backend", params=["passt", "tap"])
def backend_fixture(request, tmp_path):
    if request.param == "tap" and os.getuid() != 0:
        pytest.skip("only root can make a network namespace and a tap device")
    with getattr(host, request.param)(tmp_path) as backend:
        yield {"iface_id": "eth0", "guest_mac": host.GUEST_MAC, **backend}


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_block(tmp_path, engine):
    content = b"".join(f"sector {number}".encode().ljust(SECTOR) for number in range(256))
    path, drive = host.drive(tmp_path, content=content, io_engine=engine)
    run_guest(host.vm_config(tmp_path, "block", drives=[drive]))
    after = path.read_bytes()
    assert len(after) == host.CAPACITY
    written = slice(8 * SECTOR, 16 * SECTOR)
    assert after[written] == b"from the guest".ljust(4096, b"\0")
    discarded = slice(64 * SECTOR, 192 * SECTOR)
    assert not any(after[discarded])
    for kept in (slice(0, 8 * SECTOR), slice(16 * SECTOR, 64 * SECTOR),
                 slice(192 * SECTOR, 256 * SECTOR)):
        assert after[kept] == content[kept]


def mmio_exits(folder, **options):
    """How many of them KVM has counted for the guest's processor, up to its end."""
    arguments = " ".join(f"{name}={value}" for name, value in options.items())
    config = host.vm_config(folder, "registers", drives=[host.drive(folder)[1]],
                            boot_args=arguments)
    with host.start_vmm(config, "--level", "Debug") as vmm:
        output, log = vmm.communicate()
    assert (vmm.returncode, output) == (0, b"ok nothing has happened\n"), log.decode()
    return int(re.search(rb"vCPU 0: mmio_exits = (\d+)", log)[1])


def test_registers_are_read_without_an_exit(tmp_path):
    once = mmio_exits(tmp_path, writes=1)
    assert mmio_exits(tmp_path, writes=101) == once + 100  # that they are counted
    assert mmio_exits(tmp_path, writes=1, reads=1000) == once


def test_latency_is_told_for_each_read(tmp_path):
    """The guest of tests/bench/latency-inside."""
    _, drive = host.drive(tmp_path)
    with host.start_vmm(host.vm_config(tmp_path, "latency", drives=[drive],
                                       boot_args="reads=20")) as vmm:
        output, log = vmm.communicate()
    assert vmm.returncode == 0, log.decode()
    assert len([ticks for ticks in output.split() if int(ticks) > 0]) == 20


def test_net(tmp_path, backend):
    run_guest(host.vm_config(tmp_path, "net", interfaces=[backend]))


def read_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        assert byte, line
        line += byte
    return line


def test_vsock(tmp_path):
    """The guest connects to the host; then the host to the guest."""
    uds = tmp_path / "v.sock"
    config = host.vm_config(tmp_path, "vsock", vsock=uds)
    with host.listener(f"{uds}_{host.ECHO_PORT}", host.echo), host.start_vmm(config) as vmm:
        lines = []
        while not lines or lines[-1] != b"ok listening\n":
            lines.append(vmm.stdout.readline())
            assert lines[-1].startswith(b"ok "), lines
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(TIME_LIMIT)
            client.connect(str(uds))
            client.sendall(b"CONNECT 77\n")
            assert read_line(client).startswith(b"OK ")
            client.sendall(b"from the host\n")
            assert read_line(client) == b"from the host\n"
        assert vmm.stdout.readline() == b"ok a client of the host\n"
        assert vmm.wait(TIME_LIMIT) == 0
    assert not uds.exists()
