# SPDX-License-Identifier: Apache-2.0
"""
Much data through drives and network interfaces of a real Linux guest, all of it verified. Only
`tests/run-tests soak` runs this.
"""
import subprocess

import pytest

from devices import ENGINES, TAP, UP, build_image, make_file, stream_server
from support import BUILD

LIMIT = 600  # seconds, ten times what the slowest takes


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    return build_image(tmp_path_factory.mktemp("image"), ["/usr/bin/fio"], "160M")


@pytest.fixture(params=["tmpfs", "ext4"])
def backing(request, tmp_path):
    """A folder on that file system."""
    folder = tmp_path / "backing"
    folder.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "backing", folder]
    else:
        path = make_file(tmp_path / "backing.ext4", 700 << 20)
        subprocess.run(["modprobe", "loop"], check=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", path], check=True)
        command = ["mount", "-o", "loop", path, folder]
    subprocess.run(command, check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


FIO = """LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/ceph fio --name=verify --filename=/dev/vdb \
--direct=1 --thread --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --randseed=1 \
--verify_state_save=0 --minimal """


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_written_is_read(start, backing, engine):
    """Blocks of all sizes at random places, each written once and then read; then all once more."""
    drive = {"drive_id": "disk", "path_on_host": make_file(backing / "disk", 512 << 20)}
    output = start(FIO + "--rw=randwrite --bsrange=4k-128k > /dev/null && echo good\n" +
                   FIO + "--rw=write --bs=256k > /dev/null && echo good", engine=engine,
                   drives=[drive], time_limit=LIMIT, memory=512).output()
    assert output == ["good", "good"]


def test_a_gibibyte_each_way_is_exact(start, net):
    """At once, over one connection."""
    with net.popen(BUILD / "stream_bench", "tcp-server", 7000) as server:
        try:
            output = start(UP + "stream_bench tcp-client 10.9.0.1 7000 exchange 1024 && echo good",
                           net=TAP, prefix=net.prefix, time_limit=LIMIT).output()
        finally:
            server.kill()
    assert output[-1] == "good", output


def test_a_gibibyte_each_way_over_vsock_is_exact(start, tmp_path):
    with stream_server(tmp_path / "v.sock_7000"):
        output = start("stream_bench vsock-client 2 7000 exchange 1024 && echo good",
                       vsock=tmp_path / "v.sock", time_limit=LIMIT, memory=512).output()
    assert output[-1] == "good", output
