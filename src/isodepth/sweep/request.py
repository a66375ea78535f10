"""What the commands that plan a sweep are asked for: a preset, and flags that win over it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from isodepth.errors import InputError
from isodepth.output import Output

if TYPE_CHECKING:
    from isodepth.fitting.result import Fit
    from isodepth.sweep.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Request(Output):
    """What a sweep is to hold. Flags win over the preset."""

    preset: str | None = None
    """a preset that ships, or a TOML file of the same form; without one, recipes and budgets"""
    recipes: tuple[str, ...] | None = None
    """recipes: of the preset, else any of baseline, truncated_bptt, hyperconnections,
    baseline-untied, hyperconnections-untied (weights of their own in every pass)"""
    recurrences: Annotated[tuple[int, ...] | None, arg(aliases=["-r"])] = None
    """numbers of passes; a recipe without r = 1 shares the baseline's unlooped runs"""
    budgets: tuple[float, ...] | None = None
    """training FLOPs of each run, one number for every iso-FLOP group"""
    widths: tuple[int, ...] | None = None
    """widths at every budget; default: chosen around the optimum that a fitted law expects"""
    n_widths: int | None = None
    """how many widths to choose (5)"""
    fit_file: Annotated[str | None, arg(name="fit", metavar="FIT.json")] = None
    """the law to choose widths by, from `isodepth fit --json`; default: the published grid's"""
    adaptive: bool = False
    """choose the later budgets' widths when the lowest one's results are in"""
    seeds: int | None = None
    """replicates of every run, which tell its noise (1)"""
    depth: int | None = None
    """effective depth"""
    prelude: int | None = None
    """blocks before the loop"""
    coda: int | None = None
    """blocks after the loop"""
    head_size: int | None = None
    """width of an attention head"""
    sequence_length: int | None = None
    """tokens in a row"""
    batch_tokens: int | None = None
    """tokens in a step"""
    vocabulary: int | None = None
    """entries of the tokenizer, before padding"""
    command: str | None = None
    """another trainer's command line, run in the folder that the sweep is started in; {out},
    {width}, {recurrences}, {graph_recurrences}, {tokens}, {flops}, {seed}, {run_id}, {recipe},
    {budget_flops} and {python} (the one that runs isodepth) are filled in"""
    device: str | None = None
    """what times are estimated for: cpu, h100 or h200"""
    rate: Annotated[str | None, arg(metavar="FLOPS|DIR")] = None
    """training FLOP/s of a run on the device instead of our estimate: a number for every width, or
    a folder of runs trained there, whose records tell"""
    device_memory: float | None = None
    """gigabytes of memory of the device, instead of what we know of it"""

    def spec(self) -> Spec:
        """The sweep that preset and flags describe. Raises InputError where they make none."""
        from isodepth.sweep.spec import read_spec

        base = _bare() if self.preset is None else read_spec(self.preset)
        return _with_flags(base, self)

    def law(self, spec: Spec) -> Fit | None:
        """The law that chooses widths, where any have to be chosen."""
        if all(budget.widths is not None for budget in spec.budgets):
            return None
        from isodepth.fitting import Fit, fit

        if self.fit_file is not None:
            return Fit.load(self.fit_file)
        return fit("published", bootstrap=0)


def _bare() -> Spec:
    """The three published recipes, two of them untied as well, and nothing else yet."""
    from isodepth.planning.grid import Recipe
    from isodepth.sweep.spec import Spec

    return Spec(
        name="sweep",
        description="",
        recipes=(
            Recipe(name="baseline", recurrences=(1, 2, 4, 8)),
            Recipe(name="truncated_bptt", recurrences=(2, 4, 8), backprop="half"),
            Recipe(name="hyperconnections", recurrences=(2, 4, 8), injection="hyperconnections"),
            Recipe(name="baseline-untied", recurrences=(2, 4, 8), untied=True, of="baseline"),
            Recipe(
                name="hyperconnections-untied",
                recurrences=(2, 4, 8),
                injection="hyperconnections",
                untied=True,
                of="hyperconnections",
            ),
        ),
        budgets=(),
        train={},
        vocabulary=32001,
    )


def _with_flags(spec: Spec, flags: Request) -> Spec:
    from isodepth.planning.grid import Budget
    from isodepth.sweep.rates import rates_of
    from isodepth.sweep.spec import checked

    recipes = spec.recipes
    chosen = flags.recipes if flags.recipes or flags.preset else ("baseline",)
    if chosen is not None:
        by_name = {recipe.name: recipe for recipe in recipes}
        unknown = [name for name in chosen if name not in by_name]
        if unknown:
            raise InputError(f"no recipe {unknown[0]!r}; there are {', '.join(by_name)}")
        recipes = tuple(by_name[name] for name in chosen)
    if flags.recurrences is not None:
        looped = tuple(r for r in flags.recurrences if r > 1)
        recipes = tuple(
            dataclasses.replace(
                recipe, recurrences=flags.recurrences if 1 in recipe.recurrences else looped
            )
            for recipe in recipes
        )
    budgets = spec.budgets
    if flags.budgets is not None:
        budgets = tuple(Budget(flops=flops) for flops in flags.budgets)
    if flags.widths is not None:
        budgets = tuple(dataclasses.replace(b, widths=flags.widths) for b in budgets)
    shape = ("depth", "prelude", "coda", "head_size", "sequence_length", "batch_tokens")
    train = {n: getattr(flags, n) for n in shape if getattr(flags, n) is not None}
    others = ("n_widths", "seeds", "vocabulary", "command", "device")
    given = {n: getattr(flags, n) for n in others if getattr(flags, n) is not None}
    if flags.rate is not None:
        given["rates"] = rates_of(flags.rate)
    if flags.device_memory is not None:
        given["memory_gb"] = flags.device_memory
    return checked(
        dataclasses.replace(
            spec,
            recipes=recipes,
            budgets=budgets,
            train=spec.train | train,
            adaptive=spec.adaptive or flags.adaptive,
            **given,
        )
    )
