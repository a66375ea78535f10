"""Small training runs in processes of their own, for the tests beside this file."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

from isodepth.training.config import TrainConfig

# A fork of a server that has imported torch starts at once and dies like any other process.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["isodepth.training.trainer"])

STEPS = 60
PATIENCE = 120.0  # seconds that a process may take before the test fails


def small_run(data: Path, out: Path, **changes) -> TrainConfig:
    """A looped model (r = 4) that trains in a few seconds, with a checkpoint at every step."""
    settings = {
        "data": data, "out": out, "width": 32, "head_size": 16, "recurrences": 4, "depth": 6,
        "prelude": 1, "coda": 1, "sequence_length": 32, "batch_tokens": 256, "tokens": 256 * STEPS,
        "device": "cpu", "checkpoint_seconds": 0.0,
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


def start(config: TrainConfig, *, rank: int = 0, world_size: int = 1, port: int = 0):
    """A process that trains `config`."""
    process = SERVER.Process(target=_train, args=(config, rank, world_size, port))
    process.start()
    return process


def finish(config: TrainConfig, *, world_size: int = 1) -> dict:
    """Train to the end on so many ranks and return the record."""
    port = free_port()
    ranks = [start(config, rank=r, world_size=world_size, port=port) for r in range(world_size)]
    for process in ranks:
        process.join(PATIENCE)
    assert [process.exitcode for process in ranks] == [0] * world_size
    return record(config.out)


def record(out: Path) -> dict:
    return json.loads((out / "record.json").read_text(), parse_constant=_refuse)


def losses(out: Path) -> list[dict]:
    """The log without its timings."""
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def weights(out: Path) -> bytes:
    """The newest checkpoint's model, as bytes."""
    return (max((out / "checkpoints").iterdir()) / "model.safetensors").read_bytes()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _train(config: TrainConfig, rank: int, world_size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    import torch

    from isodepth.training.trainer import train

    torch.set_num_threads(1)
    train(config, quiet=True)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
