# SPDX-License-Identifier: Apache-2.0
"""Files that mote-vmm is given as open descriptors, /dev/fd/N, as it is in a jail without them."""
import json
import os

import pytest

from api import start_api
from host import drive
from support import GUESTS, run_vmm


class Given:
    """Open files, closed at the end, that a VMM inherits."""

    def __init__(self):
        self.numbers = []

    def open(self, path, flags=os.O_RDONLY):
        self.numbers.append(os.open(path, flags))
        return f"/dev/fd/{self.numbers[-1]}"


@pytest.fixture
def given():
    files = Given()
    yield files
    for number in files.numbers:
        os.close(number)


def test_everything_comes_by_descriptors(tmp_path, given):
    """The configuration file, the kernel and a drive that is written to; no path is left to open."""
    disk, config = drive(tmp_path)
    config["path_on_host"] = given.open(disk, os.O_RDWR)
    path = tmp_path / "vm.json"
    path.write_text(json.dumps({
        "boot-source": {"kernel_image_path": given.open(GUESTS / "block"),
                        "initrd_path": given.open(GUESTS / "hello")},
        "machine-config": {"mem_size_mib": 16, "vcpu_count": 1},
        "drives": [config],
        "logger": {"log_path": given.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)},
        "metrics": {"metrics_path": given.open(tmp_path / "metrics", os.O_WRONLY | os.O_CREAT)},
    }))
    before = disk.read_bytes()
    result = run_vmm(given.open(path), pass_fds=given.numbers)
    assert result.returncode == 0, result
    assert b"not ok" not in result.stdout and result.stdout.startswith(b"ok ")
    assert disk.read_bytes() != before
    assert b"The guest powered off" in (tmp_path / "log").read_bytes()
    assert (tmp_path / "metrics").read_bytes().startswith(b"{")


def test_own_descriptors_are_not_opened(tmp_path):
    """Whatever a client asks for: the VMM's own files and sockets stay its own."""
    with start_api(tmp_path) as vmm:
        for number in range(0, 40):
            path = f"/dev/fd/{number}"
            for request, body in (("/boot-source", {"kernel_image_path": path}),
                                  ("/drives/a", {"drive_id": "a", "is_root_device": False,
                                                 "path_on_host": path}),
                                  ("/serial", {"serial_out_path": path})):
                assert f"{path}: Bad file descriptor" in vmm.fault("PUT", request, body)
        vmm.start("counter")


def test_drive_that_was_opened_for_reading(tmp_path, given):
    disk, config = drive(tmp_path)
    config["path_on_host"] = given.open(disk)
    with start_api(tmp_path, pass_fds=given.numbers) as vmm:
        assert "Permission denied" in vmm.fault("PUT", "/drives/scratch", config)
        vmm.put("/drives/scratch", config | {"is_read_only": True})


def test_drive_is_replaced_by_a_given_one_while_the_guest_runs(tmp_path, given):
    """Under the seccomp policy, too, and not by one of the VMM's own."""
    disk, config = drive(tmp_path)
    other, _ = drive(tmp_path, name="other")
    path = given.open(other, os.O_RDWR)
    with start_api(tmp_path, pass_fds=given.numbers) as vmm:
        vmm.put("/drives/scratch", config)
        vmm.start("counter")
        vmm.patch("/drives/scratch", {"drive_id": "scratch", "path_on_host": path})
        assert vmm.get("/vm/config")["drives"][0]["path_on_host"] == path
        for number in range(3, 40):
            if number not in given.numbers:
                assert "Bad file descriptor" in vmm.fault(
                    "PATCH", "/drives/scratch",
                    {"drive_id": "scratch", "path_on_host": f"/dev/fd/{number}"})
        assert vmm.state() == "Running"
