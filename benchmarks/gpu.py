"""What the trainer does on this machine's GPU: is it right, and how fast. In parts, most telling first.

    python benchmarks/gpu.py --out gpu-results                     # everything, under 12 minutes
    python benchmarks/gpu.py --out gpu-results --parts speed --limit 90

| part | what |
|---|---|
| agree | loss and gradients on the device against the CPU's fp32, every arm, in fp32, bf16 and compiled; a deterministic run stopped and resumed against one that was not |
| speed | peak of a matrix product; tokens/s, share of the peak and memory at s = 20, r = 1, 2, 4, 8, eager, compiled, recomputed; forward, backward, head, attention and optimiser apart; kernels launched |
| small | widths 32 to 256: eager, compiled, forward and backward replayed as a CUDA graph, and 2 to 16 processes at once |
| sweep | a sweep by `isodepth measure` on real text: its time, φ and m(r) with intervals |

After every part `OUT/gpu.json` and `OUT/gpu.md` hold all that is known; a part that fails leaves its
error there and the next one runs. Without a GPU everything runs in miniature, to test the script.
The machine needs torch; `--wheels DIR` names a folder of pure-Python wheels of what else is missing.
"""  # noqa: E501

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"
if SOURCE.is_dir():
    sys.path.insert(0, str(SOURCE))
