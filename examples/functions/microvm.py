# SPDX-License-Identifier: Apache-2.0
"""One microVM, from its API socket to its agent; nothing but Python's standard library.

    with MicroVM(settings) as vm:
        result = vm.run(["sh", "-c", "tr a-z A-Z"], b"hello", timeout_ms=1000)

docs/api.md describes the API, docs/agent-protocol.md what the agent in the guest understands. With a
jailer, which root alone can start, mote-vmm runs in a jail that holds nothing but its sockets: its files
are opened here, and it inherits them.
"""
import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import selectors
import signal
import shutil
import socket
import struct
import subprocess
import tempfile
import time

AGENT_PORT = 52
FRAME = struct.Struct("<BI")
REQUEST, STDIN, STDIN_END, STDOUT, STDERR, EXIT, ERROR, TAKEN = 1, 2, 3, 17, 18, 19, 20, 22
STDIN_WINDOW = 256 << 10
# Each VM is a user of its own, whom the host does not know.
USERS = itertools.cycle(range(2_000_000_000, 2_100_000_000))
# Ids of jails are also names of cgroups, which are one list for the whole host.
NUMBERS = itertools.count()
# What mote-vmm itself needs beside its guest's memory and its one virtual processor, and may log.
MEMORY_BESIDE = 256 << 20
THREADS = 1 + 64
LOG_MAX = 1 << 20
PAYLOAD_MAX = 64 << 10


class MicroVMError(Exception):
    """The microVM failed, whatever its program did; the text is one sentence."""


@dataclasses.dataclass
class Settings:
    vmm: str
    kernel: str
    initrd: str
    jailer: str = ""        # without it there is no jail
    rootfs: str = ""        # an image; without it the initrd is the root
    memory_mib: int = 128
    start_seconds: float = 10.0
    end_seconds: float = 5.0  # how much later than its timeout a program may end
    output_max: int = 1 << 20


@dataclasses.dataclass
class Result:
    stdout: bytes
    stderr: bytes
    exit: dict      # as the agent's EXIT frame tells it; {"error": ..., "status": N} if it never ran
    overflow: bool  # it printed more than it may, and was ended


def fault(text):
    """The sentence of an answer that refuses, whoever wrote it."""
    try:
        answer = json.loads(text)
        return str(answer.get("fault_message") or answer["error"])
    except (ValueError, KeyError, AttributeError):
        return f"its API answered {text[:100]!r}"


