# SPDX-License-Identifier: Apache-2.0
"""The three devices with a real Linux guest, whose root is an ext4 image without an initramfs."""
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from support import BUILD, TIME_LIMIT, TOP, kernel, run_mote, vmm_command, wait_until

# The script to run is a drive of its own, the last one.
INIT = """#!/bin/sh
export PATH=/bin:/sbin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
for drive in /dev/vd?; do script=$drive; done
sh $script 2>&1
echo "@end"
sync; mount -o remount,ro / ; reboot -f
"""
ENGINES = ["Sync", "Async"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A root file system of busybox, INIT and stream_bench."""
    folder = tmp_path_factory.mktemp("image")
    tree = folder / "tree"
    tree.mkdir()
    with open(BUILD / "initrd.cpio", "rb") as archive:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=archive, cwd=tree, check=True)
    (tree / "init").unlink()
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    subprocess.run(["cp", BUILD / "stream_bench", tree / "bin"], check=True)
    path = folder / "root.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path, "48M"], check=True)
    return path


class Guest:
    """A VM whose console is read line by line; the script's lines are what it prints."""

    def __init__(self, process, log):
        self.process = process
        self.log_path = log

    def wait_for(self, start):
        """The rest of the first line that starts so."""
        for line in self.lines():
            if line.startswith(start):
                return line.removeprefix(start).strip()
        raise AssertionError(f"no line {start!r}; log: {self.log()}")

    def lines(self):
        for line in self.process.stdout:
            yield line.decode(errors="replace").rstrip("\r\n")

    def output(self):
        """The lines up to the end of the VM, which must be an orderly one."""
        lines = []
        for line in self.lines():
            lines.append(line)
        assert "@end" in lines, (lines, self.log())
        assert self.process.wait(TIME_LIMIT) == 0, self.log()
        return lines[:lines.index("@end")]

    def log(self):
        return self.log_path.read_text()


@pytest.fixture
def start(tmp_path, image):
    """Starts a VM with a script; every VM is ended at the end of the test."""
    with contextlib.ExitStack() as stack:
        def starter(script, *, drives=(), engine="Async", writable=False, net=None, vsock=None,
                    prefix=()):
            root = image
            if writable:
                root = tmp_path / "root.ext4"
                subprocess.run(["cp", image, root], check=True)
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
                "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
                "drives": [{"io_engine": engine, "cache_type": "Writeback", **drive}
                           for drive in listed],
            }
            if net:
                config["network-interfaces"] = [{"iface_id": "eth0", **net}]
            if vsock:
                config["vsock"] = {"guest_cid": 3, "uds_path": str(vsock)}
            path = tmp_path / "vm.json"
            path.write_text(json.dumps(config))
            log = tmp_path / "vmm.log"
            process = subprocess.Popen(
                [*prefix, *vmm_command(path, "--level", "Debug", "--log-path", log)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            # Ends the wait for a line that does not come; the log then has the devices' counters.
            watchdog = threading.Timer(TIME_LIMIT, process.terminate)
            watchdog.start()
            stack.callback(watchdog.cancel)
            return Guest(process, log)
        yield starter


def make_file(path, size, content=b""):
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)
    return str(path)


def check_file_system(path, *options):
    return subprocess.run(["e2fsck", "-f", *options, path], capture_output=True, check=False)


@pytest.mark.parametrize("engine", ENGINES)
def test_root_is_written_and_clean_at_the_end(start, tmp_path, engine):
    guest = start("dd if=/dev/urandom of=/big bs=64k count=160 2>/dev/null; sha256sum < /big",
                  writable=True, engine=engine)
    digest = guest.output()[0].split()[0]
    root = tmp_path / "root.ext4"
    assert check_file_system(root, "-n").returncode == 0
    data = subprocess.run(["debugfs", "-R", "cat /big", root], capture_output=True,
                          check=True).stdout
    assert len(data) == 160 << 16
    assert hashlib.sha256(data).hexdigest() == digest


@pytest.mark.parametrize("engine", ENGINES)
def test_what_fsync_acknowledged_survives_the_death_of_the_vmm(start, tmp_path, engine):
    guest = start("""i=0; while :; do i=$((i + 1))
dd if=/dev/zero bs=3000 count=1 2>/dev/null | tr '\\0' x | dd of=/file$i conv=fsync 2>/dev/null
echo "@ $i"; done""", writable=True, engine=engine)
    for line in guest.lines():
        if line == "@ 25":
            break
    guest.process.kill()
    guest.process.wait()
    root = tmp_path / "root.ext4"
    # 0: clean, 1: the journal was replayed.
    assert check_file_system(root, "-p").returncode in (0, 1)
    assert check_file_system(root, "-n").returncode == 0
    for i in range(1, 26):
        data = subprocess.run(["debugfs", "-R", f"cat /file{i}", root], capture_output=True,
                              check=True).stdout
        assert data == b"x" * 3000


def test_eight_drives_in_their_order(start, tmp_path):
    drives = [{"drive_id": f"data{i}", "is_read_only": i % 2 == 1,
               "path_on_host": make_file(tmp_path / f"{i}.img", 1 << 20, os.urandom(100000))}
              for i in range(8)]
    output = start("""for i in b c d e f g h i; do d=/sys/block/vd$i
echo "$(cat $d/serial) $(cat $d/ro) $(cat $d/size) $(sha256sum < /dev/vd$i | cut -c1-64)"; done""",
                   drives=drives).output()
    expected = []
    for i, drive in enumerate(drives):
        with open(drive["path_on_host"], "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        expected.append(f"data{i} {i % 2} 2048 {digest}")
    assert output == expected


def test_read_only_drive_refuses_writes(start, tmp_path):
    path = make_file(tmp_path / "ro.img", 1 << 20, b"original")
    drive = {"drive_id": "ro", "path_on_host": path, "is_read_only": True}
    output = start("dd if=/dev/zero of=/dev/vdb bs=4k count=1 2>/dev/null || echo refused",
                   drives=[drive]).output()
    assert output == ["refused"]
    with open(path, "rb") as file:
        assert file.read(8) == b"original"


@pytest.mark.parametrize("engine", ENGINES)
def test_discard_frees_blocks_of_the_host(start, tmp_path, engine):
    path = make_file(tmp_path / "disk.img", 8 << 20)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)
    before = os.stat(path).st_blocks
    start("blkdiscard /dev/vdb", engine=engine,
          drives=[{"drive_id": "disk", "path_on_host": path}]).output()
    assert before == 8 << 11
    assert os.stat(path).st_blocks == 0
    assert os.stat(path).st_size == 8 << 20


@pytest.fixture
def small_mount(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_full_host_is_an_error_of_the_request(start, small_mount, engine):
    path = make_file(small_mount / "disk.img", 4 << 20)
    guest = start("""dd if=/dev/zero of=/dev/vdb bs=64k count=64 conv=fsync >/dev/null 2>&1 && echo good || echo bad
dd if=/dev/vdb bs=64k count=64 2>/dev/null | wc -c""", engine=engine,
                  drives=[{"drive_id": "disk", "path_on_host": path}])
    lines = [line for line in guest.output() if "I/O error" not in line]
    assert lines == ["bad", str(4 << 20)]
    assert "drive disk: write at sector" in guest.log()
    assert "No space left on device" in guest.log()


@pytest.mark.parametrize("engine", ENGINES)
def test_file_that_shrinks_is_an_error_of_the_request(start, tmp_path, engine):
    path = make_file(tmp_path / "disk.img", 4 << 20)
    guest = start("""echo "@ ready"; while dd if=/dev/vdb iflag=direct of=/dev/null bs=4k \
skip=1000 count=1 2>/dev/null; do :; done; echo "@ lost"
dd if=/dev/vdb iflag=direct of=/dev/null bs=4k count=1 2>/dev/null && echo good""", engine=engine,
                  drives=[{"drive_id": "disk", "path_on_host": path}])
    guest.wait_for("@ ready")
    os.truncate(path, 1 << 20)
    guest.wait_for("@ lost")
    assert guest.output()[-1] == "good"
    assert "the file has become shorter" in guest.log()


def seconds_to_read(start, drive, dd):
    """How long the guest takes for `dd` options on the drive, by the host's clock."""
    guest = start(f"""echo "@ start"; dd if=/dev/vdb iflag=direct of=/dev/null {dd} 2>/dev/null
echo "@ stop" """, drives=[drive])
    guest.wait_for("@ start")
    begin = time.monotonic()
    guest.wait_for("@ stop")
    took = time.monotonic() - begin
    guest.output()
    return took


def test_bandwidth_is_limited(start, tmp_path):
    """8 MiB at 4 MiB a second, with a bucket of 1 MiB that is full at the start."""
    drive = {"drive_id": "disk", "path_on_host": make_file(tmp_path / "disk.img", 8 << 20),
             "rate_limiter": {"bandwidth": {"size": 1 << 20, "refill_time": 250}}}
    assert 1.75 * 0.9 <= seconds_to_read(start, drive, "bs=128k") <= 1.75 * 1.1


def test_operations_are_limited(start, tmp_path):
    """210 at 100 a second, with a bucket of 10 that is full at the start."""
    drive = {"drive_id": "disk", "path_on_host": make_file(tmp_path / "disk.img", 1 << 20),
             "rate_limiter": {"ops": {"size": 10, "refill_time": 100}}}
    assert 2.0 * 0.9 <= seconds_to_read(start, drive, "bs=4k count=210") <= 2.0 * 1.1


class Net:
    """A network namespace with a tap; the VMM runs in it, and so does what it talks to."""

    def __init__(self):
        self.name = f"mote-test-{os.getpid()}"
        self.prefix = ["ip", "netns", "exec", self.name]

    def run(self, *command, check=True):
        return subprocess.run([*self.prefix, *command], capture_output=True, check=check,
                              timeout=TIME_LIMIT)

    def popen(self, *command, **kwargs):
        return subprocess.Popen([*self.prefix, *map(str, command)], **kwargs)


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


TAP = {"host_dev_name": "tap0", "guest_mac": "06:00:0a:09:00:02"}
UP = "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; "


def test_interface_has_its_address_and_mtu(start, net):
    output = start(UP + """cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu
ping -c 2 -i 0.2 -s 8000 10.9.0.1 | grep -c 'seq='
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
ip -6 addr add fd00:9::2/64 dev eth0; ping6 -c 2 -i 0.2 fd00:9::1 | grep -c 'seq='""",
                   net={**TAP, "mtu": 9000}, prefix=net.prefix).output()
    assert output == ["06:00:0a:09:00:02", "9000", "2", "2"]


SERVE = """
import hashlib, socket, sys, threading
server = socket.create_server(("10.9.0.1", 7000))
print("ready", flush=True)
data = open(sys.argv[1], "rb").read()
peer = server.accept()[0]
def send():
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
digest = hashlib.sha256()
while part := peer.recv(1 << 20):
    digest.update(part)
print(digest.hexdigest(), flush=True)
"""


def test_tcp_both_ways_at_once_is_exact(start, net, tmp_path):
    size = 8 << 20
    data = os.urandom(size)
    path = make_file(tmp_path / "data", size, data)
    expected = hashlib.sha256(data).hexdigest()
    with net.popen("/usr/bin/python3", "-c", SERVE, path, stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        output = start(UP + "nc 10.9.0.1 7000 < /dev/vdb | sha256sum", net=TAP, prefix=net.prefix,
                       drives=[{"drive_id": "data", "path_on_host": path,
                                "is_read_only": True}]).output()
        assert output[0].split()[0] == expected
        assert server.stdout.readline().decode().strip() == expected


def test_segmentation_is_left_to_the_other_end(start, net):
    """Frames both ways are far larger than the MTU on the way."""
    with net.popen(BUILD / "stream_bench", "tcp-server", 7000) as server:
        try:
            output = start(UP + """stream_bench tcp-client 10.9.0.1 7000 send 64 > /dev/null && echo good
stream_bench tcp-client 10.9.0.1 7000 receive 64 > /dev/null && echo good""", net=TAP,
                           prefix=net.prefix).output()
        finally:
            server.kill()
    assert output == ["good", "good"]
    for way in "rx", "tx":
        figures = [int(net.run("cat", f"/sys/class/net/tap0/statistics/{way}_{what}").stdout)
                   for what in ("bytes", "packets")]
        # Acknowledgements of the other way count too.
        assert figures[0] > 64 << 20 and figures[0] / figures[1] > 4000, (way, figures)


def test_tap_that_goes_down_and_comes_back(start, net):
    guest = start(UP + """ping -c 1 10.9.0.1 > /dev/null && echo "@ one"
until ! ping -c 1 -W 1 10.9.0.1 > /dev/null; do :; done; echo "@ none"
until ping -c 1 -W 1 10.9.0.1 > /dev/null; do :; done; echo "@ back" """, net=TAP,
                  prefix=net.prefix)
    guest.wait_for("@ one")
    net.run("ip", "link", "set", "tap0", "down")
    guest.wait_for("@ none")
    net.run("ip", "link", "set", "tap0", "up")
    guest.wait_for("@ back")
    guest.output()


def test_bandwidth_of_the_network_is_limited(start, net):
    """4 MiB to the host at 2 MiB a second."""
    limiter = {"bandwidth": {"size": 1 << 18, "refill_time": 125}}
    with net.popen(BUILD / "stream_bench", "tcp-server", 7000) as server:
        try:
            output = start(UP + "stream_bench tcp-client 10.9.0.1 7000 send 8",
                           net={**TAP, "tx_rate_limiter": limiter}, prefix=net.prefix).output()
        finally:
            server.kill()
    assert 2.0 * 0.9 <= float(output[0]) <= 2.0 * 1.1


def test_no_privilege_is_needed_with_passt(net, tmp_path):
    """A second namespace plays the world, reached over a veth pair."""
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
        (tmp_path / "answer").write_text("from the world\n")
        server = subprocess.Popen(
            ["ip", "netns", "exec", world, "/usr/bin/python3", "-u", "-m", "http.server", "--bind",
             "192.0.2.2", "8000"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            server.stdout.readline()
            result = subprocess.run(
                [*net.prefix, BUILD / "mote", "run", "--net", "user", "--", "wget", "-q", "-O-",
                 "http://192.0.2.2:8000/answer"], capture_output=True, check=False,
                timeout=TIME_LIMIT)
        finally:
            server.kill()
            server.communicate()
        assert (result.returncode, result.stdout, result.stderr) == (0, b"from the world\n", b"")
    finally:
        subprocess.run(["ip", "netns", "delete", world], check=True)


def test_missing_passt_is_one_sentence(tmp_path):
    environment = {"PATH": str(tmp_path), "HOME": os.environ["HOME"]}
    result = run_mote("run", "--net", "user", "--", "true", env=environment)
    assert result.returncode == 125
    assert result.stderr.startswith(b"mote: passt has ended")
    assert b"Debian package passt" in result.stderr
    assert result.stderr.count(b"\n") == 1


@contextlib.contextmanager
def stream_server(path):
    """What the guest reaches as a port of the host's; the process."""
    with subprocess.Popen([BUILD / "stream_bench", "unix-server", path]) as server:
        try:
            wait_until(path.exists, "the server's socket")
            yield server
        finally:
            server.kill()


def kill_with_children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    for process in [pid, *children]:
        os.kill(process, signal.SIGKILL)


def test_vsock_streams_both_ways(start, tmp_path):
    with stream_server(tmp_path / "v.sock_7000"):
        output = start("""for test in 'send 64' 'receive 64' 'roundtrip 200'; do
stream_bench vsock-client 2 7000 $test > /dev/null && echo good; done""",
                       vsock=tmp_path / "v.sock").output()
    assert output == ["good"] * 3


def test_a_hundred_connections_from_the_guest(start, tmp_path):
    with stream_server(tmp_path / "v.sock_7000"):
        output = start("""for i in $(seq 100); do
(stream_bench vsock-client 2 7000 roundtrip 20 > /dev/null &&
stream_bench vsock-client 2 7000 send 1 > /dev/null && echo good) & done; wait""",
                       vsock=tmp_path / "v.sock").output()
    assert output == ["good"] * 100


def test_vsock_port_that_nobody_listens_on(start, tmp_path):
    output = start("stream_bench vsock-client 2 7001 roundtrip 1; echo $?",
                   vsock=tmp_path / "v.sock").output()
    assert output[0].endswith("Connection reset by peer")
    assert output[-1] == "1"


def test_a_hundred_connections_from_the_host(start, tmp_path):
    guest = start("stream_bench vsock-server 7000 & echo '@ ready'; read line < /dev/ttyS0 & wait",
                  vsock=tmp_path / "v.sock")
    guest.wait_for("@ ready")
    sockets = []
    data = os.urandom(20000)
    # The server may not listen yet, in which case the first connections are refused.
    deadline = time.monotonic() + TIME_LIMIT
    while len(sockets) < 100 and time.monotonic() < deadline:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(TIME_LIMIT)
        peer.connect(str(tmp_path / "v.sock"))
        peer.sendall(b"CONNECT 7000\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = peer.recv(1)
            if not part:
                break
            answer += part
        if re.fullmatch(rb"OK \d+\n", answer):
            sockets.append(peer)
        else:
            peer.close()
    assert len(sockets) == 100
    for peer in sockets:
        peer.sendall(b"e" + len(data).to_bytes(4, "little") + data)
    for peer in sockets:
        received = b""
        while len(received) < len(data):
            received += peer.recv(65536)
        assert received == data
        peer.close()
    guest.process.send_signal(signal.SIGTERM)
    assert guest.process.wait(TIME_LIMIT) == 0


def test_vsock_peer_that_dies_and_one_that_never_reads(start, tmp_path):
    with socket.socket(socket.AF_UNIX) as stuck, stream_server(tmp_path / "v.sock_7000"), \
            stream_server(tmp_path / "v.sock_7001") as dying:
        stuck.bind(str(tmp_path / "v.sock_7002"))
        stuck.listen(8)
        guest = start("""stream_bench vsock-client 2 7002 send 64 > /dev/null 2>&1 & never=$!
stream_bench vsock-client 2 7001 send 100000 > /dev/null 2>&1 & dying=$!
echo "@ running"; wait $dying; echo "@ died"
stream_bench vsock-client 2 7000 roundtrip 30 > /dev/null && echo good; kill $never""",
                      vsock=tmp_path / "v.sock")
        with stuck.accept()[0]:
            guest.wait_for("@ running")
            kill_with_children(dying.pid)
            guest.wait_for("@ died")
            assert "good" in guest.output()
    assert not (tmp_path / "v.sock").exists()


def documented_commands():
    """The shell blocks of docs/devices.md: a namespace with a tap, its way out, the end."""
    text = (TOP / "docs" / "devices.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)


def test_documented_namespace(net):
    """The namespace of the fixture plays the host, with a neighbour beyond it."""
    def run(*command, check=True):
        # Not `ip netns exec`, whose mount namespace would keep the commands' own to itself.
        result = subprocess.run(["nsenter", f"--net=/run/netns/{net.name}", *command], check=False,
                                capture_output=True, timeout=TIME_LIMIT)
        assert not check or result.returncode == 0, result.stderr.decode()
        return result

    begin, way_out, end = documented_commands()
    world = net.name + "-world"
    guest = ["ip", "netns", "exec", "vm1", str(BUILD / "mote"), "run", "--net", "tap:tap0",
             "--address", "10.0.9.2/24,10.0.9.1", "--", "ping", "-W", "2", "-c", "1"]
    subprocess.run(["ip", "netns", "add", world], check=True)
    try:
        run("sh", "-ec", f"""ip link add veth0 type veth peer name veth1 netns {world}
ip address add 203.0.113.1/24 dev veth0; ip link set veth0 up
ip -n {world} link set lo up; ip -n {world} address add 203.0.113.2/24 dev veth1
ip -n {world} link set veth1 up; ip -n {world} address add 192.168.7.7/32 dev lo
ip route add 192.168.7.7 via 203.0.113.2""")
        run("sh", "-ec", begin)
        assert run(*guest, "10.0.9.1").returncode == 0
        assert run(*guest, "203.0.113.2", check=False).returncode != 0
        run("sh", "-ec", way_out)
        assert run(*guest, "203.0.113.2").returncode == 0
        for closed in ("192.168.7.7", "198.18.1.1", "203.0.113.1"):
            assert run(*guest, closed, check=False).returncode != 0, closed
        run("sh", "-ec", end)
        assert b"vm1" not in run("ip", "netns", "list").stdout.split()
        assert run("nft", "list", "ruleset").stdout == b""
    finally:
        subprocess.run(["ip", "netns", "delete", world], check=True)
        subprocess.run(["ip", "netns", "delete", "vm1"], check=False, stderr=subprocess.DEVNULL)
