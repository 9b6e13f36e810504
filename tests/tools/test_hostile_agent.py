# SPDX-License-Identifier: Apache-2.0
"""mote against a guest whose agent is not ours any more: it says, or leaves, what it likes."""
import contextlib
import fcntl
import io
import json
import os
import signal
import socket
import struct
import subprocess
import tarfile
import threading
import time

import pytest

from support import MOTE, TIME_LIMIT, run_mote

STDOUT, EXIT, ERROR, RESULT = 17, 19, 20, 21
NAME = "evil"


def frame(kind, payload):
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return struct.pack("<BI", kind, len(payload)) + payload


@pytest.fixture(name="vm")
def vm_fixture(tmp_path, monkeypatch):
    """What `mote run` leaves behind for a microVM that runs, with sockets of the test's."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "mote" / "vms" / "0123456789ab"
    for path in (folder.parent.parent, folder.parent, folder):
        path.mkdir(mode=0o700)
    (folder / "meta.json").write_text(json.dumps({
        "id": folder.name, "name": NAME, "state": "running", "pid": os.getpid(), "vmm_pid": 0,
        "vsock": str(folder / "vsock"), "jailed": False}))
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextlib.contextmanager
def agent(vm, answer):
    """Answers each stream's first frame with what answer(socket) does."""
    with socket.socket(socket.AF_UNIX) as listener:
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
                    threading.Thread(target=serve_one, args=(listener.accept()[0],)).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


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


@pytest.mark.parametrize("end", [{"code": 1 << 40}, {"signal": -1}, {"signal": 999}, {}, [], "x",
                                 {"code": 0, "user_us": "x"}])
def test_ends_that_cannot_be(vm, end):
    with agent(vm, lambda stream: stream.sendall(frame(EXIT, end))):
        result = run_mote("exec", NAME, "true")
        assert 0 <= result.returncode <= 255 and result.stderr.count(b"\n") <= 1


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
