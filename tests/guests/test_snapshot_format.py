# SPDX-License-Identifier: Apache-2.0
"""State files by the tables of docs/snapshot-format.md, and files of before."""
import json
import os
import re
import struct
import subprocess

import pytest

import host
from api import start_api
from support import TOP, wait_until

DOCUMENT = TOP / "docs" / "snapshot-format.md"
OLD_FILES = sorted((TOP / "tests" / "snapshots").iterdir())
NUMBERS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q", "bool": "<?"}
ROW = re.compile(r"^\| (.+?) \| (.+?) \|$")
ARRAY = re.compile(r"^(.+)\[(\w*)\]$")
MIB = 1 << 20


def read_tables():
    """The fields of each heading, and the top level's kinds with their sections' names and versions."""
    tables, kinds, heading = {}, {}, None
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
            tables[heading] = []
        elif (row := re.match(r"^\| (\d+) \| (\w+) \| (\d+) \| \w", line)):
            kinds[int(row[1])] = row[2], int(row[3])
        elif heading and (row := ROW.match(line)) and row[1] not in ("field", "---", "offset"):
            tables[heading].append((row[1], row[2].replace("*", "")))
    return tables, kinds


TABLES, KINDS = read_tables()


class Reader:
    def __init__(self, content):
        self.content, self.at = content, 0

    def take(self, size):
        assert self.at + size <= len(self.content)
        self.at += size
        return self.content[self.at - size:self.at]

    def number(self, kind):
        size = struct.calcsize(NUMBERS[kind])
        return struct.unpack(NUMBERS[kind], self.take(size))[0]

    def section(self):
        kind, version, size = struct.unpack("<IIQ", self.take(16))
        return kind, version, Reader(self.take(size))

    def nested(self, expected):
        kind, version, content = self.section()
        assert version == 1
        if expected == "type":
            return kind, content.whole(f"type {kind}")
        assert kind == int(expected)
        return content.whole({1: "transport", 2: "device"}[kind])

    def value(self, kind, before):
        if (array := ARRAY.match(kind)):
            if not array[2]:
                return self.rest(array[1])
            count = int(array[2]) if array[2].isdigit() else before[array[2]]
            return [self.value(array[1], before) for _ in range(count)]
        if kind.startswith("section "):
            return self.nested(kind.split()[1])
        return self.number(kind) if kind in NUMBERS else self.fields(kind)

    def rest(self, kind):
        values = []
        while self.at < len(self.content):
            values.append(self.value(kind, {}))
        return values

    def fields(self, name):
        assert TABLES[name], name
        values = {}
        for field, kind in TABLES[name]:
            values[field] = self.value(kind, values)
        return values

    def whole(self, name):
        values = self.fields(name)
        assert self.at == len(self.content), name
        return values


def crc_64_xz(content):
    crc = (1 << 64) - 1
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xc96c5795d7870f42 if crc & 1 else 0)
    return crc ^ (1 << 64) - 1


def parse(content):
    """Its sections, as (name, values)."""
    assert content[:16] == b"MOTESNAP" + struct.pack("<II", 1, 62)
    assert content[-8:] == struct.pack("<Q", crc_64_xz(content[:-8]))
    reader, sections = Reader(content[16:-8]), []
    while reader.at < len(reader.content):
        kind, version, body = reader.section()
        name, documented = KINDS[kind]
        assert version == documented
        sections.append((name, json.loads(body.content) if name == "configuration" else
                         body.whole(name)))
    return sections


def find(sections, name):
    return [values for section, values in sections if section == name]


def configure(vmm, folder, backend):
    """As the files of before have been configured, too."""
    _, drive = host.drive(folder, io_engine="Sync", rate_limiter={
        "bandwidth": {"size": 1 << 30, "refill_time": 1000}})
    vmm.set_guest("latency")
    vmm.put("/boot-source", {"kernel_image_path": str(host.GUESTS / "latency"),
                             "boot_args": f"reads={1 << 20}"})
    vmm.put("/drives/scratch", drive)
    vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", "guest_mac": host.GUEST_MAC, **backend})
    vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(folder / "v.sock")})


