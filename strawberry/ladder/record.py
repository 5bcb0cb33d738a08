"""A ladder's folder, read back: its rungs, their trials, and the table of runs that they make."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strawberry.ablate.record import RECORD, Record, values_of
from strawberry.errors import StrawberryError
from strawberry.ladder.table import Runs, make_runs

LADDER: Final = "ladder.json"
METRIC: Final = "val_loss"
"""What laws are of: nats a token."""


@dataclass(frozen=True, slots=True)
class LadderRecord:
    """What `ladder.json` holds, and the ablations of its rungs."""

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> LadderRecord:
        """Raises StrawberryError if there is no ladder in that folder."""
        try:
            content = json.loads((folder / LADDER).read_text())
        except (OSError, ValueError) as error:
            raise StrawberryError(f"{folder}: holds no ladder ({LADDER})") from error
        return cls(folder, content)

    @property
    def rungs(self) -> list[dict[str, Any]]:
        """The rungs, from the smallest: `folder` and `sizes`."""
        return list(self.content["rungs"])

    @property
    def names(self) -> list[str]:
        """The architectures, in the plan's order."""
        return [row["architecture"] for row in self.rungs[0]["sizes"]]

    def ablation(self, number: int) -> Record | None:
        """The record of a rung; None before it was begun."""
        return self._ablation(self.rungs[number])

    def _ablation(self, part: Mapping[str, Any]) -> Record | None:
        """The record of a rung or of a branch."""
        folder = self.folder / part["folder"]
        return Record.read(folder) if (folder / RECORD).exists() else None

    def parts(
        self, numbers: Iterable[int] | None = None
    ) -> Iterator[tuple[int, Mapping[str, Any], Record | None]]:
        """Of these rungs or of all, each one and its branches: number, sizes, and record."""
        for number in range(len(self.rungs)) if numbers is None else numbers:
            rung = self.rungs[number]
            for part in (rung, *rung.get("branches", ())):
                yield number, part, self._ablation(part)

    def rows(self, numbers: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """A row for each run that is done, of these rungs or of all."""
        last = int(self.content["plan"]["last"])
        for number, part, record in self.parts(numbers):
            if record is None:
                continue
            for size in part["sizes"]:
                values = values_of(record.of(size["architecture"]), METRIC, last=last)
                for seed, loss in sorted(values.items()):
                    yield {
                        "rung": number,
                        "architecture": size["architecture"],
                        "seed": seed,
                        "parameters": size["without_embeddings"],
                        "tokens": size["tokens"],
                        "training_flops": size["training_flops"],
                        "loss": loss,
                        "once": size["once"],
                        "recurred": size["recurred"],
                        "steps": size["steps"],
                    }

    def runs(self, numbers: Iterable[int] | None = None) -> Runs:
        """The runs as a table; raises StrawberryError where an architecture has none."""
        rows = list(self.rows(numbers))
        missing = set(self.names) - {row["architecture"] for row in rows}
        if missing:
            raise StrawberryError(f"{self.folder}: no run of {min(missing)} finished")
        # The order of the table is that of the plan, whose first architecture is compared with.
        rows.sort(key=lambda row: self.names.index(row["architecture"]))
        return make_runs(rows)

    def table(self) -> str:
        """The runs as CSV, which `strawberry ladder fit` reads."""
        rows = list(self.rows())
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["loss"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def failures(self) -> list[str]:
        """Trials that ended otherwise than by finishing, in sentences."""
        said = []
        for number, _, record in self.parts():
            for trial in record.trials if record else ():
                result = trial.result()
                if result is not None and result["status"] != "finished":
                    why = str(result.get("error", "")).partition("\n")[0]
                    said.append(f"rung {number + 1}: {trial.cell} seed {trial.seed}: "
                                f"{result['status']}: {why}")  # fmt: skip
        return said
