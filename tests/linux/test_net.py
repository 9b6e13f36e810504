# SPDX-License-Identifier: Apache-2.0
"""Network interfaces of a real Linux guest."""
import contextlib
import hashlib
import os
import re
import subprocess

import pytest

from devices import TAP, UP, make_file
from support import BUILD, TIME_LIMIT, TOP, run_mote


def test_interface_has_its_address_and_mtu(start, net):
    output = start(UP + """cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu
ping -c 2 -i 0.2 -s 8000 10.9.0.1 | grep -c 'seq='
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
ip -6 addr add fd00:9::2/64 dev eth0; ping6 -c 2 -i 0.2 fd00:9::1 | grep -c 'seq='""",
                   net={**TAP, "mtu": 9000}, prefix=net.prefix).output()
    assert output == ["06:00:0a:09:00:02", "9000", "2", "2"]


SERVE = """
import hashlib, socket, sys
from threading import Thread
server = socket.create_server(("10.9.0.1", 7000))
print("ready", flush=True)
data = open(sys.argv[1], "rb").read()
peer = server.accept()[0]
def send():
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
Thread(target=send).start()
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


def test_a_thousand_connections(start, net):
    with net.popen(BUILD / "stream_bench", "tcp-server", 7000) as server:
        try:
            output = start(UP + "stream_bench tcp-connections 10.9.0.1 7000 1000", net=TAP,
                           prefix=net.prefix).output()
        finally:
            server.kill()
    assert output == ["1000"]


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


@contextlib.contextmanager
def web_server(world, address, folder):
    """On port 8000 of the address there; it has /answer."""
    (folder / "answer").write_text("from the world\n")
    with subprocess.Popen(
            [*world, "/usr/bin/python3", "-u", "-m", "http.server", "--bind", address, "8000"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            server.stdout.readline()
            yield
        finally:
            server.kill()


def test_no_privilege_is_needed_with_passt(net, world, tmp_path):
    with web_server(world, "192.0.2.2", tmp_path):
        result = subprocess.run(
            [*net.prefix, BUILD / "mote", "run", "--net", "user", "--", "wget", "-q", "-O-",
             "http://192.0.2.2:8000/answer"], capture_output=True, check=False, timeout=TIME_LIMIT)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"from the world\n", b"")


@pytest.mark.parametrize("ipv4", [True, False])
def test_ipv6_with_passt(net, world, tmp_path, ipv4):
    """Where the host has a way to the world by it, also as the only one."""
    for command in (["ip", "address", "add", "2001:db8::1/64", "dev", "veth0", "nodad"],
                    ["ip", "-6", "route", "add", "default", "via", "2001:db8::2"]):
        net.run(*command)
    if not ipv4:
        net.run("ip", "route", "del", "default")
    subprocess.run([*world, "ip", "address", "add", "2001:db8::2/64", "dev", "veth1", "nodad"], check=True)
    with web_server(world, "2001:db8::2", tmp_path):
        result = subprocess.run(
            [*net.prefix, BUILD / "mote", "run", "--net", "user", "--", "sh", "-c",
             "wget -q -O- http://[2001:db8::2]:8000/answer; ip -4 route | grep -c default; "
             "cat /proc/sys/net/ipv6/conf/eth0/accept_dad /proc/sys/net/ipv6/conf/eth0/accept_ra"],
            capture_output=True, check=False, timeout=TIME_LIMIT)
    # Either would cost an open connection: passt answers to the address that it has seen last.
    assert result.stdout == b"from the world\n%d\n0\n0\n" % ipv4, result


RESOLVER = '''import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.53", 53))
print("ready", flush=True)
while True:
    question, peer = s.recvfrom(512)
    kind = int.from_bytes(question[-4:-2], "big")
    address = {1: bytes((192, 0, 2, 99)), 28: socket.inet_pton(socket.AF_INET6, "2001:db8::99")}[kind]
    s.sendto(question[:2] + b"\\x81\\x80" + 2 * question[4:6] + bytes(4) + question[12:] + b"\\xc0\\x0c" +
             question[-4:] + bytes(3) + b"\\x3c" + len(address).to_bytes(2, "big") + address, peer)
'''


@pytest.mark.usefixtures("world")
def test_resolver_of_a_host_of_ipv6_alone(net, tmp_path):
    """As systemd-resolved is: at an IPv4 address that no guest reaches."""
    for command in (["ip", "route", "del", "default"], ["ip", "link", "set", "lo", "up"],
                    ["ip", "address", "add", "2001:db8::1/64", "dev", "veth0", "nodad"],
                    ["ip", "-6", "route", "add", "default", "via", "2001:db8::2"]):
        net.run(*command)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\noptions edns0\n")
    with net.popen("/usr/bin/python3", "-c", RESOLVER, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() in (b"ready\n", "ready\n")
            result = subprocess.run(
                [*net.prefix, "unshare", "-m", "sh", "-c", 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"', "sh",
                 tmp_path / "resolv.conf", BUILD / "mote", "run", "--net", "user", "--", "sh", "-c",
                 "cat /etc/resolv.conf; nslookup name.example | grep ^Address; ip -4 route | grep -c default"],
                capture_output=True, text=True, check=False, timeout=TIME_LIMIT)
        finally:
            server.kill()
    assert result.stdout == ("nameserver 10.0.2.3\noptions edns0\nAddress:\t10.0.2.3:53\nAddress: 192.0.2.99\n"
                             "Address: 2001:db8::99\n0\n"), result


def test_published_port(net, world):
    """The world comes in on a port of the host, and on no other."""
    serve = "echo ready; nc -l -p 80 -e sh -c 'read x; echo got $x'"
    with subprocess.Popen([*net.prefix, BUILD / "mote", "run", "--net", "user", "--publish", "8080:80",
                           "--", "sh", "-c", serve], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        client = """import socket
for port in (80, 8080):
    try:
        peer = socket.create_connection(("192.0.2.1", port), 10)
        peer.sendall(b"this\\n")
        print(peer.makefile().read().strip())
    except ConnectionRefusedError:
        print("refused")
"""
        result = subprocess.run([*world, "/usr/bin/python3", "-c", client], capture_output=True,
                                text=True, check=False, timeout=TIME_LIMIT)
        assert result.stdout.split("\n") == ["refused", "got this", ""], result
        assert mote.wait(TIME_LIMIT) == 0


def test_missing_passt_is_one_sentence(tmp_path):
    environment = {"PATH": str(tmp_path), "HOME": os.environ["HOME"]}
    result = run_mote("run", "--net", "user", "--", "true", env=environment)
    assert result.returncode == 125
    assert result.stderr.startswith(b"mote: passt has ended")
    assert b"Debian package passt" in result.stderr
    assert result.stderr.count(b"\n") == 1


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
