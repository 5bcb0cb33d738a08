"""Score a run on tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from strawberry.errors import StrawberryError
from strawberry.files import cache_folder, write_atomic
from strawberry.generation import LoadedRun
from strawberry.plugin import TaskOptions
from strawberry_lm_eval.model import StrawberryLM
from strawberry_lm_eval.tasks import load_tasks, quiet, told


def score_run(
    run: LoadedRun, names: Sequence[str], options: TaskOptions
) -> dict[str, dict[str, Any]]:
    """The metrics of each task and group; raises StrawberryError as `load_tasks` does."""
    from lm_eval import simple_evaluate

    lm = StrawberryLM(run, batch_size=options.batch_size)
    loaded = load_tasks(names, options.include_path)
    cache = _cache(run, lm) if options.cache else None
    with quiet(), told(names):
        results = simple_evaluate(
            model=lm,
            tasks=list(names),
            task_manager=Loaded(loaded),
            num_fewshot=options.fewshot,
            limit=options.limit,
            use_cache=None if cache is None else str(cache),
            log_samples=options.samples is not None,
            bootstrap_iters=1000,
        )
    assert results is not None
    if options.samples is not None:
        _write_samples(options.samples, results["samples"])
    return {
        name: _metrics(results, name)
        for name in {**results["results"], **results.get("groups", {})}
    }


class Loaded:
    """A task manager of the harness that gives tasks which are loaded already."""

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def load(self, names: Sequence[str]) -> Any:
        """All of them."""
        return self.loaded

    def __getattr__(self, name: str) -> Any:
        return {} if name == "task_index" else []


def _metrics(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A task's metrics as `NAME`, or `NAME.FILTER` where a filter has a name; counts as `items`."""
    row: dict[str, Any] = {}
    for key, value in results["results"].get(name, results.get("groups", {}).get(name)).items():
        metric, comma, chosen = key.partition(",")
        if not comma or value in ("N/A", "", " "):
            continue
        metric, error = metric.removesuffix("_stderr"), "_stderr" * metric.endswith("_stderr")
        row[metric + ("" if chosen == "none" else f".{chosen}") + error] = value
    counted = results.get("n-samples", {}).get(name)
    return row if counted is None else {**row, "items": counted["effective"]}


def _cache(run: LoadedRun, lm: StrawberryLM) -> Path:
    """The file for the answers of these weights, this depth, this tokenizer and these windows.

    The harness's cache knows requests by their texts alone, so each model needs a file of its own.
    """
    digest = sha256(f"answers 1, {run.recipe.to_yaml()}, {lm.tokenizer_name}".encode())
    steps = [recursion.steps for recursion in run.model.stack.outermost()]
    digest.update(f"{steps}, {lm.max_length}, {lm.add_bos_token}".encode())
    for name, tensor in sorted(run.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    folder = cache_folder() / "lm-eval"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / digest.hexdigest()[:32]


def _write_samples(folder: Path, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A JSON Lines file for each task: every item, with its requests and answers."""
    if folder.exists() and not folder.is_dir():
        raise StrawberryError(f"{folder}: is a file; name a folder for the items")
    folder.mkdir(parents=True, exist_ok=True)
    for task, items in samples.items():
        lines = [json.dumps(item, default=str, ensure_ascii=False) + "\n" for item in items]
        write_atomic(folder / f"{task}.jsonl", "".join(lines))
