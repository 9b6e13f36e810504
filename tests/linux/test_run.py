# SPDX-License-Identifier: Apache-2.0
"""The options of `mote run` and what it tells at the end."""
import fcntl
import hashlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

import pytest

from support import MOTE, TIME_LIMIT, processes, run_mote, wait_until


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path, monkeypatch):
    """No process, and no folder in the runtime directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield
    wait_until(lambda: not processes("mote-vmm"), "the last mote-vmm to go")
    folder = tmp_path / "mote" / "vms"
    assert not folder.exists() or not list(folder.iterdir())


def test_user_and_working_directory():
    result = run_mote("run", "--user", "nobody", "--workdir", "/tmp", "--", "sh", "-c",
                      "id -un; pwd; cat /proc/self/limits > /dev/null; : > /etc/no")
    assert result.stdout == b"nobody\n/tmp\n"
    assert b"Permission denied" in result.stderr and result.returncode != 0


def test_name_is_the_host_name():
    assert run_mote("run", "--name", "my-vm.1", "--", "hostname").stdout == b"my-vm.1\n"


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "x" * 64, "é"])
def test_names_that_cannot_be(name):
    result = run_mote("run", f"--name={name}", "--", "true")
    assert result.returncode == 125
    assert result.stderr.startswith(b"mote: --name ") and result.stderr.count(b"\n") == 1


def test_sizes_with_units():
    result = run_mote("run", "--memory", "0.2G", "--", "true")
    assert result.returncode == 2 and b"--memory 0.2G" in result.stderr
    result = run_mote("run", "-m", "200M", "--", "sh", "-c", "free -m | awk '/Mem/{print $2}'")
    assert 150 < int(result.stdout) < 200


def test_programs_are_found_as_the_kernel_takes_them():
    """PATH in its order; what is in no known format is not given to a shell."""
    script = ("mkdir a b c; printf '#!/bin/sh\\necho a' > a/x; printf '#!/bin/sh\\necho b' > b/x; "
              "chmod +x b/x; printf 'echo c' > c/y; printf '\\177ELF\\2\\1\\1' > c/z; chmod +x c/*; sleep 1000")
    name = "finds"
    assert run_mote("run", "--detach", "--name", name, "--workdir", "/tmp", "--", "sh", "-c",
                    script).returncode == 0
    try:
        wait_until(lambda: run_mote("exec", name, "test", "-x", "/tmp/c/z").returncode == 0,
                   "the programs to be there")
        for path, command, expected in (
                ("/no:/tmp/a:/tmp/b", "x", (0, b"b\n", b"")),
                ("/tmp/b:", "x", (0, b"b\n", b"")),
                ("/tmp/a", "x", (126, b"", b"mote: x: Permission denied\n")),
                ("/tmp/a:/bin", "nosuch", (127, b"", b"mote: nosuch: No such file or directory\n")),
                ("/tmp/c:/bin", "y", (126, b"", b"mote: y: Exec format error\n")),
                ("/tmp/c", "/tmp/c/z", (126, b"", b"mote: /tmp/c/z: Exec format error\n"))):
            result = run_mote("exec", "-e", f"PATH={path}", name, command)
            assert (result.returncode, result.stdout, result.stderr) == expected
    finally:
        assert run_mote("kill", "--force", name).returncode == 0
        run_mote("rm", name)


def test_timeout_is_precise_and_124():
    begin = time.monotonic()
    result = run_mote("run", "--timing", "--timeout", "1s", "--", "sh", "-c",
                      "trap '' TERM; while :; do sleep 10; done")
    took = time.monotonic() - begin
    assert result.returncode == 124
    assert result.stderr.startswith(b"mote: the command was killed as its time was over\n")
    phases = dict(re.findall(r"^  (\S.*?) +([\d.]+) ms ", result.stderr.decode(), re.M))
    ran = float(phases["command done"]) - float(phases["agent ready"])
    # Never early; how late, a busy machine decides.
    assert 800 <= ran <= 4000 and took < 20


# A privileged program can do that, and worse, to the agent: it is no wall, the microVM is.
FREEZE_AGENT = ("mkdir /sys/fs/cgroup/ice && echo 1 > /sys/fs/cgroup/ice/cgroup.procs && "
                "echo 1 > /sys/fs/cgroup/ice/cgroup.freeze; sleep 1000")


def test_timeout_of_a_command_that_stops_the_agent():
    begin = time.monotonic()
    result = run_mote("run", "--timeout", "500ms", "--json-result", "--", "sh", "-c", FREEZE_AGENT)
    took = time.monotonic() - begin
    said, value = result.stderr.splitlines()
    assert said == b"mote: the command's time was over, and the guest did not end it"
    assert (result.returncode, json.loads(value)["timed_out"]) == (124, True)
    assert 5 < took < 30


def test_init_that_is_killed():
    """The kernel does not let that happen."""
    result = run_mote("run", "--", "sh", "-c", "mkdir /sys/fs/cgroup/x && echo 1 > "
                      "/sys/fs/cgroup/x/cgroup.procs && echo 1 > /sys/fs/cgroup/x/cgroup.kill && "
                      "kill -KILL 1; kill -SEGV 1; echo here; exit 6")
    assert (result.returncode, result.stdout, result.stderr) == (6, b"here\n", b"")


def test_signals_while_volumes_are_copied(tmp_path):
    """What a guest sends for as long as it likes does not keep its caller."""
    volume = tmp_path / "volume"
    volume.mkdir()
    with subprocess.Popen([MOTE, "run", "-v", f"{volume}:/work", "--", "truncate", "-s", "1024G",
                           "/work/holes"]) as mote:
        wait_until(lambda: any(volume.iterdir()), "it to come back")
        mote.send_signal(signal.SIGTERM)
        assert mote.wait(TIME_LIMIT) == 128 + signal.SIGTERM


def test_reader_that_leaves_ends_the_command_and_volumes_come_back(tmp_path):
    with subprocess.Popen([MOTE, "run", "-v", f"{tmp_path}:/work", "--", "sh", "-c",
                           "echo 1 > /work/new; yes"], stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"y\n"
        mote.stdout.close()
        assert mote.wait(TIME_LIMIT) == 128 + signal.SIGPIPE
    assert (tmp_path / "new").read_text() == "1\n"


def test_last_value_of_a_variable_counts():
    result = run_mote("run", "-e", "A=1", "-e", "AB=2", "-e", "PATH=/x:/bin", "-e", "A=3", "--", "sh", "-c",
                      "echo $A $AB $PATH; env | grep -c ^A=")
    assert result.stdout == b"3 2 /x:/bin\n1\n"


@pytest.mark.parametrize("value", ["0", "x", "-1", "10 s", "1d"])
def test_timeouts_that_cannot_be(value):
    result = run_mote("run", f"--timeout={value}", "--", "true")
    assert result.returncode == 2 and b"--timeout" in result.stderr


def result_of(*options, status, command, stdin=b""):
    result = run_mote("run", "--json-result", *options, "--", *command, stdin=stdin)
    assert result.returncode == status, result.stderr
    value = json.loads(result.stderr.splitlines()[-1])
    assert value["exit_status"] == status
    return value, result


def test_json_result_of_a_command():
    value, result = result_of(status=7, command=["sh", "-c", "cat; echo e >&2; exit 7"],
                              stdin=b"abc")
    assert value["code"] == 7 and "signal" not in value and "error" not in value
    assert (value["stdin_bytes"], value["stdout_bytes"], value["stderr_bytes"]) == (3, 3, 2)
    assert value["user_us"] + value["system_us"] > 0 and value["memory_peak_bytes"] > 0
    phases = list(value["phases_us"].values())
    assert len(phases) == 6 and phases == sorted(phases)
    assert result.stdout == b"abc" and result.stderr.startswith(b"e\n{")


def test_json_result_of_other_ends(tmp_path):
    value, _ = result_of(status=143, command=["sh", "-c", "kill -TERM $$"])
    assert value["signal"] == 15
    value, _ = result_of("--timeout", "200ms", status=124, command=["sleep", "100"])
    assert value["timed_out"]
    value, result = result_of(status=137, command=["tail", "/dev/zero"])
    assert value["oom_killed"] and b"no memory left" in result.stderr
    value, _ = result_of(status=127, command=["/no/such"])
    assert value["error"] == "/no/such: No such file or directory"
    value, _ = result_of("--kernel", "/etc/passwd", status=125, command=["true"])
    assert "not an ELF" in value["error"] and "agent_ready" not in value["phases_us"]


def test_json_result_in_a_file(tmp_path):
    path = tmp_path / "result"
    result = run_mote("run", f"--json-result={path}", "--", "true")
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(path.read_text())["exit_status"] == 0


def test_not_executable_is_126():
    result = run_mote("run", "--", "/etc/passwd")
    assert (result.returncode, result.stderr) == (126, b"mote: /etc/passwd: Permission denied\n")


def test_hundred_mebibytes_out_and_in(tmp_path):
    size = 100 << 20
    path = tmp_path / "data"
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for i in range(100):
            file.write(bytes([i]) + block[1:])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with open(path, "rb") as data, subprocess.Popen(
            [MOTE, "run", "--", "cat"], stdin=data, stdout=subprocess.PIPE) as mote:
        found, total = hashlib.sha256(), 0
        while part := mote.stdout.read(1 << 20):
            found.update(part)
            total += len(part)
    assert (mote.returncode, total, found.hexdigest()) == (0, size, digest)


def on_terminal(*arguments):
    """mote on a terminal of its own: the process and the other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 31, 101, 0, 0))
    process = subprocess.Popen([MOTE, "run", *arguments], stdin=theirs, stdout=theirs,
                               stderr=theirs, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(theirs)
    return process, ours


def read_until(fd, text):
    data = b""
    while text not in data:
        try:
            part = os.read(fd, 1000)
        except OSError:
            part = b""
        assert part, data
        data += part
    return data


def test_terminal_with_its_size_and_keys():
    script = ("trap 'stty size' WINCH; trap 'echo int; exit 9' INT; stty size; echo ready; "
              "while :; do sleep 0.1; done")
    process, terminal = on_terminal("-it", "--", "sh", "-c", script)
    before = termios.tcgetattr(terminal)
    assert b"31 101\r\nready" in read_until(terminal, b"ready")
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 17, 71, 0, 0))
    read_until(terminal, b"17 71\r\n")
    os.write(terminal, b"\x03")
    read_until(terminal, b"int\r\n")
    assert process.wait(TIME_LIMIT) == 9
    # The terminal is as it was.
    after = termios.tcgetattr(terminal)
    assert after[3] & termios.ECHO and after[3] & termios.ICANON
    assert before[6] == after[6]
    os.close(terminal)


