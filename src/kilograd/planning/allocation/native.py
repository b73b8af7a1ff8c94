"""The search's C library: built once by the compiler that kilograd depends on, then kept.

The search tries some 10^5 placements a second, and each walks over all unplaced buffers; published
instances take up to millions of them, which is out of reach of the interpreter. C99 through `zig
cc` is what kilograd asks of a machine anyway: no new dependency, no build step at installation, no
wheel for each platform.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kilograd.errors import UserError

_SOURCE = Path(__file__).with_name("search.c")
# No -march: a home directory may be shared by machines with different processors.
_FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC", "-mcpu=baseline", "-fno-sanitize=undefined")


class NativeSearchError(UserError):
    """The search cannot be built on this machine; heuristics and CP-SAT work without it."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled search.c.

    It is kept in `KILOGRAD_CACHE` or ~/.cache/kilograd, under a hash of source, flags and compiler.

    Raises `NativeSearchError` when there is no compiler or no place to write to.
    """
    source = _SOURCE.read_bytes()
    identity = " ".join((_compiler_version(), platform.system(), platform.machine(), *_FLAGS))
    key = hashlib.sha256(identity.encode() + b"\0" + source).hexdigest()
    path = _cache_directory() / f"allocation_search-{key[:16]}.so"
    try:
        if not path.exists():
            _build(path)
        return _declared(ctypes.CDLL(str(path)))
    except OSError as error:
        raise NativeSearchError(
            f"the allocation search at {path} cannot be built or loaded: {error}; "
            "set KILOGRAD_CACHE to a directory that can be written to"
        ) from error


def _compiler_version() -> str:
    try:
        return f"ziglang {version('ziglang')}"
    except PackageNotFoundError as error:
        raise NativeSearchError(
            "the allocation search is C and needs a compiler: pip install ziglang"
        ) from error


def _cache_directory() -> Path:
    configured = os.environ.get("KILOGRAD_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "kilograd"


def _build(path: Path) -> None:
    """Compile into a private folder and rename, so that two processes at once both succeed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=path.parent) as scratch:
        built = Path(scratch) / path.name
        command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-o", str(built), str(_SOURCE)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise NativeSearchError(
                f"the allocation search does not compile here: {' '.join(command)} ended with "
                f"{result.returncode}: {result.stderr.strip()[-500:]}"
            )
        os.replace(built, path)


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    pointer, int32 = ctypes.c_void_p, ctypes.c_int32
    loaded.kg_allocation_search.restype = ctypes.c_int
    loaded.kg_allocation_search.argtypes = [int32, int32, *[pointer] * 6, int32, *[pointer] * 4]
    return loaded
