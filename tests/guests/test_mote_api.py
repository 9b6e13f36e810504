# SPDX-License-Identifier: Apache-2.0
"""`mote api` against a VMM."""
import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest

from api import start_api
from host import listener
from support import GUESTS, MOTE, TIME_LIMIT, run_mote, watchdog

MACHINE = {"vcpu_count": 2, "mem_size_mib": 64}


@pytest.fixture(name="vmm")
def started_vmm(tmp_path):
    with start_api(tmp_path, "--id", "test-1") as vmm:
        yield vmm


@pytest.fixture(name="api")
def mote_api(vmm):
    def run(*arguments, **kwargs):
        return run_mote("api", "--socket", vmm.socket_path, *arguments, **kwargs)
    return run


def says(result, status):
    """What a command that fails says: one line, and nothing on standard output."""
    assert result.returncode == status, result
    assert result.stdout == b""
    text = result.stderr.decode()
    assert text.startswith("mote api: ") and text.count("\n") == 1, text
    return text.removeprefix("mote api: ").rstrip("\n")


def test_answers_are_printed_for_people(api, vmm):
    result = api("GET", "/machine-config")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode() == json.dumps(vmm.get("/machine-config"), indent=2) + "\n"


@pytest.mark.parametrize("how", ["argument", "file", "stdin"])
def test_bodies(api, vmm, tmp_path, how):
    body = json.dumps(MACHINE)
    (tmp_path / "body.json").write_text(body)
    argument = {"argument": body, "file": f"@{tmp_path}/body.json", "stdin": "-"}[how]
    result = api("put", "/machine-config", argument, stdin=body.encode())
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert vmm.get("/machine-config")["mem_size_mib"] == 64


def test_socket_of_the_environment(vmm):
    environment = {**os.environ, "MOTE_API_SOCKET": str(vmm.socket_path)}
    assert run_mote("api", "GET", "/", env=environment).returncode == 0
    environment["MOTE_API_SOCKET"] = "/nowhere"
    assert run_mote("api", "--socket", vmm.socket_path, "GET", "/", env=environment).returncode == 0
    assert says(run_mote("api", "GET", "/", env=environment), 1) == (
        "API socket /nowhere: nobody serves it: No such file or directory")


def run_with_own_run(preparation, *arguments):
    """`mote api` where /run is empty but for what the preparation puts there, whatever the host has."""
    environment = {k: v for k, v in os.environ.items() if k != "MOTE_API_SOCKET"}
    script = f"mount -t tmpfs none /run; {preparation}; exec \"$@\""
    return subprocess.run(["unshare", *([] if os.getuid() == 0 else ["--map-root-user"]), "--mount",
                           "sh", "-ec", script, "sh", MOTE, "api", *arguments], env=environment,
                          capture_output=True, timeout=TIME_LIMIT, check=False)


def test_socket_by_default(vmm):
    assert "API socket /run/firecracker.socket: nobody" in says(run_with_own_run("true", "GET", "/"), 1)
    link = f"ln -s {vmm.socket_path} /run/firecracker.socket"
    answer = json.loads(run_with_own_run(link, "GET", "/").stdout)
    assert answer["id"] == "test-1"


REFUSED = [
    (["GET", "/nothing"], "GET /nothing: there is no such path"),
    (["PUT", "/boot-source"], "PUT /boot-source: a JSON body is expected"),
    (["PUT", "/vsock", '{"guest_cid": 2, "uds_path": "v"}'],
     "PUT /vsock: guest_cid: 2 is not between 3 and 4294967294"),
    (["DELETE", "/drives/a"], "DELETE /drives/a: drive_id: there is no drive a"),
    (["PUT", "/actions", '{"action_type": "InstanceStart"}'],
     "PUT /actions: boot-source: no kernel has been configured"),
    (["PUT", "/vsock", '{"a": 1,\n "b" 2}'], "body: line 2, column 6: ':' expected near '2'"),
    (["PUT", "/vsock", '{"a": 1, "a": 2}'],
     "body: line 1, column 12: duplicate object key near '\"a\"'"),
    (["PATCH", "/vm", ""], "body: line 1, column 0: '[' or '{' expected near end of file"),
    (["PUT", "/vsock", "@/nowhere"], "/nowhere: No such file or directory"),
    (["PUT", "/vsock", "@/"], "/: Is a directory"),
    (["PUT", "/vsock", '"' + "x" * 60000 + '"'], "PUT /vsock: the body is too large"),
    (["GET", "/a b"], "/a b: a path that begins with / and has no spaces is expected"),
]


