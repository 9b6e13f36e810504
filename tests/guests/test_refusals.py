# SPDX-License-Identifier: Apache-2.0
"""
A request that is refused changes nothing, whichever route it takes: the configuration, what is open
and what listens are as they were, and the VM still starts.
"""
import contextlib
import json
import os
import shutil
import socket
import subprocess

import pytest

import host
from api import start_api
from support import BUILD, GUESTS, TIME_LIMIT

NOT_STARTED, RUNNING = "Not started", "Running"
KERNEL = str(GUESTS / "counter")
NOWHERE = "/nonexistent/file"
LIMITER = {"ops": {"size": 10, "refill_time": 100, "one_time_burst": 0}}
LOCAL = {"drive_id": "data", "is_root_device": False}


def drive(**fields):
    return {**LOCAL, "path_on_host": "{data}", **fields}


def interface(**fields):
    return {"iface_id": "eth0", **fields}


# For each route bodies that are refused before the start, after it, or (with None) in both states.
# "{NAME}" in one of their words stands for a file. An id in the path is the body's, if it has one.
REFUSED = {
    "PUT /boot-source": [
        (None, {"kernel_image_path": NOWHERE}),
        (None, {"kernel_image_path": "{data}"}),
        (None, {"kernel_image_path": KERNEL, "initrd_path": NOWHERE}),
        (None, {"kernel_image_path": KERNEL, "initrd_path": "/dev/null"}),
        (None, {"kernel_image_path": KERNEL, "boot_args": "x" * 2048}),
        (RUNNING, {"kernel_image_path": KERNEL, "boot_args": "other"}),
    ],
    "PUT /machine-config": [
        (None, {"vcpu_count": 2, "mem_size_mib": 0}),
        (None, {"vcpu_count": 33, "mem_size_mib": 64}),
        (RUNNING, {"vcpu_count": 2, "mem_size_mib": 64}),
    ],
    "PATCH /machine-config": [
        (None, {}),
        (None, {"smt": None}),
        (None, {"vcpu_count": 2, "mem_size_mib": 0}),
        (None, {"mem_size_mib": 65, "huge_pages": "2M"}),
        (RUNNING, {"vcpu_count": 2}),
    ],
    "PUT /cpu-config": [
        (None, {"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0,
                                     "modifiers": [{"register": "nonsense", "bitmap": "0b1"}]}]}),
        (RUNNING, {}),
    ],
    "PUT /metrics": [(None, {"metrics_path": NOWHERE}), (None, {"metrics_path": "{other}"})],
    "PUT /serial": [(None, {"serial_out_path": NOWHERE, "buffer_size": 8192}),
                    (RUNNING, {"serial_out_path": "{other}"})],
    "PUT /logger": [(None, {"level": "Debug", "log_path": NOWHERE, "show_level": True}),
                    (None, {"level": "nonsense", "log_path": "{other}"}),
                    (RUNNING, {"level": "Debug"})],
    "PUT /drives/{}": [
        (None, drive(path_on_host=NOWHERE)),
        (None, drive(path_on_host="/dev/null")),
        (None, drive(path_on_host="{root}")),
        (None, drive(is_root_device=True)),
        (None, drive(partuuid="nonsense")),
        (None, drive(drive_id="new", path_on_host=NOWHERE)),
        (RUNNING, drive(path_on_host="{other}")),
    ],
    "PATCH /drives/{}": [
        (None, {"drive_id": "nobody", "rate_limiter": LIMITER}),
        (None, {"drive_id": "data"}),
        (None, {"drive_id": "data", "path_on_host": NOWHERE, "rate_limiter": LIMITER}),
        (None, {"drive_id": "data", "path_on_host": "{root}", "rate_limiter": LIMITER}),
        (NOT_STARTED, {"drive_id": "data", "path_on_host": "{other}", "rate_limiter": LIMITER}),
    ],
    "DELETE /drives/{}": [(None, "nobody"), (RUNNING, "data")],
    "PUT /network-interfaces/{}": [
        (None, interface()),
        (None, interface(passt_socket=NOWHERE)),
        (None, interface(host_dev_name="tap0", passt_socket="{passt}")),
        (None, interface(passt_socket="{passt}", guest_mac="nonsense")),
        (None, interface(iface_id="eth1", passt_socket=NOWHERE)),
        (RUNNING, interface(passt_socket="{passt}")),
    ],
    "PATCH /network-interfaces/{}": [
        (None, {"iface_id": "nobody", "rx_rate_limiter": LIMITER}),
        (NOT_STARTED, interface(rx_rate_limiter=LIMITER)),
    ],
    "DELETE /network-interfaces/{}": [(None, "nobody"), (RUNNING, "eth0")],
    "PUT /vsock": [
        (None, {"guest_cid": 4, "uds_path": NOWHERE}),
        (None, {"guest_cid": 2, "uds_path": "{vsock}"}),
        (None, {"guest_cid": 4, "uds_path": "{data}"}),
        (None, {"guest_cid": 4, "uds_path": "{passt}"}),
        (None, {"guest_cid": 4, "uds_path": ""}),
        (RUNNING, {"guest_cid": 4, "uds_path": "{vsock}"}),
    ],
    "PUT /mmds/config": [
        (None, {"network_interfaces": []}),
        (None, {"network_interfaces": ["nobody"], "version": "V2"}),
        (None, {"network_interfaces": ["eth0"], "ipv4_address": "10.0.0.1"}),
        (RUNNING, {"network_interfaces": ["eth0"], "version": "V2"}),
    ],
    # Of these only what is no object.
    "PUT /mmds": [],
    "PATCH /mmds": [],
    "PUT /actions": [(NOT_STARTED, {"action_type": "SendCtrlAltDel"}),
                     (RUNNING, {"action_type": "InstanceStart"})],
    "PUT /snapshot/create": [(None, {"snapshot_path": "{data}", "mem_file_path": "{other}"})],
    "PUT /snapshot/load": [
        (None, {"snapshot_path": "{data}", "mem_file_path": "{other}"}),
        (None, {"snapshot_path": "{data}"}),
    ],
    "PATCH /vm": [(NOT_STARTED, {"state": "Resumed"}), (NOT_STARTED, {"state": "Paused"})],
}
# What no body at all, an empty one and one with a field too many are refused for, wherever they go.
EVERYWHERE = [None, "", "[]", {"nonsense": 1}]


