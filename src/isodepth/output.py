"""Where the results of a command go: the part of the contract that every command shares."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from isodepth.errors import InputError
from isodepth.files import write_whole
from isodepth.terminal import console, printable


@dataclass(frozen=True, kw_only=True)
class Output:
    """Options of every command."""

    json: Annotated[str | None, arg(metavar="PATH")] = None
    """Write the result as JSON; '-' is standard output, which then holds nothing else."""
    quiet: bool = False
    """Print no report and no progress."""

    def write(self, result: dict[str, Any]) -> None:
        """Write the result where `--json` says, if it says.

        Raises InputError where the path can't be written.
        """
        if self.json is None:
            return
        text = json.dumps(result, allow_nan=False) + "\n"
        if self.json == "-":
            sys.stdout.write(text)
            return
        try:
            write_whole(Path(self.json), text)
        except OSError as error:
            raise InputError(f"{self.json} can't be written: {error.strerror}") from error

    @contextmanager
    def fitting(self) -> Iterator[Callable[[str, float], None]]:
        """A bar on standard error; yields what `fit` takes as `on_progress`."""
        if self.quiet:
            yield lambda stage, share: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console(stderr=True), transient=True) as bar:
            task = bar.add_task("reading", total=1.0)
            yield lambda stage, share: bar.update(task, description=stage, completed=share)

    def say(self, text: str) -> None:
        """Tell the user something that is not a result, on standard error."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def say_page(self, out: Path) -> None:
        """Tell where the page of a result's folder is, or what it needs."""
        from isodepth.report.page import PAGE, plotly_installed

        self.say(
            f"page: {out / PAGE}"
            if plotly_installed()
            else f"{PAGE} is left out: for it, pip install isodepth[report]"
        )
