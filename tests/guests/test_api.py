# SPDX-License-Identifier: Apache-2.0
"""What the API answers to each request, in each state."""
import itertools
import json
import socket
import stat
import subprocess

import pytest

from api import Vmm, answers, start_api
from host import ECHO_PORT, drive, echo, listener, passt
from support import GUESTS, TIME_LIMIT, VMM, run_vmm, vmm_with, wait_until, watchdog

KERNEL = str(GUESTS / "counter")
BOOT = {"kernel_image_path": KERNEL}
MACHINE = {"vcpu_count": 1, "mem_size_mib": 16}
START = {"action_type": "InstanceStart"}


@pytest.fixture(name="vmm")
def started_vmm(tmp_path):
    with start_api(tmp_path, "--id", "test-1") as vmm:
        yield vmm


@pytest.fixture(name="scratch")
def scratch_drive(tmp_path):
    return drive(tmp_path)[1]


# What /vm/config has of other devices, and of a drive for which it was not given.
NOTHING = {"mmds-config": None, "balloon": None, "entropy": None, "logger": None, "memory-hotplug": None,
           "metrics": None, "pmem": []}
DRIVE_NOTHING = {"partuuid": None, "rate_limiter": None, "socket": None}


def test_instance_and_version(vmm):
    version = vmm.get("/version")
    assert set(version) == {"firecracker_version", "mote_version"}
    assert vmm.get("/") == {"id": "test-1", "state": "Not started", "app_name": "mote",
                            "vmm_version": version["mote_version"]}


def test_defaults(vmm):
    assert vmm.get("/machine-config") == {
        "vcpu_count": 1, "mem_size_mib": 128, "smt": False, "track_dirty_pages": False,
        "huge_pages": "None"}
    assert vmm.get("/vm/config") == {
        **NOTHING, "boot-source": None, "machine-config": vmm.get("/machine-config"),
        "cpu-config": None, "drives": [], "network-interfaces": [], "vsock": None}


def test_ignored_fields_are_one_line_of_the_log(vmm, tmp_path):
    vmm.put("/metrics", {"metrics_path": str(tmp_path / "metrics"),
                         **{f"future-{i}": i for i in range(2000)}})
    assert vmm.log().count("unknown field, ignored") == 1