def changing_routes():
    """METHOD PATH, and whether there is such a thing at all."""
    lines = subprocess.run([BUILD / "print-routes"], capture_output=True, check=True,
                           timeout=TIME_LIMIT).stdout.decode().splitlines()
    for method, path, *missing in map(str.split, lines):
        if method != "GET":
            yield f"{method} {path}", not missing


ROUTES = dict(changing_routes())


def test_every_route_is_refused_something():
    assert {route for route, served in ROUTES.items() if served} == set(REFUSED)


def requests(route, state, files):
    """(METHOD, path, body) for each request of that route that is refused."""
    method, pattern = route.split()
    name = {"drives": "data", "network-interfaces": "eth0"}.get(pattern.split("/")[1], "x")
    if method == "DELETE":
        for when, name in REFUSED[route]:
            if when in (None, state):
                yield method, pattern.format(name), None
        yield method, pattern.format("x"), {}
        return
    for body in EVERYWHERE[:-1] if pattern == "/mmds" else EVERYWHERE:
        yield method, pattern.format(name), body
    for when, body in REFUSED.get(route, []):
        if when in (None, state):
            body = {key: value.format(**files) if isinstance(value, str) else value
                    for key, value in body.items()}
            yield method, pattern.format(body.get("drive_id", body.get("iface_id", name))), body


