"""Writes to disk, all of it or nothing: a file, or a project as a directory or an archive."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from kilograd.codegen import layouts
from kilograd.codegen.layouts import Package
from kilograd.errors import InputError
from kilograd.execution.build import write_files

MANIFEST = "manifest.json"
_ARCHIVES = (".zip", ".pack")
# The oldest time that a zip can hold: the archive depends on the files alone.
_TIME = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100644


def write_file(path: Path, content: bytes, what: str) -> None:
    """Write a file, replacing one that is there. Interrupted, it leaves what there was before.

    Raises InputError where `what` (in the user's words) cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".kilograd-") as new:
            part = Path(new) / path.name
            part.write_bytes(content)
            part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {what} to {path}: {error}") from error


def save_project(
    files: Mapping[str, str], path: Path, layout: str, package: Package, force: bool
) -> Path:
    """Write the files of a layout to a directory, or to the archive that `path` names.

    Raises InputError where the path cannot be written or replaced; it is then as it was.
    """
    target = path.resolve()
    is_archive = target.suffix in _ARCHIVES
    if is_archive:
        _check_archive(path, target, layout, package, force)
    else:
        _check_directory(path, target, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kilograd-") as scratch:
            staged, replaced = Path(scratch) / "project", Path(scratch) / "replaced"
            if is_archive:
                _write_archive(files, staged, "" if layout == "cmsis-pack" else package.folder_name)
            else:
                write_files(files, staged)
            try:
                if target.exists():
                    target.rename(replaced)
                staged.rename(target)
            except BaseException:
                if replaced.exists() and not target.exists():
                    replaced.rename(target)
                raise
    except OSError as error:
        raise InputError(f"cannot write the C project to {path}: {error}") from error
    return path


def _write_archive(files: Mapping[str, str], path: Path, root: str) -> None:
    """A zip with the files below the folder `root`, or at its top where that is empty."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{root}/{name}" if root else name, _TIME)
            entry.external_attr = _REGULAR_FILE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name].encode())


def _check_archive(path: Path, target: Path, layout: str, package: Package, force: bool) -> None:
    """Refuse a name that the layout's tools would not take, and a file that is not ours."""
    prescribed = layouts.archive_name(layout, package)
    if target.suffix == ".pack" and prescribed is None:
        raise InputError(f"{path}: only the layout cmsis-pack is a .pack; name a .zip or a folder")
    if target.suffix == ".pack" and target.name != prescribed:
        raise InputError(f"{path}: a pack of this network has to be called {prescribed}")
    if not target.exists():
        return
    if target.is_dir():
        raise InputError(f"{path} is a directory; name a file for the archive")
    if not force:
        raise InputError(f"{path} exists; choose another name, or force it (--force)")
    if not _is_archive(target):
        raise InputError(f"{path} is no archive that kilograd wrote, so it is not replaced")


def _check_directory(path: Path, target: Path, force: bool) -> None:
    """Refuse a directory that cannot be replaced without losing what is not ours."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{path} is a file; name a directory to write the C project to")
    if Path.cwd().is_relative_to(target):
        raise InputError(
            f"the C project replaces a directory as a whole, which {path} cannot be, as "
            "it holds the current one; name a new directory inside, such as firmware"
        )
    if not target.exists() or not any(target.iterdir()):
        return
    if not force:
        raise InputError(f"{path} is not empty; choose another directory, or force it (--force)")
    try:
        ours = _is_manifest((target / MANIFEST).read_bytes())
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f"{path} holds files that kilograd did not write (it has no {MANIFEST} of a "
            "kilograd project), so it is not replaced; choose another directory"
        )


def _is_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.split("/")[-1] == MANIFEST]
            return any(_is_manifest(archive.read(name)) for name in names)
    except (OSError, zipfile.BadZipFile):
        return False


def _is_manifest(content: bytes) -> bool:
    try:
        manifest = json.loads(content)
    except ValueError:
        return False
    return isinstance(manifest, dict) and "kilograd" in manifest
