# SPDX-License-Identifier: Apache-2.0
"""A Linux guest that is driven through the API: paused under load, its drive replaced, asked to end."""
import hashlib
import socket
import subprocess
import threading

import pytest

from agent import Stream
from api import start_api
from support import BUILD, TIME_LIMIT, kernel, running, wait_until

ARGS = "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1 init=/init"
SIZE = 4 << 20


def add_drive(vmm, name, path, *, root=False, engine="Async"):
    vmm.put(f"/drives/{name}", {
        "drive_id": name, "path_on_host": str(path), "is_root_device": root,
        "is_read_only": root, "cache_type": "Writeback", "io_engine": engine})


def start_guest(vmm, image, tmp_path, script, drives=(), engine="Async"):
    """A console that is read line by line, from a guest that runs the script."""
    text = script.encode() + b"\n"
    (tmp_path / "script").write_bytes(text + b"\n" * (-len(text) % 512))
    vmm.put("/boot-source", {"kernel_image_path": kernel("microvm"), "boot_args": ARGS})
    vmm.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
    add_drive(vmm, "rootfs", image, root=True)
    for name, path in drives:
        add_drive(vmm, name, path, engine=engine)
    add_drive(vmm, "script", tmp_path / "script")
    console = vmm.stream("/console")
    vmm.action("InstanceStart")
    return console


def wait_for(console, start):
    for line in console:
        line = line.decode(errors="replace").strip()
        if line.startswith(start):
            return line.removeprefix(start).strip()
    raise AssertionError(f"no line {start!r}")


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_pause_and_resume_under_load_lose_nothing(tmp_path, image, engine):
    """The guest writes and reads back; the host has the same bytes in the end."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(SIZE))
    script = f"""
        echo @load
        for round in 1 2 3 4 5 6; do
            dd if=/dev/urandom of=/tmp/data bs=64k count={SIZE >> 16} 2> /dev/null
            dd if=/tmp/data of=/dev/vdb bs=4k conv=fsync 2> /dev/null
            echo 3 > /proc/sys/vm/drop_caches
            cmp /tmp/data /dev/vdb || echo "@differs $round"
        done
        echo "@sum $(sha256sum < /tmp/data)"
    """
    with start_api(tmp_path) as vmm:
        console = start_guest(vmm, image, tmp_path, script, [("data", disk)], engine)
        wait_for(console, "@load")
        stopped = threading.Event()
        pauses = [0]

        def pause_and_resume():
            while not stopped.wait(0.02):
                vmm.patch("/vm", {"state": "Paused"})
                vmm.patch("/vm", {"state": "Resumed"})
                pauses[0] += 1

        found = None
        with running(pause_and_resume, stop=stopped.set):
            for line in console:
                line = line.decode().strip()
                assert not line.startswith("@differs"), line
                if line.startswith("@sum"):
                    found = line.split()[1]
                    break
        assert vmm.process.wait(TIME_LIMIT) == 0
    assert pauses[0] >= 5
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == found


def test_drive_is_replaced_while_linux_runs(tmp_path, image):
    for name, size in (("first", 1 << 20), ("second", 2 << 20)):
        (tmp_path / name).write_bytes(name.encode().ljust(512, b".") + bytes(size - 512))
    script = """
        echo "@first $(head -c 5 /dev/vdb) $(cat /sys/block/vdb/size)"
        while [ "$(cat /sys/block/vdb/size)" != 4096 ]; do :; done
        echo 3 > /proc/sys/vm/drop_caches
        echo "@second $(head -c 6 /dev/vdb) $(cat /sys/block/vdb/size)"
        echo -n written | dd of=/dev/vdb conv=fsync 2> /dev/null
    """
    with start_api(tmp_path) as vmm:
        console = start_guest(vmm, image, tmp_path, script, [("data", tmp_path / "first")])
        assert wait_for(console, "@first") == "first 2048"
        vmm.patch("/drives/data", {"drive_id": "data", "path_on_host": str(tmp_path / "second")})
        assert wait_for(console, "@second") == "second 4096"
        assert vmm.process.wait(TIME_LIMIT) == 0
    assert (tmp_path / "second").read_bytes().startswith(b"written")
    assert (tmp_path / "first").read_bytes().startswith(b"first")


def is_seen(vmm, action):
    before = vmm.log()
    vmm.action(action)
    return "no keyboard driver" not in vmm.log().removeprefix(before)


@pytest.mark.parametrize("way", ["SendCtrlAltDel", "SIGTERM"])
def test_ctrl_alt_del_asks_linux_to_reboot(tmp_path, way):
    """Debian's kernel, which has a keyboard driver; its init says what it was asked."""
    with start_api(tmp_path) as vmm:
        vmm.put("/boot-source", {
            "kernel_image_path": kernel("debian-cloud"),
            "initrd_path": str(keyboard_initrd(tmp_path)),
            "boot_args": "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux "
                         "i8042.nomux i8042.dumbkbd rdinit=/init"})
        vmm.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 256})
        console = vmm.stream("/console")
        vmm.action("InstanceStart")
        wait_for(console, "@ready")
        if way == "SIGTERM":
            vmm.process.terminate()
        else:
            wait_until(lambda: is_seen(vmm, way), "the keyboard's driver")
            assert wait_for(console, "@asked") == "INT"
        # Asked by a signal, it has half a second, which may be too little here.
        assert vmm.process.wait(TIME_LIMIT) == 0


