# SPDX-License-Identifier: Apache-2.0
"""mote against a guest whose agent is not ours any more: it says, or leaves, what it likes."""
import contextlib
import fcntl
import functools
import importlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import time

import pytest

from support import MOTE, OPENAT, TIME_LIMIT, TOP, run_mote, running, wait_until, wait_until_called

STDIN_END, STDOUT, EXIT, ERROR, RESULT = 3, 17, 19, 20, 21
NAME = "evil"


def frame(kind, payload):
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return struct.pack("<BI", kind, len(payload)) + payload


def process(pid, *keys):
    """A process as meta.json names it: by its number, and by when it started."""
    with open(f"/proc/{pid}/stat") as stat:
        start = int(stat.read().rsplit(")", 1)[1].split()[19])
    return {name: value for key in keys for name, value in ((key, pid), (f"{key}_start", start))}


@pytest.fixture(name="vm")
def vm_fixture(tmp_path, monkeypatch):
    """What `mote run` leaves behind for a microVM that runs, with sockets of the test's."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "mote" / "vms" / "0123456789ab"
    for path in (folder.parent.parent, folder.parent, folder):
        path.mkdir(mode=0o700)
    (folder / "meta.json").write_text(json.dumps({
        "id": folder.name, "name": NAME, "state": "running", "vmm_pid": 0, **process(os.getpid(), "pid"),
        "vsock": str(folder / "vsock"), "jailed": False}))
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextlib.contextmanager
def agent(vm, answer):
    """Answers each stream's first frame with what answer(socket) does."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as streams:
        listener.bind(str(vm / "vsock"))
        listener.listen()

        def serve_one(stream):
            with stream, contextlib.suppress(OSError):
                while not stream.recv(1) == b"\n":
                    pass
                stream.sendall(b"OK 1\n")
                kind, size = struct.unpack("<BI", stream.recv(5, socket.MSG_WAITALL))
                assert kind == 1
                stream.recv(size, socket.MSG_WAITALL)
                answer(stream)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    stream, _ = listener.accept()
                    streams.enter_context(running(functools.partial(serve_one, stream)))

        with running(serve, stop=lambda: listener.shutdown(socket.SHUT_RDWR)):
            yield


def until_client_leaves(stream):
    """Takes everything, and answers nothing."""
    while stream.recv(65536):
        pass


def failure(*arguments, status=1):
    result = run_mote(*arguments)
    assert result.returncode == status, result
    assert result.stderr.startswith(b"mote: ") and result.stderr.count(b"\n") == 1, result.stderr
    return result.stderr.decode().removeprefix("mote: ").rstrip("\n")


def test_sentences_do_not_reach_the_terminal_as_they_are(vm):
    evil = "\x1b]0;title\x07 \x9b31m line\nmote: another\x7f"
    with agent(vm, lambda stream: stream.sendall(frame(ERROR, {"error": evil, "status": 3}))):
        for arguments, status in ((("exec", NAME, "true"), 3), (("cp", f"{NAME}:/x", vm), 1),
                                  (("cp", "/etc/hostname", f"{NAME}:/x"), 1)):
            said = failure(*arguments, status=status)
            assert said.isprintable() and "title" in said and "another" in said


@pytest.mark.parametrize("last", [b"", b"[]", b"{", b'{"error": 5}', b'{"error": null, "status": "x"}',
                                  b"\xff"])
def test_last_words_that_are_none(vm, last):
    with agent(vm, lambda stream: stream.sendall(frame(ERROR, last))):
        said = "the guest's agent refused the request without a reason"
        assert failure("exec", NAME, "true", status=125) == said
        assert failure("cp", f"{NAME}:/x", vm) == said


@pytest.mark.parametrize("words", [("exec", NAME), ("run", "--no-jail", "--kernel", "/etc/hostname", "--")])
def test_result_for_a_reader_that_does_not_come(vm, tmp_path, words):
    """A signal ends the wait, and nothing of a microVM is left."""
    os.mkfifo(tmp_path / "result")
    with agent(vm, lambda stream: stream.sendall(frame(EXIT, {
            "code": 3, "timed_out": False, "oom_killed": False, "user_us": 1, "system_us": 1,
            "memory_peak_bytes": 1}))):
        with subprocess.Popen([MOTE, words[0], f"--json-result={tmp_path}/result", *words[1:], "true"],
                              stdin=subprocess.DEVNULL) as command:
            wait_until_called(command.pid, OPENAT)
            command.send_signal(signal.SIGINT)
            assert command.wait(TIME_LIMIT) == -signal.SIGINT
    assert list(vm.parent.iterdir()) == [vm]


