"""The optimiser of arXiv 2604.21106, in one place: groups, rates and transfer rules.

| group | parameters | update | rate |
|---|---|---|---|
| matrices | every block matrix (q, k, v, o, MLP in, MLP out) and the injection's W | MuonH | 0.014 · (B/2¹⁸)^0.558 · (D/D_ref)^-0.32 |
| head | head | AdamW | 0.004 · (d/640)^-½ · (B/2¹⁸)^0.558 |
| embedding | embedding | AdamW | 0.3 · (d/640)^-½ · (B/2¹⁸)^0.558 |
| norms | every norm's scale | AdamW | 0.005 · (d/640)^-½ |
| lanes | the scalars of hyperconnections | AdamW | 0.01 · (d/640)^-½ |

B is the batch in tokens, D the run's tokens, D_ref ten times the effective parameters at d = 640.
No weight decay, no clipping, no warm-up.

MuonH (arXiv 2603.28743), for a matrix W that starts at Frobenius norm R:

    m ← 0.95 m + 0.05 g;  u = 0.05 g + 0.95 m   (Nesterov)
    u ← PolarExpress₅(u);  u ← R u / ‖u‖
    W ← W − rate · u;  W ← R W / ‖W‖
"""  # noqa: E501

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from isodepth.errors import InputError
from isodepth.model.looped import LoopedModel
from isodepth.training.polar import orthogonalise

MOMENTUM = 0.95
ADAM_BETAS = (0.8, 0.95)
ADAM_EPS = 1e-10

REFERENCE_WIDTH = 640
REFERENCE_BATCH = 2**18  # tokens
BATCH_EXPONENT = 0.558
TOKENS_EXPONENT = -0.32
# D_ref: ten times the effective parameters at s = 10, in tokens.
REFERENCE_TOKENS = {True: 1_016_083_200, False: 983_315_200}  # by: is the arm looped

MATRIX_RATE = 0.014
HEAD_RATE = 0.004
EMBEDDING_RATE = 0.3
NORM_RATE = 0.005
LANE_RATE = 0.01

