from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from strawberry.errors import RecipeError
from strawberry.generation import generate, load_run
from strawberry.model.build import build
from strawberry.ranks.launch import RankFailed, verdict, without
from strawberry.recipe import load_recipe
from strawberry.training.engine import check_divides
from strawberry.training.outline import outline
from tests.faults.conftest import Figure, figure
from tests.support import some_slow
from tests.training.parallel.ranks import RECIPES, difference, job, rows, run, sets

__all__ = ["figure"]

NOISE = 2e-5
"""How far losses near 6 may be apart: sums over the batch are taken in another order."""

MAIN = ("gpt2", "original_air", "moe", "mor_token_choice", "mqar", "muon")


OWN: dict[str, dict[str, Any]] = {
    "mqar": {"data__task": "in_context_recall"},
    "moe": {"train__init_seed": 5, "train__data_seed": 6, "train__dropout_seed": 7},
}
"""Changes for one recipe: a task whose sequences differ in how many targets they have, and weights
and rows of seeds of their own."""


def compare(tmp_path: Path, names: tuple[str, ...], ranks: int, **changes: Any) -> None:
    """Train each recipe in one process, and by ranks; all that is logged has to agree."""
    together = {**changes, "train__gradient_accumulation_steps": 2}
    alone = {k: v for k, v in together.items() if k not in ("train__parallel", CHECKPOINT)}
    ones = [job(name, tmp_path / f"{name}-1", **alone, **OWN.get(name, {})) for name in names]
    run(1, ones, tmp_path / "jobs")
    jobs = [job(name, tmp_path / name, **together, **OWN.get(name, {})) for name in names]
    run(ranks, jobs, tmp_path / "jobs")
    for name in names:
        found = difference(tmp_path / f"{name}-1", tmp_path / name)
        print(f"{name}, {ranks} ranks, {changes}: {found:.1e}")  # noqa: T201 (the figure)
        assert found < NOISE, name
        first, *_, last = (row["loss"] for row in rows(tmp_path / name) if "loss" in row)
        assert first != last


CHECKPOINT = "train__checkpoint_activations"
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0}


def test_two_ranks_train_as_one_process_does(tmp_path: Path) -> None:
    """In shards, with experts, recomputed blocks and two micro-batches a step: the same losses.

    And so where ranks and micro-batches have different numbers of targets.
    """
    changes = {"train__parallel": "fsdp", CHECKPOINT: True, "train__max_iters": 3}
    compare(tmp_path, ("moe", "mqar"), 2, **changes)


