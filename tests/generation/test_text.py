import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import strawberry
from strawberry.errors import StrawberryError
from strawberry.generation import (
    LoadedRun,
    Sampling,
    generate,
    generate_batch,
    load_run,
    sample_batch,
    sample_ids,
)
from strawberry.generation.sampling import sampling_for
from strawberry.training import train
from tests.data.test_streaming import byte_fallback
from tests.support import REGISTRY
from tests.training.conftest import RecipeMaker

AFT = [{"attention": {"use": "aft_simple", "n_qkv": 16}, "ffn": {"use": "swiglu", "n_ffn": 24}}]


@pytest.fixture
def run(make_recipe: RecipeMaker, tmp_path: Path) -> LoadedRun:
    """A model that was trained a little, so that its choices are not all alike."""
    recipe = make_recipe(train={"max_iters": 20, "batch_size": 8, "learning_rate": 1e-2})
    return load_run(train(recipe, tmp_path / "run").folder)


def greedy(model: Any, prompt: Tensor, count: int, use_cache: bool) -> list[int]:
    steps = sample_ids(model, prompt, count, Sampling(0.0), torch.Generator(), use_cache=use_cache)
    return [int(step) for step in steps]


@pytest.mark.parametrize("positional", ["rope", "learned", "none"])
@pytest.mark.parametrize("stack", ["mha", "aft"])
def test_greedy_with_a_cache_is_the_argmax_of_the_whole_forward(
    make_recipe: RecipeMaker, positional: str, stack: str
) -> None:
    """Token by token the argmax of a plain forward; with and without a cache past the window."""
    if stack == "aft" and positional == "rope":
        pytest.skip("AFT uses no rotary positions")
    sections: dict[str, Any] = {"positional": positional}
    if stack == "aft":
        sections["stack"] = AFT
    model = strawberry.build(make_recipe(model=sections)).eval()
    prompt = torch.randint(0, 256, (1, 5), generator=torch.Generator().manual_seed(1))
    cached = greedy(model, prompt, 30, use_cache=True)
    assert cached == greedy(model, prompt, 30, use_cache=False)
    ids = prompt
    with torch.no_grad():
        for token in cached[: 16 - 5]:
            assert token == int(model(ids)[0, -1].argmax())
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_a_prompt_longer_than_the_window_is_cut(make_recipe: RecipeMaker) -> None:
    """Learned positions hold 16 tokens: a longer prompt goes on from its end."""
    model = strawberry.build(make_recipe(model={"positional": "learned"})).eval()
    prompt = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(1))
    assert greedy(model, prompt, 4, True) == greedy(model, prompt, 4, False)


def test_top_k_leaves_k_and_top_p_the_smallest_set_that_reaches_p() -> None:
    """What is kept is renormalised; what is cut has no chance at all."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    torch.testing.assert_close(
        Sampling(1.0, top_k=2).probabilities(logits), torch.tensor([[0.625, 0.375, 0.0, 0.0]])
    )
    torch.testing.assert_close(
        Sampling(1.0, top_p=0.7).probabilities(logits), torch.tensor([[0.625, 0.375, 0.0, 0.0]])
    )
    assert Sampling(1.0, top_p=1e-9).probabilities(logits)[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    torch.testing.assert_close(Sampling(1.0, top_k=99).probabilities(logits), logits.exp())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"use": "stdlib"}, (0.9, 0.8, 5)),
        ({"use": "epochs", "of": "stdlib"}, (0.9, 0.8, 5)),
        ({"use": "tokens", "path": "here"}, (0.75, 0.9, 8)),
    ],
)
def test_default_sampling_is_that_of_the_data(
    make_recipe: RecipeMaker, data: dict[str, Any], expected: tuple[float, float, int]
) -> None:
    """Code has settings of its own, other sources have those of prose, and given ones win."""
    recipe = make_recipe(data=data)
    default = sampling_for(recipe)
    assert (default.temperature, default.top_p, default.no_repeat) == expected
    assert sampling_for(recipe, 0.0, 5, 1.0, 0) == Sampling(0.0, 5, 1.0, None)


def test_temperature_sharpens_and_flattens() -> None:
    """Probabilities are those of the logits over the temperature; at 0 the best has all."""
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    for temperature in (0.25, 1.0, 4.0):
        expected = [math.exp(v / temperature) for v in (2.0, 1.0, 0.0)]
        torch.testing.assert_close(
            Sampling(temperature).probabilities(logits)[0],
            torch.tensor([v / sum(expected) for v in expected]),
        )
    assert Sampling(0.0).probabilities(logits)[0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5},
              {"max_new_tokens": -1}]
)  # fmt: skip
def test_senseless_settings_are_refused(run: LoadedRun, wrong: dict[str, Any]) -> None:
    """Each is one line, before anything is computed."""
    with pytest.raises(StrawberryError):
        generate(run, "x", **wrong)


def test_a_text_begins_once(run: LoadedRun) -> None:
    """A prompt that begins with the end of a text is the same prompt as without it."""
    eot = run.tokenizer().decode([run.tokenizer().eot])
    assert generate(run, f"{eot}line ", seed=3) == generate(run, "line ", seed=3)
    assert generate(run, eot, seed=3) == generate(run, "", seed=3)


def test_the_seed_decides_and_the_stream_is_the_text(run: LoadedRun) -> None:
    """The same seed gives the same text, another one another; pieces add up to the result."""
    pieces: list[str] = []
    text = generate(run, "line ", max_new_tokens=40, seed=3, stream=pieces.append)
    assert "".join(pieces) == text == generate(run, "line ", max_new_tokens=40, seed=3)
    assert len(pieces) > 1
    assert text != generate(run, "line ", max_new_tokens=40, seed=4)


def test_prompts_side_by_side_give_what_each_gives_alone(run: LoadedRun) -> None:
    """Prompts of different lengths, and samples of each, by greedy choice and by chance."""
    prompts = ["line 12: the", "l", "line 1"]
    for temperature in (0.0, 0.9):
        alone = [
            [
                generate(run, prompt, max_new_tokens=12, temperature=temperature, seed=5 + n)
                for n in range(2)
            ]
            for prompt in prompts
        ]
        sampling = Sampling(temperature, top_p=0.9)
        together = generate_batch(
            run, prompts, samples=2, max_new_tokens=12, sampling=sampling, seed=5
        )
        assert together == alone
    assert together[0][0] != together[0][1]


def test_samples_read_their_prompt_once(run: LoadedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt's tokens go through the model in one row, each further one in a row a sample."""
    seen: list[tuple[int, ...]] = []
    trunk = run.model.trunk

    def counting(idx: Tensor, cache: Any = None) -> Any:
        seen.append(tuple(idx.shape))
        return trunk(idx, cache)

    monkeypatch.setattr(run.model, "trunk", counting)
    generate_batch(run, ["line 1"], samples=3, max_new_tokens=4)
    assert seen == [(1, 7), (3, 1), (3, 1), (3, 1)]


