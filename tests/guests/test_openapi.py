# SPDX-License-Identifier: Apache-2.0
"""api-socket/openapi.yaml says what the API does: both ways, and field by field."""
import contextlib
import copy
import json
import os
import re
import subprocess

import jsonschema
import pytest
import yaml

import host
from api import start_api
from support import BUILD, GUESTS, TIME_LIMIT, TOP

DOCUMENT = yaml.safe_load((TOP / "api-socket" / "openapi.yaml").read_text(encoding="utf-8"))
METHODS = ("get", "put", "patch", "delete")
STATES = ("Not started", "Running", "Paused")
INT64_MAX = (1 << 63) - 1


def resolve(schema):
    while "$ref" in schema:
        part = DOCUMENT
        for name in schema["$ref"].removeprefix("#/").split("/"):
            part = part[name]
        schema = part
    return schema


def operations():
    """Each operation: (METHOD, path, description)."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


OPERATIONS = list(operations())
BODIES = [(method, path, operation["requestBody"]["content"]["application/json"])
          for method, path, operation in OPERATIONS if "requestBody" in operation]
# All but the metadata, which is any object.
BODIES_WITH_FIELDS = [row for row in BODIES if "/schemas/Metadata'" not in str(row[2]["schema"])]
# For requests of what exists only after others, which need privileges.
NEEDS_NETWORK = ("/network-interfaces/{iface_id}", "/mmds/config")
SNAPSHOTS = ("/snapshot/create", "/snapshot/load")


def named(table):
    return [f"{row[0]}-{row[1]}" for row in table]


def without_names(path):
    return path.split("{")[0] + "{}" if "{" in path else path


def concrete(path, body=None):
    """With the id of the example, or of the body."""
    for name in ("drive_id", "iface_id"):
        if f"{{{name}}}" in path:
            own = (body or {}).get(name)
            own = own if isinstance(own, str) and own else None
            path = path.replace(f"{{{name}}}", own or
                                {"drive_id": "rootfs", "iface_id": "eth0"}[name])
    return path


def as_json_schema(part):
    """With OpenAPI's "nullable" in JSON Schema's words."""
    if isinstance(part, list):
        return [as_json_schema(one) for one in part]
    if not isinstance(part, dict):
        return part
    rest = {name: as_json_schema(one) for name, one in part.items() if name != "nullable"}
    return {"anyOf": [{"type": "null"}, rest]} if part.get("nullable") is True else rest


VALIDATED = as_json_schema(DOCUMENT)


def validate(value, schema):
    jsonschema.Draft7Validator(
        as_json_schema(schema), resolver=jsonschema.RefResolver("", VALIDATED)).validate(value)


def answer_schema(method, path, status, kind="application/json"):
    answers = DOCUMENT["paths"][path][method.lower()]["responses"]
    return resolve(answers.get(str(status), answers["default"]))["content"][kind]["schema"]


# Routes and document.

def routes():
    lines = subprocess.run([BUILD / "print-routes"], capture_output=True, check=True,
                           timeout=TIME_LIMIT).stdout.decode().splitlines()
    return [line.split() for line in lines]


def test_routes_and_document_agree():
    served = {(method, path) for method, path, *missing in routes() if not missing}
    assert served == {(method, without_names(path)) for method, path, _ in OPERATIONS}


def test_what_is_refused_and_document_agree():
    missing = {(method, path) for method, path, *missing in routes() if missing}
    assert missing == {(method, without_names(path)) for path, item in
                       DOCUMENT["x-refused"].items() for method in item["methods"]}


def test_every_schema_is_used():
    text = (TOP / "api-socket" / "openapi.yaml").read_text(encoding="utf-8")
    for kind, parts in DOCUMENT["components"].items():
        for name in parts:
            assert f"#/components/{kind}/{name}" in text, name


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_schemas_are_schemas(name):
    schema = DOCUMENT["components"]["schemas"][name]
    jsonschema.Draft7Validator.check_schema(schema)
    if schema.get("type") == "object":
        assert (schema["additionalProperties"] or
                set(schema.get("required", [])) <= set(schema["properties"]))


def test_operations_have_names_and_answers():
    assert len({operation["operationId"] for _, _, operation in OPERATIONS}) == len(OPERATIONS)
    for method, path, operation in OPERATIONS:
        expected = {"400", "503", "default"}
        assert expected < set(operation["responses"]), (method, path)
        assert ("requestBody" in operation) == (method in ("PUT", "PATCH"))
        assert re.findall(r"{(\w+)}", path) == [
            parameter["name"] for parameter in DOCUMENT["paths"][path].get("parameters", [])]


def test_version_is_the_programs(shared):
    assert DOCUMENT["info"]["version"] == shared.get("/version")["mote_version"]


# Bodies and what the server takes.

@pytest.fixture(name="shared", scope="module")
def vmm_that_refuses(tmp_path_factory):
    """For requests that change nothing, which is looked at in the end."""
    with start_api(tmp_path_factory.mktemp("openapi")) as vmm:
        before = vmm.get("/vm/config")
        yield vmm
        assert vmm.get("/vm/config") == before


@pytest.fixture(name="here")
def working_directory(tmp_path, monkeypatch):
    """Has the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    os.symlink(GUESTS / "counter", "vmlinux")
    host.drive(tmp_path, name="rootfs.ext4")
    return tmp_path


