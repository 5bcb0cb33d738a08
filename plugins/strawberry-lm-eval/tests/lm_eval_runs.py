"""Small runs with random weights, and tasks with files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import strawberry
from strawberry.generation import LoadedRun
from strawberry.plugin import Plugins
from strawberry.training import begin

ROOT = Path(__file__).parents[3]
VOCAB_SIZE, LENGTH = 263, 32
SMALL = [f"model.vocab_size={VOCAB_SIZE}", f"model.block_size={LENGTH}", "model.n_embd=32",
         "tokenizer=bytes", "train.batch_size=2", "train.eval_iters=1", "train.max_iters=2",
         "train.warmup_iters=1", "train.log_interval=1"]  # fmt: skip
STACK = "model.stack=[{{repeat: 2, stack: [{{attention: {}, ffn: swiglu}}]}}]"
ARCHITECTURES: dict[str, tuple[str, list[str]]] = {
    "llama": ("llama", []),
    "moe": ("moe", []),
    "mla": ("llama", [STACK.format("mla")]),
    "linear": ("llama", [STACK.format("linear"), "model.positional=none"]),
    "air_full": ("air_full", []),
    "mor_token_choice": ("mor_token_choice", []),
}


def make_run(folder: Path, plugins: Plugins, name: str = "llama", *overrides: str) -> Path:
    """A run of an architecture whose every parameter is random, so that each of them counts."""
    text = folder / "text.txt"
    text.write_text("a strawberry is red, a blueberry is blue. " * 60)
    recipe_name, more = ARCHITECTURES[name]
    data = f"data={{use: text, path: {text}}}"
    recipe = strawberry.load_recipe(
        ROOT / "recipes" / f"{recipe_name}.yaml", [*SMALL, data, *more, *overrides], plugins=plugins
    )
    model = strawberry.build(recipe).eval()
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    return begin(recipe, folder / f"run-{name}", model.state_dict())


def log_probabilities(run: LoadedRun, ids: list[int]) -> list[float]:
    """The log probability of each id but the first, one pass in float64 for each of them."""
    model = run.model.double()
    logs = []
    with torch.no_grad():
        for end in range(1, len(ids)):
            row = model(torch.tensor([ids[:end]]))[0, -1].log_softmax(-1)
            logs.append(float(row[ids[end]]))
    return logs


def write_tasks(folder: Path) -> Path:
    """Three tasks with JSON Lines: `berry_choice`, `berry_text` and `berry_go_on`."""
    folder.mkdir()
    colours = ["red", "blue indeed", "green and long"]
    items = [
        {
            "question": f"this berry, of number {n}, is",
            "choices": colours,
            "answer": n % 3,
            "text": f"a {n} {c}.",
        }
        for n, c in enumerate(colours * 2)
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "items.jsonl").write_text(lines)
    common: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
    }
    choice = {
        "task": "berry_choice", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    text = {
        "task": "berry_text", "output_type": "loglikelihood_rolling", "doc_to_text": "",
        "doc_to_target": "{{text}}", "metric_list": [{"metric": "bits_per_byte"}],
    }  # fmt: skip
    go_on = {
        "task": "berry_go_on", "output_type": "generate_until", "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[0]}}", "metric_list": [{"metric": "exact_match"}],
        "generation_kwargs": {"until": ["a"], "max_gen_toks": 9},
    }  # fmt: skip
    for task in (choice, text, go_on):
        (folder / f"{task['task']}.yaml").write_text(json.dumps({**common, **task}))
    return folder
