"""The shape of a looped model, and the shapes that can't be."""

import subprocess
import sys

import pytest

from isodepth.errors import InputError
from isodepth.model.config import LoopedConfig


def test_config_is_torch_free() -> None:
    code = "import sys, isodepth.model.config, isodepth.training; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


GOOD = {
    "width": 32,
    "head_size": 16,
    "n_prelude": 1,
    "n_recurrent": 2,
    "n_coda": 1,
    "recurrences": 4,
    "vocab": 40,
    "sequence_length": 12,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width = 0"),
        ({"width": 32.0}, "width = 32.0"),
        ({"head_size": 12}, "head_size = 12"),
        ({"head_size": 1}, "head_size = 1"),
        ({"n_recurrent": 0}, "n_recurrent = 0"),
        ({"n_prelude": -1}, "n_prelude = -1"),
        ({"recurrences": True}, "recurrences = True"),
        ({"injection": "adaptive"}, "injection 'adaptive'"),
        ({"backprop_last": 5}, "backprop_last = 5"),
        ({"backprop_last": 0}, "backprop_last = 0"),
        ({"injection": "passthrough", "backprop_last": 2}, "without gradient"),
        ({"lanes": 0}, "lanes = 0"),
    ],
)
def test_bad_configs_are_refused(change: dict[str, object], message: str) -> None:
    LoopedConfig(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        LoopedConfig(**(GOOD | change))  # type: ignore[arg-type]


def test_iso_depth_splits_the_depth() -> None:
    common = {"width": 256, "vocab": 64, "sequence_length": 8}
    shapes = {
        r: LoopedConfig.iso_depth(recurrences=r, **common)  # type: ignore[arg-type]
        for r in (1, 2, 4, 8, 16)
    }
    assert {r: c.n_recurrent for r, c in shapes.items()} == {1: 16, 2: 8, 4: 4, 8: 2, 16: 1}
    assert {c.depth for c in shapes.values()} == {20}
    with pytest.raises(InputError, match="does not divide"):
        LoopedConfig.iso_depth(recurrences=3, **common)  # type: ignore[arg-type]
