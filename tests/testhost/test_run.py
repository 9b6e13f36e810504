"""Tests of the test host itself. Boots are slow, so some tests share one."""
import os
import random
import signal
import subprocess
import time

import pytest

from running import RUN, finish, gone, processes_marked, run, start

PYTHON = "/usr/bin/python3"
ALL_BYTES = bytes(range(1, 256))


def test_streams_are_separate_and_exact(tmp_path):
    """1 MiB of random bytes each: stdin to stdout, and a file to stderr."""
    stdin, other = random.randbytes(1 << 20), random.randbytes(1 << 20)
    (tmp_path / "other").write_bytes(other)
    status, out, err = run("sh", "-c", "cat other >&2 & cat; wait; exit 7", stdin=stdin,
                           cwd=tmp_path)
    assert status == 7
    assert out == stdin
    assert err == other


def test_arguments_environment_and_directory_are_exact(tmp_path):
    """A COMMAND of hostile bytes: its name, arguments, environment and working directory."""
    tree = tmp_path / "a tree"
    directory = os.fsencode(tree) + b"/-'\n\xff \"$(x)"
    os.mkdir(tree)
    os.mkdir(tree / ".git")
    os.mkdir(directory)
    script = os.path.join(directory, b"name=value")
    with open(script, "wb") as file:
        file.write(b'#!/bin/sh\n'
                   b'for argument; do printf "%s\\0" "$argument"; done\n'
                   b'pwd -P >../directory; cat /proc/$$/environ >../environment\n')
    os.chmod(script, 0o755)
    environment = {b"PATH": b"/usr/bin:/bin:.", b"BYTES": ALL_BYTES, b"BASH_FUNC_x%%": b"() { :; }",
                   b"-u": b"dash", b"PWD": b"/"}
    arguments = [ALL_BYTES, b"", b" ", b"--", b"-c", b"'\\'' \"", b"a\nb\n", b"*", b"x" * 100000]
    status, out, err = run(b"name=value", *arguments, cwd=directory,
                           env=environment | {b"HOME": os.environb[b"HOME"]})
    assert (status, err) == (0, b"")
    assert out == b"".join(argument + b"\0" for argument in arguments)
    # Written by COMMAND to the tree, above its working directory.
    assert (tree / "directory").read_bytes() == directory + b"\n"
    seen = dict(line.split(b"=", 1) for line in
                (tree / "environment").read_bytes().split(b"\0") if line)
    assert seen.pop(b"MOTE_TESTHOST") == b"1"
    assert seen == environment | {b"HOME": os.environb[b"HOME"]}


KVM = """
import fcntl, mmap, os, subprocess
KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_CREATE_VCPU = 0xae00, 0xae01, 0xae41
kvm = os.open("/dev/kvm", os.O_RDWR)
assert fcntl.ioctl(kvm, KVM_GET_API_VERSION) == 12
vm = fcntl.ioctl(kvm, KVM_CREATE_VM)
vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
assert open("/sys/module/kvm_amd/parameters/npt").read() == "Y\\n"
log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
measured, loaded = "Switched to clocksource tsc\\n", "SVM: kvm: Nested Paging enabled\\n"
assert 0 < log.index(measured) < log.index(loaded), "KVM remembers a rough speed of the TSC"
# More than the machine has, as a guest's memory may be.
mmap.mmap(-1, 8 << 30)[::1 << 30]
"""

HOUSE = r"""
set -eu
[ "$MOTE_TESTHOST" = 1 ]
[ -z "${MOTE_VIRTUAL_TIME-}" ]
[ "$(nproc)" = 1 ]
ls /proc/self/fd | wc -l | grep -qx 4
grep -q '^SigIgn:[[:space:]]0*$' /proc/self/status
for kind in proc:/proc sysfs:/sys cgroup2fs:/sys/fs/cgroup tmpfs:/tmp tmpfs:/run tmpfs:/dev/shm \
	devpts:/dev/pts overlayfs:/; do
	[ "$(stat -f -c %T "${kind#*:}")" = "${kind%:*}" ]
done
[ -c /dev/net/tun ]
grep -q memory /sys/fs/cgroup/cgroup.controllers
ip -o addr show dev lo | grep -q 127.0.0.1
modprobe dummy
ip link add veth0 type veth peer name veth1
touch /usr/new-file
"""