# Method, path, body, and what the refusal says; before the start. "@" stands for a drive's file.
REFUSED = [
    ("GET", "/nothing", None, ["/nothing", "no such path"]),
    ("GET", "/drives//a", None, ["there is no such path"]),
    ("GET", "/drives/", None, ["no such path"]),
    ("PUT", "/drives/a/b", {}, ["no such path"]),
    ("PUT", "/version", {}, ["PUT /version", "takes GET"]),
    ("POST", "/actions", START, ["POST /actions", "takes PUT"]),
    ("DELETE", "/machine-config", None, ["takes GET, PUT, PATCH"]),
    ("GET", "/version", {}, ["no body is expected"]),
    ("DELETE", "/drives/a", {}, ["no body is expected"]),
    ("PUT", "/boot-source", None, ["a JSON body is expected"]),
    ("PUT", "/boot-source", "", ["a JSON body is expected"]),
    ("PUT", "/boot-source", "[]", ["a JSON object is expected"]),
    ("PUT", "/boot-source", "{", ["line 1"]),
    ("PUT", "/boot-source", b'{"kernel_image_path": "\xff"}', ["unable to decode byte 0xff"]),
    ("PUT", "/boot-source", "{} {}", ["end of file expected"]),
    ("PUT", "/boot-source", '{"boot_args": "a", "boot_args": "b"}', ["duplicate"]),
    ("PUT", "/boot-source", {}, ["kernel_image_path", "missing"]),
    ("PUT", "/boot-source", {**BOOT, "kernel": 1}, ["kernel: unknown field"]),
    ("PUT", "/boot-source", {"kernel_image_path": 1}, ["kernel_image_path", "string"]),
    ("PUT", "/boot-source", {"kernel_image_path": None}, ["kernel_image_path", "string"]),
    ("PUT", "/boot-source", {"kernel_image_path": "/nonexistent"}, ["/nonexistent", "No such"]),
    ("PUT", "/boot-source", {"kernel_image_path": "/dev/null"}, ["/dev/null"]),
    ("PUT", "/boot-source", {**BOOT, "initrd_path": "/nonexistent"}, ["initrd /nonexistent"]),
    ("PUT", "/boot-source", {**BOOT, "boot_args": "x" * 2048}, ["command line", "2047"]),
    ("PUT", "/machine-config", {"vcpu_count": 1}, ["mem_size_mib", "missing"]),
    ("PUT", "/machine-config", {**MACHINE, "vcpu_count": 0}, ["vcpu_count", "0 is not between"]),
    ("PUT", "/machine-config", {**MACHINE, "vcpu_count": 33}, ["vcpu_count", "33"]),
    ("PUT", "/machine-config", {**MACHINE, "vcpu_count": 1.0}, ["vcpu_count", "integer"]),
    ("PUT", "/machine-config", {**MACHINE, "vcpu_count": 3, "smt": True}, ["vcpu_count", "even"]),
    ("PUT", "/machine-config", {**MACHINE, "smt": 1}, ["smt", "true or false"]),
    ("PUT", "/machine-config", {**MACHINE, "mem_size_mib": 0}, ["mem_size_mib"]),
    ("PUT", "/machine-config", {**MACHINE, "huge_pages": "1G"}, ["None, Transparent, 2M"]),
    ("PUT", "/machine-config", {**MACHINE, "cpu_template": "T3"}, ["cpu_template"]),
    ("PATCH", "/machine-config", {"cpus": 1}, ["cpus: unknown field"]),
    ("PATCH", "/machine-config", {"vcpu_count": 99}, ["vcpu_count"]),
    ("PUT", "/drives/a", {"drive_id": "b", "is_root_device": False, "path_on_host": "@"},
     ["drive_id", '"b"', '"a"']),
    ("PUT", "/drives/a", {"drive_id": "a", "path_on_host": "@"}, ["is_root_device", "missing"]),
    ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "/nowhere"},
     ["/nowhere"]),
    ("PUT", "/drives/a-b", {"drive_id": "a-b", "is_root_device": False, "path_on_host": "@"},
     ["drive_id", "letters, digits and underscores"]),
    ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "@",
                          "io_engine": "Fast"}, ["io_engine", "Async, Sync"]),
    ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "@",
                          "rate_limiter": {"ops": {"size": 1}}},
     ["rate_limiter.ops.refill_time", "missing"]),
    ("PATCH", "/drives/a", {"drive_id": "a"}, ["neither path_on_host nor rate_limiter"]),
    ("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": "@"},
     ["Updating a drive", "Not started"]),
    ("PATCH", "/machine-config", {}, ["no field"]),
    ("DELETE", "/drives/a", None, ["no drive a"]),
    ("PUT", "/network-interfaces/a", {"iface_id": "a"}, ["host_dev_name"]),
    ("PUT", "/network-interfaces/a", {"iface_id": "b", "host_dev_name": "t"}, ["iface_id", '"b"']),
    ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "no-such-tap-0",
                                      "guest_mac": "1"}, ["guest_mac"]),
    ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "t", "mtu": 67}, ["mtu"]),
    ("PATCH", "/network-interfaces/a", {"iface_id": "a"}, ["Not started"]),
    ("DELETE", "/network-interfaces/a", None, ["no network interface a"]),
    ("PUT", "/vsock", {"guest_cid": 2, "uds_path": "v"}, ["guest_cid", "2 is not between"]),
    ("PUT", "/vsock", {"guest_cid": 3}, ["uds_path", "missing"]),
    ("PUT", "/serial", {"buffer_size": 0}, ["buffer_size"]),
    ("PUT", "/serial", {"buffer_size": 1 << 30}, ["buffer_size"]),
    ("PUT", "/serial", {"serial_out_path": "/nonexistent/a"}, ["/nonexistent/a"]),
    ("PUT", "/serial", {"rate_limiter": {}}, ["rate_limiter", "not supported"]),
    ("PUT", "/logger", {"level": "Loud"}, ["level", "Off"]),
    ("PUT", "/logger", {"log_path": "/nonexistent/a"}, ["/nonexistent/a"]),
    ("PUT", "/actions", {}, ["action_type", "missing"]),
    ("PUT", "/actions", {"action_type": "Stop"}, ["InstanceStart"]),
    ("PUT", "/actions", START, ["boot-source", "no kernel"]),
    ("PUT", "/actions", {"action_type": "SendCtrlAltDel"}, ["Not started"]),
    ("PATCH", "/vm", {"state": "Paused"}, ["Pausing", "Not started"]),
    ("PATCH", "/vm", {"state": "Resumed"}, ["Resuming", "Not started"]),
    ("PATCH", "/vm", {"state": "Stopped"}, ["Paused, Resumed"]),
    ("PUT", "/snapshot/create", {}, ["snapshot_path", "missing"]),
    ("PUT", "/snapshot/create", {"snapshot_path": "a", "mem_file_path": "b"},
     ["Creating a snapshot", "Not started"]),
    ("PUT", "/snapshot/load", {}, ["snapshot_path", "missing"]),
    ("PATCH", "/mmds", {}, ["metadata", "none yet"]),
    ("PUT", "/mmds", [], ["a JSON object"]),
    ("PUT", "/mmds", '{"a": 1, "a": 2}', ["duplicate"]),
    ("PUT", "/mmds/config", {}, ["network_interfaces", "missing"]),
    ("PUT", "/mmds/config", {"network_interfaces": []}, ["network_interfaces", "at least one"]),
    ("PUT", "/mmds/config", {"network_interfaces": "eth0"}, ["network_interfaces", "a list"]),
    ("PUT", "/mmds/config", {"network_interfaces": ["eth0"]},
     ["network_interfaces[0]", "no network interface eth0"]),
    ("PUT", "/mmds/config", {"network_interfaces": ["eth0"], "version": "V3"}, ["version", "V1, V2"]),
    ("PUT", "/balloon", {}, ["drives, network interfaces and a vsock"]),
    ("PUT", "/entropy", {}, ["drives, network interfaces and a vsock"]),
    ("PUT", "/pmem/a", {}, ["drives, network interfaces and a vsock"]),
    ("GET", "/hotplug/memory", None, ["drives, network interfaces and a vsock"]),
]


