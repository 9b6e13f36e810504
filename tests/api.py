# SPDX-License-Identifier: Apache-2.0
"""A VMM that is driven through its API socket."""
import contextlib
import http.client
import json
import os
import socket
import subprocess

import support
from support import GUESTS, TIME_LIMIT, wait_until, watchdog


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=TIME_LIMIT)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)
        self.sock.settimeout(self.timeout)


class Vmm:
    def __init__(self, process, folder):
        self.process = process
        self.socket_path = folder / "api.sock"
        self.log_path = folder / "vmm.log"
        self.console_path = folder / "console"
        self.connection = Connection(self.socket_path)

    def request(self, method, path, body=None, headers=None):
        """The status and the decoded body; None if there is none."""
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status == 204:
            assert text == b"" and answer.getheader("Content-Length") is None
            return 204, None
        assert answer.getheader("Content-Type") == "application/json", text
        return answer.status, json.loads(text)

    def get(self, path):
        status, body = self.request("GET", path)
        assert status == 200, body
        return body

    def do(self, method, path, body=None):
        """A request that must succeed."""
        status, answer = self.request(method, path, body)
        assert status == 204, answer

    def put(self, path, body):
        self.do("PUT", path, body)

    def patch(self, path, body):
        self.do("PATCH", path, body)

    def fault(self, method, path, body=None):
        """The sentence with which a request is refused."""
        status, answer = self.request(method, path, body)
        assert status == 400, answer
        assert list(answer) == ["fault_message"]
        return answer["fault_message"]

    def set_guest(self, name, **machine):
        self.put("/boot-source", {"kernel_image_path": str(GUESTS / name)})
        self.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 16, **machine})

    def action(self, name):
        self.put("/actions", {"action_type": name})

    def start(self, guest, **machine):
        self.set_guest(guest, **machine)
        self.action("InstanceStart")

    def state(self):
        return self.get("/")["state"]

    def stream(self, path):
        """An open stream, on a connection of its own."""
        connection = Connection(self.socket_path)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.connection_kept = connection
        return answer

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(str(self.socket_path))
        client.settimeout(TIME_LIMIT)
        return client

    def log(self):
        return self.log_path.read_text()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def answers(path):
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def start_api(folder, *options, expect=0, **kwargs):
    """A VMM with an API and no VM yet; it is terminated at the end if it runs still."""
    with open(folder / "vmm.log", "wb") as log, open(folder / "console", "wb") as console, \
            subprocess.Popen(support.vmm_with("--api-sock", folder / "api.sock", *options),
                             stdin=subprocess.DEVNULL, stdout=console, stderr=log,
                             **kwargs) as process, watchdog(process.kill):
        vmm = Vmm(process, folder)
        try:
            wait_until(lambda: answers(vmm.socket_path) or process.poll() is not None, "a socket")
            yield vmm
            if process.poll() is None:
                process.terminate()
            status = process.wait(TIME_LIMIT)
            assert status == expect, vmm.log()
            assert not vmm.socket_path.exists()
        except BaseException:
            process.kill()
            raise
        finally:
            vmm.connection.close()
