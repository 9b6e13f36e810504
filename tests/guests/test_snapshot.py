# SPDX-License-Identifier: Apache-2.0
"""A VM goes on from the files of its snapshot as it would have gone on without."""
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import struct
import threading

import pytest

import host
from api import start_api
from snapshots import (MEMORY, STATE, load, load_body, loaded, look, pause, paths, resume, save, says,
                       start, wait_for_more, word)
from support import TIME_LIMIT, VARIANT, running, running_processes, wait_until

COUNTER = ROUNDS = 0x8000  # of counter.c, fill.c, works.c
LOST = 0x8008
TICKS, EARLY, PINGS = 0x8800, 0x8808, 0x8810  # of ticks.c
MIB = 1 << 20


@pytest.fixture(name="vmm")
def vmm_fixture(tmp_path):
    with start_api(tmp_path) as vmm:
        yield vmm


def saved(vmm, folder):
    pause(vmm)
    return save(vmm, folder)


# What goes on.

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


# What is refused, and what is left of it.

@contextlib.contextmanager
def something_in_place(kind, path):
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    elif kind == "link":
        (path.parent / "elsewhere").write_text("kept")
        path.symlink_to("elsewhere")
    before = path.lstat()
    yield
    assert path.lstat() == before


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", pytest.param("device", marks=pytest.mark.skipif(
    os.getuid() != 0, reason="only root makes devices"))])
@pytest.mark.parametrize("name", ["snapshot_path", "mem_file_path"])
def test_what_is_no_file_stays(tmp_path, vmm, name, kind):
    start(vmm, "counter", mem_size_mib=16)
    pause(vmm)
    folder = tmp_path / "folder"
    folder.mkdir()
    with something_in_place(kind, folder / "it"):
        before = sorted(os.listdir(folder))
        fault = vmm.fault("PUT", "/snapshot/create", {**paths(folder), name: str(folder / "it")})
        assert fault == f"snapshot file {folder}/it: something is there that is no regular file"
        assert sorted(os.listdir(folder)) == before


CREATE_REFUSED = [
    ({"snapshot_type": "Diff"}, "snapshot_type: there are no diff snapshots yet"),
    ({"snapshot_path": "{}/vm.memory"}, "snapshot_path and mem_file_path are the same file"),
    ({"snapshot_path": "{}/./vm.memory"}, "snapshot_path and mem_file_path are the same file"),
    ({"snapshot_path": "{}/nowhere/a"}, "snapshot file {}/nowhere/a: No such file or directory"),
    ({"mem_file_path": "{}/nowhere/a"}, "snapshot file {}/nowhere/a: No such file or directory"),
    ({"mem_file_path": "{}/vm.memory/"}, "snapshot file {}/vm.memory/: No such file or directory"),
    ({"snapshot_path": "/dev/fd/1"}, "snapshot file /dev/fd/1: "),
    ({"mem_file_path": "/dev/fd/1"}, "snapshot file /dev/fd/1: "),
    ({"mem_file_path": "{}/vm.snapshot.part"}, "not whole yet, which end with .part"),
    ({"snapshot_path": "{}/" + "a" * 255}, "File name too long"),
    ({"snapshot_path": "{}/" + "a" * 5000}, "snapshot file "),
]


@pytest.mark.parametrize("fields,says_so", CREATE_REFUSED, ids=[str(n) for n in range(len(CREATE_REFUSED))])
def test_create_is_refused(tmp_path, vmm, fields, says_so):
    folder = tmp_path / "folder"
    folder.mkdir()
    fields = {name: value.replace("{}", str(folder)) for name, value in fields.items()}
    start(vmm, "counter", mem_size_mib=16)
    pause(vmm)
    fault = vmm.fault("PUT", "/snapshot/create", {**paths(folder), **fields})
    assert says_so.replace("{}", str(folder)) in fault
    assert not list(folder.iterdir())
    assert vmm.state() == "Paused"
    # And it is possible to do it rightly.
    save(vmm, folder)
    resume(vmm)
    wait_for_more(vmm, tmp_path / "look", COUNTER, word(folder, COUNTER))


