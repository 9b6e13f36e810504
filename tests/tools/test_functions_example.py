# SPDX-License-Identifier: Apache-2.0
"""
examples/functions: what goes wrong before a guest runs is a MicroVMError, which the gateway answers; and its
clients, of which none gets a function run with less than its request, or keeps others waiting.
"""
import contextlib
import functools
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from support import BUILD, GUESTS, TIME_LIMIT, TOP, running, wait_until

sys.path.insert(0, str(TOP / "examples" / "functions"))
import gateway  # pylint: disable=wrong-import-position
import microvm  # pylint: disable=wrong-import-position


@pytest.mark.parametrize("error", [OSError("broken"), http.client.BadStatusLine("x"), TimeoutError()])
def test_whatever_fails_at_the_start_is_one_kind_of_error(monkeypatch, error):
    def start(_):
        raise error
    monkeypatch.setattr(microvm.MicroVM, "start", start)
    with pytest.raises(microvm.MicroVMError, match="could not be started: ."):
        with microvm.MicroVM(None):
            pass


@pytest.mark.parametrize("text,said", [
    (b'{"fault_message": "one"}', "one"), (b'{"error": "two"}', "two"),
    (b"{}", "its API answered b'{}'"), (b"[1]", "its API answered b'[1]'"), (b"", "its API answered b''")])
def test_answers_that_refuse(text, said):
    assert microvm.fault(text) == said


class Upper:
    """In the place of a microVM."""
    ran = []

    def __init__(self, settings):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, _, body, __):
        self.ran.append(body)
        return microvm.Result(body.upper(), b"", {"code": 0, "user_us": 1, "system_us": 1,
                                                  "memory_peak_bytes": 1}, False)


@contextlib.contextmanager
def serving(monkeypatch, **limits):
    monkeypatch.setattr(gateway, "MicroVM", Upper)
    monkeypatch.setattr(Upper, "ran", [])
    server = gateway.Gateway(("127.0.0.1", 0), {"upper": {"argv": ["x"]}},
                             {"vmm": "", "kernel": "", "initrd": ""}, 4, **limits)
    try:
        with running(functools.partial(server.serve_forever, 0.01), stop=server.shutdown):
            yield server
    finally:
        server.end()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=TIME_LIMIT)


def exchange(server, request):
    """All of the answer, which the gateway ends."""
    with connect(server) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            return answer.read()


def post(length, body, fields=b""):
    return b"POST /upper HTTP/1.1\r\n%sContent-Length: %s\r\n\r\n%s" % (fields, length, body)


def test_half_a_body_runs_nothing(monkeypatch):
    with serving(monkeypatch) as server:
        assert exchange(server, post(b"1000", b"half")).startswith(b"HTTP/1.1 400 ")
        assert Upper.ran == []
        assert exchange(server, post(b"4", b"full")).endswith(b"\r\n\r\nFULL")
        assert Upper.ran == [b"full"]


@pytest.mark.parametrize("length", [b"1_0", b"+10", b"-1", b"0x10", b"10, 10", b"", b"ten", b"9" * 5000,
                                    b"10\r\nContent-Length: 10",
                                    b"10\r\nTransfer-Encoding: chunked"])
def test_lengths_that_are_none(monkeypatch, length):
    """And what follows is not taken for another request."""
    with serving(monkeypatch) as server:
        answer = exchange(server, post(length, post(b"4", b"evil")))
        assert answer.startswith(b"HTTP/1.1 411 ") and answer.count(b"HTTP/1.1") == 1
        assert Upper.ran == []


@pytest.mark.parametrize("begun", [b"", b"POST /up", post(b"1000", b"half")])
def test_clients_have_a_time_limit(monkeypatch, begun):
    """Also those that always send a little more."""
    with serving(monkeypatch, request_seconds=0.2) as server, connect(server) as client:
        client.sendall(begun)
        client.settimeout(0.01)
        answer, over = b"", False
        while not over:
            with contextlib.suppress(TimeoutError):
                part = client.recv(1000)
                answer, over = answer + part, not part
            if begun and not answer and not over:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        assert Upper.ran == []


