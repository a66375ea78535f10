"""What a run leaves behind: `record.json`, whose `run` is its row of the run table. No torch."""

import math
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from isodepth.accounting import Account
from isodepth.runs.records import FORMAT, sealed
from isodepth.training.config import TrainConfig

Status = Literal["done", "interrupted", "diverged"]

_PACKAGES = ("isodepth", "torch", "numpy", "safetensors", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run table's row; units as in the run table."""

    run_id: str
    recipe: str
    recurrences: int  # 1 where untied
    graph_recurrences: int | None  # r of an untied run; the row of another has none
    n_once: int
    n_rec: int
    n_inject: int
    flops_per_token: int
    tokens: int  # trained on
    flops: float  # spent: tokens · flops_per_token
    budget_flops: float | None
    width: int
    seed: int
    loss: float | None  # validation, nats per token; None unless the run is done
    status: Status
    device: str  # name of the GPU, or cpu; kinds that trained parts of it are joined by " + "
    precision: str  # of products: fp32, tf32 or bf16; likewise
    kernels: str  # eager or compiled; likewise


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything worth knowing about a run that has ended or was interrupted."""

    run: Run
    config: dict[str, Any]  # TrainConfig.to_json(); `compile` says whether all of it was compiled
    compile_asked: bool  # although it wasn't
    steps: int  # done
    steps_planned: int
    epochs: float  # times that the training rows were read
    training_loss: float | None  # of the last step, nats per token
    loss_curve: str  # file of losses, beside record.json
    seconds: float  # wall time; of a session that was killed, up to its last checkpoint
    tokens_per_second: float | None  # in training steps, validation and checkpoints left out
    flops_per_second: float | None  # model FLOPs, likewise
    peak_flops_per_second: float  # of a large matrix product, when the last session began
    peak_memory_bytes: int  # of the first rank, in the last session
    world_size: int
    threads: int  # CPU threads of a rank
    micro_batch: int  # rows
    data_checksum: str
    validation_tokens: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, no NaN, no infinity, with a checksum of them all."""
        content = asdict(self)
        if self.run.graph_recurrences is None:
            del content["run"]["graph_recurrences"]
        return sealed({"format": FORMAT} | content)


def run_row(
    config: TrainConfig,
    account: Account,
    *,
    tokens: int,
    loss: float | None,
    status: Status,
    device: str,
    precision: str,
    kernels: str,
) -> Run:
    """The table row of a run that trained on `tokens` tokens."""
    return Run(
        run_id=config.name,
        recipe=config.recipe,
        recurrences=1 if config.untied else config.recurrences,
        graph_recurrences=config.recurrences if config.untied else None,
        n_once=account.n_once,
        n_rec=account.n_rec,
        n_inject=account.n_inject,
        flops_per_token=account.flops_per_token,
        tokens=tokens,
        flops=float(tokens * account.flops_per_token),
        budget_flops=config.flops if config.budget_flops is None else config.budget_flops,
        width=config.width,
        seed=config.seed,
        loss=loss,
        status=status,
        device=device,
        precision=precision,
        kernels=kernels,
    )


def finite(value: float) -> float | None:
    """The value where JSON can hold it, else None."""
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Versions of Python and of every package that can move a loss."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory() -> int:
    """Most bytes of main memory that this process has held at once; 0 where no system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
