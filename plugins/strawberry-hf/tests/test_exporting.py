"""What is exported is the model: transformers' logits are ours; what can't be is refused."""

import json
from pathlib import Path

import pytest
import torch
from hf_runs import WITHIN, MakeLoaded, MakeRecipe, MakeRun, differ
from strawberry_hf import export_run

import strawberry
from strawberry.errors import RecipeError, StrawberryError
from strawberry.generation import LoadedRun, load_run

transformers = pytest.importorskip("transformers")

ROPE = "model.positional={use: rope, "
EXPRESSIBLE = {
    "llama": ("llama", []),
    "tied": ("llama", ["model.tie_embeddings=true"]),
    "biases": ("llama", ["model.bias=true"]),
    "far": ("llama", [ROPE + "base: 500000}", "model.norm={use: rmsnorm, eps: 1e-2}"]),
    "interleaved": ("llama", [ROPE + "layout: interleaved}"]),
    "backwards": ("llama", [ROPE + "sign: -1}"]),
    "interleaved backwards": ("llama", [ROPE + "layout: interleaved, sign: -1}"]),
    "linear": ("llama", [ROPE + "scaling: linear, factor: 4}"]),
    "ntk": ("llama", [ROPE + "scaling: ntk, factor: 4}"]),
    "wide heads": ("llama", ["model.stack.*.attention.n_qkv=64"]),
    "no gains": ("llama", ["model.norm={use: rmsnorm, gain: false}"]),
    "geglu": ("llama", ["model.stack.*.ffn=geglu"]),
    "bilinear": ("llama", ["model.stack.*.ffn=bilinear"]),
    "window": ("llama", ["model.stack.*.attention.window=5"]),
    "qk_norm": ("llama", ["model.stack.*.attention.qk_norm=true", ROPE + "sign: -1}"]),
    "gpt2": ("gpt2", []),
    "gpt2 untied": ("gpt2", ["model.tie_embeddings=false"]),
    "gpt2 no biases": ("gpt2", ["model.bias=false", "model.norm={use: layernorm, bias: false}"]),
    "gpt2 tanh": ("gpt2", ["model.stack.*.ffn.activation=gelu_tanh", "model.stack.*.ffn.n_ffn=40"]),
    "gpt2 relu2": ("gpt2", ["model.stack.*.ffn.activation=relu2"]),
}