@pytest.mark.parametrize("end", [{"code": 1 << 40}, {"signal": -1}, {"signal": 999}, {}, [], "x",
                                 {"code": 0, "user_us": "x"}, {"code": -1}, {"code": 256}])
def test_ends_that_cannot_be(vm, end):
    with agent(vm, lambda stream: stream.sendall(frame(EXIT, end))):
        assert failure("exec", NAME, "true", status=125) == \
            "the guest's agent does not say how it ended"


def test_refusals_are_no_success(vm, tmp_path):
    path = tmp_path / "result"
    with agent(vm, lambda stream: stream.sendall(frame(ERROR, {"error": "é" * 800, "status": 0}))):
        said = failure("exec", f"--json-result={path}", NAME, "true", status=125)
    assert set(said) == {"é"} and json.loads(path.read_text())["error"] == said


def test_statistics_are_numbers(vm):
    guest = {"cpu_us": 5, "memory_total_bytes": "many", "processes": -1, "\x9b": 1, "uptime_s": [2]}
    with agent(vm, lambda stream: stream.sendall(frame(RESULT, guest))):
        assert json.loads(run_mote("stats", "--json").stdout)[0]["guest"] == {"cpu_us": 5}
        assert run_mote("stats").returncode == 0


def test_names_of_files_do_not_reach_the_terminal_as_they_are(vm, tmp_path):
    name = "x/../\x1b]0;title\x07\n"
    with agent(vm, lambda stream: stream.sendall(frame(STDOUT, tar_of(
            ("x", tarfile.DIRTYPE, "", b""), (name, tarfile.REGTYPE, "", b""))))):
        said = failure("cp", f"{NAME}:/x", tmp_path / "x")
        assert said.isprintable() and "leads out of the destination" in said


def test_umask_and_modes_that_are_there_already(vm, tmp_path):
    tree = tar_of(("x", tarfile.DIRTYPE, "", b""), ("x/f", tarfile.REGTYPE, "", b""))
    (tmp_path / "x").mkdir(mode=0o700)
    with agent(vm, lambda stream: stream.sendall(frame(STDOUT, tree) + frame(RESULT, {}))):
        for _ in range(2):
            result = run_mote("cp", f"{NAME}:/x", tmp_path, preexec_fn=lambda: os.umask(0o077))
            assert result.returncode == 0, result.stderr
    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "x" / "f").stat().st_mode & 0o7777 == 0o700


def test_put_that_is_refused_half_way(vm, tmp_path):
    """The agent's sentence is what is said, not that it has gone."""
    with open(tmp_path / "big", "wb") as big:
        big.truncate(64 << 20)
    with agent(vm, lambda stream: stream.sendall(frame(ERROR, {"error": "big: disk full"}))):
        assert failure("cp", tmp_path / "big", f"{NAME}:/x") == "big: disk full"


def test_kill_of_one_that_goes_in_the_middle(vm):
    """It hangs up behind its OK; mote goes on to pull the plug."""
    with subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL) as victim:
        meta = json.loads((vm / "meta.json").read_text())
        # Its supervisor, too, so that nobody of ours is killed.
        (vm / "meta.json").write_text(json.dumps({
            **meta, **process(victim.pid, "pid", "vmm_pid")}))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(vm / "vsock"))
            listener.listen()
            with subprocess.Popen([MOTE, "kill", NAME]) as command:
                stream = listener.accept()[0]
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.sendall(b"OK 1\n")
                stream.close()
                assert victim.wait(TIME_LIMIT) == -signal.SIGKILL
                assert command.wait(TIME_LIMIT) == 0


