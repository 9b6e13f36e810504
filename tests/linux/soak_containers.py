# SPDX-License-Identifier: Apache-2.0
"""
What microvm-full is for: Docker runs containers inside a microVM, with a bridge and NAT, and what
programs ask of a whole Linux is there. `tests/run-tests soak` alone runs this; `make soak` builds
the kernel and the image.
"""
import pytest

from support import TOP, run_mote

DOCKER = """set -e
dockerd --storage-driver %s > /tmp/dockerd.log 2>&1 &
i=0; until docker info > /dev/null 2>&1; do
    i=$((i + 1)); [ $i -lt 300 ] && kill -0 $! || { cat /tmp/dockerd.log; exit 1; }; sleep 0.2
done
mkdir -p /tmp/root/bin; cp /bin/busybox /tmp/root/bin/; ln -s busybox /tmp/root/bin/sh
tar -c -C /tmp/root . | docker import - busy > /dev/null
docker run --rm --memory 32m --pids-limit 50 -e WHO=you busy /bin/sh -c 'echo "hello $WHO"; busybox id -u'
docker run --detach --name served --publish 8000:80 busy /bin/sh -c \
    'echo served > index.html; exec busybox httpd -f -p 80' > /dev/null
i=0; until busybox wget -q -O - http://127.0.0.1:8000/; do i=$((i + 1)); [ $i -lt 100 ]; sleep 0.1; done
iptables -t nat -S DOCKER | grep -c 'dport 8000'
docker stop --time 1 served > /dev/null; docker rm served
"""

FEATURES = """import ctypes, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    good = libc.syscall(number, *arguments) >= 0
    print(name, "good" if good else os.strerror(ctypes.get_errno()))
call("landlock", 444, None, 0, 1)
call("keyctl", 250, 0, -3, 1)
call("fanotify", 300, 0, 0)
call("userfaultfd", 323, 0)
call("bpf", 321, 0, (ctypes.c_uint32 * 18)(2, 4, 4, 1), 72)
call("io_uring", 425, 1, (ctypes.c_uint8 * 120)())
for name in ("/dev/net/tun", "/dev/fuse", "/dev/loop-control", "/proc/sys/fs/mqueue",
             "/sys/kernel/mm/hugepages", "/proc/sys/net/netfilter/nf_conntrack_max"):
    print(name, "good" if os.path.exists(name) else "missing")
kinds = open("/proc/filesystems").read().split()
for kind in ("squashfs", "9p", "fuse", "xfs", "vfat", "hugetlbfs", "mqueue", "overlay", "bpf"):
    print(kind, "good" if kind in kinds else "missing")
for controller in ("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "misc"):
    there = controller in open("/sys/fs/cgroup/cgroup.controllers").read().split()
    print(controller, "good" if there else "missing")
"""


@pytest.fixture(autouse=True)
def images(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(TOP / "build" / "data"))


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_docker(driver):
    result = run_mote("run", "--kernel", "microvm-full", "--memory", "1G", "--tmpfs",
                      "/var/lib/docker:exec", "server-docker", "--", "sh", "-c",
                      DOCKER % driver)
    assert (result.returncode, result.stdout.decode().split("\n")) == (
        0, ["hello you", "0", "served", "1", "served", ""]), result.stderr


def test_features():
    result = run_mote("run", "--kernel", "microvm-full", "server-python", "--", "python3", "-c", FEATURES)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 28 and [line for line in lines if not line.endswith(" good")] == []


def test_firewall():
    """Rules of nft, and of iptables by either of its ways, that drop what they say."""
    script = """ip link set lo up
nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; }'
nft add rule inet t c tcp dport 80 counter reject
iptables -A INPUT -p tcp --dport 81 -m comment --comment x -j REJECT
iptables-legacy -A INPUT -p tcp --dport 82 -m conntrack --ctstate NEW -j REJECT
for port in 80 81 82 83; do
    busybox nc -l -p $port -e echo port $port & sleep 0.3; busybox nc -w 2 127.0.0.1 $port < /dev/null
done; true"""
    result = run_mote("run", "--kernel", "microvm-full", "server-docker", "--", "sh", "-c", script)
    assert (result.returncode, result.stdout) == (0, b"port 83\n"), result.stderr
