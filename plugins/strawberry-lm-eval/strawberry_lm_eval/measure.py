"""Scores on tasks at a run's evaluations, item by item."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from strawberry.contracts import ItemScores, Measure, MeasuredModel, RunSite
from strawberry.errors import FieldError, StrawberryError
from strawberry.files import about
from strawberry_lm_eval.model import StrawberryLM
from strawberry_lm_eval.scoring import Loaded
from strawberry_lm_eval.tasks import load_tasks, quiet, told

_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


class TaskScores(Measure):
    """Scores on tasks of lm-evaluation-harness, each item of which is kept.

    Of a task with choices: `val_TASK_accuracy`; `val_TASK_norm_accuracy`, where the harness divides
    by the bytes of a choice; and `val_TASK_bits`, the bits a byte of the right choice. At small
    sizes the last one tells models apart with fewer items (arXiv 2508.13144). Of a task with one
    continuation, `val_TASK_accuracy` is greedy decoding's, and `val_TASK_bits` as above; of whole
    texts, `val_TASK_bits` alone.

    Args:
        tasks: names of tasks or groups; tasks that generate text are for `strawberry eval --tasks`.
        include_path: a folder with tasks of your own (YAML); null for the harness's alone.
        limit: the first items of each task only; null for all.
        fewshot: examples before each question; null takes the task's number.
    """

    def __init__(
        self,
        site: RunSite,
        *,
        tasks: Annotated[tuple[str, ...], MinLen(1)],
        include_path: str | None = None,
        limit: Annotated[int, Ge(1)] | None = None,
        fewshot: Annotated[int, Ge(0)] | None = None,
    ) -> None:
        self.site = site
        self.tasks = tasks
        self.include_path = None if include_path is None else Path(include_path)
        self.limit = limit
        self.fewshot = fewshot
        self._loaded = self._load()

    def items(self, model: MeasuredModel) -> dict[str, ItemScores]:
        """The scores of every task's items; raises StrawberryError without a tokenizer."""
        from lm_eval import simple_evaluate

        if model.tokenizer is None:
            raise StrawberryError("tasks are text, and this recipe's data has no tokenizer")
        lm = StrawberryLM.of_model(
            model.model, model.tokenizer, self.site.block_size, logits=model.logits,
            batch_size=self.site.batch_size,
        )  # fmt: skip
        with quiet(), told(self.tasks):
            results = simple_evaluate(
                model=lm, tasks=list(self.tasks), task_manager=Loaded(self._loaded),
                limit=self.limit, num_fewshot=self.fewshot, bootstrap_iters=0, random_seed=None,
                numpy_random_seed=None, torch_random_seed=None,
            )  # fmt: skip
        assert results is not None
        scores: dict[str, ItemScores] = {}
        for name, items in results["samples"].items():
            kind = self._loaded["tasks"][name].OUTPUT_TYPE
            scores.update({f"{name}_{k}": v for k, v in scores_of(kind, items).items()})
        return scores

    def _load(self) -> Any:
        """The tasks; raises FieldError if one can't be had."""
        with about("tasks"):
            loaded = _cached_tasks(self.tasks, self.include_path, self.fewshot)
        for name, task in loaded["tasks"].items():
            if task.OUTPUT_TYPE not in _TYPES:
                raise FieldError(
                    "tasks",
                    f"{name} is a task of {task.OUTPUT_TYPE}; `strawberry eval RUN --tasks {name}` "
                    "scores it",
                )
        return loaded


@functools.lru_cache(maxsize=8)
def _cached_tasks(
    names: tuple[str, ...],
    include_path: Path | None,
    fewshot: int | None,  # noqa: ARG001 (the harness writes it into a task)
) -> Any:
    """Tasks that are read once in a process, for each number of examples."""
    return load_tasks(names, include_path)


def scores_of(kind: str, items: Sequence[Mapping[str, Any]]) -> dict[str, ItemScores]:
    """The scores of a task's items, from what the harness logs of each.

    Args:
        kind: the task's `output_type`.
        items: its samples.
    """
    items = sorted(items, key=lambda item: int(item["doc_id"]))
    ones = [1] * len(items)
    scores = {}
    for metric, name in (("acc", "accuracy"), ("acc_norm", "norm_accuracy")):
        if items and all(metric in item for item in items):
            scores[name] = ItemScores([float(item[metric]) for item in items], ones)
    rights = [_right(kind, item) for item in items]
    if all(right is not None for right in rights):
        sums = [nats / math.log(2) for nats, _ in filter(None, rights)]
        scores["bits"] = ItemScores(sums, [size for _, size in filter(None, rights)])
    return scores


def _right(kind: str, item: Mapping[str, Any]) -> tuple[float, int] | None:
    """Nats and bytes of an item's right text; None if it isn't one of the choices."""
    place = 0
    if kind == "multiple_choice":
        target = item["target"]
        if isinstance(target, str) or not isinstance(target, int):
            return None
        place = target
        if not 0 <= place < len(item["arguments"]):
            return None
    text = item["arguments"][place][-1]
    answer = item["filtered_resps"][place]
    nats = -float(answer[0] if isinstance(answer, (tuple, list)) else answer)
    return nats, max(1, len(text.encode()))