def check(sections):
    assert [name for name, _ in sections] == [
        "configuration", "machine", "memory", "vcpu", "vm", "serial", "i8042", "virtio", "virtio", "virtio",
        "console"]
    config, machine, vcpu = (find(sections, name)[0] for name in
                             ("configuration", "machine", "vcpu"))
    assert list(config) == ["machine-config", "drives", "network-interfaces", "vsock",
                            "mmds-config"]
    assert machine == {"memory_size": 16 * MIB, "vcpu_count": 1, "virtio_count": 3}
    pieces = [(piece["start"], piece["end"]) for piece in find(sections, "memory")[0]["pieces"]]
    assert any(start <= MIB < end for start, end in pieces)  # the kernel
    assert pieces == sorted(pieces) and pieces[-1][1] <= 16 * MIB
    assert all(start < end and start % 4096 == end % 4096 == 0 for start, end in pieces)
    assert vcpu["mp_state"] == 0 and vcpu["tsc_khz"] > 1000
    vendor, = (entry for entry in vcpu["cpuid"] if list(entry.values())[0][0] == 0)
    assert struct.pack("<III", *(list(vendor.values())[0][i] for i in (4, 6, 5))) in (
        b"GenuineIntel", b"AuthenticAMD")
    assert 0x10 in [msr["index"] for msr in vcpu["msrs"]]
    assert find(sections, "vm")[0]["ioapic_base_address"] == 0xfec00000
    owns = dict(values["transport"]["device"]["own"] for values in find(sections, "virtio"))
    assert owns.keys() == {1, 2, 19}
    assert bytes(owns[1]["mac"]) == bytes.fromhex(host.GUEST_MAC.replace(":", ""))
    assert owns[2]["sectors"] == host.CAPACITY // 512
    assert owns[2]["limits"][0]["buckets"][0]["size"] == 1 << 30
    assert owns[19]["guest_cid"] == 3
    block, = (values["transport"]["device"] for values in find(sections, "virtio")
              if values["transport"]["device"]["own"][0] == 2)
    assert block["status"] == 15 and block["queues"][0]["ready"]
    assert block["queues"][0]["next_available"] == block["queues"][0]["next_used"] > 0


def test_new_file_is_as_documented(tmp_path):
    with host.passt(tmp_path) as backend, start_api(tmp_path) as vmm:
        configure(vmm, tmp_path, backend)
        vmm.action("InstanceStart")
        wait_until(lambda: vmm.get("/metrics")["block"]["read_count"] > 200, "reads")
        vmm.patch("/vm", {"state": "Paused"})
        vmm.put("/snapshot/create", {"snapshot_path": str(tmp_path / "state"),
                                     "mem_file_path": str(tmp_path / "memory")})
    check(parse((tmp_path / "state").read_bytes()))
    memory = tmp_path / "memory"
    assert memory.stat().st_size == 16 * MIB
    program = (host.GUESTS / "latency").read_bytes()[4096:4160]
    with open(memory, "rb") as file:
        file.seek(MIB)
        assert file.read(64) == program


@pytest.mark.parametrize("old", OLD_FILES, ids=lambda path: path.name)
def test_old_file_is_as_documented(old):
    check(parse(old.read_bytes()))


