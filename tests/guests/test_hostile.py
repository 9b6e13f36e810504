# SPDX-License-Identifier: Apache-2.0
"""
Guests that break the rules, each case of them 100 times within one VM: mote-vmm goes on, says in
its log what was broken but not too often, and keeps nothing.
"""
import contextlib
import os
import pathlib
import re
import resource
import time

import pytest

import host
from support import VARIANT

ROUNDS = 100
# How much memory of its own the VMM may have touched between the first round and the last: a page of
# a stack, say.
GROWTH = 32 << 10
# A buffer that malloc keeps; a page of a drive's table for each request that was in flight at once.
MORE_GROWTH = {"credit-exceeded": GROWTH + (256 << 10), "reset-in-flight": GROWTH + (1 << 20)}
OTHER_RING_ROUNDS = 20  # where the queue is another device's, whose ring is the same code
# Some of what takes long, or connections of the host's.
FEWER_ROUNDS = {"reset-in-flight": 10, "reset-storm": 10, "connections": 3, "no-rx-buffers": 10,
                "metadata": 20, "requests-to-nobody": 3, "reset-packets": 3, "header-changes": 5,
                "ring-changes": 5, "odd-accesses": 10, "registers-not-there": 10,
                "config-written": 10, "credit-exceeded": 10, "chain-of-4-gib": 10}
PROCESSORS = {"reset-storm": 4, "header-changes": 2, "ring-changes": 2}

RAN_AWAY = "an available index that runs away"
BEYOND_TABLE = "a descriptor index beyond its table"
TOO_LONG = "a chain longer than the queue"
OUTSIDE = "a descriptor outside of guest memory"
TABLE_OUTSIDE = "an indirect table outside of guest memory"
NESTED = "an indirect descriptor inside an indirect table"
NO_MULTIPLE = "an indirect table whose length is no multiple of 16"

# What the log says of each case; None: nothing but what may be said of a race.
RING_CASES = {
    "avail-runs-away": RAN_AWAY,
    "avail-runs-back": RAN_AWAY,
    "head-beyond": BEYOND_TABLE,
    "head-far-beyond": BEYOND_TABLE,
    "next-beyond": BEYOND_TABLE,
    "loop-of-one": TOO_LONG,
    "loop-of-two": TOO_LONG,
    "zero-length": "a descriptor of length 0",
    "beyond-memory": OUTSIDE,
    "across-the-end": OUTSIDE,
    "device-registers": OUTSIDE,
    "address-overflow": OUTSIDE,
    "longest-length": OUTSIDE,
    "readable-behind-writable": "a device-readable descriptor behind a device-writable one",
    "indirect-not-negotiated": "an indirect descriptor, which was not negotiated",
    "indirect-in-indirect": NESTED,
    "indirect-in-itself": NESTED,
    "indirect-with-next": "an indirect descriptor that has a next one",
    "indirect-odd": NO_MULTIPLE,
    "indirect-empty": NO_MULTIPLE,
    "indirect-beyond-memory": TABLE_OUTSIDE,
    "indirect-huge": TABLE_OUTSIDE,
    "indirect-next-beyond": BEYOND_TABLE,
    "indirect-loop": TOO_LONG,
    "chain-too-long": TOO_LONG,
    "chain-of-4-gib": "a chain of more than 4 GiB",
    "notified-when-broken": "a descriptor of length 0",
    "rings-at-one-place": None,
    "one-descriptor-many-times": None,
    "events-nonsense": None,
}

STATUS_ORDER = "status bits out of their order"
STATUS_CLEARED = "status bits that were set cannot be cleared one by one"
BAD_FEATURES = "features that were not offered, or without VERSION_1"
BAD_QUEUE = "a queue with a bad size or address"
TOO_LATE = "queue set-up outside of its time"
TRANSPORT_CASES = {
    "driver-ok-first": STATUS_ORDER,
    "status-out-of-order": STATUS_ORDER,
    "status-cleared": STATUS_CLEARED,
    "status-nonsense": STATUS_CLEARED,
    "status-failed": None,
    "driver-ok-twice": None,
    "driver-ok-without-queues": None,
    "features-not-offered": BAD_FEATURES,
    "features-without-version-1": BAD_FEATURES,
    "features-too-late": "features outside of their negotiation",
    "features-select": "features beyond bit 63",
    "queue-before-features": TOO_LATE,
    "queue-after-driver-ok": TOO_LATE,
    "queue-changed-when-ready": "set-up of a queue that is ready",
    "queue-sizes": BAD_QUEUE,
    "queue-addresses": BAD_QUEUE,
    "queue-select": "set-up of a queue that does not exist",
    "notify-nowhere": None,
    "notify-odd-sizes": None,
    "odd-accesses": None,
    "registers-not-there": "the driver's access is ignored",
    "config-written": None,
    "config-beyond": None,
    "interrupt-acknowledged": None,
    "reset-in-flight": None,
    "reset-storm": None,
}

