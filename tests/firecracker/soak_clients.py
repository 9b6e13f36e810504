# SPDX-License-Identifier: Apache-2.0
"""
Clients that others wrote. Those of Python's registry need their packages in the environment that
MOTE_CLIENTS names (python3 -m venv; pip install schemathesis==4.32.5 firecracker-python==0.0.5), Go's
its compiler; each is skipped by name without.
"""
import contextlib
import os
import pathlib
import shutil
import socket
import socketserver
import subprocess
import tempfile

import pytest

from api import Vmm, answers, start_api
from jail import GID, UID, Jail
from support import GUESTS, TIME_LIMIT, TOP, VMM, running, wait_until

CLIENTS = pathlib.Path(os.environ.get("MOTE_CLIENTS", TOP / "build" / "clients"))
SCHEMATHESIS = CLIENTS / "bin" / "schemathesis"
FIRECRACKER_PYTHON = list(CLIENTS.glob("lib/python3*/site-packages/firecracker"))
CHECKS = ",".join(("not_a_server_error", "status_code_conformance", "content_type_conformance",
                   "response_schema_conformance"))


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def over_tcp(path):
    """The port of 127.0.0.1 behind which the Unix socket is."""
    class Relay(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.socket(socket.AF_UNIX) as vmm, contextlib.suppress(OSError):
                vmm.connect(str(path))
                with running(lambda: pump(vmm, self.request)):
                    pump(self.request, vmm)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server, \
            running(server.serve_forever, stop=server.shutdown):
        yield server.server_address[1]


@contextlib.contextmanager
def jailed_vmm(base):
    """Whatever paths it is given, it reaches its own folder only."""
    jail = Jail(base, exec_file=VMM)
    with subprocess.Popen(jail.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        vmm = Vmm(process, base)
        vmm.socket_path = jail.root / "run" / "firecracker.socket"
        vmm.connection.path = str(vmm.socket_path)
        try:
            wait_until(lambda: answers(vmm.socket_path), "a socket")
            for name, content in ("vmlinux", (GUESTS / "waits").read_bytes()), \
                    ("rootfs.ext4", bytes(1 << 20)):
                (jail.root / name).write_bytes(content)
                os.chown(jail.root / name, UID, GID)
            yield vmm
        finally:
            vmm.connection.close()
            process.terminate()
            process.wait(TIME_LIMIT)


@pytest.mark.skipif(os.geteuid() != 0, reason="the jail is root's")
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
@pytest.mark.parametrize("started", [False, True])
def test_generated_requests(started):
    """
    Every operation of openapi.yaml: no crash, no 5xx, no status that is not documented, no answer of
    another shape.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, \
            jailed_vmm(pathlib.Path(folder)) as vmm:
        if started:
            vmm.put("/boot-source", {"kernel_image_path": "vmlinux"})
            vmm.action("InstanceStart")
        vmm.connection.close()
        with over_tcp(vmm.socket_path) as port:
            done = subprocess.run(
                [SCHEMATHESIS, "run", TOP / "api-socket" / "openapi.yaml",
                 "--url", f"http://127.0.0.1:{port}", "--checks", CHECKS,
                 "--phases", "examples,coverage",
                 "--exclude-operation-id", "streamEvents",
                 "--exclude-operation-id", "streamConsole", "--generation-deterministic",
                 "--max-examples", "50", "--request-timeout", "10"],
                capture_output=True, text=True, timeout=30 * TIME_LIMIT, check=False, cwd=folder)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert vmm.process.poll() is None and vmm.get("/")["state"]


# In namespaces of its own: it puts files below /var/lib, makes a tap device, and asks the Internet for
# its address, a docker for images and nftables for rules, of which it gets none here.
FIRECRACKER_WORLD = """
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /usr/local/bin
ln -s "$0" /usr/local/bin/firecracker
ip link add eth0 type veth peer name eth1
ip address add 192.0.2.2/24 dev eth0
ip link set eth0 up
ip link set eth1 up
ip route add default via 192.0.2.1
exec "$@"
"""
FIRECRACKER_SCRIPT = """
import sys
from unittest import mock
import firecracker.network
firecracker.network.NFTABLES_AVAILABLE = True
firecracker.network.Nftables = lambda: mock.Mock(**{"json_cmd.return_value": (0, {"nftables": []}, "")})
from firecracker import Api, MicroVM
with mock.patch("firecracker.microvm.get_public_ip", lambda: "192.0.2.2"), mock.patch("docker.from_env"):
    vm = MicroVM(kernel_file=sys.argv[1], base_rootfs=sys.argv[2], memory="128M", mmds_enabled=True,
                 user_data="text", vsock_enabled=True)
assert vm.create() == f"VMM {vm._microvm_id} created"
api = Api(vm._socket_file)
def state():
    return api.describe.get().json()["state"]
assert state() == "Running"
config = vm.config()
assert config["network-interfaces"][0]["host_dev_name"] == f"tap_{vm._microvm_id}"
assert config["mmds-config"]["version"] == "V2" and config["vsock"]["guest_cid"] == 3
assert api.mmds.get().json()["latest"]["user-data"] == "text"
vm.pause()
assert state() == "Paused"
vm.resume()
assert state() == "Running"
assert [one["id"] for one in MicroVM.list()] == [vm._microvm_id]
assert vm.delete() == f"VMM {vm._microvm_id} is deleted" and not MicroVM.list()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="its tap device is root's")
@pytest.mark.skipif(not FIRECRACKER_PYTHON, reason="firecracker-python is not installed")
def test_firecracker_python(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-ec",
         FIRECRACKER_WORLD, VMM, CLIENTS / "bin" / "python", "-c", FIRECRACKER_SCRIPT,
         GUESTS / "counter", tmp_path / "disk"],
        capture_output=True, text=True, timeout=5 * TIME_LIMIT, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ERROR" not in done.stdout + done.stderr, done.stdout


@pytest.mark.skipif(not shutil.which("go"), reason="Go is not installed")
def test_go(tmp_path):
    build = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off", "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", tmp_path / "client", TOP / "tests" / "firecracker" / "client.go"],
                   env=build, check=True, timeout=10 * TIME_LIMIT)
    with start_api(tmp_path) as vmm:
        done = subprocess.run([tmp_path / "client", vmm.socket_path, GUESTS / "waits"],
                              capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
        assert done.stdout.splitlines() == ["Paused", "Running"], done.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(tmp_path):
    """As its manual has it: sizes that are not known, connections that are kept, later protocols offered."""
    (tmp_path / "machine").write_text('{"vcpu_count": 1, "mem_size_mib": 128}')
    with start_api(tmp_path) as vmm:
        def curl(*arguments, stdin=None):
            done = subprocess.run(
                ["curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n",
                 "--unix-socket", vmm.socket_path, *arguments], input=stdin, capture_output=True,
                text=True, timeout=TIME_LIMIT, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        url = "http://localhost"
        assert curl("-T", tmp_path / "machine", f"{url}/machine-config") == ["204 1"]
        assert curl("-X", "PATCH", "-T", "-", "-H", "Expect: 100-continue", f"{url}/machine-config",
                    stdin='{"smt": false}') == ["204 1"]
        assert curl("--http2", f"{url}/version") == ["200 1"]
        assert curl("--compressed", f"{url}/version", "-o", "/dev/null", f"{url}/vm/config") == [
            "200 1", "200 0"]
        assert curl("-X", "PUT", f"{url}/boot-source", "-d",
                    f'{{"kernel_image_path": "{GUESTS}/waits"}}') == ["204 1"]
        assert curl("-X", "PUT", f"{url}/actions", "-d", '{"action_type": "InstanceStart"}') == ["204 1"]
        assert curl("--http1.0", f"{url}/") == ["200 1"]
        assert vmm.state() == "Running"
