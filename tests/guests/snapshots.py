# SPDX-License-Identifier: Apache-2.0
"""Snapshots of freestanding guests: how they are made and loaded, and what is in them."""
import contextlib
import pathlib
import shutil
import struct

from api import start_api
from support import GUESTS, wait_until

STATE, MEMORY = "vm.snapshot", "vm.memory"


def paths(folder):
    folder = pathlib.Path(folder)
    return {"snapshot_path": str(folder / STATE), "mem_file_path": str(folder / MEMORY)}


def start(vmm, guest, vcpu_count=1, mem_size_mib=32, **options):
    vmm.put("/boot-source", {
        "kernel_image_path": str(GUESTS / guest),
        "boot_args": " ".join(f"{name}={value}" for name, value in options.items())})
    vmm.put("/machine-config", {"vcpu_count": vcpu_count, "mem_size_mib": mem_size_mib})
    vmm.action("InstanceStart")


def says(vmm, text):
    wait_until(lambda: text in vmm.console_path.read_text(), text)


def pause(vmm):
    vmm.patch("/vm", {"state": "Paused"})


def resume(vmm):
    vmm.patch("/vm", {"state": "Resumed"})


def save(vmm, folder):
    """To a new folder, while it is paused."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    vmm.put("/snapshot/create", paths(folder))
    return folder


def load_body(folder, **fields):
    files = paths(folder)
    return {"snapshot_path": files["snapshot_path"],
            "mem_backend": {"backend_type": "File", "backend_path": files["mem_file_path"]},
            **fields}


def load(vmm, folder, **fields):
    vmm.put("/snapshot/load", load_body(folder, **fields))


def word(folder, address):
    """The 64 bits of guest memory there, as they were saved."""
    with open(pathlib.Path(folder) / MEMORY, "rb") as memory:
        memory.seek(address)
        return struct.unpack("<Q", memory.read(8))[0]


@contextlib.contextmanager
def loaded(folder, snapshot, *options, **fields):
    """A VMM of its own in `folder` that has loaded the snapshot, and runs."""
    folder.mkdir(exist_ok=True)
    with start_api(folder, *options) as vmm:
        load(vmm, snapshot, **{"resume_vm": True, **fields})
        yield vmm


def look(vmm, folder, *addresses):
    """What is in the memory of a VM that runs, by a snapshot that is not kept; it runs again then."""
    pause(vmm)
    save(vmm, folder)
    values = [word(folder, address) for address in addresses]
    shutil.rmtree(folder)
    resume(vmm)
    return values


def wait_for_more(vmm, folder, address, than):
    """Until a guest has counted on."""
    wait_until(lambda: look(vmm, folder, address)[0] > than, f"more than {than} at {address:#x}")


def saved(vmm, folder):
    pause(vmm)
    return save(vmm, folder)