def test_number_that_is_another_process_by_now(vm):
    """Its start tells them apart; nobody is killed who only has the number."""
    with subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL) as other:
        try:
            meta = json.loads((vm / "meta.json").read_text())
            other_pid = process(other.pid, "pid", "vmm_pid")
            for key in ("pid_start", "vmm_pid_start"):
                other_pid[key] -= 1
            (vm / "meta.json").write_text(json.dumps({**meta, **other_pid}))
            for option in ((), ("--force",)):
                assert run_mote("kill", *option, NAME).returncode == 0
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_kill_of_one_that_has_no_vmm_yet(vm, options):
    with subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL) as supervisor:
        meta = {key: value for key, value in json.loads((vm / "meta.json").read_text()).items()
                if key != "vmm_pid"}
        (vm / "meta.json").write_text(json.dumps(
            {**meta, **process(supervisor.pid, "pid"), "state": "starting"}))
        result = run_mote("kill", *options, "--json", NAME)
        assert supervisor.wait(TIME_LIMIT) == -signal.SIGTERM
        assert result.returncode == 0 and result.stderr == b""
        assert [one["forced"] for one in json.loads(result.stdout)] == [bool(options)]


def test_kill_of_one_that_is_starting(tmp_path, monkeypatch):
    """Its supervisor ends as by a signal of its own, and leaves nothing."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "mote").mkdir(mode=0o700)
    home = tmp_path / "bin"
    home.mkdir()
    shutil.copy(MOTE, home)
    (home / "mote-vmm").write_text("#!/bin/sh\nexec sleep 1000\n")
    (home / "mote-vmm").chmod(0o755)
    (home / "initrd.cpio").touch()
    with subprocess.Popen([home / "mote", "run", "--no-jail", "--kernel", "/etc/hostname", "--name",
                           NAME, "--", "true"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as run:
        wait_until(lambda: "vmm_pid" in next(iter(json.loads(run_mote("ps", "--json").stdout)), {}),
                   "the VMM to be started")
        result = run_mote("kill", "--json", NAME)
        assert run.communicate(timeout=TIME_LIMIT)[1] == b""
    assert (result.returncode, result.stderr, run.returncode) == (0, b"", 128 + signal.SIGTERM)
    assert not json.loads(result.stdout)[0]["forced"]
    assert not list((tmp_path / "mote" / "vms").iterdir())


@pytest.fixture(name="abstract_name")
def abstract_name_fixture():
    """Whoever listens there, as any user can, is told nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(bytes(108))
        listener.listen()
        listener.setblocking(False)
        yield
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_vm_whose_socket_is_not_known(vm, tmp_path, abstract_name):
    meta = json.loads((vm / "meta.json").read_text())
    for broken in ({}, {"vsock": ""}, {"vsock": None}, {"vsock": 5}):
        (vm / "meta.json").write_text(json.dumps(
            {**{key: value for key, value in meta.items() if key != "vsock"}, **broken}))
        for arguments, status in ((("exec", NAME, "true"), 125), (("cp", f"{NAME}:/x", tmp_path), 1),
                                  (("cp", "/etc/hostname", f"{NAME}:/x"), 1)):
            assert failure(*arguments, status=status) == "vsock socket: it has no path"
        assert json.loads(run_mote("stats", "--json").stdout)[0]["error"] == \
            "vsock socket: it has no path"


def test_vmm_that_takes_no_connections(vm):
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as closing:
        listener.bind(str(vm / "vsock"))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = closing.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(vm / "vsock"))
        assert "temporarily unavailable" in failure("exec", NAME, "true", status=125)


