"""The documents do not rot: Python blocks run, links lead somewhere, the guides work as written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GUIDE = ROOT / "docs" / "add-an-operator.md"

_EDIT = re.compile(
    r"^\*\*`(?P<path>[^`]+)`\*\*, (?:at the end|(?P<where>before|after) `(?P<anchor>[^\n]+)`):\n\n"
    r"```\w*\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
"""A block that the guide adds to a file of the project."""

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BASH = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAM = re.compile(r"^```c\n(#include <.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def python_blocks(document: Path) -> list[tuple[int, str]]:
    """Line number and text of every Python block that is no edit of a file."""
    text = document.read_text(encoding="utf-8")
    edits = [match.span() for match in _EDIT.finditer(text)]
    return [
        (text.count("\n", 0, match.start(1)) + 1, match.group(1))
        for match in _PYTHON.finditer(text)
        if not any(first <= match.start() < last for first, last in edits)
    ]


def commands(document: Path) -> list[tuple[int, str]]:
    """Line number and text of every `kilograd` command in a `bash` block."""
    text = document.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(1)) + 1, line)
        for match in _BASH.finditer(text)
        for line in match.group(1).replace("\\\n", " ").splitlines()
        if line.startswith("kilograd ")
    ]


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if python_blocks(d)], ids=lambda path: path.name
)
def test_blocks_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for package in ("sklearn", "unicorn"):
        pytest.importorskip(package)
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many small operators: threads would wait for each other
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": document.stem}
    shell = dict.fromkeys(commands(document))
    try:
        for line, text in sorted([*python_blocks(document), *shell]):
            if (line, text) in shell:
                run_command(text)
                continue
            # Padding makes a traceback name the line of the document.
            exec(compile("\n" * (line - 1) + text, str(document), "exec"), namespace)
    finally:
        torch.set_num_threads(threads)
    for match in _PROGRAM.finditer(document.read_text(encoding="utf-8")):
        run_c(match.group(1))


def run_command(line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kilograd.cli", *shlex.split(line)[1:]],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def run_c(program: str) -> None:
    """Build a program with the project that the document saved as `firmware`, and run it."""
    Path("app.c").write_text(program, encoding="utf-8")
    sources = [
        "app.c",
        *(str(path) for path in Path("firmware").glob("*.c") if path.stem != "main"),
    ]
    flags = "-std=c99 -O2 -Wall -Wextra -Wconversion -Werror -ffp-contract=off -fno-strict-aliasing"
    build = [sys.executable, "-m", "ziglang", "cc", *flags.split(), "-Ifirmware", *sources]
    subprocess.run([*build, "-o", "app"], check=True)
    done = subprocess.run(["./app"], capture_output=True, text=True)
    assert done.returncode == 0 and "refused" not in done.stdout, done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path):
    text = document.read_text(encoding="utf-8")
    for match in _LINK.finditer(text):
        target = next(group for group in match.groups() if group)
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), f"{document.name} links to {target}, which is not there"
        if heading:
            assert heading in headings(file), f"{document.name}: {file.name} has no #{heading}"


def headings(document: Path) -> set[str]:
    """The anchors of a document, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


_CHECK = """
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.conformance.c_cases import all_cases, build
from tests.conformance import test_operators as conformance
from tests.frontend.test_torch_operators import test_operator

cases = [case for case in all_cases() if case.name.startswith("softplus")]
assert len(cases) == 2, cases
cases = [replace(case, index=index) for index, case in enumerate(cases)]
with tempfile.TemporaryDirectory() as folder:
    library = build(cases, Path(folder))
    for case in cases:
        conformance.test_operator_is_complete(type(case.example.op))
        conformance.test_shapes_are_what_infer_says(case)
        conformance.test_c_equals_reference(case, library)
        conformance.test_reference_takes_any_batch(case)
        conformance.test_reference_is_the_same_in_torch(case)
        conformance.test_cost_is_counted(case)
conformance.test_gradient_equals_finite_differences(cases[0])
test_operator("softplus")
print("ok")
"""


def test_the_operator_of_the_guide_works(tmp_path: Path):
    """Applies the edits of docs/add-an-operator.md to a copy and runs the operator's tests."""
    pytest.importorskip("torch")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignore)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=ignore)
    edits = list(_EDIT.finditer(GUIDE.read_text(encoding="utf-8")))
    assert len(edits) >= 6
    for edit in edits:
        apply(tmp_path / edit["path"], edit["where"], edit["anchor"], edit["text"])
    done = subprocess.run(
        [sys.executable, "-c", _CHECK],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "ok", done.stderr[-4000:]


def apply(file: Path, where: str | None, anchor: str | None, text: str) -> None:
    """Add `text` to a file, at its end or at the only line that is `anchor`."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    at = len(lines)
    if where is not None:
        places = [i for i, line in enumerate(lines) if line.strip() == anchor]
        assert places, f"{file.name} has no line {anchor!r}"
        at = places[-1] + (where == "after")
    if text.startswith(("@", "def ")):
        text = f"\n\n{text}" if where is None else f"{text}\n\n"
    lines.insert(at, text)
    file.write_text("".join(lines), encoding="utf-8")