def test_only_so_many_clients_have_threads(monkeypatch):
    with serving(monkeypatch, clients=3) as server, contextlib.ExitStack() as idle:
        for _ in range(3):
            idle.enter_context(connect(server)).sendall(b"POST /upper HTTP/1.1\r\n")
        wait_until(lambda: len(server.connections) == 3, "the gateway to take three clients")
        with connect(server) as refused, refused.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 503 ")
        idle.close()
        wait_until(lambda: not server.connections, "the three to be gone")
        assert exchange(server, post(b"4", b"more")).endswith(b"MORE")


def jailed_vmm(vm):
    """Of the process that is in the jail, once it is there."""
    children = pathlib.Path(f"/proc/{vm.process.pid}/task/{vm.process.pid}/children")
    wait_until(lambda: children.exists() and children.read_text().split(), "the VMM")
    return pathlib.Path("/proc") / children.read_text().split()[0]


@pytest.fixture(name="folders")
def folders_of_functions(tmp_path_factory, monkeypatch):
    """Where they are, of which nothing is left; sockets need a short path."""
    tmp_path_factory.getbasetemp()  # which pytest would make there otherwise
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield pathlib.Path(folder)
        assert not os.listdir(folder)


def test_functions_have_limits(folders, monkeypatch):
    """Looked at when the API is asked for the first time, before anything of a guest runs."""
    seen = {}

    def look(vm, *_):
        process = jailed_vmm(vm)
        seen["cgroup"] = (process / "cgroup").read_text()
        seen["mounts"] = (process / "mountinfo").read_text()
        seen["limits"] = (process / "limits").read_text()
        raise microvm.MicroVMError("seen")

    monkeypatch.setattr(microvm.MicroVM, "request", staticmethod(lambda *_: None))
    monkeypatch.setattr(microvm.MicroVM, "wait_for", look)
    settings = microvm.Settings(vmm=str(BUILD / "mote-vmm"), kernel=str(GUESTS / "counter"), initrd="/etc/hostname",
                                jailer=str(BUILD / "mote-jailer"), start_seconds=TIME_LIMIT)
    with pytest.raises(microvm.MicroVMError, match="seen"):
        with microvm.MicroVM(settings):
            pass
    assert f"mote-vmm/{os.getpid()}-" in seen["cgroup"]
    root, = (line for line in seen["mounts"].splitlines() if line.split()[4] == "/")
    assert root.split()[5].split(",")[0] == "ro"
    sizes, = (line.split() for line in seen["limits"].splitlines() if line.startswith("Max file size"))
    assert sizes[3:5] == ["1048576", "1048576"]


@pytest.mark.usefixtures("folders")
def test_socket_that_was_replaced_is_not_followed(tmp_path, monkeypatch):
    """Its new owner is the link's, and not what that leads to."""
    other = tmp_path / "other"
    other.write_text("")
    bind = socket.socket.bind

    class Socket(socket.socket):
        def bind(self, address):
            bind(self, address)
            if "v.sock_" in str(address):
                os.unlink(address)
                os.symlink(other, address)

    monkeypatch.setattr(microvm.socket, "socket", Socket)

    def stop(*_):
        raise microvm.MicroVMError("seen")

    monkeypatch.setattr(microvm.MicroVM, "request", staticmethod(stop))
    settings = microvm.Settings(vmm=str(BUILD / "mote-vmm"), kernel=str(GUESTS / "counter"), initrd="/etc/hostname",
                                jailer=str(BUILD / "mote-jailer"), start_seconds=TIME_LIMIT)
    with pytest.raises(microvm.MicroVMError, match="seen"):
        with microvm.MicroVM(settings):
            pass
    assert os.stat(other).st_uid == os.getuid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_gateway_that_is_ended_leaves_nothing(tmp_path, folders, number):
    """Whatever its functions were at: here the small guest that never says that it is ready."""
    functions = tmp_path / "functions.json"
    functions.write_text(json.dumps({"any": {"argv": ["x"]}}))
    with subprocess.Popen(
            [gateway.HERE / "gateway.py", "--port", "0", "--mote", BUILD, "--kernel", GUESTS / "counter",
             "--start-seconds", "1", functions], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": str(folders)}) as process:
        try:
            port = int(process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), timeout=TIME_LIMIT) as client:
                client.sendall(b"POST /any HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
                wait_until(lambda: os.listdir(folders), "the microVM's folder")
                process.send_signal(number)
                assert process.wait(TIME_LIMIT) == 0
        finally:
            process.kill()
