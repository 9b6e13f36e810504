# SPDX-License-Identifier: Apache-2.0
"""mote on Intel's VMX, which Bochs emulates. Boots are slow, so what is done there shares one."""
import contextlib
import pathlib
import re
import shlex
import signal
import time

import pytest

from bochs import Frames
from running import RUN, finish, gone, processes_marked, run, start

TOP = RUN.parent.parent.parent
MOTE = TOP / "build/release/mote"
GUESTS_CORE = ("first_instruction or every_kind or phases or above_4_gib or processors_start or "
               "end_is_told or kvm_error or input_is_passed")
STEPS = {
    "doctor": f"{MOTE} doctor",
    "processor": "grep -m1 vendor_id /proc/cpuinfo; grep -wo -m1 vmx /proc/cpuinfo",
    "parameters": "grep . /sys/module/kvm_intel/parameters/{ept,unrestricted_guest,vpid}",
    "one": f"{MOTE} run -- sh -c 'nproc; echo wrong >&2; exit 7'",
    "four": f"{MOTE} run --cpus 4 -- nproc",
    "guests": "/usr/bin/python3 -m pytest -q -p no:cacheprovider "
              f"{TOP}/tests/guests/test_guests.py -k {shlex.quote(GUESTS_CORE)}",
    **{option: f"rmmod kvm_intel && modprobe kvm_intel {option} && "
               f"cat /sys/module/kvm_intel/parameters/{option.split('=')[0]} && "
               f"{MOTE} run --cpus 2 -- nproc"
       for option in ("unrestricted_guest=0", "ept=0")},
}
STEP = re.compile(r"^== (.*?)\n(.*?)^-- (\d+)\n", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def done():
    """Of each step its exit status and its output, of one machine with an option of kvm_intel."""
    script = "".join(f"echo '== {name}'; {{ {command}; }} 2>&1; echo \"-- $?\"\n"
                     for name, command in STEPS.items())
    status, out, err = finish(start("bash", "-c", script, cwd=TOP,
                                    options=["--intel", "--kvm-intel=vpid=0"]))
    assert status == 0, err.decode(errors="replace")
    found = {name: (int(status), output) for name, output, status in STEP.findall(out.decode())}
    assert list(found) == list(STEPS), out.decode()
    return found


def test_doctor_is_content(done):
    status, output = done["doctor"]
    assert status == 0, output
    assert "KVM uses the processor's VMX\n" in output
    assert output.endswith("\nThis host can run microVMs.\n")


def test_processor_and_module(done):
    assert re.fullmatch(r"vendor_id\s*: GenuineIntel\nvmx\n", done["processor"][1])
    assert [line[-1] for line in done["parameters"][1].splitlines()] == ["Y", "Y", "N"]


def test_microvm_in_its_jail(done):
    status, output = done["one"]
    assert (status, sorted(output.splitlines())) == (7, ["1", "wrong"])


def test_microvm_with_four_processors(done):
    assert done["four"] == (0, "4\n")


def test_freestanding_guests(done):
    status, output = done["guests"]
    assert status == 0, output
    assert re.search(r"^1[0-9] passed, \d+ deselected", output, re.MULTILINE), output


@pytest.mark.parametrize("option", ["unrestricted_guest=0", "ept=0"])
def test_older_processors(done, option):
    """Those on which KVM emulates real mode, or keeps the guest's page tables in its shadow."""
    assert done[option] == (0, "N\n2\n")


@pytest.mark.parametrize("options, status, sentence", [
    (["--intel", "--cpus=2"], 2, b"the machine with VMX has one CPU only\n"),
    (["--kvm-intel=ept=0"], 2, b"--kvm-intel is for --intel\n"),
    (["--intel", "--kvm-intel=ept"], 125, b"--kvm-intel ept: not NAME=VALUE\n"),
    (["--intel", "--kvm-intel=npt=0"], 125,
     b"--kvm-intel npt=0: npt is not an option of kvm_intel\n"),
])
def test_wrong_options(options, status, sentence):
    got, out, err = run("true", options=options)
    assert (got, out) == (status, b"")
    assert err.endswith(b": " + sentence)


def bochs_runs(mark):
    for pid in processes_marked(mark):
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{pid}/comm").read_text() == "bochs-bin\n":
                return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_run_leaves_nothing(marked, number):
    mark, environment = marked
    process = start("true", env=environment, options=["--intel"])
    while not bochs_runs(mark):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    status, out, err = finish(process)
    assert status == (128 + number if number == signal.SIGTERM else -number)
    assert (out, err) == (b"", b"")
    assert gone(mark, seconds=0) if number == signal.SIGTERM else gone(mark)
    assert "/testhost/work" not in pathlib.Path("/proc/mounts").read_text()


def test_frames_in_any_pieces():
    """Among what Bochs itself says."""
    stream = b"Bochs\n\x1e10003abc\x1e20001\x1e\x1e10000\x1e1000a0123456789\x1e000023\n"[:-1]
    stream += b"7 ends"
    for size in (1, 2, 7, len(stream)):
        got = {name: b"" for name in ("log", "stdout", "stderr", "status")}

        def consumer(name):
            def add(data):
                got[name] += data
            return add
        frames = Frames({name: consumer(name) for name in got})
        for at in range(0, len(stream), size):
            frames.add(stream[at:at + size])
        assert got == {"log": b"Bochs\n ends", "stdout": b"abc0123456789", "stderr": b"\x1e",
                       "status": b"37\n"}