def test_agent_is_asked_where_there_is_no_keyboard(tmp_path):
    """mote's own kernel and init: programs are asked, and what is written is on the drive."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(SIZE))
    disk.chmod(0o666)
    subprocess.run(["cp", BUILD / "initrd.cpio", tmp_path], check=True)
    with start_api(tmp_path) as vmm, socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(TIME_LIMIT)
        listener.bind(str(tmp_path / "v.sock_52"))
        (tmp_path / "v.sock_52").chmod(0o666)
        listener.listen()
        vmm.put("/boot-source", {
            "kernel_image_path": kernel("microvm"), "initrd_path": str(tmp_path / "initrd.cpio"),
            "boot_args": "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1"})
        add_drive(vmm, "scratch", disk)
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(tmp_path / "v.sock")})
        vmm.action("InstanceStart")
        first = listener.accept()[0]
        first.settimeout(TIME_LIMIT)
        with Stream(sock=first) as stream:
            stream.request("exec", {"argv": [
                "sh", "-c", "trap 'printf asked > /dev/vda; exit 7' TERM; echo ready; "
                "while :; do sleep 1 & wait; done"]})
            stream.wait_for(b"ready")
            vmm.action("SendCtrlAltDel")
            assert stream.finish()[3]["code"] == 7
        assert vmm.process.wait(TIME_LIMIT) == 0
        assert "keyboard" not in vmm.log()
    assert disk.read_bytes().startswith(b"asked")


def keyboard_initrd(folder):
    """busybox and an init that takes the signal which the kernel sends for Ctrl-Alt-Del."""
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    for name in ("dev", "proc", "sys"):
        (tree / name).mkdir()
    subprocess.run(["cp", "/bin/busybox", tree / "bin" / "busybox"], check=True)
    (tree / "init").write_text("""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
trap 'echo "@asked INT"; /bin/busybox reboot -f' INT
echo 0 > /proc/sys/kernel/ctrl-alt-del
echo @ready
while :; do /bin/busybox sleep 1 & wait; done
""")
    (tree / "init").chmod(0o755)
    archive = folder / "initrd.cpio"
    names = b"\n".join(str(path.relative_to(tree)).encode() for path in sorted(tree.rglob("*")))
    with open(archive, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names, stdout=out, cwd=tree,
                       check=True)
    return archive