def test_create_is_refused_while_it_runs(tmp_path, vmm):
    start(vmm, "counter", mem_size_mib=16)
    assert vmm.fault("PUT", "/snapshot/create", paths(tmp_path)) == (
        'Creating a snapshot is not possible in the state "Running"')
    assert not (tmp_path / STATE).exists() and not (tmp_path / MEMORY).exists()


def test_files_are_new_and_their_owners(tmp_path, vmm):
    """What is there is replaced, not written to: whoever has it mapped keeps it as it was."""
    start(vmm, "counter", mem_size_mib=16)
    pause(vmm)
    folder = tmp_path / "folder"
    folder.mkdir()
    before = {}
    for name in (STATE, MEMORY):
        (folder / name).write_text("old")
        (folder / name).chmod(0o666)
        os.link(folder / name, tmp_path / f"link-{name}")
        before[name] = (folder / name).stat().st_ino
        # Of one whose writing was killed.
        (folder / f"{name}.part").write_text("left behind")
    save(vmm, folder)
    assert sorted(os.listdir(folder)) == [MEMORY, STATE]
    for name in (STATE, MEMORY):
        info = (folder / name).stat()
        assert stat.S_IMODE(info.st_mode) == 0o600 and info.st_ino != before[name]
        assert info.st_uid == os.getuid()
        assert (tmp_path / f"link-{name}").read_text() == "old"


# How a snapshot's writing may end.

def creator_of(vmm):
    """The only process that a VMM starts; None if there is none."""
    return next((pid for pid, parent, _ in running_processes() if parent == vmm.process.pid), None)


def kill(vmm):
    """Which leaves its socket."""
    vmm.process.kill()
    vmm.process.wait(TIME_LIMIT)
    vmm.socket_path.unlink()


def is_gone(pid):
    return all(pid != other for other, _, _ in running_processes())


@pytest.mark.parametrize("options", [[], ["--no-seccomp"]])
def test_creator_ends_with_the_vmm(tmp_path, options):
    with start_api(tmp_path, *options) as vmm:
        ended = creator_of(vmm)
        status = lambda: pathlib.Path(f"/proc/{ended}/status").read_text()
        filtered = not options and VARIANT not in ("asan", "tsan")
        wait_until(lambda: f"\nSeccomp:\t{2 if filtered else 0}\n" in status(), "its policy")
        wait_until(lambda: len(os.listdir(f"/proc/{ended}/fd")) == 1, "its only descriptor")
        assert "\nName:\tmote-creator\n" in f"\n{status()}"
    wait_until(lambda: is_gone(ended), "its end")
    with start_api(tmp_path, *options, expect=-9) as vmm:
        killed = creator_of(vmm)
        kill(vmm)
    wait_until(lambda: is_gone(killed), "its end")


def test_no_creator_without_an_api(tmp_path):
    config = host.vm_config(tmp_path, "counter")
    with host.start_vmm(config) as process:
        wait_until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) > 1, "its vCPU")
        assert not [pid for pid, parent, _ in running_processes() if parent == process.pid]
        process.terminate()
        process.communicate(timeout=TIME_LIMIT)


def test_creator_that_was_killed(tmp_path, vmm):
    start(vmm, "counter", mem_size_mib=16)
    pause(vmm)
    os.kill(creator_of(vmm), signal.SIGKILL)
    wait_until(lambda: creator_of(vmm) is None, "its end")
    folder = tmp_path / "folder"
    folder.mkdir()
    fault = vmm.fault("PUT", "/snapshot/create", paths(folder))
    assert fault == f"snapshot file {folder}/{MEMORY}: the process that creates it: Broken pipe"
    assert not list(folder.iterdir())
    resume(vmm)
    assert vmm.state() == "Running"


libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SYSCALL, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 24, 17, 0x4206, 0x4207
PTRACE_O_TRACESYSGOOD = 1
WALL = 0x40000000
# The calls that make a snapshot's files: to the creator, and to the files themselves.
SENDTO, RECVMSG, WRITE_MEMORY, FDATASYNC, UNLINK = 44, 47, 328, 75, 87
STEPS = {SENDTO, RECVMSG, 1, WRITE_MEMORY, FDATASYNC, UNLINK}


