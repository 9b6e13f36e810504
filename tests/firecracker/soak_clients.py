# SPDX-License-Identifier: Apache-2.0
"""
Clients that others wrote, from Python's registry: each needs its package in the environment that
MOTE_CLIENTS names (python3 -m venv; pip install schemathesis==4.32.5), and is skipped by name without.
"""
import contextlib
import os
import pathlib
import socket
import socketserver
import subprocess
import tempfile

import pytest

from api import Vmm, answers
from jail import GID, UID, Jail
from support import GUESTS, TIME_LIMIT, TOP, VMM, running, wait_until

CLIENTS = pathlib.Path(os.environ.get("MOTE_CLIENTS", TOP / "build" / "clients"))
SCHEMATHESIS = CLIENTS / "bin" / "schemathesis"
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
