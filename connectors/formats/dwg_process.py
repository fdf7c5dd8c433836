"""Becomes the program that makes DXF of DWG, after it has shut itself off from the network and from other files.

The program is somebody else's and reads what outsiders made; a drawing that takes it over finds itself here: no socket,
no way out of its group of processes, only its own folder to write in, only programs and libraries to read (Landlock),
limited memory, file size and processor time. Neither needs a right, and neither can be taken back.
Run by path, by `connectors.formats.dwg`, in the folder; imports nothing of this project.
Arguments: a descriptor to say on what failed, the kernel's filter in hex, most bytes of memory, most bytes of a file,
seconds of processor; then the program and its arguments.
"""

import ctypes
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from typing import Final

# The same numbers on x86-64 and ARM64.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION: Final = 1
_BENEATH: Final = 1
# Rights over files, by their bits.
_EXECUTE, _WRITE, _READ, _LIST, _REMOVE, _MAKE, _TRUNCATE = (1 << bit for bit in (0, 1, 2, 3, 5, 8, 14))
_OF_FILES: Final = _EXECUTE | _WRITE | _READ | _TRUNCATE
_PROGRAM: Final = _EXECUTE | _READ | _LIST
_PROGRAMS: Final = ("/usr", "/bin", "/lib", "/lib64", "/opt", "/etc/ld.so.cache")
_SCOPED: Final = 0b11  # since version 6: no abstract sockets, and no signals, to processes outside


def main() -> None:
    """Limits first, then the program."""
    told, memory_bytes, file_bytes, processor_s = (int(sys.argv[at]) for at in (1, 3, 4, 5))
    program = sys.argv[6:]
    os.set_inheritable(told, False)
    for name in (signal.SIGXFSZ, signal.SIGPIPE):  # which Python ignores, and a program that it becomes would too
        signal.signal(name, signal.SIG_DFL)
    try:
        for limit, most in (
            (resource.RLIMIT_AS, memory_bytes),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, file_bytes),
            (resource.RLIMIT_CPU, processor_s),
        ):
            resource.setrlimit(limit, (most, most))
        libc = ctypes.CDLL(None, use_errno=True)
        _done(libc.prctl(1, signal.SIGKILL, 0, 0, 0))  # it ends with the worker that started it
        _done(libc.prctl(38, 1, 0, 0, 0))  # no new privileges
        _keep_to(libc, Path.cwd(), Path(program[0]).resolve().parent)
        _filter(libc, bytes.fromhex(sys.argv[2]))
    except (OSError, ValueError) as problem:
        _fail(told, f"isolation: {problem}")
    try:
        os.execv(program[0], program)  # noqa: S606  # no shell: that is the point
    except OSError as problem:
        _fail(told, f"program: {problem.strerror}")


def _fail(told: int, why: str) -> None:
    os.write(told, why.encode())
    sys.exit(1)


def _done(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _filter(libc: ctypes.CDLL, steps: bytes) -> None:
    """Have the kernel refuse what the filter (seccomp) names, to this process and all that it starts."""
    program = ctypes.create_string_buffer(steps)
    handed = (len(steps) // 8).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little")
    _done(libc.prctl(22, 2, ctypes.create_string_buffer(handed), 0, 0))


def _keep_to(libc: ctypes.CDLL, folder: Path, home: Path) -> None:
    """Have the kernel refuse all files but those of the folder, and programs and libraries, which are only read.

    No link, socket or device is made in the folder either: whoever reads there afterwards finds plain files.
    """
    version = _done(libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION))
    handled = (1 << min(12 + version, 15)) - 1
    rules = b"".join(value.to_bytes(8, "little") for value in (handled, 0, _SCOPED if version >= 6 else 0))
    ruleset = _done(libc.syscall(_CREATE, ctypes.create_string_buffer(rules), ctypes.c_size_t(24), 0))
    own = _READ | _WRITE | _LIST | _REMOVE | _MAKE | _TRUNCATE
    allowed = {**dict.fromkeys((*map(Path, _PROGRAMS), home), _PROGRAM), Path("/dev/null"): _READ | _WRITE, folder: own}
    for path, rights in allowed.items():
        if not path.exists():
            continue
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        given = rights & handled & (~0 if stat.S_ISDIR(os.fstat(opened).st_mode) else _OF_FILES)
        rule = given.to_bytes(8, "little") + opened.to_bytes(4, "little")
        _done(libc.syscall(_ADD, ruleset, _BENEATH, ctypes.create_string_buffer(rule), 0))
        os.close(opened)
    _done(libc.syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


if __name__ == "__main__":
    main()