BLOCK_CASES = ["header-short", "header-writable", "header-in-bytes", "status-missing",
               "status-alone", "sector-beyond", "odd-lengths", "wrong-direction", "unknown-types",
               "identification-short", "write-read-only", "discard-ranges",
               "discard-not-negotiated", "read-into-descriptors", "read-into-available",
               "read-into-used", "status-is-used-index", "header-changes", "ring-changes"]
BROKEN_RING_CASES = {"read-into-descriptors", "read-into-available", "read-into-used",
                     "status-is-used-index", "ring-changes"}

BAD_RX = "a receive buffer that is not writable or has no room for a header"
NET_CASES = {"tx-short": None, "tx-long": None, "tx-longest": None, "tx-writable": None,
             "tx-header-nonsense": None, "tx-in-pieces": None, "rx-readable": BAD_RX,
             "rx-without-header": BAD_RX, "rx-small": None, "rx-small-mergeable": BAD_RX,
             "rx-none": None, "rx-into-rings": None, "reset-in-flight": None, "metadata": None}

BAD_VSOCK_RX = "an rx buffer that cannot hold a packet"
VSOCK_CASES = {"packet-short": None, "packet-writable": None, "header-in-pieces": None,
               "wrong-cids": None, "wrong-types": None, "wrong-ops": None, "length-lies": None,
               "credit-lies": None, "credit-exceeded": None, "data-behind-shutdown": None,
               "shutdown-nonsense": None, "requests-to-nobody": None, "reset-packets": None,
               "no-rx-buffers": None, "connections": None, "reset-in-flight": None,
               "rx-readable": BAD_VSOCK_RX, "rx-small": BAD_VSOCK_RX,
               "rx-without-room": BAD_VSOCK_RX}


@contextlib.contextmanager
def one_device(folder, device, engine="Async", backend="passt"):
    """The device that a case attacks, as arguments of host.vm_config."""
    with contextlib.ExitStack() as stack:
        if device == "block":
            content = b"".join(f"sector {number}".encode().ljust(512) for number in range(4))
            drives = [host.drive(folder, content=content, io_engine=engine)[1],
                      host.drive(folder, name="fixed", read_only=True, content=content)[1]]
            yield {"drives": drives}
        elif device == "net":
            metadata = backend == "metadata"
            interface = stack.enter_context(
                getattr(host, "passt" if metadata else backend)(folder))
            yield {"interfaces": [{"iface_id": "eth0", "guest_mac": host.GUEST_MAC, **interface}],
                   "mmds": {"network_interfaces": ["eth0"]} if metadata else None}
        else:
            uds = folder / "v.sock"
            stack.enter_context(host.listener(f"{uds}_{host.ECHO_PORT}", host.echo))
            stack.enter_context(host.listener(f"{uds}_{host.SINK_PORT}", None))
            yield {"vsock": uds}


def read_until(vmm, wanted):
    """What the guest says before; fails if it says something else."""
    line = vmm.stdout.readline().decode().rstrip("\n")
    if line != wanted:
        vmm.kill()
        rest, log = vmm.communicate()
        pytest.fail(f"{line!r} instead of {wanted!r}\n{rest.decode()}\n{log.decode()[-3000:]}")


def private_memory(vmm):
    """
    Bytes of anonymous memory that the VMM itself has touched. What is left out is guest memory with
    its guards of 2 MiB, the only mapping of that size that reserves nothing.
    """
    text = pathlib.Path(f"/proc/{vmm.pid}/smaps").read_text(encoding="ascii")
    total, guest, last_end = 0, [], None
    for part in re.findall(r"^[0-9a-f]+-[0-9a-f]+ .*\n(?:[A-Z].*\n)+", text, re.M):
        start, end = (int(word, 16) for word in part.split()[0].split("-"))
        touched = int(re.search(r"^Anonymous: +(\d+) kB", part, re.M)[1]) << 10
        if " nr " in re.search(r"^VmFlags:.*", part, re.M)[0]:
            if start != last_end:
                guest.append([0, 0])
            guest[-1][0] += end - start
            guest[-1][1] += touched
            last_end = end
        else:
            total += touched
    others = [touched for size, touched in guest if size != (16 << 20) + (4 << 20)]
    assert len(others) == len(guest) - 1
    return total + sum(others)