def memory_limit(size):
    """As a file of the cgroup that a jail has; its version is 2 where that is the only one."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        lines = file.read().splitlines()
    alone = len(lines) == 1 and lines[0].startswith("0::")
    return f"{'memory.max' if alone else 'memory.limit_in_bytes'}={size}"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, seconds):
        super().__init__("localhost", timeout=seconds)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class MicroVM:
    def __init__(self, settings):
        self.settings = settings
        self.closing = contextlib.ExitStack()

    def __enter__(self):
        try:
            self.start()
        except (OSError, http.client.HTTPException) as error:
            self.closing.close()
            raise MicroVMError(f"it could not be started: {str(error) or type(error).__name__}") from None
        except BaseException:
            self.closing.close()
            raise
        return self

    def __exit__(self, *_):
        self.closing.close()

    def path(self, name):
        """Of a socket, as it is seen from here."""
        return os.path.join(self.sockets, name)

    def open(self, path):
        """What mote-vmm calls a file that it inherits."""
        fd = os.open(path, os.O_RDONLY)
        self.files.callback(os.close, fd)
        self.inherited.append(fd)
        return f"/dev/fd/{fd}"

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="function-")
        self.closing.callback(shutil.rmtree, self.folder)
        self.inherited, self.files = [], contextlib.ExitStack()
        with self.files:
            config = self.configuration()
            self.spawn()
        api = self.connect_api()
        # The agent connects to this when the guest is ready.
        listener = self.closing.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(self.path(f"v.sock_{AGENT_PORT}"))
        if self.settings.jailer:
            # A VMM that was taken over may have put a link in its place.
            os.chown(self.path(f"v.sock_{AGENT_PORT}"), self.user, self.user, follow_symlinks=False)
        listener.listen(1)
        self.request(api, config)
        self.wait_for(listener, time.monotonic() + self.settings.start_seconds, "start")
        self.agent, _ = listener.accept()
        self.closing.enter_context(self.agent)

    def spawn(self):
        settings = self.settings
        if settings.jailer:
            self.user = next(USERS)
            name = os.path.basename(settings.vmm)
            jail = f"{os.getpid()}-{next(NUMBERS)}"
            self.sockets = os.path.join(self.folder, name, jail, "root", "run")
            command = [settings.jailer, "--id", jail, "--exec-file", settings.vmm, "--uid",
                       str(self.user), "--gid", str(self.user), "--chroot-base-dir", self.folder,
                       "--read-only-root", "--new-netns", "--resource-limit", f"fsize={LOG_MAX}",
                       "--cgroup", memory_limit((settings.memory_mib << 20) + MEMORY_BESIDE),
                       "--cgroup", f"pids.max={THREADS}",
                       *[text for fd in self.inherited for text in ("--keep-fd", str(fd))],
                       "--", "--api-sock", "/run/api.sock"]
        else:
            self.sockets = self.folder
            command = [settings.vmm, "--api-sock", self.path("api.sock")]
        # For SIGQUIT the jailer kills mote-vmm, and removes the jail. They get it if we are killed, too.
        end = signal.SIGQUIT if settings.jailer else signal.SIGKILL
        command = ["setpriv", "--pdeathsig", end.name.removeprefix("SIG"), "--", *command]
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.process = subprocess.Popen(command, pass_fds=self.inherited,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=log)
        self.closing.callback(self.process.wait)
        self.closing.callback(self.process.send_signal, end)
        self.ended = os.pidfd_open(self.process.pid)
        self.closing.callback(os.close, self.ended)

    def connect_api(self):
        end = time.monotonic() + self.settings.start_seconds
        while True:
            api = UnixConnection(self.path("api.sock"), self.settings.start_seconds)
            try:
                api.connect()
                return api
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise MicroVMError(self.last_words()) from None
                time.sleep(0.001)  # a new process needs about one

    def configuration(self):
        settings = self.settings
        boot_args = "8250.nr_uarts=1 console=ttyS0 quiet reboot=k panic=-1"
        requests = [
            ("/machine-config", {"vcpu_count": 1, "mem_size_mib": settings.memory_mib,
                                 "huge_pages": "Transparent"}),
            ("/vsock", {"guest_cid": 3, "uds_path": "/run/v.sock" if settings.jailer else
                        os.path.join(self.folder, "v.sock")}),
        ]
        if settings.rootfs:
            boot_args += " mote.root=ro"
            requests.append(("/drives/rootfs", {
                "drive_id": "rootfs", "path_on_host": self.open(settings.rootfs),
                "is_root_device": True, "is_read_only": True}))
        return requests + [
            ("/boot-source", {"kernel_image_path": self.open(settings.kernel),
                              "initrd_path": self.open(settings.initrd),
                              "boot_args": boot_args}),
            ("/actions", {"action_type": "InstanceStart"}),
        ]

    @staticmethod
    def request(api, requests):
        for path, body in requests:
            api.request("PUT", path, json.dumps(body))
            answer = api.getresponse()
            text = answer.read()
            if answer.status != 204:
                raise MicroVMError(fault(text))
        api.close()

    def last_words(self):
        """The last line of the log tells why a VM ended."""
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
            lines = log.read().splitlines() or ["it ended without a word"]
        return lines[-1].split("] ", 1)[-1]

    def wait_for(self, readable, deadline, what):
        """Until there is something to read; or the VM's end, or the deadline, as errors."""
        left = deadline - time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(readable, selectors.EVENT_READ)
            selector.register(self.ended, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(left)] if left > 0 else []
        if readable not in ready:
            raise MicroVMError(self.last_words() if ready else f"it took too long to {what}")

    def run(self, argv, data=b"", timeout_ms=1000, env=()):
        """Runs the one program of this VM to its end."""
        deadline = time.monotonic() + timeout_ms / 1000 + self.settings.end_seconds
        # A guest that takes nothing does not hold us up either.
        self.agent.settimeout(timeout_ms / 1000 + self.settings.end_seconds)
        self.send(REQUEST, json.dumps({"exec": {
            "argv": list(argv), "env": list(env), "timeout_ms": timeout_ms}}).encode())
        stdout, stderr = bytearray(), bytearray()
        sent, window = 0, STDIN_WINDOW
        ended = False
        while True:
            while not ended and window > 0 and sent < len(data):
                part = data[sent:sent + min(window, PAYLOAD_MAX)]
                self.send(STDIN, part)
                sent, window = sent + len(part), window - len(part)
            if not ended and sent == len(data):
                self.send(STDIN_END)
                ended = True
            kind, payload = self.receive(deadline)
            if kind == STDOUT:
                stdout += payload
            elif kind == STDERR:
                stderr += payload
            elif kind == TAKEN:
                window += int.from_bytes(payload, "little")
            elif kind in (EXIT, ERROR):
                return Result(bytes(stdout), bytes(stderr), self.parse_end(kind, payload), False)
            else:
                raise MicroVMError("its agent does not speak the protocol")
            if len(stdout) + len(stderr) > self.settings.output_max:
                return Result(bytes(stdout), bytes(stderr), {}, True)

    @staticmethod
    def parse_end(kind, payload):
        """The guest may say anything; what is kept of it has the types that are documented."""
        try:
            end = json.loads(payload)
            if kind == ERROR:
                return {"error": str(end["error"]), "status": int(end["status"])}
            numbers = {name: int(end[name])
                       for name in ("user_us", "system_us", "memory_peak_bytes")}
            how = "code" if "code" in end else "signal"
            return {how: int(end[how]), **numbers, "timed_out": end["timed_out"] is True,
                    "oom_killed": end["oom_killed"] is True}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise MicroVMError("its agent does not speak the protocol") from None

    def send(self, kind, payload=b""):
        try:
            self.agent.sendall(FRAME.pack(kind, len(payload)) + payload)
        except TimeoutError:
            raise MicroVMError("it took too long to end") from None
        except OSError:
            raise MicroVMError(self.last_words()) from None

    def receive(self, deadline):
        kind, length = FRAME.unpack(self.receive_exactly(FRAME.size, deadline))
        if length > PAYLOAD_MAX:
            raise MicroVMError("its agent does not speak the protocol")
        return kind, self.receive_exactly(length, deadline)

    def receive_exactly(self, length, deadline):
        data = b""
        while len(data) < length:
            self.wait_for(self.agent, deadline, "end")
            try:
                part = self.agent.recv(length - len(data))
            except OSError:
                part = b""
            if not part:
                # The guest is gone; the VMM says why when it is, too.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(self.settings.end_seconds)
                raise MicroVMError(self.last_words())
            data += part
        return data
