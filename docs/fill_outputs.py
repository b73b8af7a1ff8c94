"""Runs the blocks of a document in order and writes what they print below them.

    python docs/fill_outputs.py docs/tutorial.md ...

The output of a `python` block, or of the `kilograd` commands of a `bash` block, goes into the
`text` block that follows it. Other commands are not run. The tests run the same blocks and do not
compare outputs: where PyTorch trains a model, another processor may give it other last digits.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(
    r"^```(?P<language>python|bash)\n(?P<code>.*?)^```\n(?P<output>\n```text\n.*?^```\n)?",
    re.DOTALL | re.MULTILINE,
)


def main() -> None:
    """Fill the documents named on the command line."""
    for name in sys.argv[1:]:
        document = Path(name).resolve()
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            text = fill(document.read_text(encoding="utf-8"), document.stem)
        document.write_text(text, encoding="utf-8")


def fill(text: str, name: str) -> str:
    """The document with the outputs of this run."""
    namespace: dict[str, object] = {"__name__": name}

    def replace(match: re.Match[str]) -> str:
        code, output = match["code"], match["output"]
        if match["language"] == "python":
            printed = run_python(code, f"{name}.py", namespace)
        else:
            printed = "".join(run_command(line) for line in commands(code))
        if output is None:
            return match[0]
        head = match[0][: -len(output)]
        return f"{head}\n```text\n{printed.rstrip()}\n```\n"

    return BLOCK.sub(replace, text)


def commands(code: str) -> list[str]:
    """The `kilograd` commands of a block; a backslash continues a line."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("kilograd ")]


def run_python(code: str, file: str, namespace: dict[str, object]) -> str:
    """What the code prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, file, "exec"), namespace)
    return printed.getvalue()


def run_command(line: str) -> str:
    """What a command prints, on both streams; raises CalledProcessError where it fails."""
    words = [sys.executable, "-m", "kilograd.cli", *shlex.split(line)[1:]]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()
    return "\n".join(part.rstrip() for part in done.stdout.splitlines()) + "\n"


if __name__ == "__main__":
    main()
