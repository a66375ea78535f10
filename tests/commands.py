"""Commands as `isodepth` runs them, in this process: starting another costs a second or two."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from isodepth.cli import entry


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command printed, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments, cwd: Path | None = None, together: bool = False) -> Done:
    """Run a command to its end, in a folder; `together`: standard error within its output."""
    words = list(map(str, arguments))
    out = io.StringIO()
    err = out if together else io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or Path.cwd()),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["isodepth", *words])
        try:
            entry()
        except SystemExit as ended:
            status = ended.code
    return Done(returncode=int(status or 0), stdout=out.getvalue(), stderr=err.getvalue())
