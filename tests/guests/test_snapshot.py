# SPDX-License-Identifier: Apache-2.0
"""A VM goes on from the files of its snapshot as it would have gone on without."""
import contextlib
import os
import shutil
import socket
import threading

import pytest

import host
from api import start_api
from snapshots import MEMORY, loaded, look, resume, save, saved, says, start, wait_for_more, word
from support import running, wait_until

COUNTER = ROUNDS = 0x8000  # of counter.c, fill.c, works.c
LOST = 0x8008
TICKS, EARLY, PINGS = 0x8800, 0x8808, 0x8810  # of ticks.c
MIB = 1 << 20


@pytest.fixture(name="vmm")
def vmm_fixture(tmp_path):
    with start_api(tmp_path) as vmm:
        yield vmm


def test_counter_goes_on(tmp_path, vmm):
    start(vmm, "counter", mem_size_mib=16)
    wait_for_more(vmm, tmp_path / "look", COUNTER, 1000)
    snapshot = saved(vmm, tmp_path / "snapshot")
    count = word(snapshot, COUNTER)
    # Paused, and loaded without a resume, it is what it was.
    with loaded(tmp_path / "other", snapshot, resume_vm=False) as other:
        assert other.state() == "Paused"
        again = save(other, tmp_path / "again")
        assert (again / MEMORY).read_bytes() == (snapshot / MEMORY).read_bytes()
        resume(other)
        wait_for_more(other, tmp_path / "look", COUNTER, count)
    # Once more from the same files, and the one that was saved, too.
    with loaded(tmp_path / "third", snapshot) as third:
        assert third.state() == "Running"
        wait_for_more(third, tmp_path / "look", COUNTER, count)
    assert word(snapshot, COUNTER) == count
    resume(vmm)
    wait_for_more(vmm, tmp_path / "look", COUNTER, count)


def test_cycles(tmp_path):
    """A hundred times in a row, with a timer that no interrupt gets lost of."""
    snapshot = None
    ticks = 0
    folders = [tmp_path / "a", tmp_path / "b"]
    with start_api(tmp_path) as vmm:
        start(vmm, "ticks", mem_size_mib=16, deadline=1)
        says(vmm, "ticking")
        snapshot = saved(vmm, folders[0])
    for cycle in range(100):
        with loaded(tmp_path / "vmm", snapshot) as vmm:
            wait_for_more(vmm, tmp_path / "look", TICKS, ticks)
            snapshot = saved(vmm, folders[(cycle + 1) % 2])
        assert word(snapshot, TICKS) > ticks
        ticks = word(snapshot, TICKS)
    assert word(snapshot, EARLY) == 0  # nor doubled


@pytest.mark.parametrize("deadline", [0, 1])
def test_processors_that_halt_and_loop(tmp_path, vmm, deadline):
    """One waits for its timer, one for the interrupts of another, which loops; one halts for ever."""
    start(vmm, "ticks", vcpu_count=4, mem_size_mib=16, others=3, deadline=deadline)
    says(vmm, "ticking")
    snapshot = tmp_path / "0"
    for number in range(10):
        wait_until(lambda: min(look(vmm, tmp_path / "look", TICKS, PINGS)) > 0, "both")
        snapshot = saved(vmm, tmp_path / str(number))
        before = word(snapshot, TICKS), word(snapshot, PINGS)
        with loaded(tmp_path / "other", snapshot) as other:
            wait_for_more(other, tmp_path / "look", TICKS, before[0])
            wait_for_more(other, tmp_path / "look", PINGS, before[1])
            assert look(other, tmp_path / "look", EARLY)[0] == 0
        resume(vmm)
        wait_for_more(vmm, tmp_path / "look", TICKS, before[0])
        wait_for_more(vmm, tmp_path / "look", PINGS, before[1])


