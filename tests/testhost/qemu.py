"""A machine with AMD's SVM: QEMU and virtiofsd, and the sockets to its ports."""
import contextlib
import functools
import io
import os
import signal
import socket
import threading

import initramfs
from instructions import instructions, shared_directories
from machine import CHUNK_BYTES, KERNEL_ARGUMENTS, Machine

QEMU = "/usr/bin/qemu-system-x86_64"
# Code that QEMU has translated is kept until there is no room, also of guests that are gone; and a
# page that has some is slow to write, so that whoever got the pages of such a guest cleared them
# for up to 6 s in one go, in which nothing else ran. QEMU's own limit is 1 GiB.
TRANSLATED_MIB = 128
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
MODULES = ["virtio_pci", "virtio_console", "virtiofs", "overlay", "tun", "kvm_amd"]
PORTS = ["instructions", "stdin", "stdout", "stderr", "status"]


def feed(port, read):
    """Copies what `read` returns to a port of the machine, then ends the port."""
    with contextlib.suppress(OSError):
        while chunk := read(CHUNK_BYTES):
            port.sendall(chunk)
    with contextlib.suppress(OSError):
        port.shutdown(socket.SHUT_WR)


def start_feeding(port, read):
    # Signals must reach the main thread, which waits in a system call that only they interrupt.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Thread(target=feed, args=(port, read), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class QemuMachine(Machine):
    NEEDED = {QEMU: "qemu-system-x86", VIRTIOFSD: "qemu-system-common"}
    OUTPUTS = ["log", "stdout", "stderr", "status"]
    MEMORY_MIB = 3072

    def start(self, arguments, kernel):
        initrd = initramfs.initramfs(kernel, "init-qemu", MODULES)
        with contextlib.ExitStack() as theirs:
            def pair(name):
                self.ports[name], end = socket.socketpair()
                return theirs.enter_context(end)

            log = pair("log")
            ends = {"log": log, "share": theirs.enter_context(self.start_share(log))}
            ends |= {name: pair(name) for name in PORTS}
            # QEMU 7.2 alters interrupt_request of its processor by two threads without a lock: as
            # KVM guests are entered and left (helper_vmrun, do_vmexit), and by the main thread, as
            # a device interrupts. Where both run at once, an interrupt is lost now and then.
            # Threads of one processor take turns, and each change is one instruction.
            self.spawn(qemu_command(arguments, kernel, initrd, ends), ends.values(), log, log,
                       one_processor=arguments.cpus == 1)
        todo = instructions(arguments, shared_directories(kernel))
        start_feeding(self.ports["instructions"], io.BytesIO(todo).read)
        start_feeding(self.ports["stdin"], functools.partial(os.read, 0))

    def start_share(self, log):
        """Starts virtiofsd; returns the socket for QEMU, which has no name in any file system."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("")
            server.listen(1)
            client = socket.socket(socket.AF_UNIX)
            client.connect(server.getsockname())
            self.spawn([VIRTIOFSD, "-f", f"--fd={server.fileno()}", "-o", "source=/",
                        "-o", "cache=always", "-o", "sandbox=chroot", "-o", "log_level=err"],
                       [server], log, log)
        return client


def qemu_command(arguments, kernel, initrd, ends):
    # Should an interrupt be lost all the same (QemuMachine.start): a periodic one comes again by
    # itself, while after a one-shot timer's no timer would ever end.
    kernel_arguments = [*KERNEL_ARGUMENTS, "quiet", "nohz=off", "highres=off"]
    if arguments.virtual_time:
        acceleration = ["-accel", f"tcg,thread=single,tb-size={TRANSLATED_MIB}",
                        "-icount", "shift=0,sleep=off"]
        # A halted processor would let the clock jump whenever the real machine is waited for.
        kernel_arguments += ["tsc_early_khz=1000000", "idle=poll"]
    else:
        acceleration = ["-accel", f"tcg,thread=multi,tb-size={TRANSLATED_MIB}"]
    if arguments.verbose:
        kernel_arguments.append("ignore_loglevel")
    command = [
        QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35,memory-backend=memory,vmport=off,smbus=off,sata=off,usb=off",
        *acceleration, "-cpu", "EPYC,+svm,+npt,check=off", "-smp", str(arguments.cpus),
        "-m", f"{arguments.memory}M",
        "-object", f"memory-backend-memfd,id=memory,size={arguments.memory}M,share=on",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(kernel_arguments)]
    for name, end in ends.items():
        command += ["-chardev", f"socket,id={name},fd={end.fileno()}"]
    # The first virtio device gives the ports their names, vport0p<number>.
    command += ["-device", "virtio-serial-pci,max_ports=8"]
    for number, name in enumerate(PORTS, 1):
        command += ["-device", f"virtserialport,nr={number},chardev={name}"]
    command += ["-device", "vhost-user-fs-pci,chardev=share,tag=host,queue-size=1024",
                "-serial", "chardev:log"]
    return command
