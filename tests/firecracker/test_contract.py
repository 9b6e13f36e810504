# SPDX-License-Identifier: Apache-2.0
"""The contract with Firecracker's clients (contract.yaml), row by row, and its document."""
import json
import subprocess

import pytest

import contract
import host
from api import start_api
from support import BUILD, GUESTS, TIME_LIMIT, TOP


def rows(kind):
    return [pytest.param(row, id=row["what"]) for row in contract.TABLE[kind]]


def filled_in(text, folder):
    return text.replace("$TMP", str(folder)).replace("$GUESTS", str(GUESTS))


def split(request, folder):
    """The method, the path and the body of "METHOD PATH BODY"."""
    method, path, body = (filled_in(request, folder).split(" ", 2) + [None])[:3]
    return method, path, body


def ours(row):
    return row.get("status", row.get("mote", row["firecracker"]))


def bring_to(vmm, state):
    if state != "Not started":
        vmm.start("waits")
    if state == "Paused":
        vmm.patch("/vm", {"state": "Paused"})


def contains(whole, part, at="the answer"):
    """That `whole` has all fields of `part`, with the same values."""
    if isinstance(part, dict):
        for name, value in part.items():
            assert name in whole, f"{at}: no {name} in {whole}"
            contains(whole[name], value, f"{at}.{name}")
    elif isinstance(part, list):
        assert len(whole) == len(part), at
        for i, value in enumerate(part):
            contains(whole[i], value, f"{at}[{i}]")
    else:
        assert whole == part, at


@pytest.mark.parametrize("row", rows("requests"))
def test_request(tmp_path, row):
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with start_api(tmp_path, *row.get("options", "").split()) as vmm:
        for request in row.get("before_start", []):
            vmm.do(*split(request, tmp_path))
        bring_to(vmm, row.get("state", "Not started"))
        for request in row.get("before", []):
            vmm.do(*split(request, tmp_path))
        method, path, body = split(row["request"], tmp_path)
        vmm.connection.request(method, path, body)
        answer = vmm.connection.getresponse()
        text = answer.read()
        assert answer.status == ours(row), text
        if "says" in row:
            assert row["says"] in json.loads(text)["fault_message"]
        if "answer" in row:
            expected = json.loads(filled_in(json.dumps(row["answer"]), tmp_path))
            contains(json.loads(text), expected)
        for name, value in row.get("headers", {}).items():
            assert answer.getheader(name) == value
        if "after" in row:
            assert vmm.state() == row["after"]


@pytest.mark.parametrize("row", rows("commands"))
def test_command(tmp_path, row):
    program, *arguments = filled_in(row["command"], tmp_path).split()
    done = subprocess.run([BUILD / program, *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=TIME_LIMIT, check=False)
    assert done.returncode == ours(row), done.stderr
    if "first_line" in row:
        assert done.stdout.splitlines()[0] == row["first_line"]
    if "says" in row:
        assert row["says"] in done.stderr


@pytest.mark.parametrize("row", rows("configurations"))
def test_configuration(tmp_path, row):
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    config = json.loads(filled_in(json.dumps(row["configuration"]), tmp_path))
    for name, content in row.get("files", {}).items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "vm.json").write_text(json.dumps(config))
    done = subprocess.run([BUILD / "mote-vmm", "--no-api", "--config-file", tmp_path / "vm.json",
                           *row.get("options", "").split()], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=TIME_LIMIT, check=False, cwd=tmp_path)
    assert done.returncode == ours(row), done.stderr
    if "says" in row:
        assert row["says"] in done.stderr


@pytest.mark.parametrize("status,guest", [(0, "hello"), (160, "ends-panic")])
def test_lines_of_the_log(tmp_path, status, guest):
    with start_api(tmp_path, "--level", "Debug", expect=status) as vmm:
        vmm.start(guest)
        assert vmm.process.wait(TIME_LIMIT) == status
    end = f"Firecracker exiting {'with error' if status else 'successfully'}. exit_code={status}"
    lines = iter(vmm.log().splitlines())
    # Each is found, and after the one before.
    for said in ("Running Firecracker v1.17.0", "API server started.",
                 'The API server received a Put request on "/boot-source".',
                 "The request was executed successfully. Status code: 204 No Content.",
                 'The API server received a Put request on "/actions".', end):
        assert any(said in line for line in lines), said


def fields_of(line):
    """Of each object its fields; a time's with what it has inside."""
    for group, fields in line.items():
        if isinstance(fields, dict) and group != "properties":
            yield group, {f"{name} {sorted(value)}" if isinstance(value, dict) else name
                          for name, value in fields.items()}


def test_lines_of_metrics(tmp_path):
    times = sorted(["min_us", "max_us", "sum_us"])
    expected = {group: {f"{name} {times}" if name.endswith("_agg") else name for name in names}
                for group, names in contract.TABLE["metrics"].items()}
    expected["block_scratch"] = expected["block"]
    _, drive = host.drive(tmp_path)
    with start_api(tmp_path, "--id", "one") as vmm:
        vmm.put("/metrics", {"metrics_path": str(tmp_path / "metrics"), "emit_id": True,
                             "properties": {"team": "a \"b\""}, "of_the_future": 1})
        vmm.put("/drives/scratch", drive)
        vmm.start("waits")
        vmm.action("FlushMetrics")
    lines = [json.loads(line) for line in (tmp_path / "metrics").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert dict(fields_of(line)) == expected
        assert set(line) - set(expected) == {"utc_timestamp_ms", "id", "properties"}
        assert line["id"] == "one" and line["properties"] == {"team": "a \"b\""}


def test_differences_have_a_reason():
    for kind in contract.KINDS:
        for row in contract.TABLE[kind]:
            assert ("mote" in row) == ("why" in row), row["what"]
            assert row.get("mote") != row["firecracker"], row["what"]
    for row in contract.TABLE["elsewhere"]:
        path, _, name = row["test"].partition("::")
        assert f"def {name}(" in (TOP / path).read_text(encoding="utf-8"), row["what"]


def test_document_shows_the_differences():
    document = (TOP / "docs" / "firecracker.md").read_text(encoding="utf-8")
    assert contract.markdown() in document, \
        "python3 tests/firecracker/contract.py prints the table as it is to be"
