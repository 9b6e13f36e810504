# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where things are, and a microVM as a context."""
import contextlib
import json
import os
import pathlib
import subprocess
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
VARIANT = os.environ.get("MOTE_VARIANT", "release")
BUILD = TOP / "build" / VARIANT
VMM = BUILD / "mote-vmm"
MOTE = BUILD / "mote"
GUESTS = TOP / "build" / "guests"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mote"

# Far above what anything here takes, also under sanitizers and emulation: only a hang reaches it.
TIME_LIMIT = int(os.environ.get('MOTE_TEST_TIME_LIMIT', 180))


def kernel(name):
    """The file of a cached guest kernel."""
    return str(CACHE / "kernels" / name / "current" / "kernel")


def write_config(path, kernel_image, *, boot_args=None, initrd=None, serial=None, **machine):
    """Writes a configuration file for --config-file and returns its path."""
    boot_source = {"kernel_image_path": str(kernel_image)}
    if boot_args is not None:
        boot_source["boot_args"] = boot_args
    if initrd is not None:
        boot_source["initrd_path"] = str(initrd)
    config = {"boot-source": boot_source,
              "machine-config": {"vcpu_count": 1, "mem_size_mib": 16, **machine}}
    if serial is not None:
        config["serial"] = {"serial_out_path": str(serial)}
    path.write_text(json.dumps(config))
    return path


def vmm_in_the_open(*arguments):
    return [str(VMM), *map(str, arguments)]


# How tests start mote-vmm; those of tests/linux have it in a jail.
vmm_with = vmm_in_the_open


def vmm_command(config, *options):
    return vmm_with("--no-api", "--config-file", config, *options)


def run_vmm(config, *options, stdin=b"", **kwargs):
    """Runs a VM to its end: a CompletedProcess with bytes."""
    return subprocess.run(vmm_command(config, *options), input=stdin, capture_output=True,
                          timeout=TIME_LIMIT, check=False, **kwargs)


def run_mote(*arguments, stdin=b"", **kwargs):
    return subprocess.run([str(MOTE), *map(str, arguments)], input=stdin, capture_output=True,
                          timeout=TIME_LIMIT, check=False, **kwargs)


def open_files():
    """The descriptors of this process, to show that nothing is left open."""
    return sorted(os.listdir("/proc/self/fd"))


def running_processes():
    """Of each process, zombies left out: its id, its parent's id, its executable's name."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        comm, rest = stat[stat.index("(") + 1:].rsplit(")", 1)
        state, parent = rest.split()[:2]
        if state != "Z":
            yield int(folder.name), int(parent), comm


def processes(name):
    """The ids of the running processes with this executable name."""
    return [pid for pid, _, comm in running_processes() if comm == name]


def children():
    """The running child processes of this one."""
    return {(pid, comm) for pid, parent, comm in running_processes() if parent == os.getpid()}


@contextlib.contextmanager
def running(*functions, stop=lambda: None):
    """
    Each function in a thread of its own, as long as the context; `stop` is what makes them return.
    What one of them raises is raised at the end, unless the context itself has failed. A thread
    that does not return fails the test, and does not keep the process from ending.
    """
    raised = []

    def run(function):
        try:
            function()
        except BaseException as error:  # pylint: disable=broad-except
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True)
               for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop()
        end = time.monotonic() + TIME_LIMIT
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a thread of the test does not return"
    if raised:
        raise raised[0]


@contextlib.contextmanager
def watchdog(end, time_limit=TIME_LIMIT):
    """Calls end() if the context lasts too long; it must end every wait in there."""
    timer = threading.Timer(time_limit, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


WRITE, OPENAT = 1, 257


def wait_until_called(pid, number):
    """Until the process sleeps in that system call."""
    def calls():
        with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/syscall") as call:
            return (stat.read().rsplit(")", 1)[1].split()[0], call.read().split()[0]) == ("S", str(number))

    wait_until(calls, f"system call {number} to be waited in")


def wait_until(condition, what):
    """Polls a condition that no event announces."""
    end = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
