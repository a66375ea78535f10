"""Checkpoints that survive a kill at any moment: safetensors and JSON, no pickle.

A checkpoint is a folder `step-00000120` with `model.safetensors`, `optimizer.safetensors` and
`state.json`, which holds the checksums of the two and of itself. It is written under a temporary
name, flushed to the disk and renamed, so that a folder of the final name is always whole; a later
accident to its bytes is found by the checksums, and the checkpoint before it is used.
"""

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isodepth.errors import InputError
from isodepth.files import sync, write_synced
from isodepth.training.data import file_sha256

FORMAT = 2  # 1 had losses that counted the padding of the vocabulary
KEPT = 2  # newest checkpoints that are kept
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"

_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = ".writing-"


@dataclass(frozen=True, kw_only=True)
class State:
    """What a run needs besides tensors to go on as if it had never stopped."""

    step: int  # steps done
    steps: int  # steps of the whole run
    micro_batch: int  # rows at once; another number would change the rounding
    world_size: int  # ranks; likewise
    threads: int  # CPU threads of a rank; likewise
    seconds: float  # wall time so far, over all sessions
    step_seconds: float  # of it, spent in training steps
    training_loss: float | None  # of the last step, nats per token
    data_checksum: str  # of the prepared data set
    vocabulary: int  # of the tokenizer, before padding
    start: int  # the token that begins a document
    config: dict[str, Any]  # TrainConfig.to_json()
    versions: dict[str, str]
    ran_on: dict[str, list[str]]  # device, precision, kernels: kinds that trained a part of it


class _DamagedError(Exception):
    """This checkpoint can't be used; the message says why."""


def save_checkpoint(
    folder: Path, state: State, *, model: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> Path:
    """Write a checkpoint into `folder` and drop all but the newest `KEPT`.

    When this returns, the checkpoint is on the disk under its final name.
    """
    final = folder / f"step-{state.step:08d}"
    partial = folder / f"{_TEMPORARY}{final.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover)
    partial.mkdir()
    checksums = {}
    for name, tensors in ((MODEL_FILE, model), (OPTIMIZER_FILE, optimizer)):
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(plain, partial / name)
        sync(partial / name)
        checksums[name] = file_sha256(partial / name)
    content = {"format": FORMAT, "state": asdict(state), "sha256": checksums}
    write_synced(partial / STATE_FILE, json.dumps(content | {"checksum": _digest(content)}))
    sync(partial)
    if final.exists():  # a resumed run has come by here again
        shutil.rmtree(final)
    partial.rename(final)
    sync(folder)
    present = _checkpoints(folder)
    # Those beyond this step are damaged, or the run would have gone on from them.
    useless = [path for step, path in present if step > state.step]
    outdated = [path for step, path in present if step <= state.step][KEPT:]
    for path in useless + outdated:
        shutil.rmtree(path)
    return final


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose checksums are right."""

    folder: Path
    state: State

    def model(self) -> dict[str, Tensor]:
        """The model's tensors by name, on the CPU."""
        return load_file(self.folder / MODEL_FILE)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimiser's tensors by name, on the CPU."""
        return load_file(self.folder / OPTIMIZER_FILE)


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one that is not.

    None where there are no checkpoints. Raises InputError where there are some and all are
    damaged: starting again from nothing is the user's decision.
    """
    damaged: list[str] = []
    for _, candidate in _checkpoints(folder):
        try:
            return _open(candidate), damaged
        except _DamagedError as error:
            damaged.append(f"checkpoint {candidate} is damaged and was passed over: {error}")
    if damaged:
        raise InputError([*damaged, f"delete {folder} to start the run again"])
    return None, []


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of everything with a checkpoint's name, newest first."""
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, reverse=True)


def _open(folder: Path) -> Checkpoint:
    try:
        content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        stated = content.pop("checksum")
        if _digest(content) != stated:
            raise _DamagedError(f"{STATE_FILE} was altered")
        for name, checksum in content["sha256"].items():
            if file_sha256(folder / name) != checksum:
                raise _DamagedError(f"{name} was altered")
        known = {field.name for field in fields(State)}
        if content["format"] != FORMAT or content["state"].keys() != known:
            raise _DamagedError("it was written by another version")
        return Checkpoint(folder=folder, state=State(**content["state"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _DamagedError(repr(error)) from error


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
