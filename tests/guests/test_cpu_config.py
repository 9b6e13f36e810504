# SPDX-License-Identifier: Apache-2.0
"""Custom CPU templates: what a guest sees of them, and what a host refuses."""
import json
import re

import pytest

from api import start_api
from support import GUESTS, TOP, run_vmm

BRAND, FEATURES = 0x80000002, 1
SYSENTER_EIP = 0x176


def run(folder, cpu_config=None, *, leaf=BRAND, msr=SYSENTER_EIP, vcpu_count=1):
    config = {
        "boot-source": {"kernel_image_path": str(GUESTS / "cpu"),
                        "boot_args": f"leaf={leaf} msr={msr}"},
        "machine-config": {"vcpu_count": vcpu_count, "mem_size_mib": 16},
        "cpu-config": cpu_config,
    }
    path = folder / "vm.json"
    path.write_text(json.dumps(config))
    return run_vmm(path)


def values(result):
    assert result.returncode == 0, result.stderr
    return {name: int(value) for name, value in
            (line.split() for line in result.stdout.decode().splitlines())}


def leaf(number, **registers):
    return {"leaf": hex(number), "subleaf": "0x0", "flags": 0,
            "modifiers": [{"register": name, "bitmap": bitmap}
                          for name, bitmap in registers.items()]}


def test_guest_sees_changed_bits_and_only_them(tmp_path):
    before = values(run(tmp_path))
    after = values(run(tmp_path, {
        "kvm_capabilities": ["!56", "1"],
        "cpuid_modifiers": [leaf(BRAND, eax="0b0101_0101_0101_0101_0101_0101_0101_0101",
                                 ecx="0b1xx0", edx="0b" + "x" * 32)],
        "msr_modifiers": [{"addr": hex(SYSENTER_EIP),
                           "bitmap": "0b0xxx_" + "0" * 28 + "x" * 24 + "_1010_0101"}],
        "reg_modifiers": [], "vcpu_features": []}))
    assert before["msr"] == 0
    assert after == {"eax": 0x55555555, "ebx": before["ebx"], "ecx": before["ecx"] & ~9 | 8,
                     "edx": before["edx"], "msr": 0xa5}


def test_template_has_the_last_word(tmp_path):
    """Also on what mote itself sets: the hypervisor bit of leaf 1."""
    before = values(run(tmp_path, leaf=FEATURES))
    after = values(run(tmp_path, {"cpuid_modifiers": [leaf(FEATURES, ecx="0b0" + "x" * 31)]},
                       leaf=FEATURES))
    assert before["ecx"] >> 31 == 1
    assert after["ecx"] == before["ecx"] & ~(1 << 31)


def test_every_processor_takes_it(tmp_path):
    result = run(tmp_path, {"cpuid_modifiers": [leaf(BRAND, eax="0b1")],
                            "msr_modifiers": [{"addr": "0x176", "bitmap": "0b1"}]}, vcpu_count=4)
    assert values(result)["msr"] == 1


@pytest.mark.parametrize("cpu_config, sentence", [
    ({"cpuid_modifiers": [leaf(BRAND, eax="0b1"), leaf(0x7fff0000, eax="0b1")]},
     "cpu-config: this host has no CPUID leaf 0x7fff0000, subleaf 0x0"),
    ({"msr_modifiers": [{"addr": "0x176", "bitmap": "0b1"},
                        {"addr": "0xdeadbeef", "bitmap": "0b1"}]},
     "cpu-config: MSR 0xdeadbeef: KVM_GET_MSRS refuses it"),
    ({"kvm_capabilities": ["1", "999999"]},
     "cpu-config: the KVM capability 999999 is missing on this host"),
])
def test_what_the_host_cannot_do_is_named(tmp_path, cpu_config, sentence):
    result = run(tmp_path, cpu_config)
    assert result.returncode == 1
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].endswith(sentence)
    assert result.stdout == b""


def test_capability_that_is_dropped_may_be_missing(tmp_path):
    assert run(tmp_path, {"kvm_capabilities": ["999999", "!999999"]}).returncode == 0


def test_mistake_in_the_section_is_told_with_its_place(tmp_path):
    result = run(tmp_path, {"cpuid_modifiers": [leaf(BRAND), leaf(BRAND, eax="0b2")]})
    assert result.returncode == 152
    assert b"cpu-config: cpuid_modifiers[1].modifiers[0].bitmap: " in result.stderr


def test_example_of_the_documentation(tmp_path):
    text = (TOP / "docs" / "cpu-config.md").read_text()
    example = re.search(r"```json\n(.*?)```", text, re.DOTALL).group(1)
    template = json.loads("{" + example + "}")["cpu-config"]
    before, after = (values(run(tmp_path, config, leaf=FEATURES, msr=0x1a0))
                     for config in (None, template))
    assert after["msr"] == before["msr"] | 1
    # There are KVMs that show a guest its host's features whatever they are told.
    assert after["ecx"] in (before["ecx"], before["ecx"] & ~(3 << 29))


def test_named_template_of_another_vendor_is_refused_at_the_start(tmp_path):
    with open("/proc/cpuinfo", encoding="ascii") as file:
        name = "T2" if "AuthenticAMD" in file.read() else "T2A"
    with start_api(tmp_path) as vmm:
        vmm.set_guest("hello", cpu_template=name)
        fault = vmm.fault("PUT", "/actions", {"action_type": "InstanceStart"})
        assert fault.startswith(f"cpu_template {name}: it is for processors of ")
        assert vmm.state() == "Not started"
        vmm.patch("/machine-config", {"cpu_template": "None"})
        vmm.action("InstanceStart")