@pytest.mark.parametrize("arguments,sentence", REFUSED, ids=range(len(REFUSED)))
def test_errors_are_one_sentence(api, arguments, sentence):
    text = says(api(*arguments), 1)
    # jansson's own words come in more than one version.
    assert text == sentence or text.startswith("body: line 1, column 0: "), text


def test_input_that_is_not_json(api):
    assert says(api("PUT", "/vsock", "-", stdin=b"{"), 1).startswith("standard input: line 1, ")


@pytest.mark.parametrize("arguments,part", [
    (["--socket"], "--socket: a value is expected"), (["--nonsense"], "--nonsense: no such option"),
    (["FETCH", "/"], "METHOD FETCH: GET, PUT, PATCH or DELETE is expected"),
    (["GET", "version"], "PATH version: a path that begins with / is expected"),
])
def test_wrong_usage(arguments, part):
    assert part in says(run_mote("api", *arguments), 2)


@pytest.mark.parametrize("arguments", [[], ["GET"], ["PUT", "/", "{}", "more"]])
def test_wrong_number_of_arguments(arguments):
    result = run_mote("api", *arguments)
    assert result.returncode == 2 and result.stdout == b""
    assert result.stderr.startswith(b"usage: mote api ")


def test_help():
    result = run_mote("api", "--help")
    assert result.returncode == 0 and result.stderr == b""
    assert result.stdout.startswith(b"usage: mote api ")
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


@contextlib.contextmanager
def streaming(vmm, path):
    with subprocess.Popen([MOTE, "api", "--socket", vmm.socket_path, "GET", path],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process, \
            watchdog(process.kill):
        yield process
        process.stdout.read()
        process.wait(TIME_LIMIT)


def test_events_as_they_come(vmm):
    with streaming(vmm, "/events") as events:
        read = lambda: json.loads(events.stdout.readline())
        assert read()["state"] == "Not started"
        vmm.start("counter")
        assert read()["state"] == "Running"
        vmm.patch("/vm", {"state": "Paused"})
        assert read()["state"] == "Paused"
        vmm.process.terminate()
        assert read()["kind"] == "stopped"
        assert events.stderr.read() == b""
    assert events.returncode == 0


def test_console_byte_by_byte(vmm):
    """A line that has no end yet is printed, too."""
    vmm.start("ends-spin")
    with streaming(vmm, "/console") as console:
        assert console.stdout.read(7) == b"ending\n"
        console.send_signal(signal.SIGINT)
    assert console.returncode == -signal.SIGINT
    assert vmm.state() == "Running"


def test_stream_that_breaks_off(tmp_path):
    with start_api(tmp_path, expect=-signal.SIGKILL) as vmm:
        with streaming(vmm, "/events") as events:
            events.stdout.readline()
            vmm.process.kill()
            vmm.process.wait()
            vmm.socket_path.unlink()
            assert b"the connection ended in the middle of the answer" in events.stderr.read()
        assert events.returncode == 1


def test_output_that_cannot_be_written(vmm):
    with open("/dev/full", "wb") as full:
        result = subprocess.run([MOTE, "api", "--socket", vmm.socket_path, "GET", "/"],
                                stdout=full, stderr=subprocess.PIPE, timeout=TIME_LIMIT,
                                check=False)
    assert result.returncode == 1
    assert result.stderr == b"mote api: standard output: No space left on device\n"


def test_one_connection_too_many(vmm, api):
    vmm.connection.close()
    clients = []
    try:
        for _ in range(10):
            clients.append(vmm.connect())
            clients[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert clients[-1].recv(100)
        assert says(api("GET", "/"), 1) == "GET /: too many connections"
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("answer,part", [
    (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer in HTTP/1.1"), (b"", "ended without an answer"),
    (b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n\x1b[1mnoooo", "status 400, without a reason"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "in the middle of the answer"),
])
def test_something_else_at_the_socket(tmp_path, answer, part):
    def serve(connection):
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with listener(tmp_path / "s", serve):
        result = run_mote("api", "--socket", tmp_path / "s", "GET", "/")
    assert result.returncode == 1
    assert part in result.stderr.decode() and b"\x1b" not in result.stderr


def test_a_vm_from_its_kernel_to_its_end(tmp_path):
    with start_api(tmp_path) as vmm:
        calls = [("/boot-source", {"kernel_image_path": str(GUESTS / "hello")}),
                 ("/machine-config", MACHINE), ("/actions", {"action_type": "InstanceStart"})]
        for path, body in calls:
            result = run_mote("api", "--socket", vmm.socket_path, "PUT", path, json.dumps(body))
            assert (result.returncode, result.stderr) == (0, b"")
        assert vmm.process.wait(TIME_LIMIT) == 0
        assert vmm.console_path.read_text() == "hello\n"
