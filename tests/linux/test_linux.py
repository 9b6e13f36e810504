# SPDX-License-Identifier: Apache-2.0
"""Real Linux guests. Runs where KVM can run Linux: here, or in the test host."""
import hashlib
import os
import re
import signal
import subprocess

import pytest

from support import (BUILD, MOTE, TIME_LIMIT, kernel, processes, run_mote, run_vmm, wait_until,
                     write_config)

KERNELS = ["microvm", "microvm-acpi", "debian-cloud"]
MEMORY = {"debian-cloud": 256}  # MiB; its modules and unpacked image need more than 128
ARGS = "console=ttyS0 quiet reboot=k panic=-1 8250.nr_uarts=1"


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(processes("mote-vmm"))
    yield
    wait_until(lambda: set(processes("mote-vmm")) <= before, "the last mote-vmm to go")


def guest(*command, name="microvm", options=(), **kwargs):
    return run_mote("run", "--kernel", name, "--memory", MEMORY.get(name, 128), *options, "--",
                    *command, **kwargs)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_boots_and_runs_a_command(name):
    result = guest("uname", "-r", name=name)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(rb"6\.\d+\.\d+\S*\n", result.stdout)
    assert result.stderr == b""


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_processors_are_online(name, cpus):
    result = guest("sh", "-c", "nproc; cat /sys/devices/system/cpu/online", name=name,
                   options=["--cpus", cpus])
    assert result.stdout.decode().split() == [str(cpus), f"0-{cpus - 1}" if cpus > 1 else "0"], result.stderr


def memory_total_mib(result):
    return int(re.search(rb"MemTotal: +(\d+) kB", result.stdout).group(1)) >> 10


@pytest.mark.parametrize("name, mib", [("microvm", 64), ("microvm", 5120), ("debian-cloud", 5120)])
def test_guest_sees_its_memory(name, mib):
    result = run_mote("run", "--kernel", name, "--memory", mib, "--", "cat", "/proc/meminfo")
    assert result.returncode == 0, result.stderr
    # What the kernel keeps for itself: its image, and the page structs, 1/64 of all.
    assert mib - mib // 32 - 40 <= memory_total_mib(result) <= mib


@pytest.mark.parametrize("kind", ["None", "Transparent"])
def test_huge_pages(kind):
    result = guest("true", options=["--huge-pages", kind])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script, status", [
    ("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143),
])
def test_exit_status_is_exact(script, status):
    assert guest("sh", "-c", script).returncode == status


def test_command_that_is_not_there():
    result = guest("/no/such/program")
    assert result.returncode == 127
    assert result.stderr == b"mote: /no/such/program: No such file or directory\n"


def test_output_streams_and_arguments_are_exact():
    arguments = ["a b", "", "'\"$`\\", "línea\nzwei", "-x"]
    result = guest("sh", "-c", 'printf "%s|" "$@"; echo problem >&2', "sh", *arguments)
    assert result.stdout.decode() == "".join(f"{a}|" for a in arguments)
    assert result.stderr == b"problem\n"


def test_environment():
    result = guest("sh", "-c", 'echo "$GREETING,$HOME,$PATH"',
                   options=["--env", "GREETING=hello you", "--env", "HOME=/tmp"])
    assert result.stdout.decode().startswith("hello you,/tmp,/usr/local/sbin:")


def test_out_of_memory_kill_is_told_in_the_status():
    """Of one that the command has started and waited for."""
    assert guest("sh", "-c", "tail /dev/zero; exit $?").returncode == 137


def test_what_the_command_leaves_running_does_not_hold_it_up():
    assert guest("sh", "-c", "yes & sleep 0.1; exit 5").returncode == 5


def test_reader_that_goes_away_ends_the_run():
    result = subprocess.run(["bash", "-c", f"{MOTE} run -- yes | head -n 2; echo ${{PIPESTATUS[0]}}"],
                            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT,
                            check=False)
    assert result.stdout == b"y\ny\n141\n"


def test_full_disk_is_an_error():
    with open("/dev/full", "wb") as full:
        result = subprocess.run([MOTE, "run", "--", "echo", "hello"], stdin=subprocess.DEVNULL,
                                stdout=full, stderr=subprocess.PIPE, timeout=TIME_LIMIT,
                                check=False)
    assert result.returncode == 125
    assert result.stderr == b"mote: standard output: No space left on device\n"