def open_files(vmm):
    return len(os.listdir(f"/proc/{vmm.pid}/fd"))


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def survive(folder, guest, case, device, *, most=ROUNDS, **options):
    """Runs a case; its log."""
    rounds = min(most, FEWER_ROUNDS.get(case, ROUNDS))
    processors = PROCESSORS.get(case, 1)
    with one_device(folder, device.split("-")[0], **options) as devices:
        config = host.vm_config(folder, guest, vcpu_count=processors, boot_args=(
            f"case={case} rounds={rounds} device={device} cpus={processors}"), **devices)
        started = time.monotonic()
        with host.start_vmm(config, preexec_fn=raise_file_limit) as vmm:
            read_until(vmm, "round 1")
            files, memory = open_files(vmm), private_memory(vmm)
            vmm.stdin.write(b"g")
            vmm.stdin.flush()
            read_until(vmm, f"round {rounds}")
            assert open_files(vmm) == files
            # The sanitizers keep what is freed, and find leaks by themselves.
            if VARIANT == "release":
                assert private_memory(vmm) - memory <= MORE_GROWTH.get(case, GROWTH)
            output, log = vmm.communicate(b"g")
        took = time.monotonic() - started
    log = log.decode()
    assert output.decode() == f"survived {case}\n"
    assert vmm.returncode == 0, log
    assert "The guest powered off." in log
    # A device has two limits of one line a second.
    warnings = re.findall(r":(?:WARN|ERROR)\] .*", log)
    assert len(warnings) <= 2 * (took + 1), log
    return warnings


def expect_rule(warnings, rule):
    if rule:
        assert any(rule in line for line in warnings), warnings


@pytest.mark.parametrize("device", ["block", "net-rx", "net-tx", "vsock-rx", "vsock-tx"])
@pytest.mark.parametrize("case", RING_CASES)
def test_ring(tmp_path, case, device):
    rule = RING_CASES[case]
    most = ROUNDS if device == "block" else OTHER_RING_ROUNDS
    expect_rule(survive(tmp_path, "badring", case, device, most=most), rule)


@pytest.mark.parametrize("device", ["net-rx", "vsock-rx"])
def test_reset_storm(tmp_path, device):
    survive(tmp_path, "badtransport", "reset-storm", device)


def test_vsock_without_queues(tmp_path):
    expect_rule(survive(tmp_path, "badtransport", "driver-ok-without-queues", "vsock-rx"),
                "DRIVER_OK without a receive and a transmit queue")


@pytest.mark.parametrize("case", TRANSPORT_CASES)
def test_transport(tmp_path, case):
    expect_rule(survive(tmp_path, "badtransport", case, "block"), TRANSPORT_CASES[case])


@pytest.mark.parametrize("engine", ["Sync", "Async"])
@pytest.mark.parametrize("case", BLOCK_CASES)
def test_block(tmp_path, case, engine):
    warnings = survive(tmp_path, "badblock", case, "block", engine=engine)
    # A request that is no good never gets as far as the file, where its failure would be logged.
    assert case in BROKEN_RING_CASES or not warnings, warnings
    fixed = (tmp_path / "fixed").read_bytes()
    assert fixed[:8] == b"sector 0" and len(fixed) == host.CAPACITY
    assert (tmp_path / "scratch").stat().st_size == host.CAPACITY


@pytest.mark.parametrize("backend", ["passt", "tap", "metadata"])
@pytest.mark.parametrize("case", NET_CASES)
def test_net(tmp_path, case, backend):
    if backend == "tap" and os.getuid() != 0:
        pytest.skip("only root can make a network namespace and a tap device")
    expect_rule(survive(tmp_path, "badnet", case, "net-rx", backend=backend), NET_CASES[case])


@pytest.mark.parametrize("case", VSOCK_CASES)
def test_vsock(tmp_path, case):
    expect_rule(survive(tmp_path, "badvsock", case, "vsock-rx"), VSOCK_CASES[case])


@pytest.mark.parametrize("guest, cases", [("badring", RING_CASES), ("badblock", BLOCK_CASES),
                                          ("badtransport", TRANSPORT_CASES),
                                          ("badnet", NET_CASES), ("badvsock", VSOCK_CASES)])
def test_no_case_is_left_out(tmp_path, guest, cases):
    config = host.vm_config(tmp_path, guest, boot_args="case=list")
    with host.start_vmm(config) as vmm:
        output, _ = vmm.communicate()
    assert output.decode().split() == list(cases)
