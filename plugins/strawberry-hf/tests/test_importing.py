"""What is imported is the checkpoint: our logits are transformers'; nothing unsafe is read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_runs import LENGTH, VOCAB_SIZE, WITHIN, MakeRun, differ
from safetensors.torch import load_file, save_file
from strawberry_hf import Imported, export_run, import_checkpoint

import strawberry
from strawberry.data import byte_tokenizer
from strawberry.errors import RecipeError, StrawberryError
from strawberry.generation import load_run
from strawberry.plugin import Plugins
from strawberry.training import evaluate

transformers = pytest.importorskip("transformers")

KIN: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-4,
}  # fmt: skip
GPT2: dict[str, Any] = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": LENGTH}
LINEAR = {"rope_theta": 1000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}

READ: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", KIN),
    "llama tied": ("Llama", {**KIN, "tie_word_embeddings": True}),
    "llama biases": ("Llama", {**KIN, "attention_bias": True}),
    "llama linear": ("Llama", {**KIN, **LINEAR}),
    "llama heads": ("Llama", {**KIN, "head_dim": 16, "hidden_act": "gelu"}),
    "mistral": ("Mistral", {**KIN, "sliding_window": 5}),
    "mistral whole": ("Mistral", {**KIN, "sliding_window": None}),
    "qwen2": ("Qwen2", KIN),
    "qwen3": ("Qwen3", {**KIN, "head_dim": 16, "attention_bias": True}),
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", {**GPT2, "tie_word_embeddings": False, "n_inner": 40}),
    "gpt2 relu": ("GPT2", {**GPT2, "activation_function": "relu", "resid_pdrop": 0.0}),
}


def checkpoint(folder: Path, kind: str = "Llama", config: dict[str, Any] = KIN, **save: Any) -> Any:
    """A folder as transformers writes it, of a model that is random throughout; the model."""
    torch.manual_seed(2)
    made = getattr(transformers, f"{kind}Config")(vocab_size=VOCAB_SIZE, **config)
    model = transformers.AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder, **save)
    byte_tokenizer(["<|eot|>"]).save(folder / "tokenizer.json")
    return model


@pytest.fixture
def take(tmp_path: Path, text: str, plugins: Plugins) -> Any:
    """Imports the folder `in` as the run `run`, with little data."""

    def take(*overrides: str) -> Imported:
        less = ["train.max_iters=2", "train.eval_iters=1", "train.log_interval=1", *overrides]
        recipe = tmp_path / "base.yaml"
        recipe.write_text(
            "name: base\nseed: 1\nmodel: {vocab_size: 9, block_size: 24, n_embd: 8, "
            "stack: [{ffn: swiglu}]}\noptimizer: adamw\n"
        )
        return import_checkpoint(
            tmp_path / "in", tmp_path / "run", recipe=recipe, overrides=[text, *less],
            plugins=plugins,
        )  # fmt: skip

    return take


def change(file: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("case", READ)
def test_logits_are_theirs(case: str, take: Any, tmp_path: Path) -> None:
    """The run's model gives the logits of transformers' model on random ids."""
    model = checkpoint(tmp_path / "in", *READ[case])
    made = take()
    assert differ(made.run, model) < WITHIN
    assert load_run(made.run).step == 0


def test_what_is_exported_comes_back(make_run: MakeRun, take: Any, tmp_path: Path) -> None:
    """Export and import give the weights of the run, to the last bit."""
    run = make_run("llama", "model.stack.*.attention.window=7")
    export_run(run, tmp_path / "in")
    take()
    one, other = (load_run(tmp_path / name).model.state_dict() for name in ("run-llama", "run"))
    assert [*other.values()]
    assert all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def test_an_imported_run_is_a_run(take: Any, tmp_path: Path) -> None:
    """It generates, evaluates, and is trained further from the checkpoint's weights."""
    checkpoint(tmp_path / "in")
    run = take("train.learning_rate=1e-9", "train.min_lr=1e-9").run
    assert isinstance(strawberry.generate(run, "a straw", max_new_tokens=3), str)
    before = evaluate(run, iters=1)["val_loss"]
    recipe = strawberry.load_recipe(run)
    assert (recipe.name, recipe.model.block_size) == ("base", 24)
    assert strawberry.train(recipe, run, resume=True).steps == 2
    assert evaluate(run, iters=1)["val_loss"] == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_widened(dtype: torch.dtype, take: Any, tmp_path: Path) -> None:
    """Weights of 16 bits are read as they are, and kept in float32."""
    checkpoint(tmp_path / "in").to(dtype).save_pretrained(tmp_path / "in")
    stored = load_file(tmp_path / "in" / "model.safetensors")["model.norm.weight"]
    norm = load_run(take().run).model.norm.weight
    assert stored.dtype == dtype
    assert torch.equal(norm, stored.float())