def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, None, ctypes.c_void_p(data)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def kill_at_step(vmm, wanted):
    """Kills a VMM that saves at the beginning, or the end, of a call of those: whether it came to it."""
    pid, steps = vmm.process.pid, 0
    while True:
        _, status = os.waitpid(pid, WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return False
        if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
            number = int(pathlib.Path(f"/proc/{pid}/syscall").read_text().split()[0])
            steps += number in STEPS
            if number == EPOLL_WAIT and steps > 4:
                return False  # it has done all, and waits for another request
            if steps == wanted:
                return True
        ptrace(PTRACE_SYSCALL, pid)


EPOLL_WAIT = 232


def save_until_step(vmm, folder, wanted):
    """Its writing is ended by SIGKILL at that step; False if there is no such step."""
    client = vmm.connect()
    ptrace(PTRACE_SEIZE, vmm.process.pid, PTRACE_O_TRACESYSGOOD)
    ptrace(PTRACE_INTERRUPT, vmm.process.pid)
    body = json.dumps(paths(folder)).encode()
    client.sendall(b"PUT /snapshot/create HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    came = kill_at_step(vmm, wanted)
    kill(vmm)
    client.close()
    return came


@pytest.mark.skipif(os.getuid() != 0, reason="only root traces a VMM")
def test_killed_at_every_step_of_writing(tmp_path):
    """What is there afterwards is whole: the snapshot of before, the new one, or none."""
    with start_api(tmp_path) as vmm:
        start(vmm, "counter", mem_size_mib=16)
        wait_for_more(vmm, tmp_path / "look", COUNTER, 0)
        old = saved(vmm, tmp_path / "old")
    content = {name: (old / name).read_bytes() for name in (STATE, MEMORY)}
    seen = set()
    for wanted in itertools.count(1):
        folder = tmp_path / f"step-{wanted}"
        shutil.copytree(old, folder)
        with start_api(tmp_path, expect=-9) as vmm:
            load(vmm, old, resume_vm=True)
            wait_for_more(vmm, tmp_path / "look", COUNTER, word(old, COUNTER))
            pause(vmm)
            creator = creator_of(vmm)
            came = save_until_step(vmm, folder, wanted)
        wait_until(lambda: is_gone(creator), "the creator's end")
        names = sorted(os.listdir(folder))
        assert names in ([MEMORY, STATE], [MEMORY]), wanted
        new_memory = (folder / MEMORY).read_bytes() != content[MEMORY]
        if STATE in names:
            assert ((folder / STATE).read_bytes() != content[STATE]) == new_memory, wanted
        seen.add((STATE in names, new_memory))
        shutil.rmtree(folder)
        if not came:
            break
    assert wanted > 20
    assert seen >= {(True, False), (False, False), (False, True), (True, True)}


@contextlib.contextmanager
def small_file_system(path, size):
    path.mkdir(exist_ok=True)
    if libc.mount(b"none", bytes(path), b"tmpfs", 0, f"size={size}".encode()) < 0:
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield path
    finally:
        libc.umount2(bytes(path), MNT_DETACH)


MNT_DETACH = 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a file system")
def test_full_file_system(tmp_path, vmm):
    """With ever more room, so that there is too little for each part in turn."""
    start(vmm, "fill", mem_size_mib=32, mib=1)
    says(vmm, "filled")
    pause(vmm)
    failed = []
    for pages in itertools.count(1, 8):
        with small_file_system(tmp_path / "full", pages * 4096) as folder:
            status, answer = vmm.request("PUT", "/snapshot/create", paths(folder))
            if status == 204:
                assert sorted(os.listdir(folder)) == [MEMORY, STATE]
                break
            assert "No space left on device" in answer["fault_message"]
            failed.append(STATE in answer["fault_message"])
            assert not os.listdir(folder)
            assert vmm.state() == "Paused"
    assert len(failed) > 10
    resume(vmm)
    before = look(vmm, tmp_path / "look", ROUNDS)[0]
    wait_for_more(vmm, tmp_path / "look", ROUNDS, before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a file system")
def test_snapshot_of_before_stays_where_there_is_no_room(tmp_path, vmm):
    start(vmm, "fill", mem_size_mib=32, mib=4)
    says(vmm, "filled")
    pause(vmm)
    with small_file_system(tmp_path / "full", 6 << 20) as folder:
        save(vmm, folder)
        before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
        assert "No space left on device" in vmm.fault("PUT", "/snapshot/create", paths(folder))
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before
        with loaded(tmp_path / "other", folder) as other:
            wait_for_more(other, tmp_path / "look", ROUNDS, word(folder, ROUNDS))


# What is not loaded.

POLYNOMIAL = 0xc96c5795d7870f42
HEADER = 16


def checksum(data):
    """CRC-64/XZ."""
    crc = (1 << 64) - 1
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ (1 << 64) - 1


def table_of(polynomial):
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        yield value


TABLE = list(table_of(POLYNOMIAL))


def summed(data):
    """With the checksum that it has to have."""
    return data + struct.pack("<Q", checksum(data))


def sections(data):
    """(where it begins, kind, version, its body) of each section."""
    at = HEADER
    while at < len(data) - 8:
        kind, version, length = struct.unpack_from("<IIQ", data, at)
        yield at, kind, version, data[at + 16:at + 16 + length]
        at += 16 + length


def section(kind, version, body):
    return struct.pack("<IIQ", kind, version, len(body)) + body


def with_section(data, number, kind=None, version=None, body=None):
    """The whole file, with one section that is another, and its checksum right."""
    parts = [data[:HEADER]]
    for i, (_, its_kind, its_version, its_body) in enumerate(sections(data)):
        if i == number:
            its_kind, its_version = kind or its_kind, its_version if version is None else version
            its_body = its_body if body is None else body
        parts.append(section(its_kind, its_version, its_body))
    return summed(b"".join(parts))


def damaged(data):
    """(what is wrong, the bytes, a part of the sentence)."""
    yield "empty", b"", "not a snapshot's state"
    for at in range(HEADER):
        yield f"header {at}", data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1:], ""
    body = data[:-8]
    yield "version", summed(body[:8] + struct.pack("<I", 2) + body[12:]), "version 2"
    yield "architecture", summed(body[:12] + struct.pack("<I", 183) + body[16:]), "another architecture"
    yield "cut off", data[:HEADER + 4], "cut off"
    yield "checksum", data[:-1] + bytes([data[-1] ^ 1]), "damaged"
    yield "more after it", data + b"x", "damaged"
    yield "more inside", summed(body + section(99, 1, b"")), "after its last section"
    for number, (at, kind, version, its_body) in enumerate(sections(data)):
        yield f"{number}: flipped", data[:at + 20] + bytes([data[at + 20] ^ 1]) + data[at + 21:], "damaged"
        yield f"{number}: missing", summed(data[:at]), f"kind {kind} is missing"
        yield f"{number}: kind", with_section(data, number, kind=77), "kind 77 is where one of kind"
        # A configuration that is longer is JSON with something after it.
        yield f"{number}: longer", with_section(data, number, body=its_body + b"\xff"), ""
        yield f"{number}: shorter", with_section(data, number, body=its_body[:-1]), ""
        if kind != 3:  # of memory that is all zeros, nothing is all that there is to say
            yield f"{number}: nothing", with_section(data, number, body=b""), ""
        yield f"{number}: version", with_section(data, number, version=version + 1), (
            f"version {version + 1}, and {version} is the latest")
        yield f"{number}: version 0", with_section(data, number, version=0), "version 0"
        yield f"{number}: length", summed(data[:at + 8] + b"\xff" * 8 + data[at + 16:-8]), "missing"


def with_config(data, change):
    """With the configuration changed."""
    config = json.loads(list(sections(data))[0][3])
    change(config)
    return with_section(data, 0, body=json.dumps(config).encode())


def setting(*way):
    *way, name, value = way

    def change(config):
        for step in way:
            config = config[step]
        config[name] = value
    return change


CONFIGURED_OTHERWISE = [
    (setting("machine-config", "vcpu_count", 3), "of different sizes"),
    (setting("machine-config", "vcpu_count", 1), "of different sizes"),
    (setting("machine-config", "mem_size_mib", 17), "of different sizes"),
    (setting("machine-config", "vcpu_count", 33), "33 is not between"),
    (setting("vsock", None), "of different sizes"),
    (setting("drives", []), "of different sizes"),
    (setting("drives", 0, "path_on_host", "/nonexistent/a"), "/nonexistent/a"),
    (setting("drives", 0, "path_on_host", "/dev/null"), "drive scratch"),
    (setting("vsock", "guest_cid", 1), "guest_cid"),
    (setting("network-interfaces", [{"iface_id": "a", "host_dev_name": "no-such-tap"}]), "no-such-tap"),
]


@pytest.fixture(name="whole", scope="module")
def snapshot_of_a_whole_vm(tmp_path_factory):
    """Of one with two vCPUs, a drive and a vsock."""
    folder = tmp_path_factory.mktemp("whole")
    _, config = host.drive(folder)
    with start_api(folder) as vmm:
        vmm.put("/drives/scratch", config)
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(folder / "v")})
        start(vmm, "counter", vcpu_count=2, mem_size_mib=16)
        snapshot = saved(vmm, folder / "snapshot")
        resume(vmm)
    return snapshot


