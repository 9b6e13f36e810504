# SPDX-License-Identifier: Apache-2.0
"""Drives of a real Linux guest."""
import hashlib
import os
import signal
import subprocess
import time

import pytest

from devices import ENGINES, make_file


def check_file_system(path, *options):
    return subprocess.run(["e2fsck", "-f", *options, path], capture_output=True, check=False)


@pytest.mark.parametrize("engine", ENGINES)
def test_root_is_written_and_clean_at_the_end(start, tmp_path, engine):
    guest = start("dd if=/dev/urandom of=/big bs=64k count=160 2>/dev/null; sha256sum < /big",
                  writable=True, engine=engine)
    digest = guest.output()[0].split()[0]
    root = tmp_path / "root.ext4"
    assert check_file_system(root, "-n").returncode == 0
    data = subprocess.run(["debugfs", "-R", "cat /big", root], capture_output=True,
                          check=True).stdout
    assert len(data) == 160 << 16
    assert hashlib.sha256(data).hexdigest() == digest


@pytest.mark.parametrize("engine", ENGINES)
def test_what_fsync_acknowledged_survives_the_death_of_the_vmm(start, tmp_path, engine):
    guest = start("""i=0; while :; do i=$((i + 1))
dd if=/dev/zero bs=3000 count=1 2>/dev/null | tr '\\0' x | dd of=/file$i conv=fsync 2>/dev/null
echo "@ $i"; done""", writable=True, engine=engine)
    for line in guest.lines():
        if line == "@ 25":
            break
    guest.process.send_signal(signal.SIGQUIT)
    guest.process.wait()
    root = tmp_path / "root.ext4"
    # 0: clean, 1: the journal was replayed.
    assert check_file_system(root, "-p").returncode in (0, 1)
    assert check_file_system(root, "-n").returncode == 0
    for i in range(1, 26):
        data = subprocess.run(["debugfs", "-R", f"cat /file{i}", root], capture_output=True,
                              check=True).stdout
        assert data == b"x" * 3000


def test_eight_drives_in_their_order(start, tmp_path):
    drives = [{"drive_id": f"data{i}", "is_read_only": i % 2 == 1,
               "path_on_host": make_file(tmp_path / f"{i}.img", 1 << 20, os.urandom(100000))}
              for i in range(8)]
    output = start("""for i in b c d e f g h i; do d=/sys/block/vd$i
echo "$(cat $d/serial) $(cat $d/ro) $(cat $d/size) $(sha256sum < /dev/vd$i | cut -c1-64)"; done""",
                   drives=drives).output()
    expected = []
    for i, drive in enumerate(drives):
        with open(drive["path_on_host"], "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        expected.append(f"data{i} {i % 2} 2048 {digest}")
    assert output == expected


def test_read_only_drive_refuses_writes(start, tmp_path):
    path = make_file(tmp_path / "ro.img", 1 << 20, b"original")
    drive = {"drive_id": "ro", "path_on_host": path, "is_read_only": True}
    output = start("dd if=/dev/zero of=/dev/vdb bs=4k count=1 2>/dev/null || echo refused",
                   drives=[drive]).output()
    assert output == ["refused"]
    with open(path, "rb") as file:
        assert file.read(8) == b"original"


@pytest.mark.parametrize("engine", ENGINES)
def test_discard_frees_blocks_of_the_host(start, tmp_path, engine):
    path = make_file(tmp_path / "disk.img", 8 << 20)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)
    before = os.stat(path).st_blocks
    start("blkdiscard /dev/vdb", engine=engine,
          drives=[{"drive_id": "disk", "path_on_host": path}]).output()
    assert before == 8 << 11
    assert os.stat(path).st_blocks == 0
    assert os.stat(path).st_size == 8 << 20


@pytest.fixture
def small_mount(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_full_host_is_an_error_of_the_request(start, small_mount, engine):
    path = make_file(small_mount / "disk.img", 4 << 20)
    guest = start("""dd if=/dev/zero of=/dev/vdb bs=64k count=64 conv=fsync >/dev/null 2>&1 && echo good || echo bad
dd if=/dev/vdb bs=64k count=64 2>/dev/null | wc -c""", engine=engine,
                  drives=[{"drive_id": "disk", "path_on_host": path}])
    lines = [line for line in guest.output() if "I/O error" not in line]
    assert lines == ["bad", str(4 << 20)]
    assert "drive disk: write at sector" in guest.log()
    assert "No space left on device" in guest.log()


@pytest.mark.parametrize("engine", ENGINES)
def test_file_that_shrinks_is_an_error_of_the_request(start, tmp_path, engine):
    path = make_file(tmp_path / "disk.img", 4 << 20)
    guest = start("""echo "@ ready"; while dd if=/dev/vdb iflag=direct of=/dev/null bs=4k \
skip=1000 count=1 2>/dev/null; do :; done; echo "@ lost"
dd if=/dev/vdb iflag=direct of=/dev/null bs=4k count=1 2>/dev/null && echo good""", engine=engine,
                  drives=[{"drive_id": "disk", "path_on_host": path}])
    guest.wait_for("@ ready")
    os.truncate(path, 1 << 20)
    guest.wait_for("@ lost")
    assert guest.output()[-1] == "good"
    assert "the file has become shorter" in guest.log()


def seconds_to_read(start, drive, dd):
    """How long the guest takes for `dd` options on the drive, by the host's clock."""
    guest = start(f"""echo "@ start"; dd if=/dev/vdb iflag=direct of=/dev/null {dd} 2>/dev/null
echo "@ stop" """, drives=[drive])
    guest.wait_for("@ start")
    begin = time.monotonic()
    guest.wait_for("@ stop")
    took = time.monotonic() - begin
    guest.output()
    return took


def test_bandwidth_is_limited(start, tmp_path):
    """8 MiB at 4 MiB a second, with a bucket of 1 MiB that is full at the start."""
    drive = {"drive_id": "disk", "path_on_host": make_file(tmp_path / "disk.img", 8 << 20),
             "rate_limiter": {"bandwidth": {"size": 1 << 20, "refill_time": 250}}}
    assert 1.75 * 0.9 <= seconds_to_read(start, drive, "bs=128k") <= 1.75 * 1.1


def test_operations_are_limited(start, tmp_path):
    """210 at 100 a second, with a bucket of 10 that is full at the start."""
    drive = {"drive_id": "disk", "path_on_host": make_file(tmp_path / "disk.img", 1 << 20),
             "rate_limiter": {"ops": {"size": 10, "refill_time": 100}}}
    assert 2.0 * 0.9 <= seconds_to_read(start, drive, "bs=4k count=210") <= 2.0 * 1.1
