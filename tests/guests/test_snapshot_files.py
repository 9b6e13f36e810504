# SPDX-License-Identifier: Apache-2.0
"""How a snapshot's files are made, by whom, and what is left when that fails."""
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import shutil
import signal
import stat

import pytest

import host
from api import start_api
from snapshots import (MEMORY, STATE, load, loaded, look, pause, paths, resume, save, saved, says,
                       start, wait_for_more, word)
from support import TIME_LIMIT, VARIANT, running_processes, wait_until

COUNTER = ROUNDS = 0x8000  # of counter.c, fill.c, works.c


@pytest.fixture(name="vmm")
def vmm_fixture(tmp_path):
    with start_api(tmp_path) as vmm:
        yield vmm


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
