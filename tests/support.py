# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where things are, and a microVM as a context."""
import json
import os
import pathlib
import subprocess
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


def processes(name):
    """The ids of the running processes with this executable name, zombies left out."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        comm, state = stat[stat.index("(") + 1:].rsplit(")", 1)
        if comm == name and state.split()[0] != "Z":
            found.append(int(folder.name))
    return found


def wait_until(condition, what):
    """Polls a condition that no event announces."""
    end = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
