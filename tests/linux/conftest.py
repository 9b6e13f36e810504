# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest, whose root is an ext4 image without an initramfs, and a tap device."""
import contextlib
import json
import signal
import subprocess

import pytest

from devices import Guest, Net, build_image
from jailed import jailed
from support import CACHE, TIME_LIMIT, kernel, vmm_command, watchdog


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    return build_image(tmp_path_factory.mktemp("image"))


# In the open their VMMs would show less; the guests tier has such ones.
JAILED = ("test_api", "test_block", "test_metadata", "test_net", "test_vsock")


@pytest.fixture(autouse=True)
def jail_of_the_module(request, tmp_path):
    if request.module.__name__ not in JAILED:
        yield
        return
    image = request.getfixturevalue("image")
    tmp_path.chmod(0o777)
    image.parent.chmod(0o755)
    with jailed(tmp_path, image.parent, CACHE):
        yield


@pytest.fixture
def start(tmp_path, image):
    """Starts a VM with a script; every VM is ended at the end of the test."""
    with contextlib.ExitStack() as stack:
        def starter(script, *, drives=(), engine="Async", writable=False, net=None, vsock=None,
                    mmds=None, metadata=None, prefix=(), time_limit=TIME_LIMIT, memory=128):
            root = image
            if writable:
                root = tmp_path / "root.ext4"
                subprocess.run(["cp", image, root], check=True)
                root.chmod(0o666)
            text = script.encode() + b"\n"
            (tmp_path / "script").write_bytes(text + b"\n" * (-len(text) % 512))
            listed = [{"drive_id": "rootfs", "path_on_host": str(root), "is_root_device": True,
                       "is_read_only": not writable}]
            listed += [{"is_root_device": False, **drive} for drive in drives]
            listed.append({"drive_id": "script", "path_on_host": str(tmp_path / "script"),
                           "is_root_device": False, "is_read_only": True})
            config = {
                "boot-source": {"kernel_image_path": kernel("microvm"), "boot_args":
                                "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1 init=/init"},
                "machine-config": {"vcpu_count": 1, "mem_size_mib": memory},
                "drives": [{"io_engine": engine, "cache_type": "Writeback", **drive}
                           for drive in listed],
            }
            if net:
                config["network-interfaces"] = [{"iface_id": "eth0", **net}]
            if vsock:
                config["vsock"] = {"guest_cid": 3, "uds_path": str(vsock)}
            options = []
            if mmds:
                config["mmds-config"] = mmds
                (tmp_path / "metadata.json").write_text(json.dumps(metadata))
                options = ["--metadata", tmp_path / "metadata.json"]
            path = tmp_path / "vm.json"
            path.write_text(json.dumps(config))
            log = tmp_path / "vmm.log"
            process = subprocess.Popen(
                [*prefix, *vmm_command(path, "--level", "Debug", "--log-path", log, *options)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            # Of which a jailer kills its VMM, and then ends.
            stack.callback(process.send_signal, signal.SIGQUIT)
            # Ends the wait for a line that does not come; the log then has the devices' counters.
            stack.enter_context(watchdog(process.terminate, time_limit))
            return Guest(process, log)
        yield starter


@pytest.fixture
def net():
    space = Net()
    subprocess.run(["ip", "netns", "add", space.name], check=True)
    try:
        space.run("ip", "link", "set", "lo", "up")
        space.run("ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
        space.run("ip", "link", "set", "tap0", "mtu", "9000", "up")
        space.run("ip", "address", "add", "10.9.0.1/24", "dev", "tap0")
        space.run("ip", "-6", "address", "add", "fd00:9::1/64", "dev", "tap0", "nodad")
        yield space
    finally:
        subprocess.run(["ip", "netns", "delete", space.name], check=True)


@pytest.fixture(name="world")
def world_fixture(net):
    """A second namespace plays the world, reached over a veth pair: 192.0.2.2 from 192.0.2.1."""
    world = net.name + "-world"
    subprocess.run(["ip", "netns", "add", world], check=True)
    try:
        net.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns",
                world)
        net.run("ip", "address", "add", "192.0.2.1/24", "dev", "veth0")
        net.run("ip", "link", "set", "veth0", "up")
        net.run("ip", "route", "add", "default", "via", "192.0.2.2")
        for command in (["link", "set", "lo", "up"], ["address", "add", "192.0.2.2/24", "dev",
                        "veth1"], ["link", "set", "veth1", "up"]):
            subprocess.run(["ip", "-n", world, *command], check=True)
        yield ["ip", "netns", "exec", world]
    finally:
        subprocess.run(["ip", "netns", "delete", world], check=True)
