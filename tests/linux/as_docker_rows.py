# SPDX-License-Identifier: Apache-2.0
"""
What a program finds, as rows of one command each. Those of a group run one after another in one
container, or one microVM, of one small image. Podman's answers are in as_docker.json, which `make
as-docker` writes; DIFFERENT has where mote's are others, and why.
"""
import dataclasses
import os
import pathlib
import pty
import shlex
import subprocess
import typing

PASSWD = ("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
          "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
GROUP = "root:x:0:\ntty:x:5:\nwheel:x:10:root\napp:x:1000:\nextra:x:2000:app\nmore:x:2001:app\n"


@dataclasses.dataclass
class Group:
    """Rows are shell commands; without rows the container's own command is the one row."""
    rows: dict = dataclasses.field(default_factory=dict)
    options: tuple = ()
    files: typing.Callable = lambda tree: None
    config: dict = dataclasses.field(default_factory=dict)
    command: tuple = ()
    tty: bool = False


def make_tree(tree, files):
    """A small image's files."""
    (tree / "bin").mkdir(parents=True)
    tree.chmod(0o755)
    (tree / "bin/busybox").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, check=True).stdout
    for name in names.decode().split():
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    for path, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
        (tree / "etc").mkdir(exist_ok=True)
        (tree / path).write_text(text)
    for path, mode, owner in (("root", 0o700, 0), ("home/app", 0o755, 1000), ("tmp", 0o1777, 0)):
        (tree / path).mkdir(parents=True)
        (tree / path).chmod(mode)
        os.chown(tree / path, owner, owner)
    files(tree)


def words(group):
    """The command line of a group: its script, or its own command."""
    if not group.rows:
        return list(group.command)
    script = "".join(f"echo '@@ {name}'; sh -c {shlex.quote(text)} 2>&1; echo \"= $?\"\n"
                     for name, text in group.rows.items())
    return ["sh", "-c", script]


def answers(name, group, output, status):
    """Of each row what it wrote and its status."""
    text = output.replace("\r\n", "\n")
    if not group.rows:
        return {name: text + f"= {status}\n"}
    found = {}
    for part in text.split("@@ ")[1:]:
        row, _, said = part.partition("\n")
        found[f"{name}/{row}"] = said
    return found


def on_terminal(command):
    """Its output and status, with a terminal as its streams."""
    output = bytearray()

    def read(fd):
        data = os.read(fd, 65536)
        output.extend(data)
        return b"\0" if data else data

    status = pty.spawn(command, read, lambda fd: b"")
    return bytes(output).replace(b"\0", b""), os.waitstatus_to_exitcode(status)


def output_of(command, tty):
    """Its output, both streams of it, and its status."""
    if tty:
        return on_terminal(command)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.stdout, done.returncode


def run_files(tree):
    """Directories that other programs mount over."""
    for path, mode, owner in (("run/db", 0o2775, 70), ("var/run", 0o755, 0), ("var/tmp", 0o1777, 0)):
        (tree / path).mkdir(parents=True)
        os.chown(tree / path, owner, owner)
        (tree / path).chmod(mode)
    (tree / "tmp/seed").write_text("seed\n")
    (tree / "srv/a/b").mkdir(parents=True)
    (tree / "srv/a/b/f").write_text("f\n")
    (tree / "old").write_text("old\n")
    os.utime(tree / "old", (0, 0))
    os.chown(tree, 3, 4)
    tree.chmod(0o711)


def etc_links(tree):
    """Links where a machine has files, one of them dangling."""
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (tree / "etc/hostname").write_text("built-here\n")
    (tree / "etc/hosts").write_text("192.0.2.1 from-the-image\n")


def as_user(name):
    """What an ordinary user may do with streams and ports, and who it is."""
    return {
        "id": "id", "home": "echo $HOME; cd; pwd",
        "to-stdout": "echo hello > /dev/stdout", "to-stderr": "echo hello > /dev/stderr",
        "to-fd": "echo hello > /proc/self/fd/1", "append": "echo hello >> /dev/stdout",
        "from-stdin": "echo in | cat /dev/stdin", "tee": "echo a | tee /dev/stderr",
        "port": "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "ping": "ping -c 1 -W 1 127.0.0.1 | grep -c 'bytes from'",
        "not-root": "touch /etc/new", "own-tmp": "touch /tmp/mine && stat -c %u /tmp/mine",
        "shm": "touch /dev/shm/x && echo ok", "null": "echo x > /dev/null && echo ok",
        "kcore": "head -c 1 /proc/kcore 2> /dev/null | wc -c",
        "sysrq": "echo h 2>/dev/null > /proc/sysrq-trigger; test $? -ne 0 && echo no",
    }