@pytest.fixture(name="shared", scope="module")
def vmm_that_refuses(tmp_path_factory):
    """For requests that change nothing, which is looked at in the end."""
    folder = tmp_path_factory.mktemp("refusals")
    with start_api(folder) as vmm:
        before = vmm.get("/vm/config")
        descriptors = vmm.descriptors()
        yield vmm
        vmm.connection.close()  # which may have been idle for longer than a client may be
        assert vmm.get("/vm/config") == before
        wait_until(lambda: vmm.descriptors() == descriptors, "the descriptors of before")
        assert vmm.state() == "Not started"


@pytest.mark.parametrize("method,path,body,says", REFUSED,
                         ids=[f"{case[0]}-{case[1]}-{i}" for i, case in enumerate(REFUSED)])
def test_refusal_names_the_cause(shared, tmp_path, method, path, body, says):
    if isinstance(body, dict) and body.get("path_on_host") == "@":
        body = {**body, "path_on_host": str(drive(tmp_path)[0])}
    fault = shared.fault(method, path, body)
    for part in says:
        assert part in fault
    assert "\n" not in fault


def test_what_has_no_effect_is_told(vmm):
    vmm.patch("/machine-config", {"track_dirty_pages": True})
    assert "track_dirty_pages: nothing comes of it" in vmm.log()
    assert vmm.get("/machine-config")["track_dirty_pages"] is True


def test_machine_configuration(vmm):
    vmm.put("/machine-config", {**MACHINE, "vcpu_count": 2, "smt": True})
    vmm.patch("/machine-config", {"mem_size_mib": 64})
    assert vmm.get("/machine-config") == {
        "vcpu_count": 2, "mem_size_mib": 64, "smt": True, "track_dirty_pages": False,
        "huge_pages": "None"}
    assert "even" in vmm.fault("PATCH", "/machine-config", {"vcpu_count": 3})
    # A PUT is the whole: what it does not name is at its default again.
    vmm.put("/machine-config", MACHINE)
    assert vmm.get("/machine-config")["smt"] is False
    assert vmm.get("/vm/config")["machine-config"] == vmm.get("/machine-config")


