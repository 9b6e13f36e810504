# SPDX-License-Identifier: Apache-2.0
"""mote-vmm with freestanding guests, on whatever /dev/kvm the machine has."""
import os
import re
import resource
import signal
import subprocess
import time

import pytest

from support import GUESTS, TIME_LIMIT, VARIANT, VMM, run_vmm, vmm_command, write_config


@pytest.fixture
def config(tmp_path):
    def make(guest, **options):
        return write_config(tmp_path / "vm.json", GUESTS / guest, **options)
    return make


def errors(result):
    return [line for line in result.stderr.decode().splitlines() if ":ERROR]" in line]


def checks(result):
    """The guest's own checks; all must be good and there must be some."""
    lines = result.stdout.decode().splitlines()
    assert lines and all(line.startswith("ok ") for line in lines), lines
    return len(lines)


def test_first_instruction_output_and_power_off(config):
    result = run_vmm(config("hello"))
    assert result.stdout == b"hello\n"
    assert result.returncode == 0
    assert b"The guest powered off.\n" in result.stderr


def test_every_kind_of_io_exit(config):
    result = run_vmm(config("exits"), "--boot-timer")
    assert checks(result) == 10
    assert result.returncode == 0
    assert len(re.findall(rb"Guest-boot-time = \d+ us \d+ ms, \d+ CPU us \d+ CPU ms",
                          result.stderr)) == 1


def test_boot_phases_are_in_order(config):
    result = run_vmm(config("hello"), "--boot-timer")
    phases = re.search(rb"Boot-phases = kvm_ready (\d+) us, kernel_loaded (\d+) us, "
                       rb"first_instruction (\d+) us", result.stderr)
    times = [int(time) for time in phases.groups()]
    assert 0 < times[0] <= times[1] <= times[2]


def test_memory_above_4_gib(config):
    result = run_vmm(config("highmem", mem_size_mib=5120))
    assert checks(result) == 6
    assert result.returncode == 0


@pytest.mark.parametrize("vcpus", [2, 4, 32])
def test_processors_start(config, vcpus):
    result = run_vmm(config(f"smp-{vcpus - 1}", vcpu_count=vcpus))
    assert result.stdout == f"arrived {vcpus - 1}\n".encode()
    assert result.returncode == 0


@pytest.mark.parametrize("guest, status, sentence", [
    ("ends-reset", 0, r"The guest reset the machine\."),
    ("ends-triple-fault", 161, r"The guest ended with a triple fault on vCPU 0\."),
    ("ends-panic", 160, r"The guest kernel panicked: out of \[1mbiscuits\."),
])
def test_end_is_told(config, guest, status, sentence):
    result = run_vmm(config(guest))
    assert result.returncode == status
    assert re.search(sentence, result.stderr.decode())


def test_kvm_error_dumps_the_registers(config):
    result = run_vmm(config("ends-execute-mmio"))
    assert result.returncode == 162
    log = result.stderr.decode()
    assert "KVM_EXIT_INTERNAL_ERROR" in log
    assert re.search(r"rip 00000000d0000000 ", log)
    for register in ("rax", "r15", "cr3", "efer", "cs selector", "gdt base", "exception"):
        assert register in log


def test_input_is_passed_on(config):
    text = bytes(range(ord("r"), ord("z"))) * 8
    result = run_vmm(config("echo"), stdin=text + b"q")
    assert result.stdout == text + b"q"