# One that counts down once, and has rung, KVM starts anew (docs/snapshots.md).
@pytest.mark.parametrize("deadline,hold", [(0, 1), (1, 1), (1, 2)])
def test_timer_that_is_due_rings_once(tmp_path, vmm, deadline, hold):
    start(vmm, "ticks", mem_size_mib=16, deadline=deadline, hold=hold)
    says(vmm, "due\n")
    snapshot = saved(vmm, tmp_path / "snapshot")
    with loaded(tmp_path / "other", snapshot) as other:
        other.action("SendCtrlAltDel")
        says(other, "rang 1\n")
    resume(vmm)
    vmm.action("SendCtrlAltDel")
    says(vmm, "rang 1\n")


@pytest.mark.release_build
def test_memory_above_4_gib(tmp_path, vmm):
    start(vmm, "fill", mem_size_mib=5120, mib=8, high=1)
    says(vmm, "filled")
    snapshot = saved(vmm, tmp_path / "snapshot")
    assert (snapshot / MEMORY).stat().st_size == 6 << 30
    with loaded(tmp_path / "other", snapshot) as other:
        wait_for_more(other, tmp_path / "look", ROUNDS, word(snapshot, ROUNDS))
        assert "FAIL" not in other.console_path.read_text()


def test_memory_file_is_at_guest_addresses_with_holes(tmp_path, vmm):
    start(vmm, "fill", mem_size_mib=64, mib=4)
    says(vmm, "filled")
    snapshot = saved(vmm, tmp_path / "snapshot")
    memory = (snapshot / MEMORY).read_bytes()
    assert len(memory) == 64 * MIB
    program = (host.GUESTS / "fill").read_bytes()[4096:4160]
    assert memory[MIB:].startswith(program)
    for page in range(16 * MIB, 20 * MIB, 4096):
        assert memory[page:page + 8] == bytes(8) != memory[page + 8:page + 16]
    assert not any(memory[20 * MIB:])
    used = sum(any(memory[page:page + 4096]) for page in range(0, len(memory), 4096))
    # With the blocks by which the file system itself keeps account of it.
    assert (snapshot / MEMORY).stat().st_blocks * 512 < (used + 64) * 4096


def test_console_is_told_again(tmp_path, vmm):
    start(vmm, "fill")
    says(vmm, "filled\n")
    snapshot = saved(vmm, tmp_path / "snapshot")
    with loaded(tmp_path / "other", snapshot) as other:
        stream = other.stream("/console")
        assert stream.read(len("filled\n")) == b"filled\n"
        stream.connection_kept.close()
        assert other.console_path.read_text() == ""


def test_configuration_is_told_as_it_was(tmp_path, vmm):
    path, config = host.drive(tmp_path)
    vmm.put("/drives/scratch", config)
    vmm.put("/vsock", {"guest_cid": 7, "uds_path": str(tmp_path / "v")})
    start(vmm, "waits", vcpu_count=2)
    before = vmm.get("/vm/config")
    snapshot = saved(vmm, tmp_path / "snapshot")
    copy = tmp_path / "copy"
    shutil.copyfile(path, copy)
    with loaded(tmp_path / "other", snapshot, vsock_override={"uds_path": str(tmp_path / "w")},
                drive_overrides=[{"drive_id": "scratch", "path_on_host": str(copy)}]) as other:
        before["boot-source"] = None
        before["vsock"]["uds_path"] = str(tmp_path / "w")
        before["drives"][0]["path_on_host"] = str(copy)
        assert other.get("/vm/config") == before


# Devices at work.

def working(vmm, what, folder, rounds=100):
    start(vmm, "works", mem_size_mib=16, what=what)
    says(vmm, "working")
    wait_for_more(vmm, folder / "look", ROUNDS, rounds)


