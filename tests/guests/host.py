# SPDX-License-Identifier: Apache-2.0
"""The host's side of a guest's virtio devices: files, passt's part, who listens on a port."""
import contextlib
import ctypes
import fcntl
import functools
import json
import pathlib
import socket
import struct
import subprocess
import threading

from support import GUESTS, running, vmm_command, watchdog

CAPACITY = 1 << 20
ECHO_PORT, SINK_PORT = 52, 53
GUEST_MAC = "06:02:00:0a:00:01"


def drive(folder, *, name="scratch", read_only=False, content=None, **options):
    """A drive on a new file of 1 MiB: its path and its configuration."""
    path = folder / name
    with open(path, "wb") as file:
        file.write(content or b"")
        file.truncate(CAPACITY)
    return path, {"drive_id": name, "path_on_host": str(path), "is_root_device": False,
                  "is_read_only": read_only, "cache_type": "Writeback", **options}


def vm_config(folder, guest, *, boot_args="", vcpu_count=1, drives=(), interfaces=(), vsock=None,
              mmds=None):
    """Writes a configuration file for a freestanding guest with virtio devices."""
    config = {
        "boot-source": {"kernel_image_path": str(GUESTS / guest), "boot_args": boot_args},
        "machine-config": {"vcpu_count": vcpu_count, "mem_size_mib": 16},
        "drives": list(drives),
        "network-interfaces": list(interfaces),
    }
    if vsock:
        config["vsock"] = {"guest_cid": 3, "uds_path": str(vsock)}
    if mmds:
        config["mmds-config"] = mmds
    path = pathlib.Path(folder) / "vm.json"
    path.write_text(json.dumps(config))
    return path


@contextlib.contextmanager
def start_vmm(config, *options, **kwargs):
    """A running VM; when it takes far too long it is killed, which ends each wait for it."""
    with subprocess.Popen(vmm_command(config, *options), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs) as vmm, \
            watchdog(vmm.kill):
        try:
            yield vmm
        except BaseException:
            vmm.kill()
            raise


def ignoring_errors(function):
    def wrapped(*arguments):
        with contextlib.suppress(OSError):
            function(*arguments)
    return wrapped


@contextlib.contextmanager
def listener(path, serve):
    """
    A Unix socket that is served by a thread for each connection until the context's end. With
    `serve` None the connections stay open, and nothing is read.
    """
    stopped = threading.Event()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(64)
    connections = []

    @ignoring_errors
    def serve_one(connection):
        with connection:
            serve(connection)

    def accept(threads):
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if stopped.is_set():
                connection.close()
                return
            connections.append(connection)
            if not serve:
                continue
            threads.enter_context(running(functools.partial(serve_one, connection)))

    def stop():
        stopped.set()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(str(path))  # wakes the acceptor

    def hang_up():
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
                if not serve:
                    connection.close()

    try:
        with contextlib.ExitStack() as threads:
            try:
                with running(functools.partial(accept, threads), stop=stop):
                    yield
            finally:
                hang_up()
    finally:
        server.close()
        pathlib.Path(path).unlink(missing_ok=True)


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def echo_frames(connection):
    """passt's protocol, each frame sent back as it is."""
    with connection.makefile("rb") as frames:
        while length := frames.read(4):
            connection.sendall(length + frames.read(struct.unpack(">I", length)[0]))


@contextlib.contextmanager
def passt(folder):
    """What a network interface's configuration has besides, to be on passt's socket."""
    path = pathlib.Path(folder) / "passt"
    with listener(path, echo_frames):
        yield {"passt_socket": str(path)}


CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETPERSIST, SIOCSIFFLAGS = 0x400454CA, 0x400454CB, 0x8914
IFF_UP, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x2, 0x1000, 0x4000
ETHERTYPE = 0x88B5  # of lib/net.h
PACKET_OUTGOING = 4


def echo_packets(packets):
    while True:
        frame, address = packets.recvfrom(65536)
        if not frame:
            return
        if address[2] != PACKET_OUTGOING:
            with contextlib.suppress(OSError):  # too long for the device, say
                packets.send(frame)


def delete_tap(name):
    with open("/dev/net/tun", "r+b", buffering=0) as tun:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(),
                                                IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(tun, TUNSETPERSIST, 0)


def make_tap(name):
    """A tap device that stays, and is up."""
    request = lambda flags: struct.pack("16sH22x", name.encode(), flags)
    with open("/dev/net/tun", "r+b", buffering=0) as tun, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(tun, TUNSETIFF, request(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(tun, TUNSETPERSIST, 1)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request(IFF_UP))


@contextlib.contextmanager
def tap(_folder=None):
    """
    A network namespace of this thread, with a tap device whose frames of our EtherType are sent
    back. What is started in the context is in that namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as outside:
        if libc.unshare(CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            make_tap("tap0")
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                               socket.htons(ETHERTYPE)) as packets:
                packets.bind(("tap0", ETHERTYPE))
                # Without the tap device the thread's wait ends with an error.
                with running(functools.partial(ignoring_errors(echo_packets), packets),
                             stop=lambda: delete_tap("tap0")):
                    yield {"host_dev_name": "tap0"}
        finally:
            libc.setns(outside.fileno(), CLONE_NEWNET)