@pytest.mark.parametrize("guest", ["ends-halt", "ends-spin"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_a_guest(config, guest, number):
    with subprocess.Popen(vmm_command(config(guest, vcpu_count=2)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as vmm:
        assert vmm.stdout.read(7) == b"ending\n"
        vmm.send_signal(number)
        _, log = vmm.communicate(timeout=TIME_LIMIT)
    assert vmm.returncode == 0
    assert f"Stopped from the host: signal {number.name[3:]}." in log.decode()


def test_slow_reader_gets_every_byte(config, tmp_path):
    """The pipe is full while the guest writes on; the transmitter waits, nothing is lost."""
    read_end, write_end = os.pipe()
    filler = b"." * 65536
    os.set_blocking(write_end, False)
    assert os.write(write_end, filler) == len(filler)
    with subprocess.Popen(vmm_command(config("hello")), stdin=subprocess.DEVNULL, stdout=write_end,
                          stderr=subprocess.PIPE) as vmm:
        os.close(write_end)
        with os.fdopen(read_end, "rb") as output:
            assert output.read() == filler + b"hello\n"
        assert vmm.wait(TIME_LIMIT) == 0


def test_reader_that_goes_away(config):
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(vmm_command(config("hello")), stdin=subprocess.DEVNULL,
                            stdout=write_end, stderr=subprocess.PIPE, timeout=TIME_LIMIT,
                            check=False)
    os.close(write_end)
    assert result.returncode == 0
    assert b"output is discarded" in result.stderr


def test_serial_output_to_a_file(config, tmp_path):
    result = run_vmm(config("hello", serial=tmp_path / "console"))
    assert result.stdout == b""
    assert (tmp_path / "console").read_bytes() == b"hello\n"


@pytest.mark.parametrize("change, sentence", [
    ({"kernel": "/nowhere/vmlinux"}, "kernel image /nowhere/vmlinux: No such file or directory"),
    ({"kernel": "TEXT"}, "not an ELF or bzImage file"),
    ({"kernel": "DIRECTORY"}, "not a regular file"),
    ({"initrd": "/nowhere/initrd"}, "initrd /nowhere/initrd: No such file or directory"),
    ({"mem_size_mib": 0}, "machine-config: mem_size_mib: 0 is not between 1 and"),
    ({"vcpu_count": 33}, "machine-config: vcpu_count: 33 is not between 1 and 32"),
    ({"boot_args": "x" * 2048}, "kernel command line of 2048 bytes: at most 2047 are possible"),
])
def test_bad_configuration_is_one_sentence(tmp_path, change, sentence):
    (tmp_path / "TEXT").write_text("This is not a kernel. " * 100)
    (tmp_path / "DIRECTORY").mkdir()
    change = dict(change)
    image = change.pop("kernel", "hello")
    path = image if image.startswith("/") else (
        tmp_path / image if image != "hello" else GUESTS / "hello")
    result = run_vmm(write_config(tmp_path / "vm.json", path, **change))
    assert result.returncode == 152
    assert len(errors(result)) == 1 and len(result.stderr.splitlines()) == 1
    assert sentence in errors(result)[0]
    assert result.stdout == b""


def test_initrd_larger_than_memory(config, tmp_path):
    initrd = tmp_path / "initrd"
    with open(initrd, "wb") as file:
        file.truncate(32 << 20)
    result = run_vmm(config("hello", initrd=initrd))
    assert result.returncode == 1
    assert (f"initrd {initrd}: 32768 KiB do not fit beside the kernel into 16 MiB of guest memory"
            in errors(result)[0])


def test_terminal_that_nobody_reads(config):
    """Its buffer is full, the guest writes on: the VMM still hears signals."""
    master, terminal = os.openpty()
    with subprocess.Popen(vmm_command(config("flood")), stdin=subprocess.DEVNULL, stdout=terminal,
                          stderr=subprocess.DEVNULL) as vmm:
        os.close(terminal)
        assert os.read(master, 1) == b"."
        time.sleep(0.2)  # nothing tells that the buffer is full
        vmm.terminate()
        assert vmm.wait(TIME_LIMIT) == 0
    os.close(master)


def test_signals_that_were_blocked_when_it_was_started(config):
    def block_all():
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    with subprocess.Popen(vmm_command(config("ends-spin")), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          preexec_fn=block_all) as vmm:
        assert vmm.stdout.read(7) == b"ending\n"
        vmm.terminate()
        assert vmm.wait(TIME_LIMIT) == 0


def test_closed_standard_descriptors(config):
    vm = config("hello")
    for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"):
        command = " ".join(vmm_command(vm))
        assert subprocess.run(["bash", "-c", f"{command} {closed}"], check=False,
                              capture_output=True, timeout=TIME_LIMIT).returncode == 0


def test_wrong_arguments(tmp_path):
    for arguments in (["--frobnicate"], ["--boot-timer=x"], ["extra"], ["--id", "x" * 65],
                      ["--start-time-us", "9223372036854775807"]):
        result = subprocess.run([VMM, *arguments], capture_output=True, check=False)
        assert result.returncode == 153
        assert len(result.stderr.splitlines()) == 1


def test_missing_and_unreadable_configuration(tmp_path):
    result = run_vmm(tmp_path / "none.json")
    assert result.returncode == 152
    assert "none.json: No such file or directory" in errors(result)[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_no_permission_on_kvm(config, tmp_path):
    """An ordinary user who is not in the group kvm."""
    mode = os.stat("/dev/kvm").st_mode & 0o777
    copy = tmp_path / "mote-vmm"
    copy.write_bytes(VMM.read_bytes())
    copy.chmod(0o755)
    guest = tmp_path / "hello"
    guest.write_bytes((GUESTS / "hello").read_bytes())
    vm = write_config(tmp_path / "vm.json", guest)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    os.chmod("/dev/kvm", 0o600)
    try:
        result = subprocess.run([copy, "--no-api", "--config-file", vm], capture_output=True,
                                user=65534, group=65534, extra_groups=[], check=False)
    finally:
        os.chmod("/dev/kvm", mode)
    assert result.returncode == 1
    assert "/dev/kvm: Permission denied" in errors(result)[0]
    assert len(errors(result)) == 1


def test_sixteen_vms_in_turn_leave_nothing(config):
    before = sorted(os.listdir("/proc/self/fd")), sorted(os.listdir("/dev/shm"))
    vm = config("hello")
    for _ in range(16):
        assert run_vmm(vm).returncode == 0
    assert (sorted(os.listdir("/proc/self/fd")), sorted(os.listdir("/dev/shm"))) == before


if VARIANT == "release":  # the sanitizers need far more address space for themselves
    def test_address_space_limit_is_told(config):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        result = run_vmm(config("hello", mem_size_mib=4096), preexec_fn=limit)
        assert result.returncode == 1
        assert "guest memory of 4096 MiB: Cannot allocate memory" in errors(result)[0]