def listens(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
        client.settimeout(TIME_LIMIT)
        client.connect(path)
        return True


def seen(vmm, files):
    """All that can be told of a VM from outside, but for how far its guest is."""
    opened = {}
    for number in os.listdir(f"/proc/{vmm.process.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # a client's, which is gone
            opened[number] = os.readlink(f"/proc/{vmm.process.pid}/fd/{number}")
    return {"state": vmm.state(), "config": vmm.get("/vm/config"), "opened": opened,
            "metadata": vmm.get("/mmds"),
            "vsock": os.stat(files["vsock"]).st_ino}


@contextlib.contextmanager
def whole_vm(folder):
    """One that has something of everything, and the files that it uses."""
    files = {name: str(host.drive(folder, name=name)[0]) for name in ("root", "data", "other")}
    files |= {name: str(folder / name) for name in ("vsock", "passt", "serial", "metrics", "log")}
    with host.passt(folder) as passt, start_api(folder) as vmm:
        vmm.put("/logger", {"log_path": files["log"]})
        vmm.put("/metrics", {"metrics_path": files["metrics"]})
        vmm.put("/serial", {"serial_out_path": files["serial"], "buffer_size": 4096})
        vmm.set_guest("counter")
        vmm.put("/cpu-config", {})
        vmm.put("/drives/root", {"drive_id": "root", "path_on_host": files["root"],
                                 "is_root_device": True, "partuuid": "0eaa91a0-01"})
        vmm.put("/drives/data", {**LOCAL, "path_on_host": files["data"]})
        vmm.put("/network-interfaces/eth0", interface(**passt))
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": files["vsock"]})
        vmm.put("/mmds/config", {"network_interfaces": ["eth0"]})
        vmm.put("/mmds", {"a": {"b": "c"}})
        yield vmm, files


@pytest.mark.parametrize("state", [NOT_STARTED, RUNNING])
@pytest.mark.parametrize("route", ROUTES)
def test_refusal_changes_nothing(tmp_path, route, state):
    with whole_vm(tmp_path) as (vmm, files):
        if state == RUNNING:
            vmm.action("InstanceStart")
        before = seen(vmm, files)
        for request in requests(route, state, files):
            assert vmm.fault(*request)
            assert seen(vmm, files) == before, request
        if state == NOT_STARTED:
            vmm.action("InstanceStart")
        assert vmm.state() == RUNNING
        assert listens(files["vsock"])


@pytest.mark.parametrize("device, body", [
    ("/vsock", {"guest_cid": 3, "uds_path": "{folder}/v"}),
    ("/drives/data", {**LOCAL, "path_on_host": "{folder}/disk"}),
    ("/serial", {"serial_out_path": "{folder}/out"}),
    ("/boot-source", {"kernel_image_path": "{folder}/kernel"}),
])
def test_what_was_there_stays_when_it_cannot_be_had_again(tmp_path, device, body):
    """Its file is open, or it has its socket, though the folder of both is gone."""
    folder = tmp_path / "folder"
    folder.mkdir()
    host.drive(folder, name="disk")
    shutil.copy(KERNEL, folder / "kernel")
    body = json.loads(json.dumps(body).replace("{folder}", str(folder)))
    with start_api(tmp_path) as vmm:
        vmm.set_guest("counter")
        vmm.put(device, body)
        shutil.rmtree(folder)
        before, descriptors = vmm.get("/vm/config"), vmm.descriptors()
        assert str(folder) in vmm.fault("PUT", device, body)
        assert (vmm.get("/vm/config"), vmm.descriptors()) == (before, descriptors)
        vmm.action("InstanceStart")
        assert vmm.state() == RUNNING


def test_vsock_that_is_configured_again_is_the_same_socket(tmp_path):
    path = tmp_path / "v"
    with start_api(tmp_path) as vmm:
        vmm.set_guest("counter")
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(path)})
        inode, descriptors = path.stat().st_ino, vmm.descriptors()
        vmm.put("/vsock", {"guest_cid": 4, "uds_path": str(path)})
        assert vmm.get("/vm/config")["vsock"]["guest_cid"] == 4
        assert (path.stat().st_ino, vmm.descriptors()) == (inode, descriptors)
        path.unlink()
        vmm.put("/vsock", {"guest_cid": 5, "uds_path": str(path)})
        assert path.is_socket() and vmm.descriptors() == descriptors
        vmm.action("InstanceStart")
        assert listens(str(path))
    assert not path.exists()