@pytest.mark.parametrize("old", OLD_FILES, ids=lambda path: path.name)
def test_old_file_loads(tmp_path, old):
    """Or is refused for what this host's processor is; the unit tests read its devices on any."""
    with open(tmp_path / "memory", "wb") as memory:
        memory.truncate(16 * MIB)
    path, _ = host.drive(tmp_path)
    with host.passt(tmp_path) as backend, start_api(tmp_path, cwd=tmp_path) as vmm:
        assert backend["passt_socket"] == str(tmp_path / "passt")
        status, answer = vmm.request("PUT", "/snapshot/load", {
            "snapshot_path": str(old), "mem_backend": {
                "backend_type": "File", "backend_path": str(tmp_path / "memory")},
            "drive_overrides": [{"drive_id": "scratch", "path_on_host": str(path)}],
            "vsock_override": {"uds_path": str(tmp_path / "v.sock")}})
        if status == 204:
            assert vmm.state() == "Paused"
            assert vmm.get("/vm/config")["drives"][0]["path_on_host"] == str(path)
        else:
            assert status == 400
            assert "this host" in answer["fault_message"] or "/dev/kvm" in answer["fault_message"]


def file_of(sections):
    """A state file of (kind, version, content), with a good checksum."""
    content = b"MOTESNAP" + struct.pack("<II", 1, 62) + b"".join(
        struct.pack("<IIQ", kind, version, len(body)) + body for kind, version, body in sections)
    return content + struct.pack("<Q", crc_64_xz(content))