PARTS = ("agree", "speed", "small", "sweep")
BYTE_VOCABULARY = 257


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large everything is: as on a GPU, or in miniature."""

    agree: dict[str, int]  # shape of the models that are compared
    large: dict[str, int]  # of those that are timed
    rows: int  # rows of a step
    micro: int  # rows at once
    matrix: int  # rows of the square matrices that give the peak
    recurrences: tuple[int, ...]
    small_widths: tuple[int, ...]
    small: dict[str, int]
    small_rows: int
    processes: tuple[int, ...]
    repeats: int
    sweep: str  # the preset
    resume_steps: int


SWEEP = """
description = "a sweep to time"
[data]
source = "{text}"
tokenizer = "{tokenizer}"
validation = 0.05
{documents}
[train]
depth = {depth}
prelude = {ends}
coda = {ends}
head_size = {head}
sequence_length = {length}
batch_tokens = {batch}
[[recipes]]
name = "baseline"
recurrences = {recurrences}
[[budgets]]
flops = {low}
widths = {low_widths}
[[budgets]]
flops = {high}
widths = {high_widths}
"""

WHOLE = Size(
    agree={"width": 256, "depth": 20, "head_size": 128, "vocab": 1000, "sequence_length": 256},
    large={"width": 1280, "depth": 20, "head_size": 128, "vocab": 32001, "sequence_length": 2048},
    rows=32, micro=16, matrix=8192, recurrences=(4, 1, 2, 8), small_widths=(32, 64, 128, 256),
    small={"depth": 12, "head_size": 32, "vocab": 4096, "sequence_length": 512}, small_rows=32,
    processes=(2, 4, 8, 16), repeats=4, resume_steps=40,
    sweep=SWEEP.format(
        text="{text}", tokenizer="bpe:4096", documents="", depth=12, ends=2, head=32, length=512,
        batch=16384, recurrences=[1, 2, 4, 8], low=1e14, low_widths=[32, 64, 96, 128], high=4e14,
        high_widths=[64, 96, 128, 192],
    ),
)  # fmt: skip
MINIATURE = Size(
    agree={"width": 32, "depth": 6, "head_size": 16, "vocab": 40, "sequence_length": 12},
    large={"width": 32, "depth": 6, "head_size": 16, "vocab": 257, "sequence_length": 32},
    rows=4, micro=2, matrix=256, recurrences=(2, 1), small_widths=(16,),
    small={"depth": 4, "head_size": 8, "vocab": 257, "sequence_length": 16}, small_rows=4,
    processes=(2,), repeats=1, resume_steps=6,
    sweep=SWEEP.format(
        text="{text}", tokenizer="bytes", documents="max_documents = 60", depth=4, ends=1, head=8,
        length=32, batch=64, recurrences=[1, 2], low=2.1e9, low_widths=[16, 24, 32], high=2.8e9,
        high_widths=[16, 24, 32],
    ),
)  # fmt: skip


@dataclass
class Bench:
    """The device, the sizes, and the rows of results so far."""

    device: Any  # torch.device
    size: Size
    out: Path
    text: str
    end: float  # monotonic second after which nothing more begins
    compile: bool
    rows: list[dict[str, Any]]
    part: str = ""
    peak: float = 0.0  # FLOP/s

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def note(self, what: str, **values: Any) -> None:
        row = {"part": self.part, "what": what} | values
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        self.save()

    def attempt(self, what: str, work: Callable[..., None], *arguments: Any) -> None:
        """Do one thing of a part; its failure is a row, and so is want of time."""
        if time.monotonic() > self.end:
            self.note(what, skipped="out of time")
            return
        begin = time.monotonic()
        try:
            work(what, *arguments)
        except Exception as error:
            traceback.print_exc(limit=-4)
            self.note(what, error=f"{type(error).__name__}: {error}"[:300])
        if self.cuda:
            import torch

            torch.cuda.empty_cache()
        print(f"  {what}: {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu.json").write_text(json.dumps(self.rows, indent=1) + "\n")
        lines = ["| part | what | found |", "|---|---|---|"]
        for row in self.rows:
            found = ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k not in _KEYS)
            lines.append(f"| {row['part']} | {row['what']} | {found} |")
        (self.out / "gpu.md").write_text("\n".join(lines) + "\n")

    def sync(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()


_KEYS = frozenset({"part", "what"})


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def machine(bench: Bench) -> None:
    """What the numbers were taken on, and the peak that shares are of."""
    import torch

    name = platform.processor() or "cpu"
    memory = None
    if bench.cuda:
        name = torch.cuda.get_device_name()
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    dtype = torch.bfloat16 if bench.cuda else torch.float32
    n = bench.size.matrix
    a = torch.randn(n, n, device=bench.device, dtype=dtype)
    best = min(_seconds(bench, lambda: a @ a) for _ in range(10))
    bench.peak = 2 * n**3 / best
    bench.note(
        "machine",
        device=name,
        memory_gb=memory,
        torch=torch.__version__,
        cores=os.cpu_count(),
        peak_tflops=bench.peak / 1e12,
        date=time.strftime("%Y-%m-%d"),
    )


def _seconds(bench: Bench, work: Callable[[], object]) -> float:
    bench.sync()
    begin = time.perf_counter()
    work()
    bench.sync()
    return time.perf_counter() - begin


def _config(shape: dict[str, int], recurrences: int, **more: Any) -> Any:
    from isodepth.model.config import LoopedConfig

    ends = 2 if shape["depth"] >= 12 else 1
    return LoopedConfig.iso_depth(**shape, prelude=ends, coda=ends, recurrences=recurrences, **more)


# agree -------------------------------------------------------------------------------------------

ARMS = [
    (1, "linear", False), (4, "linear", False), (4, "additive", False), (4, "passthrough", False),
    (4, "hyperconnections", False), (4, "linear", True), (4, "hyperconnections", True),
]  # fmt: skip


def agree(bench: Bench) -> None:
    for r, injection, truncated in ARMS:
        cut = ", truncated" if truncated else ""
        bench.attempt(f"r = {r}, {injection}{cut}", _agree, bench, r, injection, truncated)
    bench.attempt("stopped and resumed", _resume, bench)


def _agree(what: str, bench: Bench, r: int, injection: str, truncated: bool) -> None:
    """Largest error of a tensor's gradient, and of the loss, against fp32 on the CPU."""
    import torch

    from isodepth.model.looped import LoopedModel
    from isodepth.training.compiling import CompiledLoss

    config = _config(
        bench.size.agree, r, injection=injection, backprop_last=r // 2 if truncated else None
    )
    model = LoopedModel(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    tokens = torch.randint(config.vocab, (4, config.sequence_length + 1), generator=generator)

    def gradients(on: Any, mode: str) -> tuple[float, dict[str, torch.Tensor]]:
        copy = LoopedModel(config)
        copy.load_state_dict(model.state_dict())
        copy.to(on)
        loss_of = CompiledLoss(copy) if "compiled" in mode else copy.loss
        rows = tokens.to(on)
        with _autocast(on, "bf16" in mode):
            loss = loss_of(rows[:, :-1], rows[:, 1:])
        loss.backward()
        found = {n: p.grad.cpu() for n, p in copy.named_parameters() if p.grad is not None}
        return loss.item(), found

    torch.set_float32_matmul_precision("highest")
    want_loss, want = gradients(torch.device("cpu"), "fp32")
    modes = ["fp32", "bf16"] + (["fp32 compiled", "bf16 compiled"] if bench.compile else [])
    for mode in modes:
        loss, got = gradients(bench.device, mode)
        if got.keys() != want.keys():
            raise RuntimeError(f"{mode}: gradients of {sorted(want.keys() ^ got.keys())} differ")
        errors = {n: float((got[n] - g).norm() / (g.norm() + 1e-20)) for n, g in want.items()}
        whole = sum(float((got[n] - g).norm()) ** 2 for n, g in want.items()) ** 0.5
        norm = sum(float(g.norm()) ** 2 for g in want.values()) ** 0.5
        worst = max(errors, key=errors.__getitem__)
        bench.note(
            f"{what}, {mode}",
            loss_error=abs(loss - want_loss),
            gradient_error=whole / norm,
            worst=worst,
            worst_error=errors[worst],
        )


def _autocast(device: Any, on: bool) -> contextlib.AbstractContextManager[object]:
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16) if on else contextlib.nullcontext()