def test_shards_are_put_together(take: Any, tmp_path: Path) -> None:
    """An index and its files are read as one; a missing file is named."""
    model = checkpoint(tmp_path / "in", max_shard_size="20KB")
    assert not (tmp_path / "in" / "model.safetensors").exists()
    assert differ(take().run, model) < WITHIN
    shard = max((tmp_path / "in").glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(StrawberryError, match=f"{shard.name} is missing, of "):
        import_checkpoint(tmp_path / "in", tmp_path / "again")


def test_an_index_names_files_of_its_folder(take: Any, tmp_path: Path) -> None:
    """A path that leads elsewhere is refused."""
    checkpoint(tmp_path / "in", max_shard_size="20KB")
    change(tmp_path / "in" / "model.safetensors.index.json", weight_map={"a": "../b.safetensors"})
    with pytest.raises(StrawberryError, match="is no file of this folder"):
        take()


def test_pickles_are_never_opened(take: Any, tmp_path: Path) -> None:
    """Pickled weights are refused by name, with what to do, and no run is made."""
    checkpoint(tmp_path / "in")
    (tmp_path / "in" / "model.safetensors").rename(tmp_path / "in" / "pytorch_model.bin")
    with pytest.raises(StrawberryError, match=r"pytorch_model.bin is a pickle.*save_pretrained"):
        take()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gemma2"}, "model_type: 'gemma2' can't be read; gpt2, llama, mistral, qw"),
        ({"auto_map": {"AutoModel": "x.py"}}, "auto_map: .* code of its own, which is never run"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: quantised weights"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: scaling 'llama3' can't"),
        ({"hidden_act": "mish"}, "hidden_act: 'mish' can't be expressed; silu, gelu"),
        ({"hidden_size": "wide"}, "hidden_size: expected int, got 'wide'"),
        ({"vocab_size": None}, "vocab_size: is missing"),
        ({"model_type": "qwen2", "layer_types": None, "use_sliding_window": True}, "use_sliding"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types: blocks that dif"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx: Tr"),
        ({"intermediate_size": 41}, "mlp.up_proj.weight is for 40 features, not 41"),
        ({"num_hidden_layers": 3}, "there is no tensor layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, r"tensor layers.1.* and 8 more is of no known part"),
    ],
)
def test_what_can_not_be_expressed_is_refused(
    values: dict[str, Any], message: str, take: Any, tmp_path: Path
) -> None:
    """One line names the file, the key and the reason, and no run is made."""
    checkpoint(tmp_path / "in")
    change(tmp_path / "in" / "config.json", **values)
    with pytest.raises(StrawberryError, match=message) as caught:
        take()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_other_mistakes_are_one_line(take: Any, tmp_path: Path) -> None:
    """A folder that is not there, without a tokenizer, damaged, or with quantised numbers."""
    with pytest.raises(StrawberryError, match="no such folder; `hf download"):
        take()
    checkpoint(tmp_path / "in")
    weights = tmp_path / "in" / "model.safetensors"
    save_file({"model.norm.weight": torch.ones(2, dtype=torch.int8)}, weights)
    with pytest.raises(StrawberryError, match=r"norm.weight is int8: quantised weights"):
        take()
    weights.write_bytes(b"junk")
    with pytest.raises(StrawberryError, match=r"model.safetensors: can't be read"):
        take()
    (tmp_path / "in" / "tokenizer.json").unlink()
    with pytest.raises(StrawberryError, match=r"no tokenizer.json; transformers writes one"):
        take()
    (tmp_path / "in" / "config.json").write_text("{")
    with pytest.raises(StrawberryError, match=r"config.json: not JSON"):
        take()


def test_a_vocabulary_that_does_not_fit_is_located(take: Any, tmp_path: Path) -> None:
    """A tokenizer with more ids than the table has rows is an error of the model's."""
    checkpoint(tmp_path / "in")
    byte_tokenizer(["<|eot|>", *"abcdefgh"]).save(tmp_path / "in" / "tokenizer.json")
    with pytest.raises(RecipeError, match="vocabulary of 265, larger than the model's 263"):
        take()
    assert not (tmp_path / "run").exists()


def test_a_copy_of_a_tied_table_is_left_out(take: Any, tmp_path: Path) -> None:
    """Where the head is the table, a head that was saved beside it is of no use."""
    model = checkpoint(tmp_path / "in", "GPT2", GPT2)
    weights = tmp_path / "in" / "model.safetensors"
    stored = load_file(weights)
    save_file({**stored, "lm_head.weight": stored["transformer.wte.weight"].clone()}, weights)
    assert differ(take().run, model) < WITHIN


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
def test_a_head_of_its_own_is_kept(kind: str, take: Any, tmp_path: Path) -> None:
    """Where config.json says that the head is the table and the weights have another, it is used.

    transformers does the same.
    """
    config = {**(KIN if kind == "Llama" else GPT2), "tie_word_embeddings": False}
    model = checkpoint(tmp_path / "in", kind, config)
    change(tmp_path / "in" / "config.json", tie_word_embeddings=True)
    assert differ(take().run, model) < WITHIN
