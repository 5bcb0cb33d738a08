"""A sweep as a question of a campaign: what it asks, at what alpha, and what it learns of noise."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strawberry.ablate.campaign import NONE, Question, answer, ask, foreseen, prior_of
from strawberry.ablate.plan import Plan
from strawberry.ablate.preparing import PreparedPlan
from strawberry.ablate.spread import residual
from strawberry.ablate.statistics import compare, higher_is_better
from strawberry.ablate.trials import identity
from strawberry.data import open_dataset
from strawberry.data.fingerprint import fingerprint
from strawberry.files.storage import digest
from strawberry.runs.ledger import OPENING, Ledger


class Asking:
    """The question of a sweep, in the ledger of the folder in which sweeps lie.

    Args:
        prepared: the sweep's cells.
        out: the sweep's folder.
        folder: in which the ledger is; None takes the folder around the sweep's.
    """

    def __init__(self, prepared: PreparedPlan, out: Path, folder: Path | None) -> None:
        self.plan = prepared.plan
        self._prepared = prepared
        self._out = out
        self.ledger = Ledger(out.parent if folder is None else folder)
        self.question: Question | None = None
        self.entry: dict[str, Any] = {}

    @property
    def alpha(self) -> float:
        """What this sweep's verdicts may spend."""
        return alpha_of(self.plan.alpha, self.entry)

    def ask(self) -> None:
        """Note the question, or find it; raises StrawberryError if the ledger can't be had."""
        self.question = self._question()
        self.entry = ask(
            self.ledger,
            self.plan.campaign,
            self.question,
            plan=digest(self.plan.to_dict()),
            alpha=self.plan.alpha,
            folder=os.path.relpath(self._out, self.ledger.folder),
        )

    def foresee(self, before: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Judge by what `ask` would note, and note nothing.

        Args:
            before: entries of sweeps that are to be asked before this one.

        Raises StrawberryError if the data or the ledger can't be had.
        """
        self.entry = foreseen(self.ledger, self.plan.campaign, self._question(), before)
        return self.entry

    def _question(self) -> Question:
        plan, live = self.plan, self._prepared.live
        recipe = live[0].recipe
        assert recipe is not None
        first, *others = [identity(cell.recipe) for cell in live if cell.recipe is not None]
        how = plan.to_dict()
        compared = [how[name] for name in COMPARED]
        budget = self._prepared.budgets[live[0].name]
        return Question(
            data=fingerprint(open_dataset(recipe), "val", recipe.model.block_size),
            content=digest(compared, first, sorted(others)),
            seeds=str(plan.seeds or f"auto {plan.max_seeds}"),
            comparisons=len(others),
            regime=digest(how["metric"], how["last"], how["vary_seed"], budget.tokens),
        )

    def learn(self, values: Mapping[str, Mapping[int, float]]) -> None:
        """Note the noise of the sweep's runs, and whether all was found, for later questions."""
        deviation, freedom = residual(values)
        if deviation and self.question is not None and self.plan.campaign != NONE:
            noise = (deviation**2, freedom)
            decided = self._decided(values)
            answer(self.ledger, self.entry, self.question, noise, decided=decided)

    def _decided(self, values: Mapping[str, Mapping[int, float]]) -> bool:
        """Whether every cell differs from the baseline.

        A grid asks for its factors beside its cells, and seeds that are added look several times:
        of these nothing is handed on.
        """
        baseline, *others = values
        whole = len(others) == self.question.comparisons if self.question is not None else False
        if not whole or self.plan.seeds is None or self.plan.mode == "grid":
            return False
        compared = compare(
            values[baseline],
            {name: values[name] for name in others},
            effect=0.0,
            alpha=self.alpha,
            lower_is_better=not higher_is_better(self.plan.metric),
            ratio=self.plan.noise_ratio,
            prior=prior_of(self.entry),
        )
        verdicts = [compared[name].verdict if name in compared else "" for name in others]
        return bool(verdicts) and set(verdicts) <= {"better", "worse"}


COMPARED = (
    "metric",
    "last",
    "mode",
    "tune",
    "tune_seeds",
    "tune_trials",
    "halving",
    "vary_seed",
    "noise_ratio",
)
"""What of a plan makes another question of the same cells."""


def alpha_of(alpha: float, entry: Mapping[str, Any] | None) -> float:
    """The alpha of a question; all of it where the record is of no campaign."""
    return alpha * float(entry.get("share", 1.0)) if entry else alpha


def standing(plan: Plan | Mapping[str, Any], entry: Mapping[str, Any] | None) -> list[str]:
    """Where a question stands in its campaign, in sentences."""
    if not entry:
        return []
    if entry["kind"] == OPENING:
        times = "once" if entry["opening"] == 1 else f"{entry['opening']} times"
        return [f"Measured on the locked test split, which was opened {times} (on {entry['when']}, "
                f"by `{shlex.join(map(str, entry['command']))}`)."]  # fmt: skip
    alpha = float(plan.alpha if isinstance(plan, Plan) else plan["alpha"])
    before = f"{entry['asked']} other question{'s' * (entry['asked'] != 1)}"
    opened = []
    if entry.get("opened"):
        opened = [f"The test split of these data had been opened before ({entry['opened']} times)."]
    if entry["campaign"] == NONE:
        return [f"Not corrected for other sweeps (`--campaign none`): {before} had been asked of "
                "these data in this folder.", *opened]  # fmt: skip
    name = "this campaign" if entry["campaign"] == "main" else f"campaign {entry['campaign']!r}"
    look = f", look {entry['look']}" if entry["look"] > 1 else ""
    spent = f"alpha {alpha_of(alpha, entry):.2g} of {alpha:.2g}"
    sentences = [
        f"Question {entry['number']} of {name}{look}: {spent}. "
        f"Of these data {before} had been asked in this folder.",
        *opened,
    ]
    if entry.get("prior"):
        variance, freedom = entry["prior"]
        sentences.append(
            f"The noise of the campaign's earlier questions, {variance**0.5:.4f}, counts in this "
            f"one as {freedom:g} degrees of freedom."
        )
    return sentences