def _resume(what: str, bench: Bench) -> None:
    """Losses of a deterministic run that was stopped half-way, less those of one that wasn't."""
    from isodepth.training.config import TrainConfig
    from isodepth.training.prepare import prepare
    from isodepth.training.sources import open_source
    from isodepth.training.trainer import train

    data = bench.out / "bytes"
    if not data.exists():
        source = open_source(bench.text, max_documents=60)
        prepare(source, data, tokenizer="bytes", validation_fraction=0.1)
    steps, length = bench.size.resume_steps, bench.size.small["sequence_length"]

    def run(name: str, stop_after: int | None = None) -> dict[str, Any]:
        stop = threading.Event()

        class Stopper:
            def step(self, report: Any) -> None:
                if report.step == stop_after:
                    stop.set()

            def validation(self, step: int, loss: float) -> None: ...
            def close(self) -> None: ...

        config = TrainConfig(
            data=data, out=bench.out / name, width=bench.size.agree["width"] // 2, recurrences=2,
            depth=6, prelude=1, coda=1, head_size=bench.size.small["head_size"],
            sequence_length=length, batch_tokens=8 * length, tokens=8 * length * steps,
            deterministic=True, device=bench.device.type,
        )  # fmt: skip
        return train(config, quiet=True, stop=stop, sink=Stopper())

    def log(name: str) -> list[float]:
        lines = map(json.loads, (bench.out / name / "losses.jsonl").read_text().splitlines())
        return [line.get("loss", line.get("validation_loss")) for line in lines]

    run("whole")
    run("resumed", steps // 2)
    record = run("resumed")
    one, other = log("whole"), log("resumed")
    bench.note(
        what,
        identical=one == other,
        lines=len(one),
        status=record["run"]["status"],
        kernels=record["run"]["kernels"],
        precision=record["run"]["precision"],
    )


# speed -------------------------------------------------------------------------------------------


def speed(bench: Bench) -> None:
    modes = ["eager", "compiled"] if bench.compile else ["eager"]
    for r in bench.size.recurrences:
        for mode in modes[::-1]:
            bench.attempt(f"r = {r}, {mode}", _speed, bench, r, mode, False)
    bench.attempt("r = 4, eager, recomputed", _speed, bench, 4, "eager", True)
    bench.attempt("parts of a step", _split, bench)


def _speed(what: str, bench: Bench, r: int, mode: str, recompute: bool) -> None:
    import torch

    config = _config(bench.size.large, r, recompute=recompute)
    step, forward, optimise = _stepper(bench, config, mode, bench.size.rows, bench.size.micro)
    begin = time.perf_counter()
    step()
    bench.sync()
    first = time.perf_counter() - begin
    step()
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    whole = sorted(_seconds(bench, step) for _ in range(bench.size.repeats))
    memory = torch.cuda.max_memory_allocated() / 1e9 if bench.cuda else None
    ahead = min(_seconds(bench, forward) for _ in range(bench.size.repeats))
    tail = min(_seconds(bench, optimise) for _ in range(bench.size.repeats))
    tokens = bench.size.rows * config.sequence_length
    bench.note(
        what,
        tokens_per_second=tokens / whole[0],
        share_of_peak=config.account().flops_per_token * tokens / whole[0] / bench.peak,
        step_ms=1e3 * whole[0],
        median_ms=1e3 * whole[len(whole) // 2],
        forward_ms=1e3 * ahead,
        backward_ms=1e3 * max(whole[0] - ahead - tail, 0.0),
        optimiser_ms=1e3 * tail,
        optimiser_share=tail / whole[0],
        memory_gb=memory,
        first_step_s=first,
        launches=_launches(bench, step),
        optimiser_launches=_launches(bench, optimise),
    )


def _stepper(
    bench: Bench, config: Any, mode: str, rows: int, micro: int
) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None]]:
    """A step, its forward alone, and its optimiser alone."""
    import torch

    from isodepth.model.looped import LoopedModel
    from isodepth.training.compiling import CompiledLoss
    from isodepth.training.optim import build_optimizer

    model = LoopedModel(config).to(bench.device)
    tokens = torch.randint(config.vocab, (rows, config.sequence_length + 1), device=bench.device)
    optimizer = build_optimizer(
        model, width=config.width, batch_tokens=tokens.numel(), tokens=1e9, looped=config.looped
    )
    loss_of = CompiledLoss(model) if mode == "compiled" else model.loss

    def losses(backward: bool) -> None:
        for part in tokens.split(micro):
            with _autocast(bench.device, bench.cuda):
                loss = loss_of(part[:, :-1], part[:, 1:])
            if backward:
                (loss * (len(part) / rows)).backward()

    def step() -> None:
        optimizer.zero_grad()
        losses(True)
        optimizer.step(1.0)

    return step, lambda: losses(False), lambda: optimizer.step(1.0)


