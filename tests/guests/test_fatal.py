# SPDX-License-Identifier: Apache-2.0
"""What a signal that ends the VMM leaves behind: exit status, log line, last line of metrics."""
import json
import os
import signal
import subprocess

import pytest

from support import GUESTS, TIME_LIMIT, VARIANT, vmm_command, write_config


def stop_by(number, config, *options):
    """Sends a signal to a running VMM; its exit status and log."""
    with subprocess.Popen(vmm_command(config, *options), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as vmm:
        assert vmm.stdout.read(7) == b"ending\n"
        vmm.send_signal(number)
        try:
            _, log = vmm.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            vmm.kill()
            raise
    return vmm.returncode, log.decode()


if VARIANT == "release":  # the sanitizers keep these signals for themselves
    @pytest.mark.parametrize("name, status, group, counter", [
        ("SIGSYS", 148, "seccomp", "num_faults"),
        ("SIGBUS", 149, "signals", "sigbus"),
        ("SIGSEGV", 150, "signals", "sigsegv"),
        ("SIGXCPU", 154, "signals", "sigxcpu"),
        ("SIGHUP", 156, "signals", "sighup"),
        ("SIGILL", 157, "signals", "sigill"),
        ("SIGFPE", 2, "signals", None),
        ("SIGABRT", 2, "vmm", "panic_count"),
    ])
    def test_fatal_signal(tmp_path, name, status, group, counter):
        metrics = tmp_path / "metrics"
        config = write_config(tmp_path / "vm.json", GUESTS / "ends-spin")
        returncode, log = stop_by(getattr(signal, name), config, "--metrics-path", str(metrics))
        assert returncode == status
        line, = log.splitlines()
        assert f":ERROR] The VMM ends by signal {name}, sent by process {os.getpid()}." in line
        first, last = map(json.loads, metrics.read_text().splitlines())
        assert first["uart"]["write_count"] == 0
        assert last["uart"]["write_count"] == len("ending\n")
        assert {key for key, value in last[group].items() if value} == ({counter} - {None})

    def test_fatal_signal_without_metrics(tmp_path):
        config = write_config(tmp_path / "vm.json", GUESTS / "ends-halt", vcpu_count=2)
        returncode, log = stop_by(signal.SIGSEGV, config)
        assert returncode == 150
        assert len(log.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGXFSZ])
def test_signal_that_shows_as_an_error_of_the_call_ends_nothing(tmp_path, number):
    config = write_config(tmp_path / "vm.json", GUESTS / "ends-spin")
    with subprocess.Popen(vmm_command(config), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as vmm:
        assert vmm.stdout.read(7) == b"ending\n"
        vmm.send_signal(number)
        vmm.terminate()
        _, log = vmm.communicate(timeout=TIME_LIMIT)
    assert vmm.returncode == 0
    assert b"signal TERM" in log
