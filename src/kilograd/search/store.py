"""Measurements on disk, one file each, by the hash of everything that they depend on.

    <directory>/<first two digits of key>/<key>.json

A file is written under another name, synchronised and renamed, so at every moment it is whole or
not there, whatever is killed. Files rather than a database: workers on several machines may share
the directory through a network file system, where the locks of SQLite's WAL mode do not work, and
nothing has to be locked because equal keys have equal contents.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kilograd.errors import InputError
from kilograd.ir import Graph

FORMAT = "kilograd measurement 1"
_PARTIAL = ".partial"
_OLD_SECONDS = 3600.0
_PROGRAM_TEXT = (
    *("ir", "ops", "transforms", "planning", "codegen", "runtime", "execution"),
    *("compiler.py", "options.py", "update.py", "search/training.py", "search/task.py"),
)
"""What decides on the text of a program and on how it is run here."""


@dataclass(frozen=True)
class Score:
    """What one run came to: the share of right answers and the mean loss on the samples to judge
    by. `diverged`: training met NaN or infinity and stopped there.
    """

    accuracy: float
    loss: float
    diverged: bool = False


def key_of(inputs: Mapping[str, Any]) -> str:
    """The hash of a mapping of JSON values."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


class Store:
    """A directory of measurements; any number of processes may use it at once."""

    def __init__(self, directory: Path) -> None:
        """Use a directory, which is made when something is written."""
        self.directory = directory

    def path(self, key: str) -> Path:
        """Where the measurement is, or would be."""
        return self.directory / key[:2] / f"{key}.json"

    def get(self, key: str) -> Score | None:
        """The measurement of that key; None where it is missing or no whole file of ours."""
        try:
            content = json.loads(self.path(key).read_text(encoding="utf-8"))
            score = Score(**content["score"])
            good = content["format"] == FORMAT and content["sha256"] == _checksum(content)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return score if good and key_of(content["inputs"]) == key else None

    def put(self, inputs: Mapping[str, Any], score: Score) -> None:
        """Write a measurement with what it depends on. Raises InputError where that fails."""
        path = self.path(key_of(inputs))
        content = {"format": FORMAT, "inputs": dict(inputs), "score": asdict(score)}
        content["sha256"] = _checksum(content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
        except OSError as error:
            raise InputError(f"cannot write to {self.directory}: {error}") from error

    def clean(self) -> None:
        """Remove what killed processes left half written more than an hour ago."""
        for path in self.directory.glob(f"*/*{_PARTIAL}"):
            try:
                if time.time() - path.stat().st_mtime > _OLD_SECONDS:
                    path.unlink()
            except OSError:  # another process was first
                continue


def _checksum(content: Mapping[str, Any]) -> str:
    return key_of({name: part for name, part in content.items() if name != "sha256"})


def _write(path: Path, data: bytes) -> None:
    """Replace a file so that a crash at any moment leaves the old one or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=_PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def graph_digest(graph: Graph) -> str:
    """A hash of a forward graph: its nodes, types and constants."""
    digest = hashlib.sha256(str(graph).encode())
    for value, tensor in graph.constants.items():
        origin = tensor.origin.name if tensor.origin else ""
        digest.update(f"{value.name} {value.type} {value.type.quantization} {origin}\n".encode())
        digest.update(np.ascontiguousarray(tensor.array).tobytes())
    return digest.hexdigest()


@cache
def program_text() -> str:
    """A hash of the sources of kilograd that decide on the text of a program and its training."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for name in _PROGRAM_TEXT:
        place = root / name
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        for path in files:
            if path.suffix in (".py", ".h", ".c", ".inc", ".j2"):
                digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
