"""A machine with Intel's VMX: Debian's Bochs, the disks that it starts with, and its way out."""
import ctypes
import os
import re
import shutil
import subprocess
import time

import disks
import initramfs
from instructions import instructions, shared_directories, working_tree
from machine import KERNEL_ARGUMENTS, LIBC, Machine, die_with_parent

BOCHS = "/usr/bin/bochs-bin"
BIOS = "/usr/share/bochs/BIOS-bochs-latest"
VGA_BIOS = "/usr/share/bochs/VGABIOS-lgpl-latest"
LOADER = "/usr/lib/ISOLINUX/isolinux.bin"
LOADER_PART = "/usr/lib/syslinux/modules/bios/ldlinux.c32"
MAKE_CD = "/usr/bin/genisoimage"
MODINFO = "/sbin/modinfo"
PORT = initramfs.HERE.parent.parent / "build/port"
MODULES = ["ata_piix", "sd_mod", "erofs", "overlay", "tun", "kvm_intel"]
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
# Instructions a virtual second. The VMX preemption timer's rate is that of the time-stamp counter,
# and KVM takes only one whose 32 bits last for 10 s: below 429 MHz.
RATE, RATE_OF_VIRTUAL_TIME = 400_000_000, 1_000_000_000
# Of those that Debian's kernel starts on, the one with most of what KVM can use; with pause-loop
# exiting, without which a guest that waits with interrupts disabled stops its host (see README.md).
MODEL = "corei7_skylake_x"
# Bochs 2.7 tells a wrong size of the compacted XSAVE area (CPUID leaf 0xd, subleaf 1), and Linux
# then goes without XSAVE, so without AVX: "XSAVE consistency problem".
WITHOUT = "clearcpuid=xsaves,xsavec"
FRAME = re.compile(rb"\x1e([012])([0-9a-f]{4})")
HEAD_BYTES = 6


class Frames:
    """Gives to consumers what port.c packs; all else is Bochs' own talk, for the log."""

    def __init__(self, consumers):
        self.consumers = consumers
        self.rest = b""

    def add(self, data):
        self.rest += data
        while self.rest:
            before, mark, _ = self.rest.partition(b"\x1e")
            if before:
                self.consumers["log"](before)
                self.rest = self.rest[len(before):]
            if not mark or len(self.rest) < HEAD_BYTES:
                return
            head = FRAME.match(self.rest)
            if not head:
                raise RuntimeError("the machine sends what is not a frame")
            size = int(head[2], 16)
            if len(self.rest) < HEAD_BYTES + size:
                return
            content = self.rest[HEAD_BYTES:HEAD_BYTES + size]
            self.rest = self.rest[HEAD_BYTES + size:]
            channel = ["status", "stdout", "stderr"][int(head[1])]
            self.consumers[channel](content + b"\n" if channel == "status" else content)


class BochsMachine(Machine):
    NEEDED = {BOCHS: "bochs", BIOS: "bochsbios", VGA_BIOS: "vgabios", LOADER: "isolinux",
              LOADER_PART: "syslinux-common", MAKE_CD: "genisoimage", disks.MKFS: "erofs-utils"}
    OUTPUTS = ["log", "frames"]
    MEMORY_MIB = 2048

    def start(self, arguments, kernel):
        if not PORT.exists():
            raise RuntimeError(f"{PORT} is missing: make tests builds it")
        check_options(arguments.kvm_intel, kernel)
        initrd = initramfs.initramfs(kernel, "init-bochs", MODULES, [PORT])
        work = private_directory()
        (work / "root.disk").symlink_to(disks.root_disk(work))
        shutil.rmtree(work / "root", ignore_errors=True)
        shares = shared_directories(kernel)
        disks.shared_disk(work, shares, working_tree())
        todo = instructions(arguments, [(str(number), target)
                                        for number, (_, target) in enumerate(shares)])
        make_cd(work, kernel, initrd, arguments, todo)
        (work / "bochsrc").write_text(bochsrc(work, arguments))
        # The package's Bochs has a debugger, which waits for a command: "c" is "continue".
        (work / "debugger").write_text("c\n")
        self.ports["frames"], frames = pipe()
        self.ports["log"], log = pipe()
        with frames, log:
            self.spawn([BOCHS, "-q", "-f", "bochsrc", "-rc", "debugger"], [], frames, log,
                       cwd=work)


