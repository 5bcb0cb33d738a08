"""Three public packages, each wrapped in one short file, and what the checks find in them.

What fails here fails by the package, or by what was asked of it; each case says why.
"""

import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch

import strawberry
from strawberry.check import checks_for, of_component, run
from strawberry.contracts import Use
from strawberry.errors import Location
from strawberry.plugin import Plugins
from strawberry.recipe.tree import located
from strawberry.recipe.validate import validate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # x-transformers scripts functions when it is imported
    pytest.importorskip("x_transformers")
    pytest.importorskip("local_attention")
    pytest.importorskip("pytorch_optimizer")

FILES = sorted(Path(__file__).with_name("wrapped").glob("*.py"))
X = "attention/x_transformers"
LOCAL = "attention/local_mha"
ANY = "optimizer/pytorch_optimizer"
PRODIGY = r"prodigy\.py:\d+: a copy .*prodigy\.py:\d+: the host reads"
"""It makes a number a tensor, and reads its distances, in every step."""
COMPILE = ("compile",)
"""What takes many seconds."""
CACHE = ("cache", "recurrence", "counted", "memory")
"""What asks for a cache, whether there is one or not."""

MOST_AND_ALL = pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(("future", "batch", "history"), id="most"),  # each takes seconds
        pytest.param((), marks=pytest.mark.slow, id="all"),
    ],
)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(files=FILES)


def verdicts(
    plugins: Plugins, name: str, fields: dict[str, Any], checks: Collection[str]
) -> dict[str, tuple[str, str]]:
    kind, _, short = name.partition("/")
    subject = of_component(kind, short, fields, plugins=plugins)
    return {o.check: (o.verdict, o.detail) for o in run(subject, tuple(checks))}


def all_but(kind: str, *left_out: str) -> list[str]:
    return [check for check in checks_for(kind) if check not in left_out]


def assert_only(found: dict[str, tuple[str, str]], failing: dict[str, str]) -> None:
    """Those checks fail, each with that text, and all others pass."""
    passed = {check for check, (verdict, _) in found.items() if verdict == "passed"}
    assert passed == found.keys() - failing.keys(), found
    for check, text in failing.items():
        verdict, detail = found[check]
        assert verdict == "failed"
        assert re.search(text, detail), detail


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_wrap_is_short(path: Path) -> None:
    """Imports, class, manifest and docstring: under thirty lines that are not blank."""
    assert sum(bool(line.strip()) for line in path.read_text("utf-8").splitlines()) < 30


@MOST_AND_ALL
def test_x_transformers_attention_holds_everything(left_out: list[str], plugins: Plugins) -> None:
    """With its own cache behind ours: causal at any scale, exact in the cache, counted, resumed.

    It is asked for cosine similarity, `qk_norm`, since otherwise x-transformers takes its softmax
    in float32 whatever the model has: then the cached form agrees to 1e-8 rather than to 1e-15,
    and `gradcheck`, which steps by 1e-6, is at the edge of what it allows.
    """
    assert_only(verdicts(plugins, X, {}, all_but("attention", *COMPILE, *left_out)), {})


@pytest.mark.slow
def test_x_transformers_inverted_attention_leaks(plugins: Plugins) -> None:
    """`inverted_attention` normalises over the queries, later ones among them.

    x-transformers lets it be asked for together with `causal`, whose mask hides keys alone. So a
    later query takes weight from an earlier one, in training and in evaluation; and no cache can
    know of queries to come.
    """
    failing = {
        "future": r"change the output at token \d+ .*, by 0\.\d+ .* declares `causal = True`",
        "cache": "logits differ from position 1 on",
        "recurrence": "gradient of .* differs",
    }
    found = verdicts(plugins, X, {"inverted": True}, all_but("attention", *COMPILE))
    assert_only(found, failing)


