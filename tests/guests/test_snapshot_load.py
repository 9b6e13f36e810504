# SPDX-License-Identifier: Apache-2.0
"""What is not loaded, and what a load leaves and finds."""
import json
import os
import pathlib
import struct

import pytest

import host
from api import start_api
from snapshots import STATE, load, load_body, paths, resume, saved, start, wait_for_more, word
from support import VARIANT, wait_until

COUNTER = 0x8000  # of counter.c
MIB = 1 << 20
POLYNOMIAL = 0xc96c5795d7870f42
HEADER = 16


def checksum(data):
    """CRC-64/XZ."""
    crc = (1 << 64) - 1
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ (1 << 64) - 1


def table_of(polynomial):
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        yield value


TABLE = list(table_of(POLYNOMIAL))


def summed(data):
    """With the checksum that it has to have."""
    return data + struct.pack("<Q", checksum(data))


def sections(data):
    """(where it begins, kind, version, its body) of each section."""
    at = HEADER
    while at < len(data) - 8:
        kind, version, length = struct.unpack_from("<IIQ", data, at)
        yield at, kind, version, data[at + 16:at + 16 + length]
        at += 16 + length


def section(kind, version, body):
    return struct.pack("<IIQ", kind, version, len(body)) + body


def with_section(data, number, kind=None, version=None, body=None):
    """The whole file, with one section that is another, and its checksum right."""
    parts = [data[:HEADER]]
    for i, (_, its_kind, its_version, its_body) in enumerate(sections(data)):
        if i == number:
            its_kind, its_version = kind or its_kind, its_version if version is None else version
            its_body = its_body if body is None else body
        parts.append(section(its_kind, its_version, its_body))
    return summed(b"".join(parts))


def damaged(data):
    """(what is wrong, the bytes, a part of the sentence)."""
    yield "empty", b"", "not a snapshot's state"
    for at in range(HEADER):
        yield f"header {at}", data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1:], ""
    body = data[:-8]
    yield "version", summed(body[:8] + struct.pack("<I", 2) + body[12:]), "version 2"
    yield "architecture", summed(body[:12] + struct.pack("<I", 183) + body[16:]), "another architecture"
    yield "cut off", data[:HEADER + 4], "cut off"
    yield "checksum", data[:-1] + bytes([data[-1] ^ 1]), "damaged"
    yield "more after it", data + b"x", "damaged"
    yield "more inside", summed(body + section(99, 1, b"")), "after its last section"
    for number, (at, kind, version, its_body) in enumerate(sections(data)):
        yield f"{number}: flipped", data[:at + 20] + bytes([data[at + 20] ^ 1]) + data[at + 21:], "damaged"
        yield f"{number}: missing", summed(data[:at]), f"kind {kind} is missing"
        yield f"{number}: kind", with_section(data, number, kind=77), "kind 77 is where one of kind"
        # A configuration that is longer is JSON with something after it.
        yield f"{number}: longer", with_section(data, number, body=its_body + b"\xff"), ""
        yield f"{number}: shorter", with_section(data, number, body=its_body[:-1]), ""
        if kind != 3:  # of memory that is all zeros, nothing is all that there is to say
            yield f"{number}: nothing", with_section(data, number, body=b""), ""
        yield f"{number}: version", with_section(data, number, version=version + 1), (
            f"version {version + 1}, and {version} is the latest")
        yield f"{number}: version 0", with_section(data, number, version=0), "version 0"
        yield f"{number}: length", summed(data[:at + 8] + b"\xff" * 8 + data[at + 16:-8]), "missing"


def with_config(data, change):
    """With the configuration changed."""
    config = json.loads(list(sections(data))[0][3])
    change(config)
    return with_section(data, 0, body=json.dumps(config).encode())


def setting(*way):
    *way, name, value = way

    def change(config):
        for step in way:
            config = config[step]
        config[name] = value
    return change


CONFIGURED_OTHERWISE = [
    (setting("machine-config", "vcpu_count", 3), "of different sizes"),
    (setting("machine-config", "vcpu_count", 1), "of different sizes"),
    (setting("machine-config", "mem_size_mib", 17), "of different sizes"),
    (setting("machine-config", "vcpu_count", 33), "33 is not between"),
    (setting("vsock", None), "of different sizes"),
    (setting("drives", []), "of different sizes"),
    (setting("drives", 0, "path_on_host", "/nonexistent/a"), "/nonexistent/a"),
    (setting("drives", 0, "path_on_host", "/dev/null"), "drive scratch"),
    (setting("vsock", "guest_cid", 1), "guest_cid"),
    (setting("network-interfaces", [{"iface_id": "a", "host_dev_name": "no-such-tap"}]), "no-such-tap"),
]


