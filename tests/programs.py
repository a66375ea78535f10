"""Programs that some tests need and Python doesn't bring."""

import os
import shutil

import pytest


def need(what: str, *programs: str) -> None:
    """Skip the calling module where a program is missing; fail where ISODEPTH_REQUIRE has `what`.

    For a module's top, so that all of its tests are one line in pytest's summary.
    """
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        why = f"{what} is not installed: no {', '.join(missing)}"
        if what in os.environ.get("ISODEPTH_REQUIRE", "").split(","):
            pytest.fail(why)
        pytest.skip(why, allow_module_level=True)
