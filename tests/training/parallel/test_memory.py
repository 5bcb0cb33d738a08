import json
from pathlib import Path
from typing import Any

import pytest

from strawberry.model.accounting import account
from strawberry.recipe import load_recipe
from strawberry.training.outline import outline
from strawberry.training.rank_cost import RankCost, rank_cost
from tests.training.parallel.ranks import finish, job, start


def both(
    name: str, parallel: str, ranks: int, file: Path, **changes: Any
) -> tuple[RankCost, list[dict[str, Any]]]:
    """What is said of a rank, and what each one measures."""
    work = job(name, file, train__parallel=parallel, **changes)
    recipe = load_recipe(Path(work["recipe"]), work["sets"])
    outlined = outline(recipe)
    said = rank_cost(outlined, account(recipe, outlined.model), ranks)
    file.write_text(json.dumps(work))
    ended = finish(start(ranks, ["-m", "tests.training.parallel.measure", str(file)]))
    for code, _, errors in ended:
        assert code == 0, errors
    return said, [json.loads(output.splitlines()[-1]) for _, output, _ in ended]


def compare(said: RankCost, measured: list[dict[str, Any]]) -> None:
    for name in ("parameters", "gradients", "optimizer", "activations"):
        fullest = max(rank[name] for rank in measured)
        assert getattr(said, name) == pytest.approx(fullest, rel=0.1), name
        share = getattr(said, name) / fullest
        print(f"{said.ranks} ranks, {said.parallel}: {name} {share:.3f}")  # noqa: T201 (the figure)
    if said.parallel == "fsdp":
        for rank in measured:
            assert rank["gathered"] <= said.gathered
            sent = sum(rank["nbytes"].values()) * (said.ranks - 1) // said.ranks
            assert said.sent == pytest.approx(sent, rel=0.1)


@pytest.mark.slow
def test_a_recursion_is_gathered_once_each_way(tmp_path: Path) -> None:
    """Four blocks applied twice each: one all-gather forward and one back, beside the root's."""
    said, measured = both("original_air", "fsdp", 2, tmp_path / "job")

    compare(said, measured)
    for rank in measured:
        assert rank["counts"] == {"all_gather_single": 3, "reduce_scatter_single": 2}
    assert said.gathers == 3


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ["gpt2", "original_air", "moe", "llama", "recursive"])
def test_what_is_said_of_a_rank_is_what_it_measures(
    tmp_path: Path, name: str, ranks: int, parallel: str
) -> None:
    """Parameters, gradients, state, activations and traffic within a tenth."""
    compare(*both(name, parallel, ranks, tmp_path / "job"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_is_said_in_bfloat16(tmp_path: Path, name: str, parallel: str) -> None:
    """Activations as autocast keeps them: with copies of matrices, or gathered in bfloat16."""
    compare(*both(name, parallel, 2, tmp_path / "job", train__dtype="bfloat16"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_what_it_takes_to_draw_a_model(tmp_path: Path, parallel: str) -> None:
    """In shards, a rank never holds much more than its part and one block; a copy, the whole."""
    changes = {"model__n_embd": 512, "model.stack[0].repeat": 32, "model.stack[0].ffn.n_ffn": 2048}
    said, measured = both("gpt2", parallel, 4, tmp_path / "job", **changes)

    whole = said.parameters * (4 if parallel == "fsdp" else 1)
    for rank in measured:
        print(f"{parallel}: {rank['drawn'] / whole:.2f} of the model")  # noqa: T201 (the figure)
        assert (rank["drawn"] < 0.5 * whole) == (parallel == "fsdp")


@pytest.mark.slow
def test_accumulated_gradients_travel_once(tmp_path: Path) -> None:
    """With three micro-batches in a step: three times the gathers, one reduction a unit."""
    changes = {"train__gradient_accumulation_steps": 3}
    said, measured = both("gpt2", "fsdp", 2, tmp_path / "job", **changes)

    for rank in measured:
        assert rank["counts"] == {"all_gather_single": 15, "reduce_scatter_single": 3}
    assert said.gathers == 5