@pytest.mark.parametrize("method,path,content", BODIES, ids=named(BODIES))
def test_examples_are_valid(method, path, content):
    validate(content["example"], content["schema"])


def configure(vmm, skip=()):
    """The examples of all PUTs that configure something."""
    for method, path, content in BODIES:
        if method == "PUT" and path not in ("/actions", *SNAPSHOTS, *skip):
            vmm.put(concrete(path), content["example"])


@pytest.mark.parametrize("network", [False, True])
def test_examples_are_taken(here, network):
    if network and os.geteuid() != 0:
        pytest.skip("only root can make a network namespace and a tap device")
    with host.tap() if network else contextlib.nullcontext(), start_api(here) as vmm:
        configure(vmm, () if network else NEEDS_NETWORK)
        vmm.patch("/machine-config", {"vcpu_count": 4})
        config = vmm.get("/vm/config")
        schema = answer_schema("GET", "/vm/config", 200)
        validate(config, schema)
        assert set(config) == set(resolve(schema)["properties"])
        assert len(config["network-interfaces"]) == network
        if network:
            vmm.do("DELETE", "/network-interfaces/eth0")
        vmm.do("DELETE", "/drives/rootfs")


WRONG_TYPES = {
    "string": [1, True, {}, []], "integer": ["1", 1.5, True, [1]], "boolean": [0, 1, "true"],
    "object": [1, "x", [1]], "array": [1, "x", {}], None: [0, "x", {}, True],
}


def wrong_values(schema):
    """What a property must not be; with the name of what is inside of it that is wrong."""
    schema = resolve(schema)
    values = [(value, "") for value in WRONG_TYPES[schema.get("type")]]
    if "minimum" in schema:
        values.append((schema["minimum"] - 1, ""))
    if schema.get("maximum", INT64_MAX) < INT64_MAX:
        values.append((schema["maximum"] + 1, ""))
    if "enum" in schema:
        values += [("Nonsense", ""), ("", "")]
    if "minLength" in schema:
        values.append(("", ""))
    if "pattern" in schema:
        values += [("!", ""), ("0b!", ""), ("\u00e4", "")]
    if "maxLength" in schema:
        values.append(("1" * (schema["maxLength"] + 1), ""))
    if "maxItems" in schema:
        values.append(([None] * (schema["maxItems"] + 1), ""))
    if "items" in schema and schema["items"]:
        values += [([value], f"[0]{inner}") for value, inner in wrong_values(schema["items"])]
    if schema.get("type") == "object":
        values += [(value, f".{inner}") for value, inner in wrong_in(schema)]
    return values


def valid_value(schema):
    """The least that the schema takes."""
    schema = resolve(schema)
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: valid_value(schema["properties"][name])
                for name in schema.get("required", [])}
    if schema["type"] == "string":
        return "0b1" if "pattern" in schema else "x"
    return {"integer": schema.get("minimum", 0), "boolean": True, "array": []}[schema["type"]]


def wrong_in(schema, base=None):
    """Objects with one thing wrong in each, and its name."""
    schema = resolve(schema)
    base = valid_value(schema) if base is None else base
    if schema.get("additionalProperties") is not True:
        yield {**base, "unheard_of": 1}, "unheard_of"
    for name in schema.get("required", []):
        yield {key: value for key, value in base.items() if key != name}, name
    for name, inner in schema.get("properties", {}).items():
        for value, path in wrong_values(inner):
            yield {**base, name: value}, name + path