def tar_of(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o6777
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize("members", [
    [("x", tarfile.DIRTYPE, "", b""), ("x/../../out", tarfile.REGTYPE, "", b"evil")],
    [("x", tarfile.DIRTYPE, "", b""), ("x/l", tarfile.SYMTYPE, "../..", b""),
     ("x/l/out", tarfile.REGTYPE, "", b"evil")],
    [("x", tarfile.SYMTYPE, "..", b""), ("x/out", tarfile.REGTYPE, "", b"evil")],
    [("x", tarfile.DIRTYPE, "", b""), ("x/l", tarfile.LNKTYPE, "../../secret", b""),
     ("x/l", tarfile.REGTYPE, "", b"evil")],
    [("x", tarfile.DIRTYPE, "", b""), ("x/l", tarfile.LNKTYPE, "x/../../secret", b"")],
    [("x", tarfile.DIRTYPE, "", b""), ("x/null", tarfile.CHRTYPE, "", b"")],
    [("x", tarfile.REGTYPE, "", b"one"), ("y", tarfile.REGTYPE, "", b"another")],
])
def test_trees_that_lead_out(vm, tmp_path, members):
    (tmp_path / "into").mkdir()
    (tmp_path / "secret").write_text("secret")
    with agent(vm, lambda stream: stream.sendall(
            frame(STDOUT, tar_of(*members)) + frame(RESULT, {"files": 1, "bytes": 1}))):
        run_mote("cp", f"{NAME}:/x", tmp_path / "into")
    assert {path.name for path in tmp_path.iterdir()} == {"into", "secret", "mote"}
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_nlink == 1
    assert {path.name for path in (tmp_path / "into").iterdir()} <= {"x"}
    for path in (tmp_path / "into").rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o7000


def test_attributes_with_power_stay_in_the_guest(vm, tmp_path):
    """A file capability that root wrote for it would be the guest's power on the host."""
    capability = struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0).decode("latin-1")
    evil = {"security.capability": capability, "security.ima": "x", "trusted.overlay.opaque": "y",
            "system.posix_acl_access": "x", "nodot": "x", "user.": "x", "user.ok": "1=2\n"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (("x", tarfile.DIRTYPE), ("x/f", tarfile.REGTYPE), ("x/l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, "../secret", 0o555
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in evil.items()}
            tar.addfile(info)
    (tmp_path / "secret").write_text("secret")
    with agent(vm, lambda guest: guest.sendall(frame(STDOUT, stream.getvalue()) + frame(RESULT, {}))):
        result = run_mote("cp", f"{NAME}:/x", tmp_path / "x")
        assert result.returncode == 0, result.stderr
        # Whoever wants all of it has all of it.
        assert run_mote("cp", f"{NAME}:/x", "-").stdout == stream.getvalue()
    for path in (tmp_path / "x", tmp_path / "x" / "f"):
        assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {"user.ok": b"1=2\n"}
    assert not os.listxattr(tmp_path / "secret") and (tmp_path / "x" / "f").stat().st_mode & 0o777 == 0o555


def test_link_that_came_is_not_followed_on_the_way_back(vm, tmp_path):
    """Unless that is asked for: it leads to what is the host's."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    link = tar_of(("data", tarfile.SYMTYPE, str(tmp_path / "private"), b""))
    with agent(vm, lambda stream: stream.sendall(frame(STDOUT, link) + frame(RESULT, {}))):
        assert run_mote("cp", f"{NAME}:/data", tmp_path).returncode == 0
    assert (tmp_path / "data").is_symlink()
    (vm / "vsock").unlink()
    sent = []

    def take(stream):
        data = bytearray()
        while (head := struct.unpack("<BI", stream.recv(5, socket.MSG_WAITALL)))[0] != STDIN_END:
            data += stream.recv(head[1], socket.MSG_WAITALL)
        stream.sendall(frame(RESULT, {"files": 1, "bytes": 0}))
        with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
            sent.append({member.name: member.type for member in tar})

    with agent(vm, take):
        for options in ((), ("-L",), ("--follow-link",)):
            result = run_mote("cp", *options, tmp_path / "data", f"{NAME}:/data")
            assert result.returncode == 0, result.stderr
    followed = {"data": tarfile.DIRTYPE, "data/key": tarfile.REGTYPE}
    assert sent == [{"data": tarfile.SYMTYPE}, followed, followed]


def test_a_stream_without_an_end(vm, tmp_path):
    """Behind the end of its tar it goes on with zeroes."""
    def send(stream):
        stream.sendall(frame(STDOUT, tar_of(("x", tarfile.REGTYPE, "", b"data"))))
        while True:
            stream.sendall(frame(STDOUT, bytes(65536)))

    with agent(vm, send):
        assert failure("cp", f"{NAME}:/x", tmp_path / "x") == \
            "the guest's agent sends on behind the end"


def test_an_agent_that_goes_no_further(vm, tmp_path):
    """Nobody waits for it for ever: a time limit is kept on the host, too."""
    begin = time.monotonic()
    with agent(vm, until_client_leaves):
        commands = [subprocess.Popen([MOTE, *map(str, words)], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                    for words in (("exec", "--timeout", "500ms", NAME, "sleep", "1"),
                                  ("stats", "--json"), ("cp", f"{NAME}:/x", tmp_path / "x"),
                                  ("cp", "/etc/hostname", f"{NAME}:/x"))]
        said = [command.communicate(timeout=TIME_LIMIT)[0] for command in commands]
    assert [command.returncode for command in commands] == [124, 0, 1, 1]
    assert said[0] == b"mote: the command's time was over, and the guest did not end it\n"
    assert json.loads(said[1])[0]["error"] == "the guest's agent took too long for a transfer"
    assert said[2] == said[3] == b"mote: the guest's agent does not go on with a transfer\n"
    assert time.monotonic() - begin < 60


def test_an_agent_that_never_ends_its_output(vm):
    def flood(stream):
        while True:
            stream.sendall(frame(STDOUT, b"x" * 65536))

    with agent(vm, flood), subprocess.Popen(
            [MOTE, "exec", "--timeout", "100ms", NAME, "yes"], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE) as command:
        assert command.wait(TIME_LIMIT) == 124


def test_a_stalled_transfer_can_be_interrupted(vm, tmp_path):
    with agent(vm, until_client_leaves), subprocess.Popen(
            [MOTE, "cp", f"{NAME}:/x", tmp_path / "x"]) as command:
        time.sleep(0.2)
        command.send_signal(signal.SIGINT)
        assert command.wait(TIME_LIMIT) == -signal.SIGINT


LOST = """#!/usr/bin/python3
import json, socket, sys, time
config = json.load(open(sys.argv[sys.argv.index("--config-file") + 1]))
agent = socket.socket(socket.AF_UNIX)
agent.connect(config["vsock"]["uds_path"] + "_52")
agent.recv(1)
agent.close()
for i in range(120):
    print("still here", flush=True)
    time.sleep(0.5)
"""


def test_agent_that_goes_while_its_console_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "mote").mkdir(mode=0o700)
    home = tmp_path / "bin"
    home.mkdir()
    shutil.copy(MOTE, home)
    (home / "mote-vmm").write_text(LOST)
    (home / "mote-vmm").chmod(0o755)
    (home / "initrd.cpio").touch()
    begin = time.monotonic()
    result = subprocess.run([home / "mote", "run", "--no-jail", "--kernel", "/etc/hostname",
                             "--timeout", "1s", "--", "true"], stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=TIME_LIMIT, check=False)
    assert (result.returncode, result.stderr) == (125, b"mote: the guest's agent has gone\n")
    assert 4 < time.monotonic() - begin < 20


@pytest.fixture(name="microvm")
def microvm_fixture(monkeypatch):
    """The example's client of the agent, and the other end of its stream."""
    monkeypatch.syspath_prepend(TOP / "examples" / "functions")
    module = importlib.import_module("microvm")
    settings = module.Settings(vmm="", kernel="", initrd="", end_seconds=0.5)
    one = module.MicroVM(settings)
    one.agent, guest = socket.socketpair()
    one.ended = os.pidfd_open(os.getpid())
    with one.agent, guest:
        yield one, guest, module.MicroVMError
    os.close(one.ended)


@pytest.mark.parametrize("kind, payload", [
    (EXIT, b"{"), (EXIT, b"[1]"), (EXIT, b'{"code": 0}'), (EXIT, b"[" * 5000), (ERROR, b"{}"),
    (EXIT, b'{"code":0,"user_us":"1\\r\\nSet-Cookie: x","system_us":1,"memory_peak_bytes":1,'
           b'"timed_out":false,"oom_killed":false}'), (23, b""), (99, b"")])
def test_example_against_answers_that_are_none(microvm, kind, payload):
    one, guest, error = microvm
    guest.sendall(frame(kind, payload))
    with pytest.raises(error, match="its agent does not speak the protocol"):
        one.run(["true"], timeout_ms=100)


def test_example_against_a_flood(microvm):
    one, guest, error = microvm

    def flood():
        with contextlib.suppress(OSError):
            while True:
                guest.sendall(frame(STDOUT, b""))

    begin = time.monotonic()
    with running(flood, stop=one.agent.close):
        with pytest.raises(error, match="it took too long to end"):
            one.run(["true"], timeout_ms=100)
        assert time.monotonic() - begin < 5
