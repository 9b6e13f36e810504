# SPDX-License-Identifier: Apache-2.0
"""The metadata service, asked by a Linux guest: with curl, and with busybox' wget."""
import hashlib
import socket

import pytest

from devices import TAP, UP, build_image
from support import running

BIG = "".join(f"{i:04x}" for i in range(10000))
DATA = {"latest": {"meta-data": {"instance-id": "i-1", "placement": {"zone": "a"}, "weight": 12.12},
                   "user-data": BIG}}
ADDRESS = "169.254.169.254"
CONFIG = {"network_interfaces": ["eth0"]}
ROUTE = UP + f"ip route add {ADDRESS} dev eth0; "
GET = """m=http://%s
ask() { curl -s -m 20 -w '|%%{http_code}\\n' "$@"; }
""" % ADDRESS

# Of V1: what curl is called with, and what it prints.
REQUESTS = [
    ("$m/latest/meta-data/instance-id", "i-1|200"),
    ("$m/latest//meta-data/instance-id/", "i-1|200"),
    ("-0 $m/latest/meta-data/instance-id", "i-1|200"),
    ("$m/latest/meta-data/ | tr '\\n' ,; echo", "instance-id,placement/,weight|200,"),
    ("-H 'Accept: application/json' $m/latest/meta-data/placement", '{"zone":"a"}|200'),
    ("-H 'Accept: application/json' $m/latest/meta-data/weight", "12.12|200"),
    ("-o /dev/null $m/latest/meta-data/weight", "|501"),
    ("-o /dev/null $m/none", "|404"),
    ("-o /dev/null -X POST -d x=y $m/", "|400"),
    ("-o /dev/null -X DELETE $m/", "|405"),
    ("-o /dev/null -X PUT $m/latest/api/token", "|400"),
    ("-o /dev/null -X PUT -H 'X-metadata-token-ttl-seconds: 21601' $m/latest/api/token", "|400"),
    ("-o /dev/null -X PUT -H 'X-metadata-token-ttl-seconds: 6' -H 'X-Forwarded-For: a' "
     "$m/latest/api/token", "|400"),
    ("-X PUT -H 'X-metadata-token-ttl-seconds: 6' $m/latest/api/token | wc -c", "53"),
]


@pytest.fixture(scope="module", name="image")
def image_with_curl(tmp_path_factory):
    return build_image(tmp_path_factory.mktemp("image"), ["/usr/bin/curl"], "96M")


def test_first_version(start, net):
    """Beside what goes over the tap."""
    guest = start(ROUTE + GET + "\n".join(f"ask {arguments}" for arguments, _ in REQUESTS) + """
echo; curl -s -w '%{num_connects}' $m/latest/meta-data/instance-id $m/latest/meta-data/placement/zone
echo; wget -q -O- $m/latest/meta-data/placement/zone; echo
curl -s $m/latest/user-data | sha256sum
for i in 1 2 3 4 5 6 7 8 9 10; do curl -s $m/latest/user-data | sha256sum > /tmp/$i & done; wait
cat /tmp/* | sort -u
ping -c 1 10.9.0.1 > /dev/null && echo ping
curl -s -m 5 http://10.9.0.1/ || echo refused; curl -s -m 5 $m:81/ || echo refused""",
                  net=TAP, prefix=net.prefix, mmds=CONFIG, metadata=DATA)
    lines = [line for line in guest.output() if line]
    digest = hashlib.sha256(BIG.encode()).hexdigest() + "  -"
    assert lines == [said for _, said in REQUESTS] + [
        "i-11a0", "a", digest, digest, "ping", "refused", "refused"]
    # Nothing of it was seen on the host's side.
    assert b"169.254" not in net.run("ip", "neighbour").stdout


SECOND = """
ask -o /dev/null $m/latest/meta-data/instance-id
ask -o /dev/null -H 'X-metadata-token: 0' $m/latest/meta-data/instance-id
for name in metadata aws-ec2-metadata; do
	token=$(curl -s -m 20 -X PUT -H "X-$name-token-ttl-seconds: 60" $m/latest/api/token)
	ask -H "X-$name-token: $token" $m/latest/meta-data/instance-id
	ask -H "X-$name-token: $token" -H 'Accept: application/json' $m/latest
done
token=$(curl -s -m 20 -X PUT -H 'X-metadata-token-ttl-seconds: 1' $m/latest/api/token)
until [ "$(ask -o /dev/null -H "X-metadata-token: $token" $m/latest)" = "|401" ]; do :; done
echo expired
"""


def drop_frames(server):
    peer = server.accept()[0]
    with peer:
        while peer.recv(1 << 16):
            pass


def test_second_version(start, tmp_path):
    """On an interface of passt's kind, whose driver reckons its checksums itself."""
    path = tmp_path / "passt"
    address = "169.254.170.2"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        with running(lambda: drop_frames(server)):
            guest = start((ROUTE + GET + SECOND).replace(ADDRESS, address),
                          net={"passt_socket": str(path)}, metadata=DATA,
                          mmds={**CONFIG, "version": "V2", "imds_compat": True,
                                "ipv4_address": address})
            lines = guest.output()
    assert lines == ["|401", "|401", *(2 * ["i-1|200", "meta-data/", "user-data|200"]), "expired"]
