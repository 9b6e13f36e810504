# SPDX-License-Identifier: Apache-2.0
"""The metrics file, over the configuration file and the command line."""
import json
import os
import re
import subprocess

import pytest

import host
from support import GUESTS, TIME_LIMIT, run_vmm, vmm_command, write_config


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def with_metrics(config, path):
    content = json.loads(config.read_text())
    content["metrics"] = {"metrics_path": str(path)}
    config.write_text(json.dumps(content))
    return config


@pytest.mark.parametrize("engine", ["Sync", "Async"])
def test_block_traffic_is_counted(tmp_path, engine):
    metrics = tmp_path / "metrics"
    _, drive = host.drive(tmp_path, content=b"\0" * 512 + b"sector 1", io_engine=engine)
    config = host.vm_config(tmp_path, "block", drives=[drive])
    result = run_vmm(with_metrics(config, metrics), "--level", "Debug")
    assert result.returncode == 0, result.stderr
    first, last = lines(metrics)
    assert first["block_scratch"]["read_count"] == 0
    assert last["block_scratch"]["read_bytes"] >= 512 + 4096
    assert last["block_scratch"]["write_bytes"] >= 4096
    assert last["block_scratch"]["flush_count"] >= 1
    assert last["block"] == last["block_scratch"]
    assert last["interrupts"]["triggers"] > 0
    served = re.findall(rb"drive scratch: engine_(\w+)_count = ", result.stderr)
    # What the host refuses is in the log; a file in memory needs no engine.
    used = b"memory" if b"memory" in served else \
        b"sync" if b"using the Sync engine" in result.stderr else engine.lower().encode()
    assert served == [used]
    assert last["vcpu"]["exit_mmio_write"] > 0
    assert last["vcpu"]["exit_io_out"] > 0
    assert last["uart"]["write_count"] >= len(result.stdout)
    assert last["utc_timestamp_ms"] >= first["utc_timestamp_ms"]


def test_processors_exits_are_counted(tmp_path):
    metrics = tmp_path / "metrics"
    result = run_vmm(write_config(tmp_path / "vm.json", GUESTS / "ends-reset", vcpu_count=2),
                     "--metrics-path", str(metrics))
    assert result.returncode == 0
    last = lines(metrics)[-1]
    assert last["i8042"]["reset_count"] == 1
    assert last["vcpu"]["exit_io_out"] > 0
    assert last["vcpu"]["failures"] == 0


def test_kvm_error_is_counted(tmp_path):
    metrics = tmp_path / "metrics"
    run_vmm(write_config(tmp_path / "vm.json", GUESTS / "ends-execute-mmio"),
            "--metrics-path", str(metrics))
    assert lines(metrics)[-1]["vcpu"]["failures"] == 1


def test_fifo_that_nobody_reads_yet(tmp_path):
    fifo = tmp_path / "metrics"
    os.mkfifo(fifo)
    with subprocess.Popen(
            vmm_command(write_config(tmp_path / "vm.json", GUESTS / "ends-spin"),
                        "--metrics-path", str(fifo)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as vmm:
        assert vmm.stdout.read(7) == b"ending\n"
        with open(fifo, encoding="utf-8") as reader:
            assert json.loads(reader.readline())["vmm"] == {"panic_count": 0}
            vmm.terminate()
            assert json.loads(reader.readline())["uart"]["write_count"] == len("ending\n")
            assert reader.read() == ""
        assert vmm.wait(TIME_LIMIT) == 0


def test_output_is_configured_once(tmp_path):
    config = with_metrics(write_config(tmp_path / "vm.json", GUESTS / "hello"), tmp_path / "one")
    result = run_vmm(config, "--metrics-path", str(tmp_path / "other"))
    assert result.returncode == 152
    assert b"metrics: metrics_path: it has been set already" in result.stderr


def test_output_that_cannot_be_opened(tmp_path):
    config = write_config(tmp_path / "vm.json", GUESTS / "hello")
    result = run_vmm(config, "--metrics-path", "/nowhere/metrics")
    assert result.returncode == 153
    assert b"metrics_path /nowhere/metrics: No such file or directory" in result.stderr
    result = run_vmm(with_metrics(config, "/nowhere/metrics"))
    assert result.returncode == 152
