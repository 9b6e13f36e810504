# SPDX-License-Identifier: Apache-2.0
"""What takes too long for each run of the tests: `make soak`."""
import os

from api import start_api
from host import drive
from support import TIME_LIMIT
from test_api_socket import GET, ended_after, read_answer

IDLE_TIME = 60  # seconds, as http.h has it
VMS = 200


def test_idle_connection_is_dropped(tmp_path):
    with start_api(tmp_path) as vmm:
        with vmm.connect() as idle:
            idle.sendall(GET)
            assert read_answer(idle)[0] == 200
            assert IDLE_TIME - 1 < ended_after(idle) < IDLE_TIME + 5
        vmm.connection.close()
        assert vmm.get("/")



def test_vms_in_turn_leave_nothing(tmp_path):
    """Each with a drive, a vsock and a stream."""
    before = set(os.listdir(tmp_path)), len(os.listdir("/proc/self/fd"))
    for _ in range(VMS):
        with start_api(tmp_path) as vmm:
            vmm.put("/drives/scratch", drive(tmp_path)[1])
            vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(tmp_path / "v.sock")})
            events = vmm.stream("/events")
            vmm.start("hello")
            assert b"ended" in events.read()
            assert vmm.process.wait(TIME_LIMIT) == 0
            events.connection_kept.close()
        assert not os.path.exists(f"/proc/{vmm.process.pid}")
        for name in ("scratch", "vmm.log", "console"):
            (tmp_path / name).unlink()
    assert (set(os.listdir(tmp_path)), len(os.listdir("/proc/self/fd"))) == before


def test_vm_that_is_configured_for_ever_does_not_grow(tmp_path):
    """One VMM, a hundred thousand calls: its memory and descriptors stay."""
    def private():
        with open(f"/proc/{vmm.process.pid}/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    with start_api(tmp_path) as vmm:
        scratch = drive(tmp_path)[1]
        for number in range(25000):
            vmm.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 16 + number % 100})
            vmm.put("/drives/scratch", scratch)
            vmm.get("/vm/config")
            vmm.fault("PUT", "/vsock", {"guest_cid": number})
            if number == 1000:
                early = private(), vmm.descriptors()
        assert vmm.descriptors() == early[1]
        assert private() <= early[0] + 64  # KiB