def test_rows_stream_under_their_number(run: LoadedRun) -> None:
    """What is streamed of a row is its text, and no row waits for another's end of text."""
    pieces: list[str] = ["", "", "", ""]

    def stream(row: int, piece: str) -> None:
        pieces[row] += piece

    made = generate_batch(run, ["a", "bc"], samples=2, max_new_tokens=9, stream=stream)
    assert [made[0][0], made[0][1], made[1][0], made[1][1]] == pieces


def test_what_depends_on_the_batch_goes_by_itself(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Experts that choose among the tokens of a batch: each prompt is as it is alone."""
    ffn = {"use": "moe", "routing": "expert", "experts": 4, "n_ffn": 8}
    recipe = make_recipe(model={"stack": [{"attention": "mha", "ffn": ffn}]})
    loaded = load_run(train(recipe, tmp_path / "moe").folder)
    settings: dict[str, Any] = {"max_new_tokens": 6, "allow_noncausal": ["moe"]}
    alone = [[generate(loaded, prompt, temperature=0, **settings)] for prompt in ("line", "mat 3")]
    assert generate_batch(loaded, ["line", "mat 3"], sampling=Sampling(0.0), **settings) == alone


@pytest.mark.parametrize("positional", [e.name for e in REGISTRY.entries("positional")])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_window_that_is_left_by_a_batch(
    make_recipe: RecipeMaker, positional: str, use_cache: bool
) -> None:
    """Past the window rows of different lengths go on as each does alone, two samples of each.

    Some prompts are within the window of 16 tokens, and some are longer than it.
    """
    stack = [{"attention": {"use": "mha", "n_head": 4}, "ffn": "swiglu"}]
    made = make_recipe(model={"positional": positional, "stack": stack})
    model = strawberry.build(made).eval()
    prompts = [[3, 1, 4, 1, 5], [9, 2], [*range(40, 61)], [*range(80, 100)], [7, 8]]
    rows: dict[int, list[int]] = {row: [] for row in range(2 * len(prompts))}
    randoms = [torch.Generator() for _ in rows]
    steps = sample_batch(model, prompts, 13, Sampling(0.0), randoms, samples=2, use_cache=use_cache)
    for new in steps:
        for row, token in new:
            rows[row].append(token)
    for row, found in rows.items():
        assert found == greedy(model, torch.tensor([prompts[row // 2]]), 13, use_cache)


def test_the_public_function_takes_a_folder(run: LoadedRun) -> None:
    """`strawberry.generate(folder)` works without a prompt."""
    assert isinstance(strawberry.generate(run.folder, max_new_tokens=3), str)


def drawn(monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Let every model draw these ids, in each of its rows."""

    def sample(_: Any, prompts: list[Any], *__: Any, **___: Any) -> Iterator[list[tuple[int, int]]]:
        return ([(row, i) for row in range(len(prompts))] for i in ids)

    monkeypatch.setattr(sys.modules["strawberry.generation.text"], "sample_batch", sample)


def test_text_ends_at_the_end_of_text_token(
    run: LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing after it is shown; ids that the tokenizer does not have are passed over."""
    eot = run.tokenizer().eot
    drawn(monkeypatch, [104, 3000, 105, eot, 106])
    streams = ["", ""]

    def stream(row: int, piece: str) -> None:
        streams[row] += piece

    assert generate_batch(run, ["a", "b"], stream=stream) == [["hi"], ["hi"]]
    assert streams == ["hi", "hi"]


def test_other_tokenizers_text_is_whole(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a llama's tokenizer: blanks stay after a prompt, streamed and not."""
    byte_fallback().save(str(tmp_path / "llama.json"))
    path = {"use": "bpe", "path": str(tmp_path / "llama.json")}
    recipe = make_recipe(model={"vocab_size": 330}, tokenizer=path, train={"max_iters": 1})
    run = load_run(train(recipe, tmp_path / "run").folder)
    drawn(monkeypatch, run.tokenizer().encode("of and to"))
    for prompt, expected in {"": "of and to", "the": " of and to"}.items():
        pieces: list[str] = []
        assert generate(run, prompt, stream=pieces.append) == expected
        assert "".join(pieces) == expected
        assert generate_batch(run, [prompt, prompt]) == [[expected], [expected]]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A folder without a recipe, or one that is not there, is one line."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StrawberryError, match="run"):
            generate(folder)


def test_what_is_not_causal_is_refused_unless_allowed(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Experts that choose tokens look ahead; allowed by name, the whole sequence is recomputed."""
    ffn = {"use": "moe", "routing": "expert", "experts": 4, "n_ffn": 8}
    stack = [{"attention": "mha"}, {"repeat": 2, "stack": [{"attention": "mha", "ffn": ffn}]}]
    loaded = load_run(train(make_recipe(model={"stack": stack}), tmp_path / "run").folder)
    way_out = r"moe: not causal: .* --allow-noncausal moe to generate anyway$"
    for allowed in ((), ("mlp",)):
        with pytest.raises(StrawberryError, match=way_out):
            generate(loaded, "x", allow_noncausal=allowed)
    for allowed in (("moe",), ("strawberry/moe",)):
        assert generate(loaded, "x", max_new_tokens=4, allow_noncausal=allowed)
    prompt = torch.tensor([[65, 66, 67]])
    assert greedy(loaded.model, prompt, 9, True) == greedy(loaded.model, prompt, 9, False)


def test_cold_is_the_most_likely(run: LoadedRun) -> None:
    """The smallest temperatures choose as zero does, without a probability that is none."""
    expected = generate(run, "line", max_new_tokens=12, temperature=0.0)
    for temperature in (1e-9, 1e-40, 5e-324):
        cold = generate(run, "line", max_new_tokens=12, temperature=temperature, no_repeat=0)
        assert cold == expected
    for wrong in (math.nan, math.inf, -1.0):
        with pytest.raises(StrawberryError, match="temperature"):
            generate(run, temperature=wrong)


def test_too_much_for_memory_is_one_error(run: LoadedRun) -> None:
    """What no memory holds is refused with what to lower, and not as torch says it."""
    with pytest.raises(StrawberryError, match=r"(?s)out of memory.*max_new_tokens \(now 10"):
        generate(run, max_new_tokens=10**15)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_that_no_text_has_are_never_drawn(
    make_recipe: RecipeMaker, tmp_path: Path, temperature: float, use_cache: bool
) -> None:
    """Though the model likes them best: by greedy choice and by chance, side by side and alone.

    Training says that there are such ids, and how many.
    """
    said: list[str] = []
    recipe = make_recipe(train={"max_iters": 1}, model={"vocab_size": 400})
    loaded = load_run(train(recipe, tmp_path / "run", warn=said.append).folder)
    known = loaded.tokenizer().vocab_size
    told = f"the tokenizer has {known} ids, the model 400"
    assert len([line for line in said if told in line]) == 1
    model = loaded.model
    plain = model.head_logits

    def likes(h: Tensor) -> Tensor:
        logits = plain(h)
        logits[..., known:] += 100
        return logits

    model.head_logits = likes  # type: ignore[method-assign]
    model.forward = lambda idx, cache=None: likes(model.trunk(idx, cache)[0])  # type: ignore[method-assign]
    texts = generate_batch(
        loaded, ["a", "the"], samples=2, max_new_tokens=12, use_cache=use_cache,
        sampling=Sampling(temperature),
    )  # fmt: skip
    assert all(text for row in texts for text in row)
    prompt = torch.zeros(2, 1, dtype=torch.long, device=model.device)
    drawn = sample_ids(
        model, prompt, 12, Sampling(temperature), torch.Generator(), use_cache=use_cache
    )
    assert all(int(ids.max()) < known for ids in drawn)
