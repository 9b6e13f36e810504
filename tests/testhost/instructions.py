"""What init is told to do."""
import os
import pathlib

import initramfs


def quoted(text):
    """`text`, of any bytes, as one word of the shell."""
    return b"'" + os.fsencode(text).replace(b"'", b"'\\''") + b"'"


def working_tree():
    """The git working tree that holds the current directory, or else that directory."""
    here = pathlib.Path.cwd()
    return next((path for path in (here, *here.parents) if (path / ".git").exists()), here)


def initial_environment():
    """As given to this process: Python adds LC_CTYPE to os.environ."""
    entries = pathlib.Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def shared_directories(kernel):
    """Of each its path, and the one inside."""
    modules = initramfs.modules_directory(kernel)
    return [(modules, f"/lib/modules/{modules.name}")] + [
        (path, path) for path in (initramfs.cache_directory(), working_tree())
        if path != pathlib.Path("/")]


def instructions(arguments, shares):
    """
    Two shell functions for init: what to share, each by a name that init-qemu or init-bochs knows
    and with its path, and how to start COMMAND.
    """
    environment = initial_environment() | {b"MOTE_TESTHOST": b"1"}
    if arguments.virtual_time:
        environment[b"MOTE_VIRTUAL_TIME"] = b"1"
    # env would take a COMMAND with a "=" in its name for a variable; setsid does not.
    words = ["/usr/bin/env", "-i", "--", *map(b"=".join, environment.items()),
             "/usr/bin/setsid", "--", *arguments.command]
    return b"".join([
        b"share_directories() {\n",
        *(b"share %s %s\n" % (quoted(source), quoted(target)) for source, target in shares),
        b"}\nrun_command() {\n",
        b"cd %s && exec %s\n" % (quoted(os.getcwd()), b" ".join(map(quoted, words))),
        b"}\n"])
