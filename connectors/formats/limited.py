"""A library that reads outsiders' bytes, run as a child process under limits: what it does to itself, it does alone.

No format of its own: workbooks and vector files are read so.
"""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import msgspec

from security.errors import Refusal


class Answer(Protocol):
    """What every such child answers: code and detail of a refusal, "" where there is none."""

    @property
    def code(self) -> str: ...
    @property
    def detail(self) -> str: ...


T = TypeVar("T", bound=Answer)


def answer_of(
    module: ModuleType,
    arguments: list[str],
    given: bytes,
    kind: type[T],
    *,
    memory_bytes: int,
    wait_s: float,
    folder: Path | None = None,
) -> T:
    """What a module answers, run by its path in the folder with `given` on stdin.

    The child limits itself to the memory. At that limit a library may stand still instead of dying, hence wait_s.

    Raises Refusal decode.too_large, decode.not_readable, or the one that the child answers.
    """
    command = [sys.executable, "-I", str(Path(str(module.__file__))), str(memory_bytes), *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=wait_s, check=False, cwd=folder)
    except subprocess.TimeoutExpired as problem:
        raise Refusal("decode.too_large", f"more than {wait_s:.0f} s to read") from problem
    if done.returncode < 0:  # by a signal: at the limit of memory
        raise Refusal("decode.too_large", f"the reader was ended by signal {-done.returncode}")
    if done.returncode > 0:  # by an error that its library does not declare
        raise Refusal("decode.not_readable", "the reader did not expect these bytes")
    result = msgspec.msgpack.decode(done.stdout, type=kind)
    if result.code:
        raise Refusal(result.code, result.detail)
    return result
