"""Losses put through torch.compile: one graph a shape and process, and never an eager one unsaid.

`torch.compile` keeps its graphs with a function's code and gives up in silence once eight of them
hang there (`recompile_limit`), so that a worker's fifth run would be eager. Here every key (shape
of the model and of the piece, gradients or none, autocast) has a function of its own. Models come
in as arguments, and their weights with them, so that later runs of the same key find its graph.
`fullgraph` turns every way of falling back in silence into an error; the engine catches it.
"""

import functools
import types
from collections.abc import Hashable
from typing import Any, Protocol

import torch
from torch import Tensor

BACKEND: Any = "inductor"  # or a function, as torch.compile takes them


class LossModel(Protocol):
    """What has a mean loss in nats per token; equal `config` means an equal graph."""

    @property
    def config(self) -> Hashable: ...

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor: ...


class CompiledLoss:
    """`model.loss`, compiled. Raises whatever the compiler raises, and never runs eagerly."""

    def __init__(self, model: LossModel) -> None:
        self._model = model

    def __call__(self, tokens: Tensor, targets: Tensor) -> Tensor:
        device = tokens.device.type
        key = (
            type(self._model),
            self._model.config,
            tuple(tokens.shape),
            tokens.device,
            torch.is_grad_enabled(),
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        )
        loss: Tensor = _graph(key, BACKEND)(self._model, tokens, targets)
        return loss


@functools.cache
def _graph(key: Hashable, backend: Any) -> Any:
    code = _loss.__code__.replace()  # a copy: graphs hang on the code object
    own = types.FunctionType(code, _loss.__globals__, _loss.__name__)
    return torch.compile(own, backend=backend, dynamic=False, fullgraph=True)


def _loss(model: LossModel, tokens: Tensor, targets: Tensor) -> Tensor:
    return model.loss(tokens, targets)
