"""The learning-rate schedule of arXiv 2604.21106: no warm-up, linear decay over the whole run."""

from isodepth.errors import InputError

FINAL_SCALE = 0.1


def lr_scale(step: int, steps: int) -> float:
    """What every learning rate is multiplied by in `step` (from 0) of `steps`.

    1 − 0.9 · step / steps, as released: 1 in the first step, 0.1 where the run ends, so that the
    last step still takes a hair more than 0.1. Raises InputError outside the run.
    """
    if not 0 <= step <= steps or steps < 1:
        raise InputError(f"step {step} lies outside a run of {steps} steps")
    return 1 - (1 - FINAL_SCALE) * step / steps