@MOST_AND_ALL
def test_local_attention_holds_all_but_bfloat16_weights(
    left_out: list[str], plugins: Plugins
) -> None:
    """It is causal, at inputs thirty times as large too: what is hidden gets the lowest number.

    Its rotation multiplies queries and keys, but no values, with a float32 tensor of one element.
    With bfloat16 weights the attention of the two is then float32 and the values are bfloat16,
    which einsum refuses. Under autocast, as Strawberry trains, they are cast alike.
    """
    found = verdicts(plugins, LOCAL, {}, all_but("attention", *COMPILE, *CACHE, *left_out))
    assert_only(found, {"bfloat16": "same dtype.*BFloat16"})


def test_local_attention_has_no_cache(plugins: Plugins) -> None:
    """Its cache is for steps of one token alone, so the wrap declares that it has none.

    Then there is nothing to agree with, and no bytes to count.
    """
    found = {check: verdict for check, (verdict, _) in verdicts(plugins, LOCAL, {}, CACHE).items()}
    assert found == {
        "cache": "skipped",
        "recurrence": "skipped",
        "counted": "passed",
        "memory": "passed",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [X, LOCAL])
def test_they_compile_into_one_graph(name: str, plugins: Plugins) -> None:
    """Einops and all."""
    assert_only(verdicts(plugins, name, {}, COMPILE), {})


@pytest.mark.parametrize(
    ("fields", "failing"),
    [
        pytest.param({"name": "adan"}, {}, id="adan"),
        pytest.param(
            {"name": "prodigy"},
            # Its lr multiplies the rate that it estimates; with 0.001 nothing moves.
            {"descends": "to 4.6", "moves": "never change: .*norm", "device": PRODIGY},
            id="prodigy at a usual rate",
        ),
        pytest.param(
            {"name": "prodigy", "lr": 1.0}, {"device": PRODIGY}, id="prodigy at a rate of 1"
        ),
        pytest.param({"name": "soap"}, {}, id="soap"),  # it keeps lists of matrices
        pytest.param(
            {"name": "stablespam"},
            # It counts steps outside of its state, and reads a number of each gradient.
            {
                "resumes": "after loading, training differs",
                "device": r"spam\.py:\d+: the host reads",
            },
            id="stable spam",
        ),
    ],
)
def test_optimizers(plugins: Plugins, fields: dict[str, Any], failing: dict[str, str]) -> None:
    """What does not descend or move, or can't go on after a checkpoint, is told from what does."""
    assert_only(verdicts(plugins, ANY, fields, checks_for("optimizer")), failing)


def test_state_without_a_parameter_is_refused_by_name(plugins: Plugins) -> None:
    """MADGRAD counts steps in `state["k"]`, which no checkpoint of ours can hold."""
    found = verdicts(plugins, ANY, {"name": "madgrad"}, ["resumes"])
    assert "StrawberryError" in found["resumes"][1]


def test_x_transformers_attention_is_ours(plugins: Plugins) -> None:
    """From the same weights, under ALiBi, it gives what `mha` gives; its softmax is in float32."""
    block = {"attention": {"use": "x_transformers", "qk_norm": False, "n_head": 4}}
    ours = {"attention": {"use": "mha", "n_head": 4, "gate": "elementwise"}}
    shape = {"vocab_size": 61, "block_size": 16, "n_embd": 32, "positional": "alibi"}

    def built(stack: dict[str, Any]) -> Any:
        data = {"name": "same", "model": {**shape, "stack": [stack]}}
        recipe = validate(located(data, Location("same", 1, 1)), Path("same"), plugins)
        model = strawberry.build(recipe).double().eval()
        return model, model.visits()[0].block.attention

    (model, theirs), (_, mha) = built(block), built(ours)
    inner = theirs.inner
    with torch.no_grad():
        mha.qkv.weight.copy_(torch.cat([m.weight for m in (inner.to_q, inner.to_k, inner.to_v)]))
        mha.gate.weight.copy_(inner.to_v_gate.weight)
        mha.out.weight.copy_(inner.to_out.weight)
    x = torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(1)).double()
    use = Use(torch.arange(11), 0, model.positional, model.weights)

    torch.testing.assert_close(theirs(x, use), mha(x, use), rtol=1e-5, atol=1e-7)
