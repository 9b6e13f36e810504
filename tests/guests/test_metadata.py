# SPDX-License-Identifier: Apache-2.0
"""The metadata as their owner has them: over the API, from files, in the metrics."""
import json
import socket

import pytest

import host
from api import start_api
from support import GUESTS, run_vmm, write_config

DATA = {"latest": {"meta-data": {"instance-id": "i-1", "weight": 12.5}}}
CONFIG = {"network_interfaces": ["eth0"]}


@pytest.fixture(name="vmm")
def vmm_with_interface(tmp_path):
    with host.passt(tmp_path) as backend, start_api(tmp_path) as vmm:
        vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", **backend})
        yield vmm


def test_metadata_are_put_patched_and_read(vmm):
    assert vmm.get("/mmds") == {}
    vmm.put("/mmds", DATA)
    vmm.patch("/mmds", {"latest": {"meta-data": {"weight": None, "zone": "a"}}, "more": [1]})
    changed = {"latest": {"meta-data": {"instance-id": "i-1", "zone": "a"}}, "more": [1]}
    assert vmm.get("/mmds") == changed
    vmm.put("/mmds/config", CONFIG)
    vmm.start("counter")
    vmm.patch("/mmds", {"more": None})
    vmm.patch("/vm", {"state": "Paused"})
    assert vmm.get("/mmds") == {"latest": changed["latest"]}
    vmm.put("/mmds", {})
    assert vmm.get("/mmds") == {}
    counters = vmm.get("/metrics")
    assert counters["get_api_requests"]["mmds_count"] == 4
    assert counters["put_api_requests"]["mmds_count"] == 3
    assert counters["patch_api_requests"]["mmds_count"] == 2
    assert counters["mmds"]["rx_accepted"] == 0


def test_configuration_is_shown_and_replaced(vmm):
    full = {**CONFIG, "version": "V2", "ipv4_address": "169.254.170.2", "imds_compat": True}
    vmm.put("/mmds/config", full)
    assert vmm.get("/vm/config")["mmds-config"] == full
    for address in ("", "1.1.1.1", "169.254.0.1", "169.254.255.1"):
        fault = vmm.fault("PUT", "/mmds/config", {**CONFIG, "ipv4_address": address})
        assert fault.startswith("ipv4_address: ")
    assert vmm.get("/vm/config")["mmds-config"] == full
    before = vmm.get("/metrics")["deprecated_api"]["deprecated_http_api_calls"]
    vmm.put("/mmds/config", CONFIG)
    assert vmm.get("/metrics")["deprecated_api"]["deprecated_http_api_calls"] == before + 1
    assert "version is deprecated but for V2" in vmm.log()
    assert vmm.get("/vm/config")["mmds-config"] == {
        **CONFIG, "version": "V1", "ipv4_address": "169.254.169.254", "imds_compat": False}


def test_after_the_start_it_needs_an_interface(tmp_path):
    with start_api(tmp_path) as vmm:
        vmm.put("/mmds", DATA)
        vmm.start("counter")
        for method, body in (("GET", None), ("PUT", DATA), ("PATCH", DATA)):
            assert "no network interface" in vmm.fault(method, "/mmds", body)
        assert "not possible" in vmm.fault("PUT", "/mmds/config", CONFIG)


def test_interface_that_is_gone_again_is_missed_at_the_start(vmm):
    vmm.put("/mmds/config", CONFIG)
    vmm.do("DELETE", "/network-interfaces/eth0")
    vmm.set_guest("counter")
    fault = vmm.fault("PUT", "/actions", {"action_type": "InstanceStart"})
    assert fault.startswith("mmds-config: ") and "no network interface eth0" in fault
    assert vmm.state() == "Not started"


def test_port_of_the_vsock(tmp_path):
    config = {"network_interfaces": [], "vsock_port": 80}
    with start_api(tmp_path) as vmm:
        assert "or a vsock_port" in vmm.fault("PUT", "/mmds/config", {"network_interfaces": []})
        vmm.put("/mmds/config", config)
        vmm.set_guest("counter")
        fault = vmm.fault("PUT", "/actions", {"action_type": "InstanceStart"})
        assert fault == "mmds-config: vsock_port: there is no vsock"
        vmm.put("/vsock", {"guest_cid": 3, "uds_path": str(tmp_path / "v.sock")})
        assert vmm.get("/vm/config")["mmds-config"]["vsock_port"] == 80
        vmm.action("InstanceStart")
        vmm.put("/mmds", DATA)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "v.sock_80"))
            client.sendall(b"GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n")
            assert client.recv(1000).endswith(b"\r\n\r\ni-1")
        assert vmm.get("/metrics")["mmds"]["connections_created"] == 1
    assert not (tmp_path / "v.sock_80").exists()


@pytest.mark.parametrize("options,limit", [
    ((), 51200), (("--mmds-size-limit", "100"), 100),
    (("--http-api-max-payload-size", "60000"), 60000)])
def test_size_is_limited(tmp_path, options, limit):
    with start_api(tmp_path, *options) as vmm:
        body = {"k": "a" * (limit - len('{"k":""}'))}
        vmm.put("/mmds", json.dumps(body, separators=(",", ":")))
        status, answer = vmm.request("PATCH", "/mmds", {"l": 1})
        assert status == 413
        assert f"at most {limit} " in answer["fault_message"]
        assert vmm.get("/mmds") == body


def test_file_with_metadata(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps(DATA, indent=4))
    with start_api(tmp_path, "--metadata", tmp_path / "data.json") as vmm:
        assert vmm.get("/mmds") == DATA


@pytest.mark.parametrize("text,says", [
    (None, "No such file"), ("{", "line 1"), ("[]", "a JSON object"), ('{"a":"bcdefgh"}', "at most 10")])
def test_bad_file_with_metadata(tmp_path, text, says):
    path = tmp_path / "data.json"
    if text is not None:
        path.write_text(text)
    result = run_vmm(write_config(tmp_path / "vm.json", GUESTS / "hello"), "--metadata", path,
                     "--mmds-size-limit", "10")
    assert result.returncode == 152
    assert f"metadata file {path}" in result.stderr.decode()
    assert says in result.stderr.decode()


def test_section_of_the_configuration_file(tmp_path):
    with host.passt(tmp_path) as backend:
        config = write_config(tmp_path / "vm.json", GUESTS / "counter")
        content = json.loads(config.read_text())
        content["network-interfaces"] = [{"iface_id": "eth0", **backend}]
        content["mmds-config"] = {**CONFIG, "version": "V2"}
        config.write_text(json.dumps(content))
        (tmp_path / "data.json").write_text(json.dumps(DATA))
        with start_api(tmp_path, "--config-file", config, "--metadata",
                       tmp_path / "data.json") as vmm:
            assert vmm.get("/mmds") == DATA
            assert vmm.get("/vm/config")["mmds-config"]["version"] == "V2"