def seen(vmm):
    """What there is of a VM in the VMM: nothing of one that was not loaded."""
    state = vmm.state()  # by a connection that is open from now on
    opened = [os.readlink(f"/proc/{vmm.process.pid}/fd/{number}")
              for number in os.listdir(f"/proc/{vmm.process.pid}/fd")]
    # ThreadSanitizer has a thread of its own from the first that is started.
    threads = 0 if VARIANT == "tsan" else len(os.listdir(f"/proc/{vmm.process.pid}/task"))
    return state, vmm.get("/vm/config"), sorted(opened), threads


def refused_loads(whole):
    """(what is wrong, body, a part of the sentence)."""
    files = paths(whole)
    state, memory = files["snapshot_path"], files["mem_file_path"]
    file = {"backend_type": "File", "backend_path": memory}
    override = lambda name, **fields: {name: [fields]}
    yield "no memory", {"snapshot_path": state}, "one of mem_backend and mem_file_path is needed"
    yield "two memories", {**files, "mem_backend": file}, "only one is possible"
    yield "Uffd", {"snapshot_path": state, "mem_backend": {**file, "backend_type": "Uffd"}}, (
        "Uffd is not there yet")
    yield "2M", load_body(whole, huge_pages="2M"), "huge_pages: a file is not mapped by 2M pages"
    yield "no state", {**load_body(whole), "snapshot_path": "/nonexistent/a"}, "/nonexistent/a"
    yield "no memory file", {"snapshot_path": state, "mem_file_path": "/nonexistent/a"}, (
        "memory file /nonexistent/a: No such file or directory")
    yield "memory is state", {"snapshot_path": state, "mem_file_path": state}, "not a regular file of"
    yield "memory is a device", {"snapshot_path": state, "mem_file_path": "/dev/zero"}, (
        "not a regular file of")
    yield "state is memory", {"snapshot_path": memory, "mem_file_path": memory}, memory
    yield "state is a folder", {**load_body(whole), "snapshot_path": str(whole)}, str(whole)
    yield "unknown drive", load_body(whole, **override(
        "drive_overrides", drive_id="none", path_on_host="/dev/zero")), (
            "drive_overrides[0]: the snapshot has no none")
    yield "unknown interface", load_body(whole, **override(
        "network_overrides", iface_id="none", host_dev_name="tap0")), (
            "network_overrides[0]: the snapshot has no none")
    yield "no drive there", load_body(whole, **override(
        "drive_overrides", drive_id="scratch", path_on_host="/nonexistent/a")), "/nonexistent/a"


