# SPDX-License-Identifier: Apache-2.0
"""A file on a disk that answers when a test lets it: served by FUSE (linux/fuse.h)."""
import contextlib
import ctypes
import functools
import os
import select
import stat
import struct
import threading

from support import running

HEADER = struct.Struct("<IIQQIIII")  # len, opcode, unique, nodeid, uid, gid, pid, padding
ANSWER = struct.Struct("<IiQ")
GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, FALLOCATE = \
    3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 43
FORGET, INTERRUPT, BATCH_FORGET, DESTROY = 2, 36, 42, 38
DIRECT_IO, NO_FLUSH = 1, 32  # a process that ends waits for nothing
ENOSYS = 38
MNT_DETACH = 2
REQUEST_MAX = (1 << 20) + 4096


class Disk:
    def __init__(self, device, path, size):
        self.device, self.path, self.size = device, path, size
        # Cleared, it does not answer, and does not even look: what the kernel has told a server of
        # FUSE, it waits for even when its process is killed, and no disk is like that.
        self.free = threading.Event()
        self.free.set()
        self.waits = threading.Event()  # something waits for an answer

    def answer(self, unique, data=b"", error=0):
        # Of a process that has been killed the request is gone.
        with contextlib.suppress(OSError):
            os.write(self.device, ANSWER.pack(ANSWER.size + len(data), -error, unique) + data)

    def attributes(self):
        return struct.pack("<QQQQQQIIIIIIIIII", 1, self.size, self.size >> 9, 0, 0, 0, 0, 0, 0,
                           stat.S_IFREG | 0o644, 1, 0, 0, 0, 4096, 0)

    def do(self, opcode, unique, body):
        if opcode == INIT:
            major, minor, readahead = struct.unpack_from("<III", body)
            self.answer(unique, struct.pack("<IIIIHHIIHHI28x", 7, 31, readahead, 0, 16, 12,
                                            1 << 20, 1, 256, 0, 0))
        elif opcode in (GETATTR, SETATTR):
            self.answer(unique, struct.pack("<QII", 1, 0, 0) + self.attributes())
        elif opcode == OPEN:
            self.answer(unique, struct.pack("<QII", 1, DIRECT_IO | NO_FLUSH, 0))
        elif opcode == READ:
            size, = struct.unpack_from("<I", body, 16)
            self.answer(unique, bytes(size))
        elif opcode == WRITE:
            size, = struct.unpack_from("<I", body, 16)
            self.answer(unique, struct.pack("<II", size, 0))
        elif opcode == STATFS:
            self.answer(unique, struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 1, 1, 4096,
                                            255, 4096, 0))
        elif opcode in (FSYNC, FLUSH, RELEASE, FALLOCATE, DESTROY):
            self.answer(unique)
        elif opcode not in (FORGET, INTERRUPT, BATCH_FORGET):
            self.answer(unique, error=ENOSYS)

    def serve(self, end):
        """Until `end` is readable: a copy of the mount may be in another namespace, and outlive it."""
        while end not in select.select([self.device, end], [], [])[0]:
            if not self.free.is_set():
                self.waits.set()
                self.free.wait()
            try:
                request = os.read(self.device, REQUEST_MAX)
            except BlockingIOError:
                continue  # of a process that was killed
            except OSError:
                return  # the last mount has gone
            _, opcode, unique, *_ = HEADER.unpack_from(request)
            self.do(opcode, unique, request[HEADER.size:])


@contextlib.contextmanager
def slow_disk(folder, name="slow", size=5 << 30):
    """A file that is a mount; `free` is cleared to make its disk stop answering."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = folder / name
    path.touch()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    end, end_writer = os.pipe2(os.O_CLOEXEC)
    options = f"fd={device},rootmode=100644,user_id=0,group_id=0,allow_other".encode()
    try:
        if libc.mount(b"mote-slow", bytes(path), b"fuse", 0, options) < 0:
            raise OSError(ctypes.get_errno(), "mount")
        disk = Disk(device, path, size)

        def unmount():
            disk.free.set()
            libc.umount2(bytes(path), MNT_DETACH)
            os.write(end_writer, b"\0")
        with running(functools.partial(Disk.serve, disk, end), stop=unmount):
            yield disk
    finally:
        # The device last: with it the kernel gives up what is left.
        for descriptor in (end, end_writer, device):
            os.close(descriptor)
