"""The files of a machine that Bochs emulates, on disks that are only read."""
import hashlib
import os
import pathlib
import subprocess
import time

from initramfs import cache_directory
from machine import die_with_parent

APT_CACHE = "/usr/bin/apt-cache"
DPKG_QUERY = "/usr/bin/dpkg-query"
MKFS = "/usr/bin/mkfs.erofs"
TAR = "/usr/bin/tar"
# Whose files COMMAND sees, with those of what they depend on and of Debian's base, besides the
# shared directories.
PACKAGES = """python3 python3-pytest python3-yaml python3-jsonschema curl procps iproute2 e2fsprogs
    fio iperf3 nftables passt busybox-static cpio erofs-utils kmod mount util-linux check
    libjansson4 libevent-core-2.1-7 libevent-extra-2.1-7 liburing2 libhttp-parser2.9 libcap2
    uidmap binutils libarchive-tools""".split()
# Large, and not needed.
LEFT_OUT = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/info", "/boot",
            "/lib/modules", "/usr/lib/modules")
# Files of no package: alternatives, and what is made when a package is installed.
LINKS_OF = ["/etc", "/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu"]
MADE = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/subuid", "/etc/subgid", "/etc/hosts",
        "/etc/nsswitch.conf", "/etc/ld.so.cache"]
# What a machine mounts something at, or writes to.
EMPTY = ["proc", "sys", "dev", "tmp", "run", "root", "var/tmp"]
# Of the working tree's build directory only these are for a run.
BUILT = ["release", "guests"]
CYLINDER_BYTES = 16 * 63 * 512
UNUSED_SECONDS = 7 * 24 * 3600


def output(*command, check=True):
    # Packages that are not installed are named on stderr, and do not matter.
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=check,
                          preexec_fn=die_with_parent).stdout.decode(errors="surrogateescape")


def make_disk(disk, folder, left_out=()):
    """What is mounted in the folder is on the disk, too."""
    subprocess.run([MKFS, "--quiet", *(f"--exclude-path={path}" for path in left_out), disk,
                    folder], check=True, pass_fds=pass_fds(disk), preexec_fn=die_with_parent)
    os.truncate(disk, -(-os.path.getsize(disk) // CYLINDER_BYTES) * CYLINDER_BYTES)


def pass_fds(disk):
    return [int(disk.name)] if disk.parent == pathlib.Path("/proc/self/fd") else []


def cylinders(disk):
    return os.path.getsize(disk) // CYLINDER_BYTES


def packages():
    """PACKAGES, Debian's base, and what they depend on, as far as they are installed."""
    listed = output(DPKG_QUERY, "-W", "-f", "${Package} ${Essential} ${Priority}\\n")
    base = [words[0] for words in map(str.split, listed.splitlines())
            if "yes" in words[1:] or words[-1] in ("required", "important")]
    found = output(APT_CACHE, "depends", "--recurse", "--installed", "--no-recommends",
                   "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces",
                   "--no-enhances", *base, *PACKAGES)
    return sorted({line.split(":")[0] for line in found.splitlines()
                   if line[:1] not in (" ", "<", "")})


def after_the_merge(name):
    """The path of a package's file on a system with a merged /usr."""
    top = name.split("/")[1]
    merged = top in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    return "/usr" + name if merged and name.count("/") > 1 else name


def files_of(names):
    listed = output(DPKG_QUERY, "-L", *names, check=False).splitlines()
    wanted = {after_the_merge(name) for name in listed
              if name.startswith("/") and name != "/." and not name.startswith(LEFT_OUT)}
    # Python would compile its modules each time.
    compiled = {pathlib.Path(name).parent / "__pycache__" for name in wanted
                if name.endswith(".py")}
    wanted |= {str(path) for folder in compiled for path in (folder, *folder.glob("*.pyc"))}
    wanted |= {str(path) for folder in LINKS_OF for path in pathlib.Path(folder).rglob("*")
               if path.is_symlink()}
    return sorted(name for name in [*wanted, *MADE] if os.path.lexists(name))


def root_disk(work):
    """The path of the cached disk of the packages, made first if they have changed."""
    names = packages()
    versions = output(DPKG_QUERY, "-W", *names, check=False)
    digest = hashlib.sha256(versions.encode() + pathlib.Path(__file__).read_bytes()).hexdigest()
    folder = cache_directory() / "testhost"
    cached = folder / f"root-{digest[:16]}"
    if cached.exists():
        os.utime(cached)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        make_root_disk(cached, work / "root", files_of(names))
    for other in folder.glob("root-*"):
        if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            other.unlink(missing_ok=True)
    return cached


def make_root_disk(cached, stage, names):
    stage.mkdir()
    with subprocess.Popen([TAR, "-C", stage, "-x"], stdin=subprocess.PIPE,
                          preexec_fn=die_with_parent) as unpack:
        subprocess.run([TAR, "-C", "/", "-c", "--no-recursion", "--verbatim-files-from", "-T",
                        "-"], input="".join(f"{name[1:]}\n" for name in names).encode(
                            errors="surrogateescape"),
                       stdout=unpack.stdin, check=True, preexec_fn=die_with_parent)
    if unpack.returncode != 0:
        raise RuntimeError("the files of packages cannot be copied")
    for name in EMPTY:
        (stage / name).mkdir(parents=True, exist_ok=True)
    # It gets its name when it is whole; until then it goes with this process.
    fd = os.open(cached.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        unnamed = pathlib.Path(f"/proc/self/fd/{fd}")
        make_disk(unnamed, stage)
        # Only with a directory, of which an absolute path makes no use, Python follows the link.
        os.link(unnamed, cached, src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        pass        # another run has just made it
    finally:
        os.close(fd)


def shared_disk(work, shares, tree):
    """Makes a disk with each of the directories under its number."""
    stage = work / "shared"
    left_out = []
    for number, (source, _) in enumerate(shares):
        (stage / str(number)).mkdir(parents=True)
        subprocess.run(["/bin/mount", "--bind", source, stage / str(number)], check=True)
        if source == tree:
            left_out += [f"{number}/.git"]
            left_out += [f"{number}/build/{path.name}" for path in (tree / "build").glob("*")
                         if path.is_dir() and path.name not in BUILT]
            left_out += [f"{number}/{path.relative_to(tree)}"
                         for path in (tree / "build").glob("*/obj")]
        elif source == cache_directory():
            left_out += [f"{number}/testhost"]
            left_out += [f"{number}/{path.relative_to(source)}" for path in outdated(source)]
    disk = work / "shared.disk"
    make_disk(disk, stage, left_out)
    return disk


def outdated(cache):
    """The kernels that are no more the current ones of their kind."""
    for kind in (cache / "kernels").glob("*"):
        yield from (path for path in kind.glob("*")
                    if path.is_dir() and not path.is_symlink()
                    and path.name != os.readlink(kind / "current"))