def whole_configuration(tmp_path):
    """The calls that configure all there is without privileges, and what must come of them."""
    root = {"drive_id": "root", "path_on_host": str(drive(tmp_path, name="r")[0]),
            "is_root_device": True, "is_read_only": True, "cache_type": "Writeback",
            "io_engine": "Sync", "partuuid": "0eaa91a0-01", "socket": None,
            "rate_limiter": {"bandwidth": {"size": 1000, "refill_time": 100, "one_time_burst": 5},
                             "ops": {"size": 1, "refill_time": 2, "one_time_burst": None}}}
    data = {"drive_id": "data", "path_on_host": str(drive(tmp_path, name="d")[0]),
            "is_root_device": False, "is_read_only": False, "cache_type": "Unsafe",
            "io_engine": "Async", **DRIVE_NOTHING}
    boot = {**BOOT, "boot_args": "a=b", "initrd_path": str(drive(tmp_path, name="i")[0])}
    vsock = {"guest_cid": 7, "uds_path": str(tmp_path / "v.sock")}
    serial = {"serial_out_path": str(tmp_path / "serial"), "buffer_size": 4096}
    machine = {**MACHINE, "smt": False, "track_dirty_pages": True, "huge_pages": "Transparent"}
    calls = [("/boot-source", boot), ("/machine-config", machine), ("/drives/data", data),
             ("/drives/root", root), ("/vsock", vsock), ("/serial", serial)]
    return calls, {**NOTHING, "boot-source": boot, "machine-config": machine, "cpu-config": None,
                   "drives": [data, root], "network-interfaces": [], "vsock": vsock,
                   "serial": serial}


def test_what_is_printed_is_a_configuration_file(tmp_path):
    calls, expected = whole_configuration(tmp_path)
    with start_api(tmp_path) as vmm:
        for path, body in calls:
            vmm.put(path, body)
        printed = vmm.get("/vm/config")
    assert printed == expected
    file = tmp_path / "vm.json"
    file.write_text(json.dumps(printed))
    with start_api(tmp_path, "--config-file", file) as vmm:
        assert vmm.state() == "Running"
        assert vmm.get("/vm/config") == expected


def test_repeated_puts_are_one(tmp_path):
    calls, expected = whole_configuration(tmp_path)
    with start_api(tmp_path) as vmm:
        for path, body in calls:
            vmm.put(path, body)
        descriptors = vmm.descriptors()
        for _ in range(3):
            for path, body in calls:
                vmm.put(path, body)
        assert vmm.get("/vm/config") == expected
        assert vmm.descriptors() == descriptors
        vmm.action("InstanceStart")
        assert vmm.state() == "Running"


def test_mac_address_belongs_to_one_interface(vmm, tmp_path):
    with passt(tmp_path) as backend:
        for name, mac, status in (("a", "06:00:00:00:00:0a", 204), ("b", "06:00:00:00:00:0A", 400),
                                  ("b", "06:00:00:00:00:0b", 204), ("a", "06:00:00:00:00:0b", 400),
                                  ("a", "06:00:00:00:00:0a", 204), ("c", "01:00:00:00:00:0c", 204)):
            answer = vmm.request("PUT", f"/network-interfaces/{name}",
                                 {"iface_id": name, "guest_mac": mac, **backend})
            assert answer[0] == status, (name, mac, answer)
            assert status == 204 or "that of interface" in answer[1]["fault_message"]


def test_own_descriptors_are_not_taken_for_passt(vmm):
    vmm.get("/")
    descriptors = vmm.descriptors()
    for number in range(3, 40):
        fault = vmm.fault("PUT", "/network-interfaces/a", {"iface_id": "a", "passt_fd": number})
        assert f"descriptor {number}: not inherited" in fault
    assert vmm.descriptors() == descriptors


def test_order_of_the_calls_does_not_matter(tmp_path):
    scratch = drive(tmp_path)[1]
    calls = [("/boot-source", BOOT), ("/machine-config", MACHINE), ("/drives/scratch", scratch),
             ("/vsock", {"guest_cid": 3, "uds_path": str(tmp_path / "v")})]
    seen = []
    for order in itertools.permutations(calls):
        with start_api(tmp_path) as vmm:
            for path, body in order:
                vmm.put(path, body)
            seen.append(vmm.get("/vm/config"))
            vmm.action("InstanceStart")
            assert vmm.state() == "Running"
    assert all(config == seen[0] for config in seen)


