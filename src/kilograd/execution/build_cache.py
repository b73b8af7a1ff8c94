"""Build outputs by the hash of all that goes into them, so that equal work is done once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

_HEADER_SUFFIXES = (".h", ".inc")


def cache_directory() -> Path:
    """Where build outputs are kept: `KILOGRAD_CACHE`, or `~/.cache/kilograd`."""
    configured = os.environ.get("KILOGRAD_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "kilograd"


def build_key(command: Iterable[str], sources: Sequence[Path], include_dirs: Sequence[Path]) -> str:
    """Hash a build: flags and toolchain version, the sources, and every header they may include.

    Directories count by their content, not by their path, so a project in a fresh temporary folder
    finds what the same project built elsewhere.
    """
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)

    add(*(part.encode() for part in command))
    for source in sources:
        add(b"source", source.name.encode(), source.read_bytes())
    # A quoted include also looks beside the file that includes it.
    beside = sorted({source.resolve().parent for source in sources})
    for directory in beside:
        _add_headers(add, directory, recursive=False)
    for directory in include_dirs:
        _add_headers(add, directory, recursive=True)
    return digest.hexdigest()


def _add_headers(add: Callable[..., None], directory: Path, *, recursive: bool) -> None:
    add(b"directory")
    pattern = "**/*" if recursive else "*"
    for path in sorted(directory.glob(pattern)):
        if path.suffix in _HEADER_SUFFIXES and path.is_file():
            add(path.relative_to(directory).as_posix().encode(), path.read_bytes())


def fetch(key: str, output: Path) -> bool:
    """Copy the cached build `key` to `output`; False if there is none."""
    entry = cache_directory() / key[:2] / key
    if not entry.is_file():
        return False
    _copy_atomically(entry, output)
    return True


@contextlib.contextmanager
def publish(key: str, output: Path) -> Iterator[Path]:
    """Give a private path to build into; on success it becomes the entry `key` and `output`.

    Two processes that build the same thing at once both succeed: each writes its own file, and the
    rename that publishes it is atomic.
    """
    entry = cache_directory() / key[:2] / key
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=entry.parent) as scratch:
        built = Path(scratch) / "output"
        yield built
        _copy_atomically(built, output)
        os.replace(built, entry)


def _copy_atomically(source: Path, target: Path) -> None:
    """Copy so that whoever reads `target` or has it loaded sees the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        shutil.copy(source, name)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