def test_shell_on_a_terminal():
    process, terminal = on_terminal("-t", "--", "sh")
    read_until(terminal, b"# ")
    os.write(terminal, b"echo $((6 * 7))\n")
    read_until(terminal, b"42\r\n")
    os.write(terminal, b"exit 5\n")
    assert process.wait(TIME_LIMIT) == 5
    os.close(terminal)


def test_signal_reaches_a_command_that_does_not_read_its_input():
    with subprocess.Popen([MOTE, "run", "--", "sh", "-c",
                           "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        # Until nothing of it is taken any more: all buffers on the way are full.
        fcntl.fcntl(mote.stdin, fcntl.F_SETFL, os.O_NONBLOCK)
        quiet = 0
        while quiet < 10:
            try:
                os.write(mote.stdin.fileno(), bytes(65536))
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.1)
        mote.send_signal(signal.SIGTERM)
        assert mote.wait(TIME_LIMIT) == 3


def test_two_with_one_name(tmp_path):
    with subprocess.Popen([MOTE, "run", "--name", "one", "--", "sh", "-c", "echo ready; cat"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        result = run_mote("run", "--name", "one", "--", "true")
        assert result.returncode == 125
        assert result.stderr == b"mote: --name one: a running microVM has this name\n"
        mote.stdin.close()
        assert mote.wait(TIME_LIMIT) == 0
    assert run_mote("run", "--name", "one", "--", "true").returncode == 0


def test_runtime_directory_of_somebody_else_is_refused(tmp_path):
    folder = tmp_path / "mote"
    folder.mkdir()
    folder.chmod(0o755)
    result = run_mote("run", "--", "true")
    assert result.returncode == 125
    assert b"nobody else may enter" in result.stderr
    folder.chmod(0o700)


def test_image_that_is_not_there():
    result = run_mote("run", "nosuch", "true")
    assert result.returncode == 125
    assert result.stderr.startswith(b"mote: image nosuch: there is none of this name")


def test_signals_are_passed_on():
    """Any number of those that do not ask it to end."""
    script = "; ".join(f"trap 'echo {name}' {name}" for name in ("USR1", "USR2", "WINCH", "CONT", "ALRM"))
    with subprocess.Popen([MOTE, "run", "-n", "--", "sh", "-c", script + "; trap 'echo TERM; exit 3' TERM; "
                           "echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        for name in ("USR1", "USR2", "WINCH", "ALRM", "CONT", "USR1", "TERM"):
            mote.send_signal(getattr(signal, f"SIG{name}"))
            assert mote.stdout.readline() == name.encode() + b"\n"
        assert mote.wait(TIME_LIMIT) == 3


def test_stopped_and_continued():
    """As a job of a shell: the command stops, too."""
    with subprocess.Popen([MOTE, "run", "-n", "--", "sh", "-c", "while :; do echo x; sleep 0.1; done"],
                          stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"x\n"
        mote.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(mote.pid, os.WUNTRACED)[1])
        mote.send_signal(signal.SIGCONT)
        for _ in range(10):
            assert mote.stdout.readline() == b"x\n"
        mote.send_signal(signal.SIGTERM)
        assert mote.wait(TIME_LIMIT) == 128 + signal.SIGTERM


def test_handler_of_a_stop_signal_is_called():
    """It has had it before CONT comes, which would take back a stop signal that nobody has had yet."""
    with subprocess.Popen([MOTE, "run", "-n", "--name", "stops", "--", "sh", "-c",
                           "trap 'echo TSTP; : > /tmp/had' TSTP; echo ready; until [ -e /tmp/go ]; do :; done; exit 4"],
                          stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        mote.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(mote.pid, os.WUNTRACED)[1])
        assert run_mote("exec", "stops", "sh", "-c", "until [ -e /tmp/had ]; do :; done; : > /tmp/go").returncode == 0
        mote.send_signal(signal.SIGCONT)
        assert (mote.stdout.readline(), mote.wait(TIME_LIMIT)) == (b"TSTP\n", 4)


def test_no_stdin():
    assert run_mote("run", "-n", "--", "wc", "-c", stdin=b"for somebody else").stdout == b"0\n"


def test_as_much_as_execve_takes():
    """A variable of 128 KiB, and two MiB together; more is said."""
    words = ["x" * 100000] * 18
    result = run_mote("run", "-e", "X=" + "x" * 131000, "--", "sh", "-c", "echo ${#X} $#; shift 17; echo ${#1}",
                      "sh", *words)
    assert result.stdout == b"131000 18\n100000\n"
    result = run_mote("run", "--env-file", "/dev/stdin", "--", "true", stdin=b"X=" + b"x" * 140000)
    assert (result.returncode, result.stderr) == (126, b"mote: true: Argument list too long\n")
    result = run_mote("run", "--env-file", "/dev/stdin", "--", "true", stdin=b"X=" + b"x" * 5000000)
    assert result.returncode == 125 and b"longer than 4194304 bytes" in result.stderr


@pytest.mark.parametrize("option,hint", [("--pull=always", b"mote image"), ("--network", b"--net"),
                                         ("--privileged", b"root in a microVM"), ("--mount", b"-v DIR")])
def test_options_of_others(option, hint):
    result = run_mote("run", option, "--", "true")
    assert result.returncode == 2 and hint in result.stderr


@pytest.mark.parametrize("option", ["--env==x", "--workdir=relative", "--ulimit=nofile", "--ulimit=core=2:1",
                                    "--tmpfs=relative", "--tmpfs=/a b", "--label==x", "--stop-signal=NO",
                                    "--dns=x", "--add-host=x", "--hostname=a b", "--env-file=/no/such"])
def test_values_that_cannot_be(option):
    result = run_mote("run", option, "--", "true")
    assert result.returncode == 2 and option.split("=", maxsplit=1)[0].encode() in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_more_file_systems_of_memory_than_are_made():
    options = [f"--tmpfs=/{number}" for number in range(17)]
    result = run_mote("run", *options, "--", "true")
    assert (result.returncode, result.stderr.count(b"\n")) == (2, 1) and b"too many" in result.stderr
    result = run_mote("run", *options[1:], "--", "sh", "-c", "grep -c ' /[0-9]* tmpfs ' /proc/mounts")
    assert result.stdout == b"16\n"


def test_limit_that_there_is_not():
    result = run_mote("run", "--ulimit", "nosuch=1", "--", "true")
    assert (result.returncode, result.stderr) == (125, b"mote: exec: rlimits: there is none called nosuch\n")