def other_files(whole, folder):
    """The same of files that are made for it."""
    files = paths(whole)
    for size in (0, host.CAPACITY - 512, host.CAPACITY + 512):
        with open(folder / f"drive-{size}", "wb") as drive:
            drive.truncate(size)
        yield f"drive of {size}", load_body(whole, drive_overrides=[
            {"drive_id": "scratch", "path_on_host": str(folder / f"drive-{size}")}]), "drive scratch"
    for size in (0, (16 * MIB) - 4096, (16 * MIB) + 4096):
        with open(folder / f"memory-{size}", "wb") as memory:
            memory.truncate(size)
        yield f"memory of {size}", {"snapshot_path": files["snapshot_path"],
                                    "mem_file_path": str(folder / f"memory-{size}")}, (
            f"not a regular file of {16 * MIB} bytes")
    data = (whole / STATE).read_bytes()
    cases = [*damaged(data), *((str(i), with_config(data, change), sentence) for i, (change, sentence) in
                               enumerate(CONFIGURED_OTHERWISE))]
    for i, (what, changed, sentence) in enumerate(cases):
        path = folder / f"state-{i}"
        path.write_bytes(changed)
        yield what, {**load_body(whole), "snapshot_path": str(path)}, sentence


def test_load_that_failed_leaves_nothing(tmp_path, whole):
    """Each is refused by a sentence, and all is as it was; then a snapshot that is good is loaded."""
    with start_api(tmp_path) as vmm:
        before = seen(vmm)
        for what, body, sentence in [*refused_loads(whole), *other_files(whole, tmp_path)]:
            fault = vmm.fault("PUT", "/snapshot/load", body)
            assert sentence in fault and "\n" not in fault, what
            assert fault.startswith(("snapshot ", "memory file ", "mem_", "one of ", "huge_pages")), fault
            assert seen(vmm) == before, what
        load(vmm, whole, resume_vm=True)
        wait_for_more(vmm, tmp_path / "look", COUNTER, word(whole, COUNTER))