@pytest.mark.parametrize("method,path,content", BODIES_WITH_FIELDS, ids=named(BODIES_WITH_FIELDS))
def test_what_the_schema_refuses_the_server_refuses_by_name(shared, method, path, content):
    cases = list(wrong_in(content["schema"], content["example"]))
    assert len(cases) > len(resolve(content["schema"])["properties"])
    for body, name in cases:
        with pytest.raises(jsonschema.ValidationError):
            validate(body, content["schema"])
        fault = shared.fault(method, concrete(path, content["example"]), body)
        assert fault.startswith(name), (body, fault)
        assert "\n" not in fault


def properties(schema, at=()):
    """Each property, however deep: the way there and its schema; lists by their first entry."""
    schema = resolve(schema)
    if schema.get("type") == "array" and schema["items"]:
        yield from properties(schema["items"], (*at, 0))
    for name, inner in schema.get("properties", {}).items():
        yield (*at, name), resolve(inner), name in schema.get("required", [])
        yield from properties(inner, (*at, name))


def with_value(body, way, value, schema):
    """A copy of the body with the value put there; what is missing on the way is made."""
    body = copy.deepcopy(body)
    place, here = body, resolve(schema)
    for i, step in enumerate(way[:-1]):
        here = resolve(here["items"] if step == 0 else here["properties"][step])
        if step == 0 and not place:
            place.append(None)
        if (step == 0 and place[0] is None) or (step != 0 and step not in place):
            following = here if way[i + 1] != 0 else None
            place[step] = valid_value(following) if following else []
        place = place[step]
    place[way[-1]] = value
    return body


def good_values(schema):
    if "enum" in schema:
        return schema["enum"]
    if schema["type"] == "integer":
        return [schema["minimum"], schema.get("maximum", INT64_MAX)]
    return [True, False] if schema["type"] == "boolean" else []


# Where a good value of one field does not go with the example of another.
OTHER_FIELDS = {"smt": {"vcpu_count": 2}, "vcpu_count": {"smt": False},
                "passt_fd": {"host_dev_name": None},
                "host_dev_name": {"passt_socket": "passt.sock"}}
# Two of them do not go together either; what is expected then is no type.
TWO_BACKENDS = "either a tap device or passt is expected"


@pytest.mark.parametrize("method,path,content", BODIES, ids=named(BODIES))
def test_limits_and_null_are_taken(here, method, path, content):
    """Whatever else a request is refused for, it is not the type or the range of this field."""
    expected = ("is expected", "is not between", "unknown field", "not supported", "is missing")
    with start_api(here) as vmm:
        for way, schema, required in properties(content["schema"]):
            values = list(good_values(schema)) + ([] if required else [None])
            assert required == (not schema.get("nullable"))
            for value in values:
                body = with_value({**content["example"], **OTHER_FIELDS.get(way[-1], {})}, way,
                                  value, content["schema"])
                status, answer = vmm.request(method, concrete(path, body), body)
                if path == "/actions" and status == 204:
                    pytest.fail("an example of an action must not be possible here")
                fault = "" if status == 204 else answer["fault_message"]
                assert not any(part in fault.replace(TWO_BACKENDS, "")
                               for part in expected), (body, fault)


@pytest.mark.parametrize("method,path,content", BODIES, ids=named(BODIES))
def test_required_field_is_not_null(shared, method, path, content):
    for name in resolve(content["schema"]).get("required", []):
        fault = shared.fault(method, concrete(path), {**content["example"], name: None})
        assert fault.startswith(f"{name}: ")


# States.

def states_of(operation):
    """The requests of an operation: (body, states in which it is possible)."""
    if "requestBody" not in operation:
        return [(None, operation["x-states"])]
    content = operation["requestBody"]["content"]["application/json"]
    if "x-states" in operation:
        return [(content["example"], operation["x-states"])]
    (name, schema), = resolve(content["schema"])["properties"].items()
    assert set(schema["x-states"]) == set(schema["enum"])
    return [({name: value}, states) for value, states in schema["x-states"].items()]


@contextlib.contextmanager
def vm_in(folder, state):
    with host.passt(folder) as backend, start_api(folder) as vmm:
        vmm.put("/network-interfaces/eth0", {"iface_id": "eth0", **backend})
        vmm.put("/mmds/config", {"network_interfaces": ["eth0"]})
        if state != "Not started":
            configure(vmm, (*NEEDS_NETWORK, "/cpu-config"))
            vmm.action("InstanceStart")
        if state == "Paused":
            vmm.patch("/vm", {"state": "Paused"})
        yield vmm


