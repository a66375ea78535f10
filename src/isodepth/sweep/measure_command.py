"""The command `measure`: a sweep from its plan to φ, in one batch or in as many as it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from isodepth.errors import InputError
from isodepth.sweep.commands import Execution, show_plan
from isodepth.sweep.request import Request
from isodepth.sweep.wanted import Wanted

if TYPE_CHECKING:
    from isodepth.fitting.result import Fit
    from isodepth.sweep.ledger import Ledger
    from isodepth.sweep.plan import Plan
    from isodepth.sweep.spec import Spec
from isodepth.terminal import console


@dataclass(frozen=True, kw_only=True)
class MeasureCommand(Wanted, Request, Execution):
    """From nothing to φ: plan, prepare text, train, collect, fit and report.

    With --target-ci in batches, each planned from the runs before it, until φ's interval is as
    narrow or can't become so. Safe to run again after any interruption; what is done is skipped.
    """

    out: Annotated[Path, arg(metavar="DIR")]
    """folder of everything"""
    bootstrap: int = 1000
    """resamples behind the intervals"""
    seed: int = 0
    """of the resampling"""

    def run(self) -> int:
        from isodepth.sweep.ledger import Ledger
        from isodepth.sweep.measure import measure
        from isodepth.sweep.measure_report import measure_report

        spec = self.spec()
        law = self.law(spec)
        ledger = Ledger.open(self.out, self.first_plan(spec, law))
        if not self.quiet:
            show_plan(ledger.plan, stderr=True)
        trained = self.train_all(ledger, law)
        while _ended(ledger) and self.target_ci is not None and self.grow(ledger):
            trained = self.train_all(ledger, law)
        if not _ended(ledger):
            return trained
        with self.fitting() as on_progress:
            result = measure(
                ledger, bootstrap=self.bootstrap, seed=self.seed, on_progress=on_progress
            )
        self.write(result.to_dict())
        if not self.quiet and self.json != "-":
            console().print(measure_report(result))
            self.say(f"table, fits and figures: {self.out}")
            self.say_page(self.out)
        return trained

    def first_plan(self, spec: Spec, law: Fit | None) -> Plan:
        """All runs, or those of a design's first batch; where the folder has some, those."""
        from isodepth.fitting import Fit
        from isodepth.planning.worlds import NOISES, prior
        from isodepth.runs.sweeps import PLAN_FILE
        from isodepth.sweep.plan import load_plan, make_plan
        from isodepth.sweep.rounds import first_batch

        there = load_plan(self.out / PLAN_FILE) if (self.out / PLAN_FILE).exists() else None
        if self.target_ci is None:
            self.refuse_limits("--target-ci")
            return there if there is not None and there.spec == spec else make_plan(spec, law)
        if self.bootstrap == 0:
            raise InputError("--target-ci is for an interval, which --bootstrap 0 leaves out")
        if there is not None:
            return replace(there, spec=spec)
        fits = prior("published") if self.fit_file is None else [Fit.load(self.fit_file)]
        return first_batch(spec, self.wish(NOISES), fits)

    def grow(self, ledger: Ledger) -> bool:
        """Fit what is there and add the next batch to the plan; whether there is one."""
        from isodepth.runs.sweeps import PLAN_FILE
        from isodepth.sweep.collect import collect
        from isodepth.sweep.rounds import Goal, load_rounds, next_batch, save_rounds

        goal = Goal(wish=self.wish(()), bootstrap=self.bootstrap, seed=self.seed)
        runs = collect(ledger)
        before = tuple(one for one in load_rounds(self.out) if one.n_runs < len(runs.used))
        now, plan = next_batch(ledger.plan, runs, goal, before)
        save_rounds((*before, now), self.out)
        phi = "φ is not identified" if now.phi is None else f"φ = {now.phi:.3f}"
        half = "" if now.half_width is None else f" ± {now.half_width:.3f}"
        self.say(f"{now.n_runs} runs, {now.flops:.3g} FLOPs: {phi}{half}; {now.why}")
        plan.save(ledger.folder / PLAN_FILE)
        ledger.reload()
        return now.added > 0


def _ended(ledger: Ledger) -> bool:
    from isodepth.sweep.ledger import FINAL

    return all(entry.state in FINAL for entry in ledger.entries())