def test_signal_while_the_reader_is_stuck():
    """Nobody reads: the first signal is for the command, the second ends the VM."""
    with subprocess.Popen([MOTE, "run", "--", "yes"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as mote:
        assert mote.stdout.read(2) == b"y\n"
        # Two of one number may be one; and any more could come when mote is done and lets go of them.
        mote.send_signal(signal.SIGTERM)
        mote.send_signal(signal.SIGINT)
        mote.wait(TIME_LIMIT)
    assert mote.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_a_mebibyte_of_output_is_uncut():
    script = "i=0; while [ $i -lt 4096 ]; do printf '%0255d\\n' $i; i=$((i+1)); done"
    result = guest("sh", "-c", script)
    assert result.stdout == b"".join(b"%0255d\n" % i for i in range(4096))


def test_input_is_passed_on():
    text = os.urandom(12345)
    result = guest("sha256sum", stdin=text)
    assert result.stdout.split()[0].decode() == hashlib.sha256(text).hexdigest()


def test_input_for_a_slow_reader():
    text = os.urandom(20000)
    result = guest("sh", "-c", "sleep 1; sha256sum", stdin=text)
    assert result.stdout.split()[0].decode() == hashlib.sha256(text).hexdigest()


def test_command_that_does_not_read_its_input():
    assert guest("true", stdin=bytes(20000)).returncode == 0


def test_interrupt_reaches_the_command():
    script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen([MOTE, "run", "--", "sh", "-c", script], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        mote.send_signal(signal.SIGINT)
        assert mote.stdout.read() == b"caught\n"
        assert mote.wait(TIME_LIMIT) == 3


def test_killed_mote_takes_its_vm_along():
    with subprocess.Popen([MOTE, "run", "--", "sh", "-c", "echo ready; sleep 1000"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as mote:
        assert mote.stdout.readline() == b"ready\n"
        mote.kill()
    wait_until(lambda: not processes("mote-vmm"), "mote-vmm to die with mote")


@pytest.mark.parametrize("name", ["microvm-acpi", "debian-cloud"])
def test_power_off_through_the_acpi_sleep_register(tmp_path, name):
    """By the kernel itself: busybox's poweroff -f, not mote-init's own write."""
    result = guest("poweroff", "-f", name=name, options=["--verbose"])
    assert result.returncode == 125
    assert b"The guest powered off.\n" in result.stderr
    assert result.stderr.endswith(
        b"mote: the guest ended before the command did: The guest powered off\n")


def test_kernel_without_vsock_ends():
    """This one has it as a module, which this initrd does not have: nobody could ever ask."""
    result = guest("true", name="debian-cloud",
                   options=["--initrd", BUILD / "initrd.cpio"])
    assert (result.returncode, result.stdout) == (125, b"")
    assert result.stderr == (
        b"mote: the guest ended before the command did: The guest powered off\n")


def test_reset_is_told():
    result = guest("reboot", "-f")
    assert result.returncode == 125
    assert result.stderr == (
        b"mote: the guest ended before the command did: The guest reset the machine\n")


def test_panic_is_told():
    result = guest("sh", "-c", "echo c > /proc/sysrq-trigger", name="debian-cloud")
    assert result.returncode == 125
    assert result.stderr.endswith(
        b"mote: The guest kernel panicked: sysrq triggered crash\n")


def test_panic_without_an_init(tmp_path):
    """The kernel finds neither /init nor a root device."""
    config = write_config(tmp_path / "vm.json", kernel("microvm"), boot_args=ARGS,
                          mem_size_mib=128)
    result = run_vmm(config)
    assert result.returncode == 160
    assert re.search(rb"ERROR\] The guest kernel panicked: VFS: Unable to mount root fs",
                     result.stderr)


def test_triple_fault_behind_a_panic_is_a_panic(tmp_path):
    """reboot=t makes the kernel's restart a triple fault."""
    config = write_config(tmp_path / "vm.json", kernel("microvm"), mem_size_mib=128,
                          boot_args=ARGS.replace("reboot=k", "reboot=t"))
    assert run_vmm(config).returncode == 160


@pytest.mark.parametrize("options, sentence", [
    (["--kernel", "/nowhere"], "kernel image /nowhere: No such file or directory"),
    (["--kernel", "/etc/passwd"], "kernel image /etc/passwd: not an ELF or bzImage file"),
    (["--kernel", "nosuch"], "kernel nosuch: there is none of this name in"),
    (["--memory", "16"], "but the guest has 16 MiB of memory"),
    (["--memory", "8"], "but the guest has 8 MiB of memory"),
    (["--cpus", "33"], "vcpu_count: 33 is not between 1 and 32"),
    (["--initrd", "/nowhere"], "initrd /nowhere: No such file or directory"),
])
def test_mistakes_are_one_sentence(options, sentence):
    result = run_mote("run", *options, "--", "true")
    assert result.returncode == 125
    assert result.stdout == b""
    assert sentence in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith(b"mote: ")


def test_initrd_larger_than_memory(tmp_path):
    initrd = tmp_path / "initrd"
    with open(initrd, "wb") as file:
        file.truncate(200 << 20)
    result = run_mote("run", "--initrd", initrd, "--", "true")
    assert result.returncode == 125
    assert b"do not fit beside the kernel into 128 MiB of guest memory" in result.stderr


def test_timing_tells_every_phase_in_order():
    result = guest("true", options=["--timing"])
    phases = re.findall(r"^  (\S.*?) +([\d.]+) ms ", result.stderr.decode(), re.M)
    assert [name for name, _ in phases] == ["KVM ready", "kernel loaded",
                                            "first guest instruction", "guest init",
                                            "agent ready", "command done"]
    times = [float(time) for _, time in phases]
    assert times == sorted(times)


def test_doctor_says_yes_here():
    result = run_mote("doctor")
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith(b"This host can run microVMs.\n")


def test_kernel_list_and_path():
    listed = run_mote("kernel", "list").stdout.decode()
    for name in KERNELS:
        assert re.search(rf"^{name} +\S+ +[\d.]+ MiB$", listed, re.M)
    assert run_mote("kernel", "path").stdout.decode().strip() == kernel("microvm")
