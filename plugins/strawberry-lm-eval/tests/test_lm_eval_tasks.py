"""Scores of tasks: by the command, by the harness's own, and as metrics of ablations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from lm_eval.api.metrics import bleu, mean
from lm_eval_runs import ARCHITECTURES, make_run
from strawberry_lm_eval import StrawberryLM, __main__
from strawberry_lm_eval.deciding import suggested
from strawberry_lm_eval.measure import scores_of
from strawberry_lm_eval.tasks import quiet

import strawberry
from strawberry.commands import run as strawberry_command
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_eval_scores_tasks(
    llama: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A row a task, with its items in files; the second time, answers come from the cache."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    words = ["eval", str(llama), "--tasks", "berry_choice,berry_text,berry_go_on", "--json",
             "--device", "cpu", "--include-path", str(tasks), "--cache"]  # fmt: skip
    assert strawberry_command([*words, "--samples", str(tmp_path / "items")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["task"]: row["items"] for row in rows} == dict.fromkeys(
        ("berry_choice", "berry_text", "berry_go_on"), 6
    )
    assert {"acc", "acc_stderr", "acc_norm"} <= rows[0].keys()
    assert len((tmp_path / "items" / "berry_choice.jsonl").read_text().splitlines()) == 6
    monkeypatch.setattr(StrawberryLM, "_score", None)
    assert strawberry_command(words) == 0
    assert json.loads(capsys.readouterr().out) == rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "berry_chioce"], "unknown task 'berry_chioce'; did you mean 'berry_choice'?"),
        (["--tasks", ","], "--tasks: expected names"),
        (["--tasks", "berry_choice", "--iters", "2"], "leave out --split and --iters"),
    ],
)
def test_wrong_tasks_are_one_line(
    words: list[str], message: str, llama: Path, tasks: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A task that there isn't is named, with its neighbour."""
    from lm_eval.tasks import TaskManager

    plain = TaskManager.__init__

    def local(self: TaskManager, include_path: Path, include_defaults: bool = False) -> None:
        plain(self, include_path=include_path, include_defaults=False)

    monkeypatch.setattr(TaskManager, "__init__", local)  # its own tasks take seconds to list
    assert strawberry_command(["eval", str(llama), *words, "--include-path", str(tasks)]) == 2
    assert message in capsys.readouterr().err


def test_without_the_plugin_the_command_says_so(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--tasks` names what to install."""
    words = ["--no-plugin", "lm_eval", "eval", str(llama), "--tasks", "arc_easy"]
    assert strawberry_command(words) == 2
    assert "pip install strawberry-lm-eval" in capsys.readouterr().err


@pytest.mark.slow
def test_the_harness_s_command_knows_runs(
    llama: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m strawberry_lm_eval run --model strawberry` is the harness's `lm_eval`."""
    from lm_eval.tasks import TaskManager

    plain = TaskManager.__init__
    monkeypatch.setattr(
        TaskManager, "__init__",
        lambda self, **kwargs: plain(self, **{**kwargs, "include_defaults": False}),
    )  # fmt: skip
    words = ["run", "--model", "strawberry", "--model_args", f"run={llama}", "--tasks",
             "berry_choice", "--include_path", str(tasks), "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["lm_eval", *words])
    with quiet():
        __main__.main()
    assert "berry_choice" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_hf_backend_agrees(name: str, tasks: Path, tmp_path: Path, plugins: Plugins) -> None:
    """An exported run has the same answers to every request of three tasks, within 1e-4.

    A llama is exported as transformers' own class, the others with the recipe inside.
    """
    pytest.importorskip("accelerate")
    hf = pytest.importorskip("strawberry_hf")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    run = make_run(tmp_path, plugins, name)
    hf.export_run(run, tmp_path / "hf", plugins=plugins)
    names = ["berry_choice", "berry_text", "berry_go_on"]

    def answers(lm: object) -> list[object]:
        manager = TaskManager(include_path=tasks, include_defaults=False)
        results = simple_evaluate(model=lm, tasks=names, task_manager=manager, bootstrap_iters=0)
        return [item["resps"] for name in names for item in results["samples"][name]]

    theirs = HFLM(pretrained=str(tmp_path / "hf"), device="cpu", batch_size=3)
    ours = StrawberryLM(run, device="cpu", batch_size=3)
    farthest = 0.0
    with quiet():
        for one, two in zip(answers(theirs), answers(ours), strict=True):
            assert words_of(one) == words_of(two)
            pairs = zip(numbers(one), numbers(two), strict=True)
            farthest = max([farthest, *(abs(a - b) for a, b in pairs)])
    kind = type(theirs.model).__name__
    print(f"{name}: {kind} differs by {farthest:.1e} nats at most")  # noqa: T201 (pytest -s)
    assert farthest < 1e-4


def flat(value: object) -> list[object]:
    """The leaves of nested lists and tuples."""
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flat(part)]
    return [value]


def numbers(value: object) -> list[float]:
    """The numbers among them."""
    return [float(leaf) for leaf in flat(value) if isinstance(leaf, (int, float))]


def words_of(value: object) -> list[str]:
    """The texts among them."""
    return [leaf for leaf in flat(value) if isinstance(leaf, str)]


def test_generated_texts_have_scores_by_item() -> None:
    """A mean over items is a score, of each filter; what is no number of an item is left out."""

    class Task:
        OUTPUT_TYPE = "generate_until"

        def aggregation(self) -> dict[str, object]:
            return {"exact_match": mean, "f1": mean, "edits": mean, "bleu": bleu}

        def higher_is_better(self) -> dict[str, bool]:
            return {"exact_match": True, "f1": True, "edits": False, "bleu": True}

    items = [
        {"doc_id": n, "filter": name, "exact_match": n == 1, "f1": n / 4, "edits": 3 - n,
         "bleu": ("a", "b")}
        for name in ("strict-match", "none") for n in (2, 1, 0)
    ]  # fmt: skip
    scores = scores_of(Task(), items)
    assert {name: list(score.sums) for name, score in scores.items()} == {
        f"{name}_{metric}": values
        for name in ("strict_match", "none")
        for metric, values in
        {"accuracy": [0, 1, 0], "f1_score": [0, 0.25, 0.5], "edits": [3, 2, 1]}.items()
    }  # fmt: skip
    assert set(scores_of(Task(), items[:3])) == {"accuracy", "f1_score", "edits"}


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["berry_choice_bits", "berry_go_on_accuracy"])
def test_an_ablation_pairs_a_task_s_items(
    metric: str, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task's score is a metric; its noise over items is told beside that over seeds."""
    from lm_eval_runs import ROOT, SMALL

    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 60)
    data = f"data={{use: text, path: {tmp_path / 'text.txt'}}}"
    names = "[berry_choice, berry_go_on]"
    measure = f"measures=[{{use: lm_eval, tasks: {names}, include_path: {tasks}}}]"
    words = ["ablate", str(ROOT / "recipes" / "llama.yaml"), "--out", str(tmp_path / "sweep")]
    for override in (*SMALL, data, measure):
        words += ["--set", override]
    words += ["--vary", "ffn=swiglu,mlp", "--seeds", "2", "--metric", f"val_{metric}"]
    assert strawberry_command(words) == 0, capsys.readouterr().err
    assert strawberry_command(["report", str(tmp_path / "sweep")]) == 0
    report = (tmp_path / "sweep" / "report.md").read_text()
    assert f"val_{metric}" in report
    assert "other seeds on the same items" in report


