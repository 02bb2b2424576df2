"""The example: it runs, and the READMEs show just that."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from daemon import Daemon

PACKAGE = Path(__file__).resolve().parents[1]
EXAMPLE = (PACKAGE / "examples" / "stack.py").read_text()


def test_the_example_runs(daemon: Daemon) -> None:
    code = EXAMPLE.replace("http://127.0.0.1:5001", daemon.http).replace("5002", str(daemon.capture[1]))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "0 tiles are missing\nread back: (512, 640) uint16 True\n"


@pytest.mark.parametrize("readme", [PACKAGE / "README.md", PACKAGE.parents[1] / "README.md"], ids=["package", "root"])
def test_the_readme_shows_the_example(readme: Path) -> None:
    assert len(EXAMPLE.splitlines()) <= 15
    assert textwrap.indent(EXAMPLE, "    ", lambda line: line.strip()) in readme.read_text()
