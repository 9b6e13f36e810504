# SPDX-License-Identifier: Apache-2.0
"""However slow a disk is, and whatever the guest asks of it: its owner is answered."""
import contextlib
import os
import shutil
import statistics
import subprocess
import time

import pytest

import host
from api import start_api
from slow_disk import slow_disk
from support import wait_until

READ, WRITE, DISCARD, WRITE_ZEROES = 0, 1, 11, 13
DRIVES = 16
GIB_SECTORS = (1 << 30) // 512

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a FUSE file system so")


@pytest.fixture(name="disk")
def disk_fixture(tmp_path):
    with slow_disk(tmp_path) as disk:
        yield disk


def drive_on(name, path, engine="Async"):
    return {"drive_id": name, "path_on_host": str(path), "is_root_device": False,
            "is_read_only": False, "io_engine": engine, "cache_type": "Writeback"}


def sized(vmm, size):
    path = vmm.log_path.parent / f"size-{size}"
    path.write_bytes(bytes(size))
    return path


def let_it_reset(vmm):
    """The guest resets its device now, whose disk has begun with what it was asked for."""
    vmm.patch("/drives/signal", {"drive_id": "signal", "path_on_host": str(sized(vmm, 1024))})
    says(vmm, "resetting")


def start(vmm, drive, engine="Async", **options):
    """A guest that asks for what the options say; the drive's disk does not answer any more."""
    arguments = " ".join(f"{name}={value}" for name, value in options.items())
    vmm.put("/boot-source", {"kernel_image_path": str(host.GUESTS / "stall"),
                             "boot_args": arguments})
    vmm.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 32})
    vmm.put("/drives/data", drive_on("data", getattr(drive, "path", drive), engine))
    if "reset" in options:
        vmm.put("/drives/signal", drive_on("signal", sized(vmm, 512)))
    if hasattr(drive, "free"):
        drive.free.clear()
    vmm.action("InstanceStart")


def says(vmm, text):
    wait_until(lambda: text in vmm.console_path.read_text(), text)


def seconds(function, *arguments):
    begin = time.monotonic()
    function(*arguments)
    return time.monotonic() - begin


def answer_times(vmm, count=100):
    return sorted(seconds(vmm.get, "/") for _ in range(count))


def end_in_time(vmm):
    """SIGTERM ends it within a second; on a busy machine not every second is a whole one."""
    begin = time.monotonic()
    vmm.process.terminate()
    vmm.process.wait()
    assert time.monotonic() - begin < 1 + slack()


def slack():
    """Seconds that this machine is late by, at the moment."""
    late = [seconds(time.sleep, 0.01) - 0.01 for _ in range(20)]
    return 20 * max(late)


@pytest.mark.parametrize("engine", ["Sync", "Async"])
@pytest.mark.parametrize("guest", [
    {"type": READ, "requests": 200, "pieces": 250},
    {"type": WRITE, "requests": 1, "pieces": 250},
    {"type": WRITE_ZEROES, "requests": 200, "pieces": 4, "sectors": GIB_SECTORS},
    {"type": DISCARD, "requests": 20, "pieces": 1, "sectors": 8},
    {"type": READ, "requests": 30, "reset": 1},
    {"type": WRITE, "requests": 1, "pieces": 250, "reset": 1},
], ids=lambda guest: "-".join(map(str, guest.values())))
def test_disk_that_does_not_answer(tmp_path, disk, engine, guest):
    other, _ = host.drive(tmp_path, name="other")
    # The search for leaks would wait at the end for the thread that waits for the disk.
    with start_api(tmp_path, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}) as vmm:
        start(vmm, disk, engine, **guest)
        says(vmm, "in flight")
        assert disk.waits.wait(60)
        if "reset" in guest:
            let_it_reset(vmm)
        times = answer_times(vmm)
        assert statistics.quantiles(times, n=100)[98] < 0.1 + slack(), times[-5:]
        sentence = []
        took = seconds(lambda: sentence.append(vmm.fault(
            "PATCH", "/drives/data", {"drive_id": "data", "path_on_host": str(other)})))
        assert took < 1 + slack()
        assert sentence == ["drive data: what is in flight on its present file does not end in "
                            "time, and nothing has changed"]
        for _ in range(2):
            took = seconds(lambda: sentence.append(vmm.fault(
                "PATCH", "/vm", {"state": "Paused"})))
            assert took < 1 + slack()
            assert "drive data: what is in flight does not end in time" in sentence[-1]
            assert vmm.state() == "Running"
        assert "\nreset\n" not in vmm.console_path.read_text()
        end_in_time(vmm)


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_reset_ends_with_the_disk(tmp_path, disk, engine):
    """The vCPU is held until nothing can be written to its memory any more."""
    with start_api(tmp_path) as vmm:
        start(vmm, disk, engine, type=READ, requests=30, reset=1)
        says(vmm, "in flight")
        assert disk.waits.wait(60)
        let_it_reset(vmm)
        assert "drive data" in vmm.fault("PATCH", "/vm", {"state": "Paused"})
        disk.free.set()
        vmm.process.wait()
        assert vmm.console_path.read_text() == "in flight\nresetting\nreset\n"


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_all_is_done_when_the_disk_goes_on(tmp_path, disk, engine):
    """More than may be in flight at a time, in requests larger than that."""
    with start_api(tmp_path) as vmm:
        start(vmm, disk, engine, type=READ, requests=5, pieces=100)
        assert disk.waits.wait(60)
        disk.free.set()
        vmm.process.wait()
        assert vmm.console_path.read_text() == "in flight\ndone\n"


@pytest.mark.parametrize("guest", [
    {"type": WRITE_ZEROES, "requests": 100, "pieces": 16, "sectors": GIB_SECTORS},
    {"type": DISCARD, "requests": 100, "pieces": 16, "sectors": GIB_SECTORS},
    {"type": READ, "requests": 200, "pieces": 100},
], ids=lambda guest: "-".join(map(str, guest.values())))
def test_files_in_memory_do_not_keep_others(tmp_path, guest):
    """The main thread itself works on them: on gibibytes, of as many drives as there can be."""
    folder = f"/dev/shm/mote-test-{os.getpid()}"
    os.mkdir(folder)
    drives = [f"{folder}/drive{number}" for number in range(DRIVES)]
    try:
        for path in drives:
            with open(path, "wb") as file:
                file.truncate(17 << 30)
        with start_api(tmp_path) as vmm:
            for number, path in enumerate(drives[1:]):
                vmm.put(f"/drives/more{number}", drive_on(f"more{number}", path))
            start(vmm, drives[0], drives=DRIVES, rounds=20, **guest)
            says(vmm, "in flight")
            times = answer_times(vmm, 50)
            assert statistics.quantiles(times, n=100)[98] < 0.1 + slack(), times[-5:]
            end_in_time(vmm)
    finally:
        shutil.rmtree(folder)


def test_disk_whose_mount_was_copied(tmp_path):
    """Whoever makes a namespace of mounts meanwhile does not keep the tests from ending."""
    with contextlib.ExitStack() as stack:
        with slow_disk(tmp_path):
            other = stack.enter_context(subprocess.Popen(
                ["unshare", "--mount", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            other.stdin.write(b"\n")
            other.stdin.flush()
            assert other.stdout.readline() == b"\n"
        assert other.poll() is None