def test_a_measure_keeps_the_scores_of_items(tasks: Path, tmp_path: Path, plugins: Plugins) -> None:
    """Accuracies and bits of the right answers are logged, and kept by item at each evaluation."""
    from lm_eval_runs import ROOT, SMALL

    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 60)
    overrides = [*SMALL, f"data={{use: text, path: {tmp_path / 'text.txt'}}}",
                 f"measures=[{{use: lm_eval, tasks: [berry_choice, berry_text, berry_go_on], "
                 f"include_path: {tasks}}}]"]  # fmt: skip
    recipe = strawberry.load_recipe(ROOT / "recipes/llama.yaml", overrides, plugins=plugins)
    metrics = strawberry.train(recipe, tmp_path / "run").metrics
    names = {"accuracy", "norm_accuracy", "bits"}
    assert {f"val_berry_choice_{name}" for name in names} | {
        "val_berry_text_bits",
        "val_berry_go_on_accuracy",
    } <= metrics.keys()
    with np.load(tmp_path / "run" / "rows" / "val_berry_choice_bits" / "000000002.npz") as kept:
        assert kept["nats"].sum() / kept["targets"].sum() == pytest.approx(
            metrics["val_berry_choice_bits"], rel=1e-5
        )
        # " red", " blue indeed", " green and long", twice
        assert kept["targets"].tolist() == [4, 12, 15] * 2


def test_a_measure_s_unknown_task_is_told_at_its_place(tmp_path: Path, plugins: Plugins) -> None:
    """An unknown task of a recipe is an error at the field that names it."""
    from lm_eval_runs import ROOT, SMALL

    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 60)
    (tmp_path / "tasks").mkdir()
    measure = f"{{use: lm_eval, tasks: [nowhere.yaml], include_path: {tmp_path}/no}}"
    data = f"data={{use: text, path: {tmp_path / 'text.txt'}}}"
    overrides = [*SMALL, data, f"measures=[{measure}]"]
    recipe = strawberry.load_recipe(ROOT / "recipes/llama.yaml", overrides, plugins=plugins)
    with pytest.raises(RecipeError, match=r"measures\[0\]\.\w+: .*no such folder"):
        strawberry.train(recipe, tmp_path / "run")


def test_suggested_tasks_fit_the_size() -> None:
    """Minimal pairs for a few million parameters; questions from 150M on."""
    assert [task.name for task in suggested(2 * 10**6)] == ["blimp"]
    assert [task.name for task in suggested(160 * 10**6)] == ["arc_easy", "hellaswag"]