@pytest.fixture(name="whole", scope="module")
def snapshot_of_a_whole_vm(tmp_path_factory):
    """Of one with two vCPUs, a drive and a vsock."""
    folder = tmp_path_factory.mktemp("whole")
    _, config = host.drive(folder)
    with start_api(folder) as vmm:
        vmm.put("/drives/scratch", config)
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(folder / "v")})
        start(vmm, "counter", vcpu_count=2, mem_size_mib=16)
        snapshot = saved(vmm, folder / "snapshot")
        resume(vmm)
    return snapshot


def seen(vmm):
    """What there is of a VM in the VMM: nothing of one that was not loaded."""
    state = vmm.state()  # by a connection that is open from now on
    opened = [os.readlink(f"/proc/{vmm.process.pid}/fd/{number}")
              for number in os.listdir(f"/proc/{vmm.process.pid}/fd")]
    # ThreadSanitizer has a thread of its own from the first that is started.
    threads = 0 if VARIANT == "tsan" else len(os.listdir(f"/proc/{vmm.process.pid}/task"))
    return state, vmm.get("/vm/config"), sorted(opened), threads


def refused_loads(whole):
    """(what is wrong, body, a part of the sentence)."""
    files = paths(whole)
    state, memory = files["snapshot_path"], files["mem_file_path"]
    file = {"backend_type": "File", "backend_path": memory}
    override = lambda name, **fields: {name: [fields]}
    yield "no memory", {"snapshot_path": state}, "one of mem_backend and mem_file_path is needed"
    yield "two memories", {**files, "mem_backend": file}, "only one is possible"
    yield "Uffd", {"snapshot_path": state, "mem_backend": {**file, "backend_type": "Uffd"}}, (
        "Uffd is not there yet")
    yield "2M", load_body(whole, huge_pages="2M"), "huge_pages: a file is not mapped by 2M pages"
    yield "no state", {**load_body(whole), "snapshot_path": "/nonexistent/a"}, "/nonexistent/a"
    yield "no memory file", {"snapshot_path": state, "mem_file_path": "/nonexistent/a"}, (
        "memory file /nonexistent/a: No such file or directory")
    yield "memory is state", {"snapshot_path": state, "mem_file_path": state}, "not a regular file of"
    yield "memory is a device", {"snapshot_path": state, "mem_file_path": "/dev/zero"}, (
        "not a regular file of")
    yield "state is memory", {"snapshot_path": memory, "mem_file_path": memory}, memory
    yield "state is a folder", {**load_body(whole), "snapshot_path": str(whole)}, str(whole)
    yield "unknown drive", load_body(whole, **override(
        "drive_overrides", drive_id="none", path_on_host="/dev/zero")), (
            "drive_overrides[0]: the snapshot has no none")
    yield "unknown interface", load_body(whole, **override(
        "network_overrides", iface_id="none", host_dev_name="tap0")), (
            "network_overrides[0]: the snapshot has no none")
    yield "no drive there", load_body(whole, **override(
        "drive_overrides", drive_id="scratch", path_on_host="/nonexistent/a")), "/nonexistent/a"


def other_files(whole, folder):
    """The same of files that are made for it."""
    files = paths(whole)
    for size in (0, host.CAPACITY - 512, host.CAPACITY + 512):
        with open(folder / f"drive-{size}", "wb") as drive:
            drive.truncate(size)
        yield f"drive of {size}", load_body(whole, drive_overrides=[
            {"drive_id": "scratch", "path_on_host": str(folder / f"drive-{size}")}]), "drive scratch"
    for size in (0, (16 * MIB) - 4096, (16 * MIB) + 4096):
        with open(folder / f"memory-{size}", "wb") as memory:
            memory.truncate(size)
        yield f"memory of {size}", {"snapshot_path": files["snapshot_path"],
                                    "mem_file_path": str(folder / f"memory-{size}")}, (
            f"not a regular file of {16 * MIB} bytes")
    data = (whole / STATE).read_bytes()
    cases = [*damaged(data), *((str(i), with_config(data, change), sentence) for i, (change, sentence) in
                               enumerate(CONFIGURED_OTHERWISE))]
    for i, (what, changed, sentence) in enumerate(cases):
        path = folder / f"state-{i}"
        path.write_bytes(changed)
        yield what, {**load_body(whole), "snapshot_path": str(path)}, sentence


