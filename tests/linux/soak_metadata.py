# SPDX-License-Identifier: Apache-2.0
"""
Programs of others that ask for metadata, in a microVM of Debian's packages: cloud-init takes its first
version, botocore fetches a token for its second. `tests/run-tests soak` alone runs this; `make soak`
builds the image.
"""
import json
import subprocess

import pytest

from managed import detached, runtime, sh  # noqa: F401
from support import MOTE, TIME_LIMIT, TOP, run_mote

ROLE = {"Code": "Success", "AccessKeyId": "id", "SecretAccessKey": "secret", "Token": "token",
        "Expiration": "2099-01-01T00:00:00Z"}
EC2 = {"latest": {"meta-data": {"iam": {"security-credentials": {"role": json.dumps(ROLE)}}}}}
# cloud-init's NoCloud reads each as a file.
NO_CLOUD = {"latest": {
    "meta-data": "instance-id: i-1\nlocal-hostname: demo\n",
    "user-data": "#cloud-config\ncloud_init_modules: [write-files]\n"
                 "write_files: [{path: /run/made, content: by cloud-init}]\n",
    "vendor-data": ""}}
SEED = "ds=nocloud-net;s=http://169.254.169.254/latest/"
BOTOCORE = """from botocore.utils import InstanceMetadataFetcher
print(InstanceMetadataFetcher(timeout=30, num_attempts=3).retrieve_iam_role_credentials())"""


@pytest.fixture(name="guest")
def guest_with_metadata(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(TOP / "build" / "data"))
    (tmp_path / "data.json").write_text(json.dumps(request.param))
    with detached("--name", "cloud", "--memory", "512M", "--metadata", tmp_path / "data.json",
                  "--boot-args", SEED, "server-cloud") as name:
        yield name


def run_for_long(name, *command):
    result = subprocess.run([MOTE, "exec", name, "--", *command], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=10 * TIME_LIMIT, check=False)
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result.stdout


def counters(name):
    api = json.loads(run_mote("inspect", name).stdout)
    api = (api[0] if isinstance(api, list) else api)["api"]
    return json.loads(run_mote("api", "--socket", api, "GET", "/metrics").stdout)["mmds"]


@pytest.mark.parametrize("guest", [NO_CLOUD], indirect=True)
def test_cloud_init(guest):
    run_for_long(guest, "cloud-init", "init", "--local")
    run_for_long(guest, "cloud-init", "init")
    assert sh(guest, "cat /var/lib/cloud/data/instance-id").strip() == "i-1"
    assert sh(guest, "cloud-init query local_hostname").strip() == "demo"
    assert sh(guest, "cat /run/made") == "by cloud-init"
    assert counters(guest)["rx_no_token"] > 0


@pytest.mark.parametrize("guest", [EC2], indirect=True)
def test_botocore(guest):
    assert "'access_key': 'id'" in run_for_long(guest, "python3", "-c", BOTOCORE)
    # What it read it read with its token.
    assert counters(guest)["rx_no_token"] == 0