@pytest.mark.parametrize("parallel", some_slow(["ddp", "fsdp"], ["ddp"]))
def test_an_objective_is_the_same_on_two_ranks(tmp_path: Path, parallel: str) -> None:
    """Its own blocks learn as in one process, by copies and in shards.

    So do averages of the weights, a stack that grows, an embedding with tables beside the head's
    and inputs for blocks, and rates that a parametrization scales.
    """
    objective = {"use": "multi_token", "form": "chained"}
    changes = {"train__parallel": parallel, CHECKPOINT: True, "train__max_iters": 3}
    averaging = [{"use": "ema", "decay": 0.5}, {"use": "latest", "every": 1}]
    changes["curriculum"] = [{"use": "growing_depth", "steps": 2}]
    changes["model__embedding"] = {"use": "ngram", "base": "per_layer", "rows": 64}
    changes["model__block"] = "per_layer"
    changes["model__parametrization"] = {"use": "complete_p", "base_width": 8, "base_depth": 1}
    compare(tmp_path, ("gpt2",), 2, objective=objective, averaging=averaging, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_random_depth_is_that_of_all_ranks(tmp_path: Path, parallel: str) -> None:
    """Ranks draw one number of steps, which is that of one process; blocks recompute."""
    block = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
    loop = {"use": "random_depth", "gradient_steps": 2, "noise": 0.0}
    stack = [block, {"recur": 3, "loop": loop, "stack": [block]}]
    changes = {"train__parallel": parallel, CHECKPOINT: True, "train__max_iters": 4}
    compare(tmp_path, ("gpt2",), 2, model__stack=stack, **changes)


IDEAS = Path(__file__).parents[2] / "ideas"


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ideas_of_plugins_are_the_same_on_two_ranks(tmp_path: Path, parallel: str) -> None:
    """A head that comes off the table, positions of the text, routed heads, chunks of the data."""
    block = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
    chunks = {"recur": 1, "loop": {"use": "chunked", "weight": 0.0}, "stack": [block]}
    changes: dict[str, Any] = {
        "model__stack": [{"attention": "switch_head", "ffn": "swiglu"}, chunks, block],
        "model__positional": "contextual",
        "model__embedding": "untied",
        "curriculum": [{"use": "untie_late", "share": 0.5}],
        "train__max_iters": 4,
    }
    names = ("untied", "contextual_position", "switch_head", "h_net")
    own = {"plugins": [str(IDEAS / f"{name}.py") for name in names]}
    run(1, [job("gpt2", tmp_path / "1", **changes) | own], tmp_path / "jobs")
    changes["train__parallel"] = parallel
    run(2, [job("gpt2", tmp_path / "2", **changes) | own], tmp_path / "jobs")
    assert difference(tmp_path / "1", tmp_path / "2") < NOISE


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_trains_alike(
    tmp_path: Path, ranks: int, parallel: str, recompute: bool
) -> None:
    """The main recipes, by copies and in shards, at an equal global batch."""
    changes = {"train__parallel": parallel, CHECKPOINT: recompute, "train__max_iters": 6}
    compare(tmp_path, MAIN, ranks, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_every_recipe_trains_on_two_ranks(tmp_path: Path, parallel: str) -> None:
    """All of recipes/, with recomputed blocks, whose losses are those of one process."""
    names = tuple(sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "seed"))
    changes = {"train__parallel": parallel, CHECKPOINT: True, "train__max_iters": 3}
    compare(tmp_path, names, 2, **changes)


@pytest.mark.slow
def test_bfloat16_on_ranks_is_that_of_one_process(tmp_path: Path) -> None:
    """With copies, the losses of one process that takes the batch in the same halves.

    In shards norm gains are rounded too, which no first loss shows; what blocks add to is not.
    That half of a batch is rounded by itself is what makes the losses of `original_air` differ from
    those of the whole: its gradient is forty times as sensitive to rounding as that of `gpt2`.
    """
    names, changes = ("gpt2", "original_air"), {"train__dtype": "bfloat16"}
    alone = [job(name, tmp_path / f"{name}-1", parts=2, **changes) for name in names]
    run(1, alone, tmp_path / "jobs")
    for parallel in ("ddp", "fsdp"):
        jobs = [
            job(name, tmp_path / f"{name}-{parallel}", train__parallel=parallel, **changes)
            for name in names
        ]
        run(2, jobs, tmp_path / "jobs")
    losses = {
        path.name: [row["loss"] for row in rows(path) if "loss" in row]
        for path in tmp_path.iterdir()
        if path.is_dir()
    }
    for name in names:
        assert losses[f"{name}-ddp"] == pytest.approx(losses[f"{name}-1"], abs=1e-6)
        assert losses[f"{name}-fsdp"][0] == pytest.approx(losses[f"{name}-1"][0], abs=1e-6)
    assert losses["gpt2-fsdp"] == pytest.approx(losses["gpt2-1"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.faults(9)
@pytest.mark.parametrize(
    "chain",
    [
        [(4, "fsdp"), (1, "ddp"), (4, "fsdp"), (2, "fsdp")],
        [(1, "ddp"), (4, "fsdp"), (2, "ddp"), (1, "ddp")],
    ],
)
@pytest.mark.parametrize("name", ["muon", "moe"])
def test_a_run_goes_on_with_other_ranks(
    tmp_path: Path, name: str, chain: list[tuple[int, str]], figure: Figure
) -> None:
    """Saved by so many ranks and loaded by others: each sample is seen once, in its turn.

    One process generates from each checkpoint; from the last one, what an undisturbed run does.
    """
    length = {"train__lr_decay_iters": 20}
    last = 2 * len(chain)
    run(1, [job(name, tmp_path / "1", train__max_iters=last, **length)], tmp_path / "jobs")
    for number, (ranks, parallel) in enumerate(chain):
        changes = {"train__parallel": parallel, "train__max_iters": 2 * (number + 1), **length}
        work = job(name, tmp_path / "run", resume=number > 0, **changes)
        run(ranks, [work], tmp_path / "jobs")
        text = generate(load_run(tmp_path / "run", device="cpu"), "def ", **GREEDY)
    assert text == generate(load_run(tmp_path / "1", device="cpu"), "def ", **GREEDY)
    whole, parts = (
        {row["step"]: row["loss"] for row in rows(tmp_path / each) if "loss" in row}
        for each in ("1", "run")
    )
    assert list(parts) == list(range(1, last + 1))
    found = max(abs(parts[step] - whole[step]) for step in parts)
    assert found < NOISE
    ranks = " -> ".join(str(size) for size, _ in chain)
    figure(last, len(parts), f"steps of {name} on {ranks} ranks", within=f"{found:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_in_shards_is_forked(tmp_path: Path, ranks: int) -> None:
    """By one process and by two: the fork goes on with the losses of an undisturbed run."""
    length = {"train__lr_decay_iters": 20, "train__parallel": "fsdp"}
    run(1, [job("gpt2", tmp_path / "1", train__max_iters=6, **length)], tmp_path / "jobs")
    run(2, [job("gpt2", tmp_path / "run", train__max_iters=3, **length)], tmp_path / "jobs")
    fork = job("gpt2", tmp_path / "fork", fork=tmp_path / "run", train__max_iters=6, **length)
    run(ranks, [fork], tmp_path / "jobs")
    losses = [
        {row["step"]: row["loss"] for row in rows(tmp_path / name) if "loss" in row}
        for name in ("1", "fork")
    ]
    assert list(losses[1]) == list(range(1, 7))
    assert losses[1] == pytest.approx(losses[0], abs=NOISE)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_train_compiled(tmp_path: Path, parallel: str) -> None:
    """Block by block on two ranks: the losses of one process that compiles nothing."""
    compiled = {"train__parallel": parallel, "train__compile": "blocks", "train__max_iters": 4}
    run(1, [job("gpt2", tmp_path / "1", train__max_iters=4)], tmp_path / "jobs")
    run(2, [job("gpt2", tmp_path / "run", **compiled)], tmp_path / "jobs")
    found = difference(tmp_path / "1", tmp_path / "run")
    print(f"gpt2 compiled, {parallel}: {found:.1e}")  # noqa: T201 (the figure)
    assert found < NOISE


@pytest.mark.parametrize("name", ["original_air", "deepseek", "hybrid", "recursive"])
def test_units_are_placed_as_they_are_drawn(name: str) -> None:
    """A place is given, in order, what is gathered at a time, and may empty it at once."""
    recipe = load_recipe(RECIPES / f"{name}.yaml", sets())
    whole, placed = build(recipe), list[nn.Module]()

    def place(unit: nn.Module) -> None:
        placed.append(unit)
        with torch.no_grad():
            for parameter in unit.parameters():
                parameter.zero_()

    model = build(recipe, place=place)
    assert placed == list(model.stack.units())
    own = {id(p) for unit in placed for p in unit.parameters()}
    for (key, one), other in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, torch.zeros_like(other) if id(one) in own else other), key


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    """Three ranks and four sequences: the line of the recipe, and what would be right."""
    recipe = load_recipe(RECIPES / "gpt2.yaml", sets())

    check_divides(recipe, 4)
    with pytest.raises(RecipeError, match=r"batch_size.*4 sequences.*3 ranks.*multiple of 3"):
        check_divides(recipe, 3)


def test_an_optimizer_that_needs_whole_tensors_is_refused_shards() -> None:
    """Adafactor doesn't say that it can step shards."""
    changes = ["optimizer={use: adafactor}", "train.parallel=fsdp"]
    recipe = load_recipe(RECIPES / "gpt2.yaml", [*sets(), *changes])

    outline(recipe).check_ranks(1)
    with pytest.raises(RecipeError, match="'adafactor' doesn't support sharded parameters"):
        outline(recipe).check_ranks(2)


def test_the_launcher_finds_who_failed_first(tmp_path: Path) -> None:
    """A killed rank is named; one that the launcher ended follows; what ranks agree on counts."""
    with pytest.raises(RankFailed, match="rank 1 was killed by SIGKILL"):
        verdict({0: 1, 1: -9}, tmp_path)
    assert verdict({0: 143, 1: 143}, tmp_path) == 143
    assert verdict({0: 2, 1: -15}, tmp_path) == 2


def test_the_launcher_hands_on_what_is_not_its_own() -> None:
    """Its options go, with their values, in both spellings."""
    given = ["train", "r.yaml", "--nproc", "2", "--run-dir=x", "--resume", "--set", "a=1"]

    assert without(given, ("--nproc", "--run-dir", "--resume")) == [
        "train", "r.yaml", "--set", "a=1"
    ]  # fmt: skip