def test_load_that_failed_leaves_nothing(tmp_path, whole):
    """Each is refused by a sentence, and all is as it was; then a snapshot that is good is loaded."""
    with start_api(tmp_path) as vmm:
        before = seen(vmm)
        for what, body, sentence in [*refused_loads(whole), *other_files(whole, tmp_path)]:
            fault = vmm.fault("PUT", "/snapshot/load", body)
            assert sentence in fault and "\n" not in fault, what
            assert fault.startswith(("snapshot ", "memory file ", "mem_", "one of ", "huge_pages")), fault
            assert seen(vmm) == before, what
        load(vmm, whole, resume_vm=True)
        wait_for_more(vmm, tmp_path / "look", COUNTER, word(whole, COUNTER))


def test_vm_is_configured_after_a_load_that_failed(tmp_path, whole):
    (tmp_path / "state").write_bytes(with_section((whole / STATE).read_bytes(), 6, version=9))
    with start_api(tmp_path) as vmm:
        vmm.fault("PUT", "/snapshot/load", {**load_body(whole), "snapshot_path": str(tmp_path / "state")})
        start(vmm, "counter", mem_size_mib=16)
        wait_for_more(vmm, tmp_path / "look", COUNTER, 1000)


@pytest.mark.parametrize("path,body", [
    ("/boot-source", {"kernel_image_path": str(host.GUESTS / "counter")}), ("/cpu-config", {}),
    ("/drives/scratch", None), ("/vsock", {"guest_cid": 3, "uds_path": "{}/other"})])
def test_not_after_something_is_configured(tmp_path, whole, path, body):
    body = host.drive(tmp_path)[1] if body is None else body
    with start_api(tmp_path) as vmm:
        vmm.put(path, {name: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value
                       for name, value in body.items()})
        before = seen(vmm)
        assert vmm.fault("PUT", "/snapshot/load", load_body(whole)).startswith(
            "Loading a snapshot is not possible after a kernel, a device or the CPU has been configured")
        assert seen(vmm) == before


def test_after_log_metrics_and_serial_port_are_set(tmp_path, whole):
    with start_api(tmp_path) as vmm:
        vmm.put("/logger", {"log_path": str(tmp_path / "log"), "level": "Debug"})
        vmm.put("/metrics", {"metrics_path": str(tmp_path / "metrics")})
        vmm.put("/serial", {"serial_out_path": str(tmp_path / "serial")})
        load(vmm, whole)
        for state in ("Paused", "Running"):
            assert vmm.state() == state
            assert vmm.fault("PUT", "/snapshot/load", load_body(whole)) == (
                f'Loading a snapshot is not possible in the state "{state}"')
            resume(vmm)


def test_times_are_in_the_metrics(tmp_path, whole):
    latencies = lambda vmm: vmm.get("/metrics")["latencies_us"]
    with start_api(tmp_path) as vmm:
        assert not any(latencies(vmm).values())
        load(vmm, whole, resume_vm=True)
        loading = latencies(vmm)
        assert 0 < loading["vmm_load_snapshot"] <= loading["load_snapshot"]
        saved(vmm, tmp_path / "snapshot")
        times = latencies(vmm)
        assert 0 < times["vmm_full_create_snapshot"] <= times["full_create_snapshot"]
        assert times["pause_vm"] > 0


@pytest.mark.release_build
def test_every_thread_of_a_vm_that_was_loaded_is_under_its_filter(tmp_path, whole):
    with start_api(tmp_path) as vmm:
        load(vmm, whole, resume_vm=True)
        tasks = lambda: [pathlib.Path(f"/proc/{vmm.process.pid}/task/{task}/status").read_text()
                         for task in os.listdir(f"/proc/{vmm.process.pid}/task")]
        wait_until(lambda: all("\nSeccomp:\t2\n" in task for task in tasks()), "filters")
        assert len(tasks()) >= 3