def goes_on(vmm, folder, rounds):
    wait_for_more(vmm, folder / "look", ROUNDS, rounds)
    assert "FAIL" not in vmm.console_path.read_text()


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_drive_at_work(tmp_path, vmm, engine):
    path, config = host.drive(tmp_path, io_engine=engine)
    vmm.put("/drives/scratch", config)
    working(vmm, "block", tmp_path)
    for number in range(5):
        snapshot = saved(vmm, tmp_path / str(number))
        copy = tmp_path / f"drive-{number}"
        shutil.copyfile(path, copy)
        override = [{"drive_id": "scratch", "path_on_host": str(copy)}]
        with loaded(tmp_path / "other", snapshot, drive_overrides=override) as other:
            # Farther than all that was in the drive when it was copied.
            goes_on(other, tmp_path, word(snapshot, ROUNDS) + 200)
        resume(vmm)
        goes_on(vmm, tmp_path, word(snapshot, ROUNDS) + 200)


def test_drive_that_is_read_all_the_time(tmp_path, vmm):
    _, config = host.drive(tmp_path, read_only=True, content=os.urandom(host.CAPACITY))
    vmm.put("/drives/scratch", config)
    start(vmm, "latency", mem_size_mib=64, reads=1 << 20)
    reads = lambda vmm: vmm.get("/metrics")["block"]["read_count"]
    wait_until(lambda: reads(vmm) > 100, "reads")
    snapshot = saved(vmm, tmp_path / "snapshot")
    with loaded(tmp_path / "other", snapshot) as other, loaded(tmp_path / "third", snapshot) as third:
        wait_until(lambda: reads(other) > 1000 and reads(third) > 1000, "reads")


def test_frames_on_their_way(tmp_path):
    with host.passt(tmp_path) as passt, start_api(tmp_path) as vmm:
        vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", "guest_mac": host.GUEST_MAC, **passt})
        working(vmm, "net", tmp_path)
        snapshot = saved(vmm, tmp_path / "snapshot")
        with loaded(tmp_path / "other", snapshot) as other:
            goes_on(other, tmp_path, word(snapshot, ROUNDS) + 100)
        resume(vmm)
        goes_on(vmm, tmp_path, word(snapshot, ROUNDS) + 100)


@contextlib.contextmanager
def others_talk(tap):
    """Frames that are nothing to the guest, as a host sends some on a tap device that is new."""
    stopped = threading.Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.bind((tap, 0))

        def talk():
            while not stopped.wait(0.01):
                packets.send(b"\xff" * 6 + b"\2" + bytes(5) + b"\x88\xb6" + bytes(46))

        with running(talk, stop=stopped.set):
            yield


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes a network namespace and a tap device")
def test_interface_on_another_tap(tmp_path):
    with host.passt(tmp_path) as passt, start_api(tmp_path) as vmm:
        vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", "guest_mac": host.GUEST_MAC, **passt})
        working(vmm, "net", tmp_path)
        snapshot = saved(vmm, tmp_path / "snapshot")
    with host.tap() as tap, others_talk(tap["host_dev_name"]):
        override = [{"iface_id": "eth0", "host_dev_name": tap["host_dev_name"]}]
        with loaded(tmp_path / "other", snapshot, network_overrides=override) as other:
            goes_on(other, tmp_path, word(snapshot, ROUNDS) + 100)
            assert other.get("/vm/config")["network-interfaces"][0]["host_dev_name"] == "tap0"


def test_connections_of_before_are_reset_and_new_ones_made(tmp_path, vmm):
    path, elsewhere = tmp_path / "v", tmp_path / "w"
    with host.listener(f"{path}_{host.ECHO_PORT}", host.echo), \
            host.listener(f"{elsewhere}_{host.ECHO_PORT}", host.echo):
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(path)})
        working(vmm, "vsock", tmp_path)
        snapshot = saved(vmm, tmp_path / "snapshot")
        assert word(snapshot, LOST) == 0
        override = {"uds_path": str(elsewhere)}
        with loaded(tmp_path / "other", snapshot, vsock_override=override) as other:
            goes_on(other, tmp_path, word(snapshot, ROUNDS) + 100)
            assert look(other, tmp_path / "look", LOST) == [1]
        # The one that was saved keeps its connections.
        resume(vmm)
        goes_on(vmm, tmp_path, word(snapshot, ROUNDS) + 100)
        assert look(vmm, tmp_path / "look", LOST) == [0]