CPU_BATCH = 2**18  # numbers that one batch of matrices may hold on the CPU: 1 MB in fp32
TINY = 1e-30  # keeps a zero gradient from dividing by zero


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The learning rates at the start of a run, before the schedule."""

    matrices: float
    head: float
    embedding: float
    norms: float
    lanes: float

    @classmethod
    def transferred(cls, *, width: int, batch_tokens: int, tokens: float, looped: bool) -> "Rates":
        """The published rates carried to this width, batch (tokens) and run length (tokens).

        Raises InputError unless all three are positive.
        """
        for name, value in {"width": width, "batch_tokens": batch_tokens, "tokens": tokens}.items():
            if not value > 0:
                raise InputError(f"{name} = {value!r} must be positive")
        batch = (batch_tokens / REFERENCE_BATCH) ** BATCH_EXPONENT
        length = (tokens / REFERENCE_TOKENS[looped]) ** TOKENS_EXPONENT
        by_width = (width / REFERENCE_WIDTH) ** -0.5
        return cls(
            matrices=MATRIX_RATE * batch * length,
            head=HEAD_RATE * by_width * batch,
            embedding=EMBEDDING_RATE * by_width * batch,
            norms=NORM_RATE * by_width,
            lanes=LANE_RATE * by_width,
        )


def build_optimizer(
    model: LoopedModel, *, width: int, batch_tokens: int, tokens: float, looped: bool
) -> "Optimizer":
    """The published optimiser for `model`, which must already be initialised.

    `batch_tokens` is the global batch and `tokens` the whole run's, both in tokens; `looped` says
    which reference length applies. Radii are the matrices' norms now: build it before loading a
    checkpoint's tensors, or load the optimiser's too. Raises InputError as `Rates.transferred`.
    """
    rates = Rates.transferred(width=width, batch_tokens=batch_tokens, tokens=tokens, looped=looped)
    return Optimizer(model, rates)


class Optimizer:
    """MuonH for the matrices, AdamW for the rest; gradients must be there for every parameter."""

    def __init__(self, model: LoopedModel, rates: Rates) -> None:
        self.rates = rates
        groups = group_parameters(model)
        self.matrices = [MatrixGroup(names) for names in same_shape(groups.pop("matrices"))]
        self.others = {name: AdamGroup(group) for name, group in groups.items() if group}
        self.parameters = list(model.parameters())

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """One update with every rate times `lr_scale`; gradients are left as they were."""
        for name, group in self.others.items():
            group.step(getattr(self.rates, name) * lr_scale)
        for matrices in self.matrices:
            matrices.step(self.rates.matrices * lr_scale)

    def zero_grad(self) -> None:
        """Forget the gradients of every parameter."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a later `load_state_tensors` needs to go on bit for bit, by name."""
        state: dict[str, Tensor] = {}
        for group in self.others.values():
            state |= group.state_tensors()
        for matrices in self.matrices:
            state |= matrices.state_tensors()
        return state

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_tensors` gave. Raises InputError if names or shapes differ."""
        mine = self.state_tensors()
        problems = [f"optimiser state lacks {name}" for name in sorted(mine.keys() - tensors)]
        problems += [f"optimiser state has no use for {n}" for n in sorted(tensors.keys() - mine)]
        problems += [
            f"optimiser state {name} has shape {tuple(tensors[name].shape)}, not "
            f"{tuple(value.shape)}"
            for name, value in mine.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        if problems:
            raise InputError(problems)
        for name, value in mine.items():
            value.copy_(tensors[name])


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix that Muon orthogonalises: a parameter, or some of a parameter's rows."""

    name: str
    parameter: nn.Parameter
    rows: slice

    @property
    def weight(self) -> Tensor:
        return self.parameter.detach()[self.rows]

    @property
    def grad(self) -> Tensor:
        return gradient_of(self.name, self.parameter)[self.rows]


def gradient_of(name: str, parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError(f"{name} has no gradient")
    return parameter.grad


def group_parameters(model: LoopedModel) -> dict[str, dict[str, nn.Parameter]]:
    """Every parameter of `model` in exactly one of the five groups, by name."""
    groups: dict[str, dict[str, nn.Parameter]] = {
        name: {} for name in ("matrices", "head", "embedding", "norms", "lanes")
    }
    for name, parameter in model.named_parameters():
        if name in ("head", "embedding"):
            groups[name][name] = parameter
        elif "norm" in name:
            groups["norms"][name] = parameter
        elif name.startswith("injection.") and name != "injection.weight":
            groups["lanes"][name] = parameter
        else:
            groups["matrices"][name] = parameter
    return groups


def same_shape(parameters: dict[str, nn.Parameter]) -> list[list[Matrix]]:
    """The matrices in `parameters`, q, k and v apart, gathered by shape."""
    gathered: dict[tuple[int, ...], list[Matrix]] = defaultdict(list)
    for name, parameter in parameters.items():
        rows, columns = parameter.shape
        parts = {"": slice(0, rows)}
        if name.endswith("qkv"):
            parts = {f".{q}": slice(i * columns, (i + 1) * columns) for i, q in enumerate("qkv")}
        for part, span in parts.items():
            matrix = Matrix(name=name + part, parameter=parameter, rows=span)
            gathered[tuple(matrix.weight.shape)].append(matrix)
    return list(gathered.values())


class AdamGroup:
    """AdamW without weight decay, for parameters of one rate.

    `torch.optim.AdamW` is the same update, and imports torch's compiler: seconds in every process.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters
        tensors = list(parameters.values())
        self.steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in tensors]
        self.mean = [torch.zeros_like(p) for p in tensors]
        self.mean_square = [torch.zeros_like(p) for p in tensors]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of every parameter here."""
        adamw(
            list(self.parameters.values()),
            [gradient_of(name, p) for name, p in self.parameters.items()],
            self.mean,
            self.mean_square,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=ADAM_EPS,
            maximize=False,
        )

    def state_tensors(self) -> dict[str, Tensor]:
        state = {}
        kept = zip(self.parameters, self.steps, self.mean, self.mean_square, strict=True)
        for name, steps, mean, mean_square in kept:
            state[f"adam.{name}.step"] = steps
            state[f"adam.{name}.exp_avg"] = mean
            state[f"adam.{name}.exp_avg_sq"] = mean_square
        return state


class MatrixGroup:
    """MuonH for matrices of one shape, so that all go through the products at once.

    On the CPU they go through in batches that stay in cache, elsewhere all at once.
    """

    def __init__(self, matrices: list[Matrix]) -> None:
        self.matrices = matrices
        weights = [m.weight for m in matrices]
        self.radius = torch.stack(weights).norm(dim=(1, 2))
        self.momentum = torch.zeros_like(torch.stack(weights))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of every matrix here, which stay at their starting norm."""
        size = self.momentum[0].numel()
        batch = (
            max(1, CPU_BATCH // size) if self.momentum.device.type == "cpu" else len(self.matrices)
        )
        for first in range(0, len(self.matrices), batch):
            self._step(slice(first, first + batch), rate)

    def _step(self, part: slice, rate: float) -> None:
        matrices, momentum, radius = self.matrices[part], self.momentum[part], self.radius[part]
        update = torch.stack([m.grad for m in matrices])
        momentum.lerp_(update, 1 - MOMENTUM)
        update = orthogonalise(update.lerp_(momentum, MOMENTUM))
        length = torch.linalg.vector_norm(update, dim=(1, 2)).clamp_min_(TINY)
        weights = torch.stack([m.weight for m in matrices])
        weights.sub_(update.mul_((rate * radius / length)[:, None, None]))
        weights.mul_((radius / torch.linalg.vector_norm(weights, dim=(1, 2)))[:, None, None])
        for matrix, weight in zip(matrices, weights, strict=True):
            matrix.weight.copy_(weight)

    def state_tensors(self) -> dict[str, Tensor]:
        state = {}
        for matrix, radius, momentum in zip(self.matrices, self.radius, self.momentum, strict=True):
            state[f"muon.{matrix.name}.radius"] = radius
            state[f"muon.{matrix.name}.momentum"] = momentum
        return state
