"""What the emulated machines have in common: processes, and ports that lead to them."""
import ctypes
import os
import signal
import subprocess

# Of both machines' kernel.
KERNEL_ARGUMENTS = [
    "console=ttyS0,115200", "panic=-1", "reboot=t", "rdinit=/init", "mitigations=off",
    "random.trust_cpu=on", "tsc=reliable", "cryptomgr.notests", "8250.nr_uarts=1",
    "rcupdate.rcu_expedited=1", "audit=0"]
CHUNK_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """Not even SIGKILL of this process may leave the machine behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """
    close() ends it, even half-started. `ports` are our ends of its sockets and pipes. Of these the
    subclass's OUTPUTS are read: "log" carries the serial console and what the processes print.
    """

    def __init__(self):
        self.processes = []
        self.ports = {}

    def spawn(self, command, passed, stdout, stderr, cwd=None, one_processor=False):
        """one_processor: all its threads stay on the one where it starts, the idlest."""
        def prepare():
            die_with_parent()
            if one_processor:
                os.sched_setaffinity(0, {LIBC.sched_getcpu()})
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

        # A signal handler that raises after the fork would lose the process.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.processes.append(subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                start_new_session=True, pass_fds=[end.fileno() for end in passed],
                preexec_fn=prepare, cwd=cwd))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def close(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