def test_devices_can_be_removed_before_the_start(vmm, tmp_path):
    names = ["a", "b", "c"]
    for name in names:
        vmm.put(f"/drives/{name}", drive(tmp_path, name=name)[1])
    descriptors = vmm.descriptors()
    vmm.do("DELETE", "/drives/b")
    assert [d["drive_id"] for d in vmm.get("/vm/config")["drives"]] == ["a", "c"]
    assert vmm.descriptors() < descriptors
    assert "no drive b" in vmm.fault("DELETE", "/drives/b")
    vmm.put("/drives/b", drive(tmp_path, name="b")[1])
    assert vmm.descriptors() == descriptors
    vmm.start("counter")
    assert "Removing a drive" in vmm.fault("DELETE", "/drives/a")


AFTER_THE_START = [
    ("PUT", "/boot-source", BOOT), ("PUT", "/machine-config", MACHINE),
    ("PATCH", "/machine-config", {"vcpu_count": 2}), ("PUT", "/serial", {}), ("PUT", "/logger", {}),
    ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "/tmp/v"}), ("PUT", "/actions", START),
    ("PUT", "/drives/scratch", None), ("DELETE", "/drives/scratch", None),
    ("DELETE", "/network-interfaces/eth0", None),
]


@pytest.mark.parametrize("paused", [False, True])
def test_configuration_is_refused_after_the_start(vmm, scratch, paused):
    vmm.put("/drives/scratch", scratch)
    vmm.start("counter")
    if paused:
        vmm.patch("/vm", {"state": "Paused"})
    before = vmm.get("/vm/config")
    state = "Paused" if paused else "Running"
    for method, path, body in AFTER_THE_START:
        if path == "/drives/scratch" and method == "PUT":
            body = scratch
        assert f'not possible in the state "{state}"' in vmm.fault(method, path, body)
    assert vmm.state() == state
    assert vmm.get("/vm/config") == before


def test_pause_and_resume(vmm):
    vmm.start("counter")
    vmm.patch("/vm", {"state": "Paused"})
    assert vmm.state() == "Paused"
    vmm.patch("/vm", {"state": "Paused"})
    assert vmm.state() == "Paused"
    vmm.patch("/vm", {"state": "Resumed"})
    assert vmm.state() == "Running"
    vmm.patch("/vm", {"state": "Resumed"})
    assert vmm.state() == "Running"


@pytest.mark.parametrize("paused", [False, True])
def test_ctrl_alt_del_that_nobody_sees_is_logged(vmm, paused):
    vmm.start("counter")
    if paused:
        vmm.patch("/vm", {"state": "Paused"})
    vmm.action("SendCtrlAltDel")
    assert "no keyboard driver" in vmm.log()


@pytest.mark.parametrize("paused", [False, True])
def test_ctrl_alt_del_without_an_agent_is_logged(vmm, tmp_path, paused):
    """A guest with a vsock, on which nobody listens for it; one that is paused is asked afterwards."""
    with listener(f"{tmp_path / 'v'}_{ECHO_PORT}", echo):
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(tmp_path / "v")})
        vmm.start("vsock")
        wait_until(lambda: "ok listening" in vmm.console_path.read_text(), "the guest")
        if paused:
            vmm.patch("/vm", {"state": "Paused"})
        vmm.action("SendCtrlAltDel")
        if paused:
            vmm.patch("/vm", {"state": "Resumed"})
        wait_until(lambda: "no keyboard driver" in vmm.log(), "the line")


def test_drive_is_replaced_and_limited_while_it_runs(vmm, tmp_path, scratch):
    vmm.put("/drives/scratch", scratch)
    vmm.start("counter")
    other = str(drive(tmp_path, name="other")[0])
    limiter = {"bandwidth": None, "ops": {"size": 10, "refill_time": 100, "one_time_burst": None}}
    vmm.patch("/drives/scratch", {"drive_id": "scratch", "path_on_host": other,
                                  "rate_limiter": limiter})
    assert vmm.get("/vm/config")["drives"] == [
        {**scratch, **DRIVE_NOTHING, "path_on_host": other, "io_engine": "Async",
         "rate_limiter": limiter}]
    assert "/nowhere" in vmm.fault("PATCH", "/drives/scratch",
                                   {"drive_id": "scratch", "path_on_host": "/nowhere"})
    assert "no drive b" in vmm.fault("PATCH", "/drives/b",
                                     {"drive_id": "b", "rate_limiter": limiter})
    assert vmm.get("/vm/config")["drives"][0]["path_on_host"] == other


