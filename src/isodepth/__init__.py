"""isodepth: what is one recurrence of a looped language model worth?"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isodepth.accounting import Account, account
    from isodepth.comparing import Comparison, compare
    from isodepth.errors import InputError
    from isodepth.fitting import Fit, fit
    from isodepth.minima import Isoflop, isoflop
    from isodepth.runs import Runs, load_runs

__all__ = [
    "Account",
    "Comparison",
    "Fit",
    "InputError",
    "Isoflop",
    "Runs",
    "account",
    "compare",
    "fit",
    "isoflop",
    "load_runs",
]

# pandas and scipy take most of a second to import: a name is imported when it is first used
_HOMES = {
    "Account": "isodepth.accounting",
    "account": "isodepth.accounting",
    "InputError": "isodepth.errors",
    "Fit": "isodepth.fitting",
    "fit": "isodepth.fitting",
    "Isoflop": "isodepth.minima",
    "isoflop": "isodepth.minima",
    "Comparison": "isodepth.comparing",
    "compare": "isodepth.comparing",
    "Runs": "isodepth.runs",
    "load_runs": "isodepth.runs",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'isodepth' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
