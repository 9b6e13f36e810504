"""The kernel and the initramfs of the test host."""
import hashlib
import os
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FETCH_KERNEL = HERE.parent.parent / "rootfs-tools/kernel/fetch-debian.sh"
BUSYBOX = "/bin/busybox"
CPIO = "/usr/bin/cpio"
MODPROBE = "/sbin/modprobe"
OBJCOPY = "/usr/bin/objcopy"


def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base).resolve() / "mote"


def fetch_kernel():
    """The path of the kernel, with its modules beside it in lib/modules/<release>."""
    fetched = subprocess.run([FETCH_KERNEL], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
    if fetched.returncode != 0:
        raise RuntimeError(f"no kernel: {fetched.stderr.strip()}")
    return pathlib.Path(fetched.stdout.splitlines()[-1]).resolve()


def modules_directory(kernel):
    return next((kernel.parent / "lib/modules").iterdir())


def modules_in_order(kernel, names):
    """The files of these modules and what they need, each after what it needs itself."""
    listed = subprocess.run([MODPROBE, "-d", kernel.parent, "-S", modules_directory(kernel).name,
                             "-a", "-D", *names], stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.split() for line in listed.stdout.splitlines()]
    return [pathlib.Path(path) for path in
            dict.fromkeys(words[1] for words in lines if words[0] == "insmod")]


def initramfs(kernel, machine_part, module_names, programs=()):
    """
    The path of the cached initramfs, made first if its inputs have changed. `machine_part` is the
    file beside init that knows the machine.
    """
    modules = modules_in_order(kernel, module_names)
    contents = {"init": (HERE / "init").read_bytes(),
                "machine": (HERE / machine_part).read_bytes(),
                "modules/order": "".join(f"{path.name}\n" for path in modules).encode()}
    contents |= {f"bin/{pathlib.Path(path).name}": pathlib.Path(path).read_bytes()
                 for path in (BUSYBOX, *programs)}
    contents |= {f"modules/{path.name}": stripped(path) for path in modules}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    cached = cache_directory() / "testhost" / f"initramfs-{digest.hexdigest()[:16]}"
    if not cached.exists():
        make(cached, contents)
    return cached


def stripped(module):
    """Without its signature and type information, which take long to check."""
    with tempfile.NamedTemporaryFile() as made:
        subprocess.run([OBJCOPY, "-R", ".BTF", "-R", ".BTF_ids", module, made.name], check=True)
        return made.read()


def make(cached, contents):
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new.", dir=cached.parent) as work:
        tree = pathlib.Path(work, "tree")
        for name, content in contents.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o755)
        made = pathlib.Path(work, "initramfs")
        made.write_bytes(archive(tree))
        made.rename(cached)


def archive(tree):
    """What the kernel unpacks."""
    names = "".join(f"{path.relative_to(tree)}\0" for path in sorted(tree.rglob("*")))
    return subprocess.run([CPIO, "--quiet", "-0", "-o", "-H", "newc", "-R", "0:0"], cwd=tree,
                          input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