def _launches(bench: Bench, work: Callable[[], object]) -> int | None:
    """Kernels that `work` starts; None without a GPU."""
    if not bench.cuda:
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        bench.sync()
    names = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
    return sum(x.count for x in profiler.key_averages() if x.key.startswith(names))


def _split(what: str, bench: Bench) -> None:
    """Forward and backward of one block's attention, its MLP, and the head, a micro-batch each."""
    import torch

    from isodepth.model.blocks import Block, Rotary
    from isodepth.model.head import capped_loss

    shape, device = bench.size.large, bench.device
    length, width = shape["sequence_length"], shape["width"]
    block = Block(width, shape["head_size"]).to(device)
    block.initialise(torch.Generator().manual_seed(0))
    rotary = Rotary(length, shape["head_size"]).to(device)
    x = torch.randn(bench.size.micro, length, width, device=device, requires_grad=True)
    head = torch.zeros(-(-shape["vocab"] // 64) * 64, width, device=device, requires_grad=True)
    targets = torch.randint(shape["vocab"], (bench.size.micro * length,), device=device)

    def timed(work: Callable[[], torch.Tensor]) -> float:
        def both() -> None:
            with _autocast(device, bench.cuda):
                out = work()
            out.float().sum().backward()

        both()
        return 1e3 * min(_seconds(bench, both) for _ in range(bench.size.repeats))

    bench.note(
        what,
        attention_ms=timed(lambda: block.attention(x, rotary(0, length, x.dtype))),
        mlp_ms=timed(lambda: block.mlp(x)),
        block_ms=timed(lambda: block(x, rotary(0, length, x.dtype))),
        head_ms=timed(lambda: capped_loss(x.flatten(0, 1), head, targets, vocab=shape["vocab"])),
        blocks_a_step=shape["depth"],
    )


# small -------------------------------------------------------------------------------------------


def small(bench: Bench) -> None:
    for width in bench.size.small_widths:
        bench.attempt(f"width {width}, eager", _alone, bench, width, "eager")
        if bench.compile:
            bench.attempt(f"width {width}, compiled", _alone, bench, width, "compiled")
        if bench.cuda:
            bench.attempt(f"width {width}, graph", _graphed, bench, width)
    width = bench.size.small_widths[len(bench.size.small_widths) // 2]
    for count in bench.size.processes:
        bench.attempt(f"width {width}, {count} processes", _packed, bench, width, count)


def _alone(what: str, bench: Bench, width: int, mode: str) -> None:
    config = _config({"width": width} | bench.size.small, 2)
    rows = bench.size.small_rows
    step, _, optimise = _stepper(bench, config, mode, rows, rows)
    for _ in range(3):
        step()
    best = min(_seconds(bench, step) for _ in range(5))
    tail = min(_seconds(bench, optimise) for _ in range(5))
    bench.note(
        what,
        tokens_per_second=rows * config.sequence_length / best,
        step_ms=1e3 * best,
        optimiser_ms=1e3 * tail,
        launches=_launches(bench, step),
    )


def _graphed(what: str, bench: Bench, width: int) -> None:
    """Forward and backward captured once and replayed: what graphs could save at most."""
    import torch

    from isodepth.model.looped import LoopedModel

    config = _config({"width": width} | bench.size.small, 2)
    rows = bench.size.small_rows
    model = LoopedModel(config).to(bench.device)
    tokens = torch.randint(config.vocab, (rows, config.sequence_length + 1), device=bench.device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def both() -> None:
        # a graph keeps no memory of casts between replays
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            both()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both()
    eager = min(_seconds(bench, both) for _ in range(5))
    replayed = min(_seconds(bench, graph.replay) for _ in range(5))
    bench.note(what, eager_ms=1e3 * eager, graph_ms=1e3 * replayed, gain=eager / replayed)


def _packed(what: str, bench: Bench, width: int, count: int) -> None:
    """Processes that train beside one another, and the tokens/s of all of them together."""
    command = [sys.executable, __file__, "--one", str(width), "--device", bench.device.type]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(count)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    rates = [float(process.communicate(timeout=120)[0]) for process in processes]
    bench.note(what, tokens_per_second=sum(rates), slowest=min(rates), fastest=max(rates))


def one(bench: Bench, width: int) -> None:
    """A process of `_packed`: ready, then its tokens/s once it is told to go."""
    config = _config({"width": width} | bench.size.small, 2)
    rows = bench.size.small_rows
    step, _, _ = _stepper(bench, config, "eager", rows, rows)
    for _ in range(3):
        step()
    bench.sync()
    print("ready", flush=True)
    sys.stdin.readline()
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < (3.0 if bench.cuda else 0.3):
        step()
        bench.sync()
        steps += 1
    print(steps * rows * config.sequence_length / (time.perf_counter() - begin), flush=True)


# sweep -------------------------------------------------------------------------------------------


def sweep(bench: Bench) -> None:
    bench.attempt("isodepth measure", _sweep, bench)


def _sweep(what: str, bench: Bench) -> None:
    preset, folder = bench.out / "sweep.toml", bench.out / "sweep"
    text = bench.text if bench.text == "stdlib" else str(Path(bench.text).resolve())
    preset.write_text(bench.size.sweep.replace("{text}", text))
    begin = time.perf_counter()
    command = [sys.executable, "-m", "isodepth", "measure", "--preset", preset, "--out", folder]
    done = subprocess.run(
        [*map(str, command), "--json", "-", "--bootstrap", "200"],
        stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=max(bench.end - time.monotonic(), 1.0) if bench.cuda else None,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    told = json.loads(done.stdout) if done.stdout else {}
    fitted = told.get("recipes", {}).get("baseline", {})
    bench.note(
        what,
        status=done.returncode,
        seconds=seconds,
        runs=told.get("n_runs"),
        flops=told.get("flops"),
        phi=fitted.get("phi"),
        m=(fitted.get("law_free") or {}).get("m"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limit", type=float, default=720.0, help="seconds, after which it ends")
    parser.add_argument("--text", default="stdlib", help="of the sweep: stdlib, a file or a folder")
    parser.add_argument("--wheels", type=Path, help="folder of pure-Python wheels to import from")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.wheels is not None:
        sys.path += [str(wheel) for wheel in sorted(args.wheels.glob("*.whl"))]
    import torch

    name = args.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    bench = Bench(
        device=torch.device(name), size=WHOLE if name == "cuda" else MINIATURE, out=args.out,
        text=args.text, end=time.monotonic() + args.limit, compile=not args.no_compile, rows=[],
    )  # fmt: skip
    if args.one is not None:
        one(bench, args.one)
        return
    if not bench.cuda:
        torch.set_num_threads(1)  # what a model in miniature is fastest with
    machine(bench)
    work = {"agree": agree, "speed": speed, "small": small, "sweep": sweep}
    for part in PARTS:
        if part in args.parts:
            bench.part = part
            work[part](bench)
    bench.save()


if __name__ == "__main__":
    main()