def test_machine(tmp_path):
    """KVM and what else a test expects of a machine; the real one stays as it is."""
    (tmp_path / "kvm.py").write_text(KVM)
    (tmp_path / "house.sh").write_text(HOUSE)
    status, out, err = run("sh", "-xc", f"{PYTHON} kvm.py && . ./house.sh; echo $?", cwd=tmp_path)
    assert out == b"0\n", err.decode()
    assert status == 0
    assert not os.path.exists("/usr/new-file")


def test_death_by_signal_leftovers_and_unread_input():
    """A process left behind holds the pipes open, and nobody reads stdin."""
    status, out, _ = run("sh", "-c", "sleep 1000 & echo out; kill -KILL $$", stdin=bytes(1 << 22))
    assert (status, out) == (128 + signal.SIGKILL, b"out\n")


def test_missing_command():
    status, out, err = run("no-such-command")
    assert (status, out) == (127, b"")
    assert b"no-such-command" in err


def test_closed_stdout(marked):
    """As in `run -- yes | head -c 1`."""
    mark, environment = marked
    process = start("yes", env=environment)
    assert process.stdout.read(1) == b"y"
    process.stdout.close()
    assert process.wait() == 128 + signal.SIGPIPE
    assert gone(mark, seconds=0)


def test_machine_failure():
    status, out, err = run("sh", "-c", "echo c >/proc/sysrq-trigger")
    assert (status, out) == (125, b"")
    assert err.startswith(b"testhost: the machine ended before the command did; its log ends:\n")
    assert b"Kernel panic" in err


def test_time_limit(marked):
    mark, environment = marked
    status, _, err = run("sleep", "1000", env=environment, options=["--timeout=6"])
    assert status == 124
    assert err == b"testhost: the time limit of 6 s has passed\n"
    assert gone(mark, seconds=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_booting(marked, number):
    mark, environment = marked
    process = start("true", env=environment)
    while len(processes_marked(mark)) < 3:
        time.sleep(0.02)
    process.send_signal(number)
    assert finish(process) == (128 + number, b"", b"")
    assert gone(mark, seconds=0)


def test_terminated_and_killed(marked):
    """Two machines at once, one ended by SIGTERM and one by SIGKILL of the runner."""
    mark, environment = marked
    processes = [start("sh", "-c", f"echo {n}; cat; sleep 1000", env=environment,
                       stdin=subprocess.PIPE) for n in range(2)]
    for n, process in enumerate(processes):
        assert process.stdout.readline() == b"%d\n" % n
        # Forwarded as it comes, not only at the end.
        process.stdin.write(b"line\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"line\n"
    processes[0].terminate()
    assert finish(processes[0]) == (128 + signal.SIGTERM, b"", b"")
    assert processes[1].poll() is None
    processes[1].kill()
    processes[1].wait()
    assert gone(mark)


VIRTUAL_TIME = """
import hashlib, os, time
def timed(action, times):
    begin = time.monotonic_ns()
    for _ in range(times):
        action()
    print(time.monotonic_ns() - begin)
for part in range(2):
    timed(lambda: hashlib.sha256(bytes(1000)).digest(), 20000)
timed(lambda: open("/etc/passwd").close(), 100)
"""


def test_virtual_time_is_repeatable():
    """A busy loop, warmed up, and waits for virtiofsd, over which the clock must not jump."""
    command = ["sh", "-c", 'test "$MOTE_VIRTUAL_TIME" = 1 && exec "$@"', "sh",
               PYTHON, "-c", VIRTUAL_TIME]
    results = [finish(process) for process in
               [start(*command, options=["--virtual-time"]) for _ in range(2)]]
    assert [result[0] for result in results] == [0, 0], results
    (_, busy, opens), (_, busy_again, opens_again) = (map(int, result[1].split())
                                                      for result in results)
    assert busy == pytest.approx(busy_again, rel=0.02)
    assert max(opens, opens_again) < 100e6


def test_usage():
    for arguments in [["true"], ["--"], ["--virtual-time", "--cpus=2", "--", "true"]]:
        refused = subprocess.run([RUN, *arguments], capture_output=True)
        assert (refused.returncode, refused.stdout) == (2, b"")