GROUPS = {
    "plain": Group({
        "dev-fd": "readlink /dev/fd", "dev-stdin": "readlink /dev/stdin",
        "dev-stdout": "readlink /dev/stdout", "dev-stderr": "readlink /dev/stderr",
        "full": "stat -c '%a %t,%T' /dev/full", "null": "stat -c '%a %t,%T' /dev/null",
        "zero": "stat -c '%a %t,%T' /dev/zero", "tty": "stat -c '%a %t,%T' /dev/tty",
        "random": "stat -c '%a %t,%T' /dev/random", "urandom": "stat -c '%a %t,%T' /dev/urandom",
        "ptmx": "stat -L -c '%a %t,%T' /dev/ptmx", "shm": "stat -c %a /dev/shm; "
        "stat -f -c %T /dev/shm", "mqueue": "stat -c %a /dev/mqueue",
        "pts": "test -d /dev/pts && grep -o 'gid=5' /proc/mounts",
        "full-is-full": "echo x > /dev/full", "fd-opens": "exec 5< /etc/passwd; head -1 /dev/fd/5",
        "to-stdout": "echo important > /dev/stdout", "stdin": "echo hello | cat /dev/stdin",
        "path": "echo $PATH", "home": "echo $HOME", "term": "echo [$TERM]",
        "hostname-variable": "test \"$HOSTNAME\" = \"$(hostname)\" && echo same",
        "hostname-file": "test \"$(cat /etc/hostname)\" = \"$(hostname)\" && echo same",
        "localhost": "grep -c '^127.0.0.1.localhost' /etc/hosts",
        "own-name": "grep -c \"$(hostname)\" /etc/hosts", "id": "id", "umask": "umask",
        "files": "ulimit -n; ulimit -Hn", "stack": "ulimit -s", "core": "ulimit -c",
        "pwd": "pwd", "run": "ls -d /run", "proc": "test -d /proc/1 && echo yes",
        "sys": "test -d /sys/class && echo yes", "root": "stat -c '%a %u %g' /",
        "port-start": "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "ping-range": "cat /proc/sys/net/ipv4/ping_group_range",
        "loopback": "ping -c 1 -W 1 127.0.0.1 | grep -c 'bytes from'",
        "sigpipe": "yes | head -1", "signals-blocked": "grep SigBlk /proc/self/status",
        "signals-ignored": "grep SigIgn /proc/self/status", "nice": "nice",
        "descriptors": "ls /proc/self/fd | tr '\\n' ' '", "argv0": "sh -c 'echo $0' name",
        "oom": "cat /proc/self/oom_score_adj", "cgroup": "test -f /proc/self/cgroup && echo yes",
    }),
    "run": Group({
        "run-db": "stat -c '%a %u %g' /run/db", "var-run": "stat -c '%a %u %g' /var/run",
        "var-tmp": "stat -c '%a %u %g' /var/tmp", "tmp": "stat -c '%a %u %g' /tmp",
        "seed": "cat /tmp/seed", "root": "stat -c '%a %u %g' /", "old": "stat -c %Y /old",
        "lock": "touch /run/db/lock && ls /run/db", "rename": "mv /srv/a /srv/c && cat /srv/c/b/f",
        "rename-new": "mkdir /srv/n && mv /srv/n /srv/m && ls /srv",
        "remove": "rm -r /srv/c && ls /srv", "link": "ln /old /hard && stat -c %h /hard",
        "devices": "mknod /tmp/null c 1 3 && echo x > /tmp/null && echo ok",
    }, files=run_files),
    "etc": Group({
        "hosts": "grep -c from-the-image /etc/hosts", "hostname": "cat /etc/hostname",
        "uname": "hostname", "added": "grep -E 'one|two' /etc/hosts | tr -s '\\t ' ' '",
        "hosts-mode": "stat -c '%a %u %g' /etc/hosts", "edit": "echo '# x' >> /etc/hosts; echo $?",
    }, files=etc_links, options=("--hostname", "the-host", "--add-host", "one:192.0.2.7",
                                 "--add-host", "two:2001:db8::7")),
    "user": Group(as_user("app"), options=("--user", "app")),
    "number": Group(as_user("4321"), options=("--user", "4321")),
    "user-of-image": Group({"id": "id", "home": "echo $HOME", "out": "echo x > /dev/stdout"},
                           config={"user": "app"}),
    "user-group": Group({"id": "id", "out": "echo x > /dev/stdout"},
                        options=("--user", "app:extra")),
    "user-number-group": Group({"id": "id", "home": "echo $HOME"},
                               options=("--user", "1000:4000")),
    "workdir-of-image": Group({"pwd": "pwd", "mode": "stat -c '%a %u %g' . .."},
                              config={"workdir": "/srv/app"}),
    "workdir": Group({"pwd": "pwd", "mode": "stat -c '%a %u %g' . /new"},
                     options=("--workdir", "/new/dir", "--user", "app")),
    "workdir-private": Group({"pwd": "pwd"}, options=("--workdir", "/root", "--user", "app")),
    "environment": Group({
        "image": "echo $A $B", "own": "echo $C", "path": "echo $PATH", "caller": "echo $CALLER",
        "empty": "echo \"[$EMPTY]\" ${EMPTY+set}", "lines": "echo \"$LINES_\"",
        "file": "echo $FROM_FILE; echo \"$SPACED\"; echo ${COMMENT-none}", "absent": "echo ${NOT_THERE-no}",
        "home": "echo $HOME", "big": "echo ${#BIG}", "bytes": "printf %s \"$BYTES\" | od -An -tx1",
    }, config={"env": ["A=image", "B=image", "PATH=/opt/bin:/bin"]},
        options=("-e", "B=given", "-e", "C=x=y z", "-e", "CALLER", "-e", "EMPTY=", "-e",
                 "LINES_=two\nlines", "-e", "NOT_THERE", "--env-file", "@env", "-e", "HOME=/else",
                 "-e", "BIG=" + "x" * 100000, "-e", "BYTES=caf\udce9")),
    "terminal": Group({
        "term": "echo $TERM", "is": "test -t 0 && test -t 1 && test -t 2 && echo yes",
        "name": "tty", "mode": "stat -L -c '%a %u %g' /proc/self/fd/0",
    }, options=("-t",), tty=True),
    "tmpfs": Group({
        "type": "stat -f -c %T /data /cache", "mode": "stat -c '%a %u %g' /data /cache",
        "size": "df -k /cache | awk 'NR == 2 { print $2 }'",
        "noexec": "cp /bin/busybox /data/b; chmod 755 /data/b; /data/b true",
    }, options=("--tmpfs", "/data", "--tmpfs", "/cache:size=1m,mode=700")),
    "ulimit": Group({"files": "ulimit -n; ulimit -Hn", "core": "ulimit -c",
                     "stack": "ulimit -s"},
                    options=("--ulimit", "nofile=100:200", "--ulimit", "core=0")),
    "entrypoint": Group(config={"entrypoint": ["echo", "entry"], "cmd": ["cmd"]}),
    "entrypoint-words": Group(config={"entrypoint": ["echo", "entry"], "cmd": ["cmd"]},
                              command=("given",)),
    "entrypoint-other": Group(config={"entrypoint": ["echo", "entry"], "cmd": ["cmd"]},
                              options=("--entrypoint", "echo"), command=("a", "b")),
    "killed": Group(command=("sh", "-c", "kill -KILL $$")),
    "bytes": Group(command=("sh", "-c", "printf %s \"$1\" | od -An -tx1", "x", "caf\udce9")),
    "init": Group({"id": "id -u"}, options=("--init",)),
}

