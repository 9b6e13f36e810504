"""The emulated machine: QEMU and virtiofsd, and the sockets to its ports."""
import contextlib
import ctypes
import os
import signal
import socket
import subprocess

QEMU = "/usr/bin/qemu-system-x86_64"
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
PORTS = ["instructions", "stdin", "stdout", "stderr", "status"]
KERNEL_ARGUMENTS = [
    "console=ttyS0", "quiet", "panic=-1", "reboot=t", "rdinit=/init", "mitigations=off",
    "random.trust_cpu=on", "tsc=reliable", "cryptomgr.notests", "8250.nr_uarts=1",
    "rcupdate.rcu_expedited=1", "audit=0"]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Machine:
    """close() ends it, even half-started. `ports` and `log` are our ends of the sockets.

    The log carries the serial console and what the two processes print.
    """

    def __init__(self):
        self.processes = []
        self.ports = {}
        self.log = None

    def start(self, arguments, kernel, initrd):
        with contextlib.ExitStack() as theirs:
            def pair():
                ours, end = socket.socketpair()
                theirs.enter_context(end)
                return ours, end

            self.log, log = pair()
            ends = {"log": log, "share": theirs.enter_context(self.start_share(log))}
            for name in PORTS:
                self.ports[name], ends[name] = pair()
            self.spawn(qemu_command(arguments, kernel, initrd, ends), ends.values(), log)

    def start_share(self, log):
        """Starts virtiofsd; returns the socket for QEMU, which has no name in any file system."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("")
            server.listen(1)
            client = socket.socket(socket.AF_UNIX)
            client.connect(server.getsockname())
            self.spawn([VIRTIOFSD, "-f", f"--fd={server.fileno()}", "-o", "source=/",
                        "-o", "cache=always", "-o", "sandbox=chroot", "-o", "log_level=err"],
                       [server], log)
        return client

    def spawn(self, command, sockets, log):
        def prepare():
            # Not even SIGKILL of this process may leave the machine behind.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

        # A signal handler that raises after the fork would lose the process.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.processes.append(subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                pass_fds=[end.fileno() for end in sockets], preexec_fn=prepare))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def close(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def qemu_command(arguments, kernel, initrd, ends):
    kernel_arguments = list(KERNEL_ARGUMENTS)
    # When a nested guest exits, QEMU 7.2 (do_vmexit) alters interrupt_request without the lock under
    # which its main thread sets a bit there, so that now and then an interrupt is lost until the
    # next one. If that was the one-shot timer, no timer ever ends again. A periodic one comes again
    # by itself.
    kernel_arguments = [*KERNEL_ARGUMENTS, "nohz=off", "highres=off"]
    if arguments.virtual_time:
        acceleration = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
        # A halted processor would let the clock jump whenever the real machine is waited for.
        kernel_arguments += ["tsc_early_khz=1000000", "idle=poll"]
    else:
        acceleration = ["-accel", "tcg,thread=multi"]
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