@pytest.mark.parametrize("state", STATES)
def test_states(here, state):
    with vm_in(here, state) as vmm:
        for method, path, operation in OPERATIONS:
            for body, states in states_of(operation):
                assert set(states) <= set(STATES)
                if path in ("/events", "/console"):
                    vmm.stream(path).connection_kept.close()
                    assert state in states
                    continue
                if state in states and body in ({"state": "Paused"}, {"state": "Resumed"},
                                                {"action_type": "InstanceStart"}):
                    continue  # done by whoever brings a VM into its state
                status, answer = vmm.request(method, concrete(path), body)
                refused = status == 400 and (
                    f'not possible in the state "{state}"' in answer["fault_message"])
                assert refused == (state not in states), (method, path, body, answer)
                assert vmm.state() == state


# Answers.

GETS = [path for method, path, operation in OPERATIONS
        if method == "GET" and "application/json" in operation["responses"]["200"]["content"]]


@pytest.mark.parametrize("state", STATES)
def test_answers_are_as_described(here, state):
    with vm_in(here, state) as vmm:
        for path in GETS:
            validate(vmm.get(path), answer_schema("GET", path, 200))
        vmm.connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = vmm.connection.getresponse()
        kinds = DOCUMENT["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
        assert answer.getheader("Content-Type").split(";")[0] in kinds
        assert answer.read()
        for path in ("/events", "/console"):
            stream = vmm.stream(path)
            kinds = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
            assert [stream.getheader("Content-Type")] == list(kinds)
            stream.connection_kept.close()


@pytest.mark.parametrize("guest,status,kind", [
    ("hello", 0, "power_off"), ("ends-reset", 0, "reset"), ("ends-panic", 160, "panic"),
    ("ends-triple-fault", 161, "triple_fault"), ("ends-execute-mmio", 162, "kvm_error"),
    ("ends-spin", 0, "stopped")])
def test_events_are_as_described(tmp_path, guest, status, kind):
    schema = answer_schema("GET", "/events", 200, "application/x-ndjson")
    with start_api(tmp_path, expect=status) as vmm:
        events = vmm.stream("/events")
        vmm.start(guest)
        if kind == "stopped":
            vmm.patch("/vm", {"state": "Paused"})
            vmm.patch("/vm", {"state": "Resumed"})
            vmm.process.terminate()
        lines = [json.loads(line) for line in events.read().splitlines()]
    for line in lines:
        validate(line, schema)
    assert lines[-1]["kind"] == kind and lines[-1]["exit_status"] == status
    kinds = resolve(DOCUMENT["components"]["schemas"]["EndEvent"])["properties"]["kind"]["enum"]
    assert kind in kinds


def test_faults_are_as_described(shared):
    for method, path, body in (("PUT", "/vsock", {}), ("PATCH", "/vm", None),
                               ("PUT", "/drives/{drive_id}", "{"), ("GET", "/version", {}),
                               ("DELETE", "/drives/{drive_id}", None)):
        status, answer = shared.request(method, concrete(path), body)
        assert status == 400
        validate(answer, answer_schema(method, path, 400))
        validate(answer, {"$ref": "#/components/schemas/Fault"})


def test_what_is_no_request_is_answered_as_described(tmp_path):
    for data, status in ((b"PUT /vsock HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", 400),
                         (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n", 414),
                         (b"GET / HTTP/9.9\r\n\r\n", 505), (b"junk\r\n\r\n", 400)):
        with start_api(tmp_path) as vmm, vmm.connect() as client:
            client.sendall(data)
            head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        validate(json.loads(body), answer_schema("PUT", "/vsock", status))
        validate(json.loads(body), {"$ref": "#/components/schemas/Error"})


def test_one_connection_too_many_is_answered_as_described(shared):
    clients = [shared.connect() for _ in range(11)]
    try:
        answer = b""
        clients[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        while (part := clients[-1].recv(4096)):
            answer += part
        if b" 503 " in answer.partition(b"\r\n")[0]:
            validate(json.loads(answer.partition(b"\r\n\r\n")[2]), answer_schema("GET", "/", 503))
        else:
            pytest.fail(answer)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("path", DOCUMENT["x-refused"])
def test_what_is_refused_says_why(shared, path):
    item = DOCUMENT["x-refused"][path]
    for method in item["methods"]:
        assert item["fault"] in shared.fault(method, path.replace("{id}", "a"),
                                             None if method == "GET" else {})