def test_standard_output_that_nobody_reads_stalls_nobody(tmp_path):
    """Left open and forgotten: the pipe is full, and the guest writes on."""
    with subprocess.Popen(vmm_with("--api-sock", tmp_path / "api.sock"), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process, \
            watchdog(process.kill):
        vmm = Vmm(process, tmp_path)
        wait_until(lambda: answers(vmm.socket_path), "a socket")
        vmm.start("flood")
        console = vmm.stream("/console")
        wait_until(lambda: vmm.get("/metrics")["uart"]["missed_write_count"] > 10000,
                   "bytes that are lost")
        # Who reads them elsewhere gets them.
        assert console.read(200000) == b"." * 200000
        console.connection_kept.close()
        vmm.connection.close()
        process.terminate()
        assert process.wait(TIME_LIMIT) == 0
        assert not process.stdout.read().strip(b".")


def test_start_that_fails_can_be_tried_again(vmm, tmp_path):
    """An initrd that does not fit shows at the start only."""
    initrd = tmp_path / "initrd"
    with open(initrd, "wb") as file:
        file.truncate(64 << 20)
    vmm.set_guest("counter")
    vmm.put("/boot-source", {**BOOT, "initrd_path": str(initrd)})
    descriptors = vmm.descriptors()
    assert "initrd" in vmm.fault("PUT", "/actions", START)
    assert vmm.state() == "Not started"
    assert vmm.descriptors() == descriptors
    vmm.put("/boot-source", BOOT)
    vmm.action("InstanceStart")
    assert vmm.state() == "Running"


def test_guest_that_ends_ends_the_vmm(vmm):
    events = vmm.stream("/events")
    vmm.start("hello")
    lines = [json.loads(line) for line in events.read().splitlines()]
    assert [(line["event"], line.get("state"), line.get("kind")) for line in lines] == [
        ("state", "Not started", None), ("state", "Running", None), ("ended", None, "power_off")]
    assert lines[-1]["exit_status"] == 0 and "powered off" in lines[-1]["reason"]
    assert vmm.process.wait(TIME_LIMIT) == 0
    assert vmm.console_path.read_text() == "hello\n"


def test_events_of_a_panic(tmp_path):
    with start_api(tmp_path, expect=160) as vmm:
        events = vmm.stream("/events")
        vmm.start("ends-panic")
        last = json.loads(events.read().splitlines()[-1])
        assert (last["kind"], last["exit_status"]) == ("panic", 160)
        assert "panicked" in last["reason"]


def test_events_of_pause_and_stop(vmm):
    events = vmm.stream("/events")
    vmm.start("counter")
    vmm.patch("/vm", {"state": "Paused"})
    vmm.patch("/vm", {"state": "Resumed"})
    vmm.process.terminate()
    lines = [json.loads(line) for line in events.read().splitlines()]
    assert [line.get("state", line.get("kind")) for line in lines] == [
        "Not started", "Running", "Paused", "Running", "stopped"]
    stamps = [line["timestamp_ms"] for line in lines]
    assert stamps == sorted(stamps)


def test_streams_end_in_order_before_the_start(vmm):
    streams = [vmm.stream("/events"), vmm.stream("/console")]
    vmm.process.terminate()
    assert [len(stream.read().splitlines()) for stream in streams] == [1, 0]


def test_console_of_several_readers(vmm):
    early = vmm.stream("/console")
    vmm.set_guest("ends-spin")
    vmm.action("InstanceStart")
    assert early.read(7) == b"ending\n"
    late = vmm.stream("/console")
    assert late.read(7) == b"ending\n"
    vmm.process.terminate()
    assert early.read() == late.read() == b""


def test_console_keeps_the_last_bytes(tmp_path):
    with start_api(tmp_path) as vmm:
        vmm.put("/serial", {"buffer_size": 5})
        vmm.set_guest("ends-spin")
        vmm.action("InstanceStart")
        wait_until(lambda: vmm.console_path.read_bytes() == b"ending\n", "the guest's line")
        assert vmm.stream("/console").read(5) == b"ding\n"


def test_console_under_a_flood_is_the_same_as_standard_output(vmm):
    console = vmm.stream("/console")
    vmm.start("flood")
    text = console.read(1 << 20)
    vmm.process.terminate()
    text += console.read()
    assert vmm.process.wait(TIME_LIMIT) == 0
    assert text == vmm.console_path.read_bytes()


def test_metrics_in_two_formats(vmm, scratch):
    vmm.put("/drives/scratch", scratch)
    vmm.fault("PUT", "/vsock", {})
    vmm.start("counter")
    vmm.patch("/vm", {"state": "Paused"})
    vmm.patch("/vm", {"state": "Resumed"})
    totals = vmm.get("/metrics")
    assert totals["put_api_requests"]["drive_count"] == 1
    assert totals["put_api_requests"]["vsock_fails"] == 1
    assert totals["block_scratch"] == totals["block"]
    assert totals["latencies_us"]["pause_vm"] >= totals["latencies_us"]["vmm_pause_vm"] > 0
    # Totals, not what came since the last time.
    assert vmm.get("/metrics")["put_api_requests"] == totals["put_api_requests"]
    vmm.connection.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4,*/*"})
    answer = vmm.connection.getresponse()
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4"
    text = answer.read().decode()
    assert "# TYPE mote_put_api_requests_drive_count_total counter\n" in text
    assert "\nmote_put_api_requests_drive_count_total 1\n" in text
    assert 'mote_block_read_bytes_total{drive="scratch"} 0' in text


def test_logger(vmm, tmp_path):
    log = tmp_path / "log"
    vmm.put("/logger", {"log_path": str(log), "level": "Debug"})
    vmm.get("/version")
    assert '[test-1:main] The API server received a Get request on "/version".' in log.read_text()
    vmm.put("/logger", {"show_level": True, "show_log_origin": True})
    vmm.get("/")
    assert "[test-1:main:DEBUG:api-socket/api.c:" in log.read_text()
    vmm.put("/logger", {"module": "virtio"})
    size = log.stat().st_size
    vmm.get("/")
    assert log.stat().st_size == size


def test_config_file_and_api_together(tmp_path):
    file = tmp_path / "vm.json"
    file.write_text(json.dumps({"boot-source": BOOT, "machine-config": MACHINE}))
    with start_api(tmp_path, "--config-file", file) as vmm:
        assert vmm.state() == "Running"


def test_bad_config_file_leaves_no_socket(tmp_path):
    file = tmp_path / "vm.json"
    file.write_text("{}")
    result = subprocess.run([VMM, "--api-sock", tmp_path / "s", "--config-file", file],
                            capture_output=True, timeout=TIME_LIMIT, check=False)
    assert result.returncode == 152
    assert not (tmp_path / "s").exists()


def test_socket_belongs_to_its_owner(vmm):
    mode = vmm.socket_path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600


def run_at(path):
    return subprocess.run([VMM, "--api-sock", path], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=TIME_LIMIT, check=False)


def test_live_socket_is_not_replaced(vmm):
    result = run_at(vmm.socket_path)
    assert result.returncode == 1
    assert f"API socket {vmm.socket_path}: in use by another process" in result.stderr.decode()
    assert vmm.state() == "Not started"


def test_stale_socket_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "api.sock"))
    with start_api(tmp_path) as vmm:
        assert vmm.state() == "Not started"


@pytest.mark.parametrize("path,says", [("file", "something else is there"),
                                       ("no/where", "No such file"), ("x" * 200, "107 bytes")])
def test_socket_that_cannot_be(tmp_path, path, says):
    (tmp_path / "file").write_text("precious")
    result = run_at(tmp_path / path)
    assert result.returncode == 1
    assert says in result.stderr.decode()
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("arguments,says", [
    (["--no-api"], "--config-file FILE is needed"),
    (["--id", "a_b"], "--id a_b"), (["--id", ""], "--id"), (["--id", "x" * 65], "1 to 64"),
    (["--http-api-max-payload-size", "x"], "not a number"),
    (["--start-time-us", "-1"], "not a number"), (["more"], "unexpected argument more"),
    (["--nonsense"], "nonsense"),
])
def test_bad_arguments(arguments, says):
    result = subprocess.run([VMM, *arguments], capture_output=True, timeout=TIME_LIMIT, check=False)
    assert result.returncode == 153
    assert says in result.stderr.decode()
