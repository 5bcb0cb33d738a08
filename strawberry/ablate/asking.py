"""Record a sweep as a question of a campaign: its subject, its alpha, and its noise."""

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
    """The question of a sweep, in the ledger of the folder that contains the sweeps.

    Args:
        prepared: the sweep's cells.
        out: the sweep's folder.
        folder: the folder with the ledger; None takes the parent of the sweep's folder.
    """

    def __init__(self, prepared: PreparedPlan, out: Path, folder: Path | None) -> None:
        self.plan = prepared.plan
        self._prepared = prepared
        self._out = out
        self.ledger = Ledger(out.parent if folder is None else folder)
        self.suite: tuple[str, int] | None = None
        self.question: Question | None = None
        self.entry: dict[str, Any] = {}

    @property
    def alpha(self) -> float:
        """The alpha that this sweep's verdicts may spend."""
        return alpha_of(self.plan.alpha, self.entry)

    def ask(self) -> None:
        """Record or find the question; raises StrawberryError if the ledger is not accessible."""
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
        """Judge by the entry that `ask` would record, without recording it.

        Args:
            before: entries of sweeps that will be asked before this one.

        Raises StrawberryError if the data or the ledger is not accessible.
        """
        self.entry = foreseen(self.ledger, self.plan.campaign, self._question(), before)
        return self.entry

    @property
    def content(self) -> str:
        """A digest of all that this sweep compares; seeds are not in it."""
        live, how = self._prepared.live, self.plan.to_dict()
        first, *others = [identity(cell.recipe) for cell in live if cell.recipe is not None]
        return digest([how[name] for name in COMPARED], first, sorted(others))

    def _question(self) -> Question:
        plan, live = self.plan, self._prepared.live
        recipe = live[0].recipe
        assert recipe is not None
        how = plan.to_dict()
        content, tables = self.suite or (self.content, 1)
        budget = self._prepared.budgets[live[0].name]
        return Question(
            data=fingerprint(open_dataset(recipe), "val", recipe.model.block_size),
            content=content,
            seeds=str(plan.seeds or f"auto {plan.max_seeds}"),
            comparisons=sum(cell.recipe is not None for cell in live) - 1,
            regime=digest(how["metric"], how["last"], how["vary_seed"], budget.tokens),
            tables=tables,
        )

    def learn(self, values: Mapping[str, Mapping[int, float]]) -> None:
        """Record the noise of the runs, and whether every cell differs, for later questions."""
        deviation, freedom = residual(values)
        if deviation and self.question is not None and self.plan.campaign != NONE:
            noise = (deviation**2, freedom)
            decided = self._decided(values)
            table = os.path.relpath(self._out, self.ledger.folder)
            answer(self.ledger, self.entry, self.question, noise, table, decided=decided)

    def _decided(self, values: Mapping[str, Mapping[int, float]]) -> bool:
        """Return whether every cell differs from the baseline.

        A grid also asks about its factors, and added seeds look several times; these pass on no
        share.
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


def ask_together(tables: Sequence[Asking]) -> None:
    """Let the tables of a suite be one question: its alpha is divided among them already."""
    content = digest(sorted(each.content for each in tables))
    for each in tables:
        each.suite = content, len(tables)


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
"""The plan's fields that distinguish questions about the same cells."""


def alpha_of(alpha: float, entry: Mapping[str, Any] | None) -> float:
    """The alpha of a question; the plan's whole alpha if the record has no campaign."""
    return alpha * float(entry.get("share", 1.0)) if entry else alpha


def standing(plan: Plan | Mapping[str, Any], entry: Mapping[str, Any] | None) -> list[str]:
    """The state of a question in its campaign, in sentences."""
    if not entry:
        return []
    if entry["kind"] == OPENING:
        times = "once" if entry["opening"] == 1 else f"{entry['opening']} times"
        return [
            f"Measured on the locked test split. It was opened {times} (on {entry['when']}, "
            f"by `{shlex.join(map(str, entry['command']))}`)."
        ]
    alpha = float(plan.alpha if isinstance(plan, Plan) else plan["alpha"])
    before = f"{entry['asked']} other question{'s' * (entry['asked'] != 1)}"
    opened = []
    if entry.get("opened"):
        opened = [f"The test split of this data had been opened before ({entry['opened']} times)."]
    if entry["campaign"] == NONE:
        return [
            "Not corrected for other sweeps (`--campaign none`). This folder had asked "
            f"{before} of this data before.",
            *opened,
        ]
    name = "this campaign" if entry["campaign"] == "main" else f"campaign {entry['campaign']!r}"
    look = f", look {entry['look']}" if entry["look"] > 1 else ""
    spent = f"alpha {alpha_of(alpha, entry):.2g} of {alpha:.2g}"
    sentences = [
        f"Question {entry['number']} of {name}{look}: {spent}. This folder had asked "
        f"{before} of this data before.",
        *opened,
    ]
    if entry.get("prior"):
        variance, freedom = entry["prior"]
        sentences.append(
            "The noise estimate includes the campaign's earlier questions: "
            f"{variance**0.5:.4f}, worth {freedom:g} degrees of freedom."
        )
    return sentences