def broken(sections):
    """What is wrong, and the file."""
    for number, (kind, version, body) in enumerate(sections):
        before, after = sections[:number], sections[number + 1:]
        name = f"{number} of kind {kind}"
        for size in {len(body) // 2 | 1, len(body) - 1}:  # half of the pieces would be good ones
            yield f"{name} cut to {size}", before + [(kind, version, body[:size])] + after
        if kind != 1:
            yield f"{name} longer", before + [(kind, version, body + b"\0")] + after
        yield f"{name} of version 2", before + [(kind, version + 1, body)] + after
        yield f"{name} missing", before + after
    sizes = struct.pack("<QII", 16 * MIB, 1, 3)
    for at in range(0, 16, 4):
        other = bytearray(sizes)
        other[at] ^= 1
        yield f"size at {at}", [sections[0], (2, 1, bytes(other))] + sections[2:]
    yield "more", sections + [(10, 1, b"")]
    for start, end in ((16 * MIB, 17 * MIB), (2 * MIB, MIB), (MIB, MIB), (MIB, MIB + 1),
                       (MIB + 1, 2 * MIB), (1 << 63, (1 << 64) - 4096)):
        yield f"a piece from {start} to {end}", sections[:2] + [
            (3, 1, sections[2][2] + struct.pack("<QQ", start, end))] + sections[3:]
    yield "too many pieces", sections[:2] + [
        (3, 1, struct.pack("<QQ", 0, 4096) * 16385)] + sections[3:]
    # The vCPU's, which is the fourth, has three sizes in it.
    kind, version, body = sections[3]
    entries, = struct.unpack_from("<I", body)
    xsave_at = 4 + 28 * entries + 8 + 18 * 8 + 8 * 23 + 2 * 10 + 7 * 8 + 4 * 8
    xsave, = struct.unpack_from("<I", body, xsave_at)
    assert xsave >= 4096
    msrs_at = xsave_at + 4 + xsave + 12 + 6 * 8 + 1024 + 36
    for at, what in ((0, "CPUID"), (xsave_at, "XSAVE"), (msrs_at, "MSRs")):
        value, = struct.unpack_from("<I", body, at)
        for count in (value + 1, (1 << 16) + 1, (1 << 32) - 1):
            hostile = body[:at] + struct.pack("<I", count) + body[at + 4:]
            yield f"{count} of {what}", sections[:3] + [(kind, version, hostile)] + sections[4:]


def test_broken_files_are_refused(tmp_path):
    """Each by a sentence; the same VMM loads, at the end, the file that they were made of."""
    reader, sections = Reader(OLD_FILES[0].read_bytes()[16:-8]), []
    while reader.at < len(reader.content):
        kind, version, body = reader.section()
        sections.append((kind, version, body.content))
    with open(tmp_path / "memory", "wb") as memory:
        memory.truncate(16 * MIB)
    host.drive(tmp_path)
    state = tmp_path / "state"
    load = {"snapshot_path": str(state), "mem_file_path": str(tmp_path / "memory")}
    with host.passt(tmp_path), start_api(tmp_path, cwd=tmp_path) as vmm:
        assert vmm.state() == "Not started"
        descriptors = vmm.descriptors()  # with this connection's
        for what, others in broken(sections):
            state.write_bytes(file_of(others))
            status, answer = vmm.request("PUT", "/snapshot/load", load)
            assert status == 400, what
            assert answer["fault_message"].startswith(f"snapshot {state}: "), what
            assert vmm.state() == "Not started" and vmm.descriptors() == descriptors, what
        state.write_bytes(file_of(sections))
        status, answer = vmm.request("PUT", "/snapshot/load", load)
        assert status == 204 or "this host" in answer["fault_message"]


@pytest.mark.parametrize("changes, sentence", [
    ({"drive_overrides": [{"drive_id": "no", "path_on_host": "scratch"}]},
     "drive_overrides[0]: the snapshot has no no"),
    ({"network_overrides": [{"iface_id": "eth1", "host_dev_name": "tap0"}]},
     "network_overrides[0]: the snapshot has no eth1"),
    ({"mem_backend": {"backend_type": "File", "backend_path": "memory"}},
     "one of mem_backend and mem_file_path is needed, and only one is possible"),
    ({"mem_file_path": None},
     "one of mem_backend and mem_file_path is needed, and only one is possible"),
    ({"mem_file_path": None, "mem_backend": {"backend_type": "Uffd", "backend_path": "memory"}},
     "mem_backend.backend_type: Uffd is not there yet, only File"),
    ({"huge_pages": "2M"}, "huge_pages: a file is not mapped by 2M pages"),
    ({"mem_file_path": "."}, "its memory file is not a regular file of 16777216 bytes"),
    ({"mem_file_path": "short"}, "its memory file is not a regular file of 16777216 bytes"),
    ({"mem_file_path": "missing"}, "memory file missing: No such file or directory"),
    ({"snapshot_path": "missing"}, "snapshot missing: No such file or directory"),
    ({"snapshot_path": "memory"}, "snapshot memory: not a snapshot's state"),
    ({"snapshot_path": "short"}, "snapshot short: not a regular file of at most 16777216 bytes"),
], ids=lambda value: None if isinstance(value, str) else "-".join(value))
def test_load_that_cannot_be(tmp_path, changes, sentence):
    for name, size in (("memory", 16 * MIB), ("short", 16 * MIB + 1)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    host.drive(tmp_path)
    load = {"snapshot_path": str(OLD_FILES[0]), "mem_file_path": "memory", **changes}
    with host.passt(tmp_path), start_api(tmp_path, cwd=tmp_path) as vmm:
        assert sentence in vmm.fault("PUT", "/snapshot/load", {
            name: value for name, value in load.items() if value is not None})
        assert vmm.state() == "Not started"


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a file")
def test_state_that_cannot_be_replaced_keeps_its_memory(tmp_path):
    """A newer memory beside an older state would load, and be neither."""
    state, memory = tmp_path / "state", tmp_path / "memory"
    state.write_bytes(b"old state")
    memory.write_bytes(b"old memory")
    subprocess.run(["mount", "--bind", state, state], check=True)
    try:
        with start_api(tmp_path) as vmm:
            vmm.start("counter")
            vmm.patch("/vm", {"state": "Paused"})
            assert vmm.fault("PUT", "/snapshot/create", {
                "snapshot_path": str(state), "mem_file_path": str(memory)}) == \
                f"snapshot file {state}: Device or resource busy"
            vmm.patch("/vm", {"state": "Resumed"})
    finally:
        subprocess.run(["umount", state], check=True)
    assert state.read_bytes() == b"old state" and memory.read_bytes() == b"old memory"
    assert not list(tmp_path.glob("*.part"))