PORTS = "docker's default, where podman leaves the kernel's"
DIFFERENT = {
    "plain/term": ("[]\n= 0\n", "docker's: without a terminal there is none to name"),
    "plain/id": ("uid=0(root) gid=0(root) groups=0(root),10(wheel)\n= 0\n", "docker's"),
    "plain/port-start": ("0\n= 0\n", PORTS),
    "plain/ping-range": ("0\t2147483647\n= 0\n", PORTS),
    "plain/loopback": ("1\n= 0\n", "root of a microVM may open raw sockets"),
    "run/root": ("711 3 4\n= 0\n", "podman's vfs driver does not keep the root's owner"),
    "run/devices": ("ok\n= 0\n", "root of a microVM may make devices"),
    "etc/hostname": ("the-host\n= 0\n", "docker's: it is a line"),
    "workdir/pwd": ("/new/dir\n= 0\n", "docker makes it, podman 4.3 refuses it"),
    "workdir/mode": ("755 0 0\n755 0 0\n= 0\n", "likewise"),
    "environment/bytes": (" 63 61 66 e9\n= 0\n", "podman changes bytes that are not UTF-8"),
    "bytes": (" 63 61 66 e9\n= 0\n", "podman changes bytes that are not UTF-8"),
    "tmpfs/noexec": ("sh: /data/b: Permission denied\n= 126\n", "docker's default"),
    "killed": ("= 137\n", "it is not process 1, which cannot kill itself"),
    "init/id": ("0\n= 0\n", "podman needs a program for it"),
    "number/id": ("uid=4321 gid=0(root) groups=0(root)\n= 0\n", "docker's, who adds no name"),
    "user-number-group/id": ("uid=1000(app) gid=4000 groups=4000\n= 0\n", "likewise"),
    **{f"{group}/port": ("0\n= 0\n", PORTS) for group in ("user", "number")},
}
ENV_FILE = "# a comment\nFROM_FILE=file\nSPACED=a b \"c\"\n#COMMENT=x\nCALLER\n"
CALLER = {"CALLER": "from the caller", "TERM": "xterm"}
