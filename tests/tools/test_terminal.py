# SPDX-License-Identifier: Apache-2.0
"""What comes from guests, images and VMMs does not command the terminal of whoever looks at it."""
import contextlib
import fcntl
import json
import os
import socket
import subprocess

import pytest

from support import MOTE, TIME_LIMIT, run_mote, running

EVIL = "\x1b]52;c;aGk=\x07 \x9b31m \x7f\x08 Û€"


def on_a_terminal(*arguments):
    """What mote writes to a terminal, as text."""
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen([MOTE, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=theirs,
                              stderr=theirs) as process:
            os.close(theirs)
            data = b""
            # The end of the last one that has the terminal open.
            with contextlib.suppress(OSError):
                while part := os.read(ours, 65536):
                    data += part
            process.wait(TIME_LIMIT)
    finally:
        os.close(ours)
    return data.decode()


def is_harmless(text):
    return all(char in "\r\n\t" or not (char < " " or "\x7f" <= char <= "\x9f") for char in text)


@contextlib.contextmanager
def answers(path, body, kind="text/plain", status="200 OK"):
    """A server of one answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            stream = listener.accept()[0]
            with stream:
                stream.recv(65536)
                stream.sendall(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n".encode() + body)

        with running(serve):
            yield
    path.unlink()


def test_answers_of_an_api(tmp_path):
    path = tmp_path / "api"
    arguments = ("api", "--socket", path, "GET", "/")
    body = json.dumps({"text": EVIL, EVIL: 1}, ensure_ascii=False).encode()
    for run in (lambda: run_mote(*arguments).stdout.decode(), lambda: on_a_terminal(*arguments)):
        with answers(path, body, "application/json"):
            said = run()
        assert is_harmless(said) and json.loads(said) == {"text": EVIL, EVIL: 1}
    with answers(path, body):
        assert run_mote(*arguments).stdout == body
    with answers(path, body + b"\x9b"):
        said = on_a_terminal(*arguments)
    assert is_harmless(said) and "??31m" in said and "Û€" in said


def test_refusals_of_an_api(tmp_path):
    path = tmp_path / "api"
    body = json.dumps({"fault_message": EVIL}).encode()
    with answers(path, body, "application/json", "400 Bad"):
        result = run_mote("api", "--socket", path, "GET", "/")
    assert result.returncode == 1 and is_harmless(result.stderr.decode())
    assert "??31m" in result.stderr.decode()


@pytest.fixture(name="vm")
def vm_fixture(tmp_path, monkeypatch):
    """One that has ended, and its folder."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "mote" / "vms" / "0123456789ab"
    for path in (folder.parent.parent, folder.parent, folder):
        path.mkdir(mode=0o700)
    (folder / "meta.json").write_text(json.dumps({
        "id": folder.name, "name": "evil", "state": "ended", "exit_status": 0, "image": "image",
        "command": ["echo", EVIL], "error": EVIL}))
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def test_logs(vm):
    data = EVIL.encode() + b"\x9b\r\n\tend\n"
    (vm / "console.log").write_bytes(data)
    assert run_mote("logs", "evil").stdout == data
    said = on_a_terminal("logs", "evil")
    assert is_harmless(said) and said.endswith("?\r\n\tend\r\n") and "Û€" in said
    assert is_harmless(run_mote("logs", "--json", "evil").stdout.decode())


def test_lists(vm):
    for arguments in (("ps", "-a"), ("ps", "-a", "--json"), ("inspect", "evil")):
        said = run_mote(*arguments).stdout.decode()
        assert is_harmless(said) and "Û€" in said
    assert json.loads(run_mote("inspect", "evil").stdout)[0]["error"] == EVIL


def test_image_whose_configuration_is_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = tmp_path / "mote" / "images"
    assert run_mote("image", "ls").returncode == 0
    digest = "a" * 64
    (store / "blobs" / f"{digest}.erofs").touch()
    (store / "blobs" / f"{digest}.json").write_text(json.dumps({"cmd": [EVIL]}, ensure_ascii=False))
    (store / "tags" / "evil").symlink_to(f"../blobs/{digest}.erofs")
    said = run_mote("image", "inspect", "evil").stdout.decode()
    assert is_harmless(said) and json.loads(said)["cmd"] == [EVIL]
