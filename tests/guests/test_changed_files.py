# SPDX-License-Identifier: Apache-2.0
"""
What somebody does to the files of a running VM: its guest's memory stays as it was, and no file that
becomes shorter ends the VMM.
"""
import json
import os
import pathlib
import re
import shutil

import pytest

import host
from api import start_api
from host import drive, start_vmm
from support import GUESTS, wait_until

PAGE = 4096
KERNEL = GUESTS / "files"
READ_ERROR, DONE = "1", "0"


def make_initrd(path):
    path.write_bytes(b"".join(f"initrd's page {number}\n".encode().ljust(PAGE, b".")
                              for number in range(4)))
    return path


def overwrite(path):
    with open(path, "r+b") as file:
        file.write(b"another content\n" * (path.stat().st_size // 16))


def shorten(path):
    os.truncate(path, 0)


def tell(vmm, command):
    """What the guest answers."""
    vmm.stdin.write(command.encode())
    vmm.stdin.flush()
    return vmm.stdout.readline().decode().rstrip("\n")


def power_off(vmm):
    """Its log."""
    _, log = vmm.communicate(b"q")
    assert vmm.returncode == 0 and b"The guest powered off" in log, log.decode()
    return log.decode()


@pytest.fixture(name="boot")
def boot_files(tmp_path):
    return {"kernel": pathlib.Path(shutil.copy(KERNEL, tmp_path / "kernel")),
            "initrd": make_initrd(tmp_path / "initrd")}


def configuration(folder, boot, *, huge_pages="None", **sections):
    path = folder / "vm.json"
    path.write_text(json.dumps({
        "boot-source": {"kernel_image_path": str(boot["kernel"]),
                        "initrd_path": str(boot["initrd"])},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 16, "huge_pages": huge_pages},
        **sections}))
    return path


@pytest.mark.parametrize("huge_pages", ["None", "Transparent"])
@pytest.mark.parametrize("change", [overwrite, shorten])
@pytest.mark.parametrize("which", ["kernel", "initrd"])
def test_boot_file(tmp_path, boot, which, change, huge_pages):
    with start_vmm(configuration(tmp_path, boot, huge_pages=huge_pages)) as vmm:
        assert vmm.stdout.readline() == b"ready\n"
        assert tell(vmm, which[0]) == f"{which}'s page 0"
        change(boot[which])
        for number in range(1, 4):
            assert tell(vmm, which[0]) == f"{which}'s page {number}"
        power_off(vmm)


@pytest.mark.parametrize("which", ["kernel", "initrd"])
def test_boot_file_that_is_shorter_at_the_start(tmp_path, boot, which):
    content = boot[which].read_bytes()
    with start_api(tmp_path) as vmm:
        vmm.put("/boot-source", {"kernel_image_path": str(boot["kernel"]),
                                 "initrd_path": str(boot["initrd"])})
        shorten(boot[which])
        fault = vmm.fault("PUT", "/actions", {"action_type": "InstanceStart"})
        assert str(boot[which]) in fault
        assert vmm.state() == "Not started"
        boot[which].write_bytes(content)
        vmm.action("InstanceStart")
        wait_until(lambda: vmm.console_path.read_bytes() == b"ready\n", "the guest")


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_drive(tmp_path, boot, engine):
    """Reading what is gone is an error, which the log tells; writing brings the file back."""
    path, config = drive(tmp_path, content=b"content", io_engine=engine)
    with start_vmm(configuration(tmp_path, boot, drives=[config])) as vmm:
        assert vmm.stdout.readline() == b"ready\n"
        assert tell(vmm, "r") == DONE
        shorten(path)
        assert tell(vmm, "r") == READ_ERROR
        assert tell(vmm, "w") == DONE
        assert tell(vmm, "r") == DONE
        log = power_off(vmm)
    assert "the file has become shorter" in log


@pytest.mark.parametrize("change", [overwrite, shorten])
def test_configuration_file(tmp_path, boot, change):
    config = configuration(tmp_path, boot)
    with start_vmm(config) as vmm:
        assert vmm.stdout.readline() == b"ready\n"
        change(config)
        assert tell(vmm, "i") == "initrd's page 0"
        power_off(vmm)


def test_files_that_are_written(tmp_path, boot):
    """The log, the metrics and the serial port's output begin anew."""
    files = {name: tmp_path / name for name in ("log", "metrics", "serial")}
    with start_api(tmp_path) as vmm:
        vmm.put("/logger", {"log_path": str(files["log"])})
        vmm.put("/metrics", {"metrics_path": str(files["metrics"])})
        vmm.put("/serial", {"serial_out_path": str(files["serial"])})
        vmm.put("/boot-source", {"kernel_image_path": str(boot["kernel"])})
        vmm.action("InstanceStart")
        wait_until(lambda: files["serial"].read_bytes() == b"ready\n", "the guest")
        for path in files.values():
            shorten(path)
        vmm.action("FlushMetrics")
        assert vmm.state() == "Running"
    assert json.loads(files["metrics"].read_text(encoding="ascii").splitlines()[0])
    assert "Stopped from the host" in files["log"].read_text(encoding="utf-8")


@pytest.mark.release_build
@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_no_file_is_mapped(tmp_path, boot, engine):
    """Only the program itself: what becomes shorter below a mapping would be a SIGBUS."""
    config = configuration(
        tmp_path, boot, drives=[drive(tmp_path, io_engine=engine)[1]],
        logger={"log_path": str(tmp_path / "log")},
        metrics={"metrics_path": str(tmp_path / "metrics")},
        serial={"serial_out_path": str(tmp_path / "serial")})
    with start_vmm(config) as vmm:
        wait_until(lambda: (tmp_path / "serial").exists()
                   and (tmp_path / "serial").read_bytes() == b"ready\n", "the guest")
        maps = pathlib.Path(f"/proc/{vmm.pid}/maps").read_text(encoding="utf-8")
        program = os.readlink(f"/proc/{vmm.pid}/exe")
        vmm.kill()
    assert set(re.findall(r" (/.*)$", maps, re.M)) == {program}
