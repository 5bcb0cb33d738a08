"""Checkpoints of the original project, made into runs."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from strawberry_original.importing import import_file

from strawberry.commands import run
from strawberry.data import TokenWriter
from strawberry.errors import StrawberryError
from strawberry.generation import load_run
from strawberry.recipe import load_recipe
from strawberry.training import train

GOLDEN = Path(__file__).parents[3] / "tests/golden" / "original_air_l4.safetensors"
Writer = Callable[..., Path]


@pytest.fixture
def golden() -> dict[str, Any]:
    """The original's numbers, and the hyper-parameters that they were made with."""
    with safe_open(GOLDEN, "pt") as file:
        tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {**tensors, "config": json.loads(file.metadata()["config"])}


@pytest.fixture
def write(golden: dict[str, Any], tmp_path: Path) -> Writer:
    """Writes a checkpoint as the original does, its compiled model's prefix and all."""

    def save(prefix: str = "", **changes: Any) -> Path:
        names = ("block.lr_qkvo.weight", "block.lr_layers.weight", "embed.weight")
        model = {prefix + name: golden[f"param/{name}"] for name in names}
        model[f"{prefix}unembed.weight"] = golden["param/embed.weight"]
        parameters = [torch.nn.Parameter(torch.zeros(2, 2))]
        optimizer = torch.optim.AdamW(parameters, lr=3e-3)
        parameters[0].grad = torch.ones(2, 2)
        optimizer.step()
        content = {
            "stats": {"step": 40, "loss": {"train": [torch.tensor(4.5)]}, "lr": [1e-3]},
            "device": "cuda",
            "model": model,
            "hyperparams": golden["config"],
            "optimizer_hyperparams": {"eps": 1e-10, "beta1": 0.9, "beta2": 0.95,
                                      "weight_decay": 0.1, "use_muon": False, "momentum": 0.95},
            "optimizers": [optimizer.state_dict()],
        }  # fmt: skip
        path = tmp_path / "air.strawberry"
        torch.save({**content, **changes}, path)
        return path

    return save


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_the_imported_model_has_the_originals_logits(
    write: Writer, golden: dict[str, Any], tmp_path: Path, prefix: str
) -> None:
    """Number for number, from the run folder alone, at the original's step."""
    made = import_file(write(prefix), tmp_path / "run")
    assert (made.kind, made.size) == ("checkpoint", 40)
    loaded = load_run(tmp_path / "run", device="cpu")
    with torch.no_grad():
        logits = loaded.model(golden["idx"])
    assert loaded.step == 40
    assert (logits - golden["logits"]).abs().max() < 2e-5


def test_an_imported_run_can_be_forked(write: Writer, tmp_path: Path) -> None:
    """Training goes on from the original's weights and step, with the optimizer begun afresh."""
    import_file(write(), tmp_path / "original")
    said: list[str] = []
    source = load_run(tmp_path / "original", device="cpu").recipe
    train_fields = {"max_iters": 42, "batch_size": 2, "log_interval": 1, "device": "cpu"}
    content = source.to_dict() | {"data": "stdlib", "tokenizer": "bytes", "train": train_fields}
    path = tmp_path / "recipe.json"
    content["model"]["vocab_size"] = 300  # another vocabulary can't be taken over
    path.write_text(json.dumps(content))
    with pytest.raises(StrawberryError, match="does not fit this recipe"):
        train(load_recipe(path), tmp_path / "run", fork_of=tmp_path / "original", warn=said.append)
    content["model"]["vocab_size"] = 96
    content["data"], content["tokenizer"] = (
        {"use": "tokens", "path": str(tmp_path / "t.tok")},
        "bpe",
    )
    with TokenWriter(tmp_path / "t.tok", 96) as writer:
        writer.append(np.arange(900) % 90, 0)
    path.write_text(json.dumps(content))
    train(load_recipe(path), tmp_path / "run", fork_of=tmp_path / "original", warn=said.append)
    assert any("their state starts empty" in line for line in said)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]  # the first one is the evaluation due before
    assert [row["step"] for row in rows if "loss" in row][:2] == [41, 42]


def test_what_is_another_version_is_named(write: Writer, tmp_path: Path) -> None:
    """Other tensors, other shapes, other keys: each refusal says which, and leaves no folder."""
    path = write(model={"blocks.0.qkv.weight": torch.zeros(2, 2)})
    with pytest.raises(StrawberryError, match=r"another version.*blocks\.0\.qkv\.weight"):
        import_file(path, tmp_path / "run")
    with pytest.raises(StrawberryError, match="hyper-parameters say"):
        import_file(write(hyperparams={**_config(), "n_embd": 64}), tmp_path / "run")
    with pytest.raises(StrawberryError, match="r_layer"):
        import_file(write(hyperparams={**_config(), "r_layer": 2}), tmp_path / "run")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(StrawberryError, match="not a checkpoint of the original"):
        import_file(tmp_path / "other.pt", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _config() -> dict[str, int]:
    with safe_open(GOLDEN, "pt") as file:
        config: dict[str, int] = json.loads(file.metadata()["config"])
    return config


def test_the_command(write: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the file was and how to use what it made; what is there is not overwritten."""
    made = tmp_path / "tokenizer.json"
    vocab = dict(enumerate(bytes([byte]) for byte in range(256)))
    content = {"pattern": "gpt4o", "special": {"<|eot|>": 256}, "vocab": vocab}
    (tmp_path / "cl.bin").write_bytes(pickle.dumps(content))
    assert run(["original", "import", str(tmp_path / "cl.bin"), str(made)]) == 0
    assert f"tokenizer: {{use: bpe, path: {made}}}" in capsys.readouterr().out
    (tmp_path / "data.bin").write_bytes(pickle.dumps({"dataset": [[1, 2, 3, 256]]}))
    arguments = [str(tmp_path / "data.bin"), str(tmp_path / "tok"), "--json",
                 "--encoder", str(tmp_path / "cl.bin")]  # fmt: skip
    assert run(["original", "import", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 4
    assert run(["original", "import", *arguments]) == 2
    assert "already exists" in capsys.readouterr().err
