"""Drafts by fewer recursion steps: the text of plain greedy decoding, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import strawberry
from strawberry.errors import StrawberryError
from strawberry.generation import Sampling, generate_batch, load_run, sample_ids
from strawberry.generation.speculative import check_draft, speculate
from strawberry.training import train
from tests.training.conftest import RecipeMaker

MHA: dict[str, Any] = {"attention": {"use": "mha", "n_head": 2}, "ffn": {"use": "mlp"}}


def model_of(make_recipe: RecipeMaker, *stack: Any, **model: Any) -> Any:
    return strawberry.build(make_recipe(model={"stack": list(stack), **model})).eval()


@pytest.mark.parametrize("mixer", ["mha", "mla"])
@pytest.mark.parametrize("sharing", ["cycle", "sequence"])
@pytest.mark.parametrize("draft", [1, 3])
def test_the_text_is_that_of_greedy_decoding(
    make_recipe: RecipeMaker, mixer: str, sharing: str, draft: int
) -> None:
    """Whatever the draft gets wrong, with blocks around the recursion, and with shared keys."""
    block = {"attention": {"use": mixer, "n_head": 2}, "ffn": {"use": "mlp"}}
    recur: dict[str, Any] = {"recur": 4, "sharing": sharing, "stack": [block, block]}
    model = model_of(make_recipe, block, recur, block, positional="rope")
    prompt = torch.tensor([[5, 9, 3]])
    plain = [int(t) for t in sample_ids(model, prompt, 25, Sampling(0.0), torch.Generator())]
    assert list(speculate(model, prompt, 25, draft)) == plain
    assert [r.steps for r in model.stack.outermost()] == [4]


@pytest.mark.parametrize("draft", [None, 1])
def test_exits_draft(make_recipe: RecipeMaker, tmp_path: Path, draft: int | None) -> None:
    """The first blocks of a trained run draft the text of greedy decoding; the stack is whole."""
    recipe = make_recipe(
        model={"stack": [{"repeat": 4, **MHA}]}, objective={"use": "early_exit", "draft": draft}
    )
    train(recipe, tmp_path / "run")
    loaded = load_run(tmp_path / "run", weights="float32")
    model = loaded.model
    assert model.objective.draft_depth == (draft or 2)
    prompt = torch.tensor([[5, 9, 3]])
    plain = [int(t) for t in sample_ids(model, prompt, 12, Sampling(0.0), torch.Generator())]
    assert list(speculate(model, prompt, 12)) == plain
    assert model.stack.depth == 4
    text = generate_batch(loaded, ["line"], max_new_tokens=8, sampling=Sampling(0.0))
    drafted = generate_batch(
        loaded, ["line"], max_new_tokens=8, sampling=Sampling(0.0), draft_heads=True
    )
    assert drafted == text


def test_drafts_spare_full_passes(
    make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later steps that do nothing make every draft right: one full pass for five tokens."""
    model = model_of(make_recipe, {"recur": 3, "step_norms": True, "stack": [MHA]})
    for name, parameter in model.named_parameters():
        if "norms.1." in name or "norms.2." in name:
            torch.nn.init.zeros_(parameter)
    depths: list[int] = []
    trunk = model.trunk

    def counting(idx: Any, cache: Any = None) -> Any:
        depths.append(model.stack.outermost()[0].steps)
        return trunk(idx, cache)

    monkeypatch.setattr(model, "trunk", counting)
    assert len(list(speculate(model, torch.tensor([[1, 2]]), 20, 1))) == 20
    assert depths.count(3) == 4


@pytest.mark.parametrize("positional", ["rope", "learned"])
def test_ids_that_no_text_has_are_never_drafted(
    make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch, positional: str
) -> None:
    """Though the model likes them best: drafted and verified, and plainly past a window."""
    model = model_of(make_recipe, {"recur": 3, "stack": [MHA]}, positional=positional)
    model.drawable = known = model.vocab_size - 20
    model.gaps = (3, known - 1)
    plain = model.head_logits

    def likes(h: torch.Tensor) -> torch.Tensor:
        logits = plain(h)
        logits[..., [*model.gaps, *range(known, logits.shape[-1])]] += 100
        return logits

    monkeypatch.setattr(model, "head_logits", likes)
    with torch.no_grad():
        drawn = list(speculate(model, torch.tensor([[1, 2]]), 40, 1))
    assert len(drawn) == 40
    assert max(drawn) < known
    assert not {*drawn} & {*model.gaps}


def test_past_the_window_it_is_plain(make_recipe: RecipeMaker) -> None:
    """Learned positions hold 16 tokens; more of them are decoded as ever."""
    model = model_of(make_recipe, {"recur": 2, "stack": [MHA]}, positional="learned")
    prompt = torch.tensor([[5, 9, 3]])
    plain = [int(t) for t in sample_ids(model, prompt, 25, Sampling(0.0), torch.Generator())]
    assert list(speculate(model, prompt, 25, 1)) == plain


@pytest.mark.parametrize(
    ("node", "draft", "message"),
    [
        (MHA, 1, "has no recursion"),
        ({"recur": 2, "stack": [MHA]}, 2, "between 1 and 1"),
        ({"recur": 2, "stack": [MHA]}, 0, "between 1 and 1"),
        (
            {"recur": 2, "stack": [{"attention": "aft_simple"}]},
            1,
            "AFTSimple can't truncate its cache",
        ),
        (
            {"recur": 2, "stack": [{"attention": {"use": "mha", "window": 4}}]},
            1,
            "MultiHeadAttention can't truncate its cache",
        ),
        (
            {"recur": 2, "router": {"use": "threshold"}, "stack": [MHA]},
            1,
            "a router decides",
        ),
    ],
)
def test_what_can_not_draft_is_refused(
    make_recipe: RecipeMaker, node: Any, draft: int, message: str
) -> None:
    """One line, before anything is computed."""
    model = model_of(make_recipe, node, positional="none")
    with pytest.raises(StrawberryError, match=message):
        check_draft(model, draft)


def test_generate_with_a_draft(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Several prompts, each as without a draft; with chance in it, it is refused."""
    recipe = make_recipe(model={"stack": [{"recur": 3, "stack": [MHA]}]})
    run = load_run(train(recipe, tmp_path / "run").folder)
    settings: dict[str, Any] = {"max_new_tokens": 10, "sampling": Sampling(0.0)}
    plain = generate_batch(run, ["line", "the cat"], **settings)
    assert generate_batch(run, ["line", "the cat"], draft_steps=1, **settings) == plain
    with pytest.raises(StrawberryError, match="temperature 0"):
        generate_batch(run, ["line"], draft_steps=1)
