# SPDX-License-Identifier: Apache-2.0
"""What mote-vmm tells whoever started it: records on a descriptor, and files by their names."""
import contextlib
import json
import os
import signal

import pytest

from api import start_api
from host import drive, vm_config
from support import run_vmm


@pytest.fixture
def records():
    """The descriptor to give, and what came, as objects, once whoever had it has ended."""
    reader, writer = os.pipe()

    def read():
        os.close(writer)
        with os.fdopen(os.dup(reader), "rb") as file:
            return [json.loads(line) for line in file]
    yield writer, read
    os.close(reader)
    with contextlib.suppress(OSError):
        os.close(writer)


def events(told):
    return [record["event"] for record in told]


@pytest.mark.parametrize("guest, reached", [("exits", True), ("hello", False)])
def test_life_of_a_vm(tmp_path, records, guest, reached):
    """Without an API, too; the times are those of the log, whether or not its init was reached."""
    fd, read = records
    result = run_vmm(vm_config(tmp_path, guest), "--boot-timer", "--record-fd", fd, pass_fds=[fd])
    state, phases, ended = read()
    assert result.returncode == 0, result
    assert state["event"] == "state" and state["state"] == "Running"
    assert ended["event"] == "ended" and ended["exit_status"] == 0
    assert f"{ended['reason']}.\n".encode() in result.stderr
    assert phases["event"] == "phases"
    assert phases["kvm_ready_us"] <= phases["kernel_loaded_us"] <= phases["first_instruction_us"]
    assert f"kvm_ready {phases['kvm_ready_us']} us".encode() in result.stderr
    assert ("init_us" in phases) == reached
    if reached:
        assert f"Guest-boot-time = {phases['init_us']} us".encode() in result.stderr


def test_phases_are_for_whoever_asks_for_them(tmp_path, records):
    fd, read = records
    result = run_vmm(vm_config(tmp_path, "hello"), "--record-fd", fd, pass_fds=[fd])
    assert result.returncode == 0, result
    assert events(read()) == ["state", "ended"]


def test_readers_of_events_are_told_the_same(tmp_path, records):
    fd, read = records
    with start_api(tmp_path, "--record-fd", str(fd), pass_fds=[fd]) as vmm:
        with vmm.stream("/events") as stream:
            vmm.start("counter")
            vmm.patch("/vm", {"state": "Paused"})
            vmm.patch("/vm", {"state": "Resumed"})
            vmm.process.send_signal(signal.SIGTERM)
            heard = [json.loads(line) for line in stream]
    # The first is what a reader begins with.
    assert read() == heard[1:]


def test_fault_is_recorded_by_the_names_that_files_were_given(tmp_path, records):
    fd, read = records
    config = tmp_path / "vm.json"
    kernel = tmp_path / "no kernel"
    kernel.write_text("this is none")
    given = [os.open(kernel, os.O_RDONLY)]
    config.write_text(json.dumps({
        "boot-source": {"kernel_image_path": f"/dev/fd/{given[0]}"}, "drives": []}))
    given.append(os.open(config, os.O_RDONLY))
    cause = "kernel image my \"kernel\": not an ELF or bzImage file"
    for name, sentence in (("vm.json", f"configuration file vm.json: boot-source: {cause}"),
                           ("", cause)):
        result = run_vmm(f"/dev/fd/{given[1]}", "--record-fd", fd, "--fd-name",
                         f"{given[0]}=my \"kernel\"", "--fd-name", f"{given[1]}={name}",
                         pass_fds=[fd, *given])
        assert result.returncode == 152
        assert f"] {sentence}\n".encode() in result.stderr
    for number in given:
        os.close(number)
    told = read()
    assert events(told) == ["error", "error"]
    assert [record["error"] for record in told] == [
        f"configuration file vm.json: boot-source: {cause}", cause]


def test_drive_is_called_by_its_name(tmp_path):
    disk, config = drive(tmp_path)
    number = os.open(disk, os.O_RDONLY)
    config["path_on_host"] = f"/dev/fd/{number}"
    with start_api(tmp_path, "--fd-name", f"{number}=data.img", pass_fds=[number]) as vmm:
        assert "drive scratch: data.img: Permission denied" in vmm.fault(
            "PUT", "/drives/scratch", config)
        vmm.put("/drives/scratch", config | {"is_read_only": True})
        # As it was given: it is what a client can give again.
        assert vmm.get("/vm/config")["drives"][0]["path_on_host"] == f"/dev/fd/{number}"
    os.close(number)


@pytest.mark.release_build
def test_signal_that_ends_it_is_recorded(tmp_path, records):
    fd, read = records
    with start_api(tmp_path, "--record-fd", str(fd), pass_fds=[fd], expect=150) as vmm:
        vmm.process.send_signal(signal.SIGSEGV)
        vmm.process.wait()
        vmm.socket_path.unlink(missing_ok=True)
    told = read()
    assert events(told) == ["error"]
    assert told[0]["error"].startswith("The VMM ends by signal SIGSEGV, sent by process ")


def test_nobody_reads(tmp_path):
    """A reader that has gone, and one that never reads, hold nothing up."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    for _ in range(2):
        result = run_vmm(vm_config(tmp_path, "hello"), "--record-fd", writer, pass_fds=[writer])
        assert result.returncode == 0, result
        if reader >= 0:
            os.close(reader)
            reader = -1
    os.close(writer)


@pytest.mark.parametrize("options", [
    ("--record-fd", "x"), ("--record-fd", "-1"), ("--record-fd", "999"), ("--fd-name", "3"),
    ("--fd-name", "=x"), ("--fd-name", "2=x"), ("--fd-name", "x=3"),
    ("--fd-name", "99999999999=x")])
def test_bad_arguments(tmp_path, options):
    result = run_vmm(vm_config(tmp_path, "hello"), *options)
    assert result.returncode == 153
    assert result.stderr.startswith(f"mote-vmm: {options[0]} {options[1]}: ".encode())
    assert result.stderr.count(b"\n") == 1
