"""How fast a device trains, by width: a number that the user gives, or measured runs."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

from isodepth.errors import InputError
from isodepth.runs.records import RECORD_FILE, read_record


def rates_of(source: str) -> dict[str, float]:
    """Training FLOP/s of one run by width, as `Spec.rates` holds them.

    source: a number, which then holds at every width; or a folder, in which every `record.json` of
    a run that isodepth trained tells a rate: the median of each width.
    Raises InputError for anything else.
    """
    try:
        given = float(source)
    except ValueError:
        return _measured(Path(source))
    if not (math.isfinite(given) and given > 0):
        raise InputError(f"a rate of {source} FLOP/s is no positive number")
    return {"1": given}


def _measured(folder: Path) -> dict[str, float]:
    if not folder.is_dir():
        raise InputError(f"--rate {folder} is neither a number of FLOP/s nor a folder of runs")
    seen: dict[int, list[float]] = {}
    for file in sorted(folder.rglob(RECORD_FILE)):
        record = read_record(file.parent)
        rate = (record or {}).get("flops_per_second")
        width = ((record or {}).get("run") or {}).get("width")
        if isinstance(rate, float | int) and rate > 0 and isinstance(width, int):
            seen.setdefault(width, []).append(float(rate))
    if not seen:
        raise InputError(f"{folder} holds no record of a run with its rate (flops_per_second)")
    return {str(width): median(seen[width]) for width in sorted(seen)}