REFUSED = {
    "aft": ("llama", "model.stack=[{attention: mha, ffn: swiglu}, {attention: aft_conv, "
            "ffn: swiglu}]", r"attention: 'aft_conv' has no counterp"),
    "moe": ("llama", "model.stack.*.ffn=moe", r"stack\[0\].ffn: 'moe' has no counterpart"),
    "mlp": ("llama", "model.stack.*.ffn=mlp", "'mlp' has .* with 'rope': swiglu, geglu"),
    "recursion": ("llama", "model.stack=[{recur: 2, stack: [{attention: mha, ffn: swiglu}]}]",
                  r"stack\[0\].recur: recursion has no counterpart"),
    "placement": ("llama", "model.residual.placement=sandwich", "placement: sandwich .* only pre"),
    "scale": ("llama", "model.residual.scale=depth", "residual.scale: depth .* only 1.0"),
    "embedding": ("llama", "model.embedding=smear", "embedding: 'smear' .* only tokens"),
    "parametrization": ("llama", "model.parametrization=mup", "'mup' multiplies logits"),
    "softcap": ("llama", "model.logit_softcap=30", "logit_softcap: 30.0 .* only null"),
    "norm": ("llama", "model.norm=layernorm", "norm: 'layernorm' .* with 'rope'"),
    "position": ("llama", "model.positional=alibi", "positional: 'alibi' .* only rope and learned"),
    "yarn": ("llama", ROPE + "scaling: yarn, factor: 2}", "scaling: this yarn"),
    "partial": ("llama", ROPE + "partial: 0.5}", "partial: a rotation of a part"),
    "weights": ("llama", "model.weights=factorized", "weights 'factorized'"),
    "sink": ("llama", "model.stack.*.attention.sink=true", "sink: `sink` has no"),
    "both": ("llama", "model.stack.*.attention={use: mha, qk_norm: true, window: 3}", "together"),
    "differing": ("llama", "model.stack=[{attention: mha, ffn: swiglu}, {attention: {use: mha, "
                  "n_head: 2}, ffn: swiglu}]", r"stack\[1\].attention: blocks that differ"),
    "half a block": ("llama", "model.stack=[{attention: mha}]", "a block without ffn"),
    "grouped": ("gpt2", "model.stack.*.attention.n_kv_head=2", "n_kv_head: 2 has no .* only 4 has"),
    "gated": ("gpt2", "model.stack.*.ffn=swiglu", "'swiglu' .* with 'learned': mlp has one"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPRESSIBLE)
def test_logits_are_ours(case: str, loaded: MakeLoaded, tmp_path: Path) -> None:
    """The folder's model in transformers gives our logits on random ids."""
    name, overrides = EXPRESSIBLE[case]
    run = loaded(name, *overrides)
    made = export_run(run, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert differ(run, model) < WITHIN
    assert made.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "model_type"),
    [([], "llama"), (EXPRESSIBLE["window"][1], "mistral"), (EXPRESSIBLE["qk_norm"][1], "qwen3")],
)
def test_the_architecture_is_the_plainest(
    overrides: list[str], model_type: str, loaded: MakeLoaded, tmp_path: Path
) -> None:
    """A window makes it a Mistral, normalised queries and keys a Qwen3."""
    assert export_run(loaded("llama", *overrides), tmp_path / "out").model_type == model_type


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused(case: str, small: MakeRecipe, tmp_path: Path) -> None:
    """Each line says at its place in the recipe what is in the way, and nothing is written."""
    name, override, message = REFUSED[case]
    recipe = small(name, override)
    run = LoadedRun(tmp_path, recipe, strawberry.build(recipe, "meta"), 0, [])
    with pytest.raises(RecipeError, match=message) as caught:
        export_run(run, tmp_path / "out", form="native")
    assert all(problem.location for problem in caught.value.problems)
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_is_the_run_s(make_run: MakeRun, tmp_path: Path) -> None:
    """AutoTokenizer gives our ids and our end of text, and goes with the generation's settings."""
    run = make_run("llama")
    export_run(run, tmp_path / "out")
    ours = load_run(run).tokenizer()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    said = "A strawberry, caf\u00e9 \U0001f353  and\n\ttabs"
    assert theirs.encode(said, add_special_tokens=False) == ours.encode(said)
    assert theirs.decode(ours.encode(said)) == said
    assert theirs.eos_token_id == theirs.bos_token_id == ours.eot
    assert theirs.model_max_length == 24
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == ours.eot
    # The model has 263 ids, and no text has the last ones: they are never generated there either.
    assert settings["suppress_tokens"] == list(range(ours.vocab_size, 263))


def test_a_folder_in_use_is_left_alone(make_run: MakeRun, tmp_path: Path) -> None:
    """An output folder that holds something is refused, and keeps it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(StrawberryError, match="already there and not empty"):
        export_run(make_run("gpt2"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_run_on_bare_tokens_has_no_tokenizer(make_run: MakeRun, tmp_path: Path) -> None:
    """The model alone is written then, and the result says so."""
    run = make_run("gpt2")
    (run / "tokenizer.json").unlink()
    assert not export_run(run, tmp_path / "out").tokenizer
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"README.md", "config.json", "model.safetensors"}


def test_a_tokenizer_of_another_form_is_refused(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not saved as a tokenizer.json is an error at its place, and nothing is left."""

    class Odd:
        eot = 256
        vocab_size = 257
        gaps = ()

        def save(self, path: Path) -> None:
            path.write_text("{}")

    monkeypatch.setattr(LoadedRun, "tokenizer", lambda loaded: Odd())
    with pytest.raises(RecipeError, match="tokenizer: 'strawberry/bytes' is saved in a form of i"):
        export_run(make_run("gpt2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_trained_model_says_the_same(name: str, small: MakeRecipe, tmp_path: Path) -> None:
    """Trained, exported and loaded, it continues a prompt greedily with the same text."""
    recipe = small(name, "train.max_iters=120", "train.learning_rate=3e-3", "tokenizer=bpe")
    run = strawberry.train(recipe, tmp_path / "run").folder
    export_run(run, tmp_path / "out")
    loaded = load_run(run, device="cpu")
    ours = strawberry.generate(loaded, "a straw", max_new_tokens=14, temperature=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    start = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode("a straw")]])
    ids = model.generate(start, max_new_tokens=14, do_sample=False)[0, start.shape[1] :]
    assert tokenizer.decode(ids, skip_special_tokens=True) == ours
    assert ours
