"""Scores on tasks at a run's evaluations, item by item."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, MinLen

from strawberry.contracts import ItemScores, Measure, MeasuredModel, RunSite
from strawberry.errors import FieldError, StrawberryError
from strawberry.files import about
from strawberry_lm_eval.model import StrawberryLM
from strawberry_lm_eval.scoring import Loaded
from strawberry_lm_eval.tasks import load_tasks, quiet, told

_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
_NAMES = {"acc": "accuracy", "acc_norm": "norm_accuracy", "exact_match": "accuracy"}
"""Metrics of the harness whose names say less than ours."""


class TaskScores(Measure):
    """Scores on tasks of lm-evaluation-harness, each item of which is kept.

    Of a task with choices: `val_TASK_accuracy`; `val_TASK_norm_accuracy`, where the harness divides
    by the bytes of a choice; and `val_TASK_bits`, the bits a byte of the right choice. At small
    sizes the last one tells models apart with fewer items (arXiv 2508.13144). Of a task with one
    continuation, `val_TASK_accuracy` is greedy decoding's, and `val_TASK_bits` as above; of whole
    texts, `val_TASK_bits` alone. Of a task that generates text, `val_TASK_accuracy` is its
    `exact_match`, and `val_TASK_METRIC_score`, or `val_TASK_METRIC` if less is better, each other
    metric that is a mean over items. Generating takes far longer than scoring: give a `limit`.

    Args:
        tasks: names of tasks or groups.
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
            task = self._loaded["tasks"][name]
            scores.update({f"{name}_{k}": v for k, v in scores_of(task, items).items()})
        return scores

    def _load(self) -> Any:
        """The tasks; raises FieldError if one can't be had."""
        with about("tasks"):
            loaded = _cached_tasks(self.tasks, self.include_path, self.fewshot)
        for name, task in loaded["tasks"].items():
            if task.OUTPUT_TYPE not in _TYPES:
                raise FieldError(
                    "tasks",
                    f"{name} is a task of {task.OUTPUT_TYPE}, without scores of items",
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


def scores_of(task: Any, items: Sequence[Mapping[str, Any]]) -> dict[str, ItemScores]:
    """The scores of a task's items, from what the harness logs of each.

    Args:
        task: the harness's task.
        items: its samples. A task with several filters of its answers has a sample for each; then
            the scores of each filter begin with its name.
    """
    filters = dict.fromkeys(str(item["filter"]) for item in items)
    scores = {}
    for chosen in filters:
        mine = sorted((i for i in items if i["filter"] == chosen), key=lambda i: int(i["doc_id"]))
        begin = "" if len(filters) == 1 else re.sub(r"\W", "_", chosen) + "_"
        scores.update({f"{begin}{name}": v for name, v in _of_filter(task, mine).items()})
    return scores


def _of_filter(task: Any, items: Sequence[Mapping[str, Any]]) -> dict[str, ItemScores]:
    """The scores of items whose answers went through one filter."""
    kind, ones = task.OUTPUT_TYPE, [1] * len(items)
    scores = {}
    for metric, name in _metrics(task).items():
        values: list[Any] = [item.get(metric) for item in items]
        if all(isinstance(value, (bool, int, float, np.number)) for value in values):
            scores[name] = ItemScores([float(value) for value in values], ones)
    rights = [None if kind == "generate_until" else _right(kind, item) for item in items]
    if all(right is not None for right in rights):
        sums = [nats / math.log(2) for nats, _ in filter(None, rights)]
        scores["bits"] = ItemScores(sums, [size for _, size in filter(None, rights)])
    return scores


def _metrics(task: Any) -> dict[str, str]:
    """Our name of each metric of a task that is a mean over items with a number each."""
    names = {}
    better = task.higher_is_better()
    for metric, aggregate in task.aggregation().items():
        if metric in _NAMES:
            names[metric] = _NAMES[metric]
        elif task.OUTPUT_TYPE == "generate_until" and getattr(aggregate, "__name__", "") == "mean":
            names[metric] = f"{metric}_score" if better.get(metric) else metric
    return names


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
