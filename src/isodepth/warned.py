"""What a result warns of: a sentence for people and a code for programs.

A sentence may change from version to version; a code is stable. docs/warnings.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CODES: dict[str, str] = {
    # the runs can't say it
    "not_identified": "a number is left out because the runs can't tell it",
    "no_unlooped": "no run has r = 1, so φ rests on how the looped runs differ among themselves",
    "two_solutions": "several values of φ describe the runs equally well",
    "one_budget": "every run has one FLOP budget, so tokens follow from size",
    "too_few_runs": "as many parameters as runs: any law would run through them",
    "free_multiplicity": "every r has a multiplicity of its own, so there is no φ",
    "tokens_follow_size": "tokens are proportional to parameters in every run",
    "two_recurrences": "two values of r can't test the form r^φ",
    # the table contradicts itself
    "unequal_depth": "models of one width have another effective depth at another r",
    "counts_contradict_flops": "parameter counts and FLOPs per token can't both be right",
    "embedding_counted": "n_once holds embedding or head, which are left out",
    "flops_contradict_budget": "tokens × FLOPs per token are not the budget that is named",
    "duplicate_rows": "rows that are equal to the digit were counted as one run",
    "not_nats": "losses are in another unit than nats per token",
    "absurd_value": "a cell is too large or too small for what it names",
    "repeated_data": "tokens were seen more than once, which the law does not know of",
    "mixed_devices": "runs were made on unlike devices or in unlike precision",
    "borrowed_unlooped": "the r = 1 runs are another recipe's",
    # the number needs care
    "phi_above_one": "φ is above 1: r passes are worth more than r blocks of their own",
    "extrapolated": "what is asked lies beyond the runs",
    "extrapolates_badly": "a fit to the lower budgets misses the highest one",
    "errors_along_r": "residuals go with r",
    "law_free_missing": "what a pass is worth can't be measured without a law",
    "twins_left_out": "looped runs whose unlooped twin isn't known took no part without a law",
    "arms_differ": "looped and unlooped runs differ in more than the number of passes",
    "graphs_differ": "unlooped runs of unlike graphs differ, and looped ones are held against all",
    "law_disagrees": "the law and the measurement without a law give different numbers",
    "not_paired": "runs that couldn't be compared with the baseline's at equal r",
    "delta_phi_depends_on_form": "Δφ depends on what else the recipe is allowed to change",
    "choice_matters": "law, estimator, counting or method move the number or its verdict",
    "law_form": "another law describes the runs better",
    "multiplicity_form": "r^φ does not describe how a block's worth grows with r",
    "curvature": "iso-FLOP curves are not as steep as the law draws them",
    "lack_of_fit": "the law misses the runs by more than replicates differ",
    "outliers": "runs lie further off the law than noise goes",
    "influential_run": "one run moves φ much",
    "phi_drifts": "φ changes with the budget",
    "drift_open": "a change of φ with the budget can't be told from noise",
    "drift_not_identified": "whether φ changes with the budget can't be told",
    "cost_of_looping": "looping has a price, or a gain, whatever r",
    # the search and the interval
    "not_converged": "the optimiser did not converge",
    "few_starts_agree": "few starts reached the best optimum",
    "no_interval": "no resamples were asked for, so there is no interval",
    "no_budgets": "the runs name no budget, so that groups of runs are not known",
    "independent_noise": "the interval supposes noise that is independent between runs",
    "few_groups": "fewer groups of runs than coverage was measured for",
    # what a command left out
    "not_split": "the loss change at equal compute is not split",
    "use_left_out": "what the models cost in use can't be said",
    "few_sizes": "a parabola needs more sizes",
    "concave": "an iso-FLOP curve opens downward and has no minimum",
    "not_bracketed": "a minimum lies outside the sizes tried",
    "off_centre": "a minimum lies near the edge of the sizes tried, which biases it",
    # of results saved by another version
    "unknown": "a warning without a code that this version knows",
}


@dataclass(frozen=True)
class Warned:
    """One warning."""

    code: str  # one of CODES
    text: str  # a sentence bound to the result's numbers

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is no known code of a warning")

    def __str__(self) -> str:
        return self.text

    def about(self, what: str) -> Warned:
        """The same, said of `what`."""
        return Warned(self.code, f"{what}: {self.text}")


def to_json(warnings: Iterable[Warned]) -> dict[str, list[str]]:
    """`warnings`, sentences, and `warning_codes`, parallel to them: keys of every result's JSON."""
    said = tuple(warnings)
    return {"warnings": [w.text for w in said], "warning_codes": [w.code for w in said]}


def from_json(data: Mapping[str, Any]) -> tuple[Warned, ...]:
    """What `to_json` wrote, read back; codes that are missing or not known here are `unknown`."""
    texts: list[str] = data["warnings"]
    codes: list[str] = data.get("warning_codes", ["unknown"] * len(texts))
    return tuple(
        Warned(code if code in CODES else "unknown", text)
        for code, text in zip(codes, texts, strict=True)
    )