def pipe():
    reader, writer = os.pipe()
    return open(reader, "rb", buffering=0), open(writer, "wb", buffering=0)


def check_options(options, kernel):
    """The kernel would ignore an option that its module does not have."""
    listed = subprocess.run([MODINFO, "-b", kernel.parent, "-k", initramfs.modules_directory(
        kernel).name, "-F", "parm", "kvm_intel"], stdout=subprocess.PIPE, text=True, check=True)
    known = {line.split(":")[0] for line in listed.stdout.splitlines()}
    for option in options.split():
        name, equals, _ = option.partition("=")
        if name not in known or not equals:
            raise RuntimeError(f"--kvm-intel {option}: {name} is not an option of kvm_intel"
                               if equals else f"--kvm-intel {option}: not NAME=VALUE")


def private_directory():
    """
    A directory in memory, which is this process' and its children's alone and ends with them. They
    get a network of their own, too, for the display, on whose port whoever wants could see it.
    """
    if LIBC.unshare(CLONE_NEWNS | CLONE_NEWNET) < 0:
        raise RuntimeError(f"Bochs needs namespaces: {os.strerror(ctypes.get_errno())}")
    work = initramfs.cache_directory() / "testhost" / "work"
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run(["/bin/mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "mode=700", "work", work], check=True)
    return work


def make_cd(work, kernel, initrd, arguments, todo):
    """A CD with which the machine starts: the loader, the kernel, and a second initramfs."""
    cd, second = work / "cd", work / "second"
    cd.mkdir()
    second.mkdir()
    (second / "instructions").write_bytes(todo)
    (second / "kvm_intel_options").write_text(arguments.kvm_intel)
    (cd / "second").write_bytes(initramfs.archive(second))
    for name, path in (("kernel", kernel), ("initrd", initrd), ("isolinux.bin", LOADER),
                       ("ldlinux.c32", LOADER_PART)):
        shutil.copyfile(path, cd / name)
    loglevel = "ignore_loglevel" if arguments.verbose else "loglevel=1"
    kernel_arguments = [*KERNEL_ARGUMENTS, WITHOUT, "nokaslr", loglevel,
                        f"tsc_early_khz={rate(arguments) // 1000}"]
    (cd / "isolinux.cfg").write_text(
        "default linux\nprompt 0\nlabel linux\nkernel kernel\ninitrd initrd,second\n"
        f"append {' '.join(kernel_arguments)}\n")
    subprocess.run([MAKE_CD, "-quiet", "-o", work / "cd.iso", "-b", "isolinux.bin", "-c",
                    "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", cd],
                   check=True, preexec_fn=die_with_parent)


def rate(arguments):
    return RATE_OF_VIRTUAL_TIME if arguments.virtual_time else RATE


def bochsrc(work, arguments):
    """The paths are relative to the directory that Bochs is started in."""
    def disk(name):
        return (f"type=disk, path={name}, cylinders={disks.cylinders(work / name)}, heads=16, "
                f"spt=63, translation=auto, mode=volatile, journal={name}.journal")
    return f"""
plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, gameport=0
config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: guest={arguments.memory}, host={arguments.memory}
romimage: file={BIOS}, options=fastboot
vgaromimage: file={VGA_BIOS}
cpu: model={MODEL}, count=1, ips={rate(arguments)}, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none, time0={int(time.time())}, rtc_sync=0
pci: enabled=1, chipset=i440fx
vga: extension=vbe, update_freq=1, realtime=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: {disk("root.disk")}
ata0-slave: {disk("shared.disk")}
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path=cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/fd/2
port_e9_hack: enabled=1
log: /dev/fd/2
logprefix: %t%e%d
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""
