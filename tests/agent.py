# SPDX-License-Identifier: Apache-2.0
"""A client of the agent in a guest, written from docs/agent-protocol.md."""
import contextlib
import json
import socket
import struct
import subprocess

from support import BUILD, TIME_LIMIT, kernel, vmm_command

REQUEST, STDIN, STDIN_END, SIGNAL, WINDOW, REQUEST_PART = 1, 2, 3, 4, 5, 6
STDOUT, STDERR, EXIT, ERROR, RESULT, TAKEN, STARTED = 17, 18, 19, 20, 21, 22, 23
STDIN_WINDOW = 256 << 10


class Stream:
    """One request's stream to the agent, through a VM's vsock socket or a connection it opened."""

    def __init__(self, path=None, sock=None):
        self.socket = sock
        if path is not None:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIME_LIMIT)
            self.socket.connect(str(path))
            self.socket.sendall(b"CONNECT 52\n")
            answer = b""
            while not answer.endswith(b"\n"):
                byte = self.socket.recv(1)
                if not byte:
                    raise ConnectionRefusedError("no agent takes the connection")
                answer += byte
            assert answer.startswith(b"OK "), answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, kind, payload=b""):
        self.socket.sendall(struct.pack("<BI", kind, len(payload)) + payload)

    def request(self, name, value):
        self.send(REQUEST, json.dumps({name: value}).encode())

    def read_exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError(f"the stream ended behind {len(data)} of {size} bytes")
            data += part
        return data

    def frame(self):
        kind, size = struct.unpack("<BI", self.read_exactly(5))
        assert STDOUT <= kind <= STARTED and size <= 65536
        return kind, self.read_exactly(size)

    def finish(self):
        """Reads to the end: (output, errors, last frame's type, its JSON)."""
        parts = {STDOUT: [], STDERR: []}
        while True:
            kind, payload = self.frame()
            if kind in parts:
                parts[kind].append(payload)
            elif kind not in (TAKEN, STARTED):
                assert self.socket.recv(1) == b""
                return b"".join(parts[STDOUT]), b"".join(parts[STDERR]), kind, json.loads(payload)

    def wait_for(self, text):
        """Reads output until the text has come."""
        output = b""
        while text not in output:
            kind, payload = self.frame()
            assert kind in (STDOUT, STDERR, TAKEN, STARTED), payload
            output += payload if kind != TAKEN else b""
        return output


class Guest:
    """A VM whose agent is ready."""

    def __init__(self, process, path, first):
        self.process = process
        self.path = path
        self.first = first  # the stream that the agent has opened

    def stream(self):
        return Stream(self.path)

    def start(self, *argv, **options):
        """An exec whose stream is open."""
        stream = self.stream()
        stream.request("exec", {"argv": list(argv), **options})
        return stream

    def run(self, *argv, stdin=b"", **options):
        with self.start(*argv, **options) as stream:
            if stdin:
                stream.send(STDIN, stdin)
            stream.send(STDIN_END)
            return stream.finish()

    def sh(self, script, **options):
        """What a shell's script prints; its errors, status and accounts must be good."""
        output, errors, kind, end = self.run("sh", "-c", script, **options)
        assert kind == EXIT and end["code"] == 0 and not errors, (kind, end, errors)
        return output.decode()


@contextlib.contextmanager
def start_guest(folder, *, memory=128, name="microvm", initrd="initrd.cpio", boot_args="", **more):
    path = folder / "v.sock"
    config = {
        "boot-source": {"kernel_image_path": kernel(name), "initrd_path": str(BUILD / initrd),
                        "boot_args": "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1 "
                                     + boot_args},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": memory},
        "vsock": {"guest_cid": 3, "uds_path": str(path)},
        **more,
    }
    (folder / "vm.json").write_text(json.dumps(config))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(TIME_LIMIT)
        listener.bind(str(path) + "_52")
        listener.listen()
        with open(folder / "console", "wb") as console, subprocess.Popen(
                vmm_command(folder / "vm.json"), stdin=subprocess.DEVNULL, stdout=console,
                stderr=subprocess.DEVNULL) as process:
            try:
                first = listener.accept()[0]
                first.settimeout(TIME_LIMIT)
                with Stream(sock=first) as stream:
                    yield Guest(process, path, stream)
            finally:
                process.kill()
