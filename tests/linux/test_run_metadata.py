# SPDX-License-Identifier: Apache-2.0
"""`mote run --metadata`: what a guest with mote-init reads at 169.254.169.254, by vsock."""
import json

import pytest

from support import run_mote

BIG = "".join(f"{i:04x}" for i in range(10000))
DATA = {"latest": {"meta-data": {"instance-id": "i-1", "placement": {"zone": "a"}}, "user-data": BIG}}


@pytest.fixture(name="metadata")
def metadata_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "data.json"
    path.write_text(json.dumps(DATA))
    return path


# busybox' own programs: wget for the first version, for the second what a client says to a port.
ASK = r"""m=http://169.254.169.254
say() { printf "$@" | nc 169.254.169.254 80 | tr -d '\r'; }
wget -q -O- $m/latest/meta-data/instance-id; echo
wget -q -O- $m/latest/meta-data/; echo
wget -q -O- --header 'Accept: application/json' $m/latest/meta-data/placement; echo
wget -q -O- $m/none 2>&1
token=$(say 'PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n' | tail -n 1)
say "GET /latest/meta-data/instance-id HTTP/1.0\r\nX-aws-ec2-metadata-token: $token\r\n\r\n" | sed -n '1p;$p'
say 'GET /latest/meta-data/instance-id HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n' | grep -c '200 OK'
# More at once than there is room for, of more than the buffers take.
for i in $(seq 40); do (wget -q -O- $m/latest/user-data | md5sum > /tmp/$i) & done; wait
cat /tmp/* | sort -u
wget -q -O- http://127.0.0.1/ 2>&1
grep -c mote-metadata /proc/[0-9]*/comm | grep -c :1
ping -c 1 127.0.0.1 > /dev/null && echo ping
wget -q -O- $m:81/ 2>&1; true
"""


def test_both_versions_are_answered(metadata):
    result = run_mote("run", "--metadata", metadata, "--", "sh", "-c", ASK)
    digest = run_mote("run", "--", "md5sum", stdin=BIG.encode()).stdout.decode().strip()
    assert result.stderr == b""
    assert result.stdout.decode().splitlines() == [
        "i-1", "instance-id", "placement/", '{"zone":"a"}',
        "wget: server returned error: HTTP/1.1 404 Not Found", "HTTP/1.0 200 OK", "i-1", "2",
        digest, "wget: can't connect to remote host (127.0.0.1): Connection refused", "1", "ping",
        "wget: can't connect to remote host (169.254.169.254): Connection refused"]


def test_idle_programs_keep_nobody_out(metadata):
    """The VMM closes them after ten seconds."""
    result = run_mote("run", "--metadata", metadata, "--", "sh", "-c",
                      "for i in $(seq 40); do sleep 1000 | nc 169.254.169.254 80 & done; "
                      "wget -q -O- http://169.254.169.254/latest/meta-data/instance-id")
    assert (result.returncode, result.stdout) == (0, b"i-1")


def test_without_the_option_there_is_nothing(metadata):
    del metadata
    result = run_mote("run", "--", "sh", "-c", "ip -o -4 address; cat /proc/[0-9]*/comm; wget -q -O- http://169.254.169.254/")
    assert b"169.254" not in result.stdout and b"mote-metadata" not in result.stdout
    assert result.returncode == 1 and b"unreachable" in result.stderr


@pytest.mark.parametrize("text,says", [
    (None, "No such file"), ("{", "line 1"), ("[]", "a JSON object"),
    (json.dumps({"a": 51200 * "b"}), "at most 51200")])
def test_bad_files(metadata, text, says):
    metadata.unlink()
    if text is not None:
        metadata.write_text(text)
    result = run_mote("run", "--metadata", metadata, "--", "true")
    assert result.returncode == 125
    assert result.stderr.startswith(f"mote: metadata file {metadata}: ".encode())
    assert says in result.stderr.decode() and result.stderr.count(b"\n") == 1