def test_vm_is_configured_after_a_load_that_failed(tmp_path, whole):
    (tmp_path / "state").write_bytes(with_section((whole / STATE).read_bytes(), 6, version=9))
    with start_api(tmp_path) as vmm:
        vmm.fault("PUT", "/snapshot/load", {**load_body(whole), "snapshot_path": str(tmp_path / "state")})
        start(vmm, "counter", mem_size_mib=16)
        wait_for_more(vmm, tmp_path / "look", COUNTER, 1000)


@pytest.mark.parametrize("path,body", [
    ("/boot-source", {"kernel_image_path": str(host.GUESTS / "counter")}), ("/cpu-config", {}),
    ("/drives/scratch", None), ("/vsock", {"guest_cid": 3, "uds_path": "{}/other"})])
def test_not_after_something_is_configured(tmp_path, whole, path, body):
    body = host.drive(tmp_path)[1] if body is None else body
    with start_api(tmp_path) as vmm:
        vmm.put(path, {name: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value
                       for name, value in body.items()})
        before = seen(vmm)
        assert vmm.fault("PUT", "/snapshot/load", load_body(whole)).startswith(
            "Loading a snapshot is not possible after a kernel, a device or the CPU has been configured")
        assert seen(vmm) == before


def test_after_log_metrics_and_serial_port_are_set(tmp_path, whole):
    with start_api(tmp_path) as vmm:
        vmm.put("/logger", {"log_path": str(tmp_path / "log"), "level": "Debug"})
        vmm.put("/metrics", {"metrics_path": str(tmp_path / "metrics")})
        vmm.put("/serial", {"serial_out_path": str(tmp_path / "serial")})
        load(vmm, whole)
        for state in ("Paused", "Running"):
            assert vmm.state() == state
            assert vmm.fault("PUT", "/snapshot/load", load_body(whole)) == (
                f'Loading a snapshot is not possible in the state "{state}"')
            resume(vmm)


def test_times_are_in_the_metrics(tmp_path, whole):
    latencies = lambda vmm: vmm.get("/metrics")["latencies_us"]
    with start_api(tmp_path) as vmm:
        assert not any(latencies(vmm).values())
        load(vmm, whole, resume_vm=True)
        loading = latencies(vmm)
        assert 0 < loading["vmm_load_snapshot"] <= loading["load_snapshot"]
        saved(vmm, tmp_path / "snapshot")
        times = latencies(vmm)
        assert 0 < times["vmm_full_create_snapshot"] <= times["full_create_snapshot"]
        assert times["pause_vm"] > 0


@pytest.mark.release_build
def test_every_thread_of_a_vm_that_was_loaded_is_under_its_filter(tmp_path, whole):
    with start_api(tmp_path) as vmm:
        load(vmm, whole, resume_vm=True)
        tasks = lambda: [pathlib.Path(f"/proc/{vmm.process.pid}/task/{task}/status").read_text()
                         for task in os.listdir(f"/proc/{vmm.process.pid}/task")]
        wait_until(lambda: all("\nSeccomp:\t2\n" in task for task in tasks()), "filters")
        assert len(tasks()) >= 3
