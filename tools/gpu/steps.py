"""Recipes at the sizes that are asked for, and training steps of them, as the loop takes them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from bench import RECIPES, Bench, Row

from strawberry.model.build import build
from strawberry.model.stack import recompute_blocks
from strawberry.recipe import Recipe, load_recipe
from strawberry.runs.device import machine_for
from strawberry.training.compiling import compile_model
from strawberry.training.engine import Engine
from strawberry.training.optimizers import Optimizers
from strawberry.training.step import Step

AT_MOST: Final = {
    "vocab_size": 512,
    "block_size": 64,
    "n_embd": 96,
    "n_head": 8,
    "n_kv_head": 2,
    "n_qkv": 128,
    "n_ffn": 96,
    "rank": 16,
    "repeat": 3,
}
"""Sizes of a small model; what a recipe has less of stays."""


def recipe_at(bench: Bench, path: Path, **train: Any) -> Recipe:
    """A recipe for the bench's device, over Python's own sources, small where the bench is quick.

    Args:
        bench: where it shall run.
        path: the recipe.
        train: fields of its section `train`.
    """
    plain = load_recipe(path)
    whole: dict[str, Any] = yaml.safe_load(plain.to_yaml())
    whole["model"] = _capped(whole["model"]) if bench.quick else whole["model"]
    whole["train"] |= {"device": bench.device, "eval_iters": 1, **train}
    if plain.data.use.rpartition("/")[2] != "synthetic":
        whole |= {"data": {"use": "text", "path": str(bench.text)}, "tokenizer": "bytes"}
    file = bench.folder / path.name
    file.write_text(yaml.safe_dump(whole))
    return load_recipe(file)


def every_recipe() -> list[Path]:
    """The recipes of recipes/, those that tell most first."""
    first = [
        "gpt2",
        "llama",
        "original_air",
        "moe",
        "recursive",
        "muon",
        "deepseek",
        "mor_expert_choice",
    ]
    paths = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    return [paths.pop(name) for name in first] + list(paths.values())


def _capped(value: Any) -> Any:
    if isinstance(value, list):
        return [_capped(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: min(item, AT_MOST[key]) if key in AT_MOST and isinstance(item, int) else _capped(item)
        for key, item in value.items()
    }


class Steps:
    """A recipe's model, its optimizers and a batch of random ids, to take steps with."""

    def __init__(self, recipe: Recipe, batch: int | None = None) -> None:
        self.recipe, self.machine = recipe, machine_for(recipe)
        device = self.machine.device
        self.model = build(recipe, device).train()
        if recipe.train.checkpoint_activations:
            recompute_blocks(self.model)
        optimizers = Optimizers(recipe, self.model.parameter_infos(), device)
        self.batch = batch or recipe.train.batch_size
        shape = (self.batch, recipe.model.block_size + 1)
        ids = torch.randint(recipe.model.vocab_size, shape).to(device)
        self.parts = [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())]
        clip = recipe.train.grad_clip
        self.step = Step(Engine(self.model), optimizers, lambda _: self.parts, self.machine, clip)
        self.number = 0

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.recipe.model.block_size

    def compile(self) -> None:
        """As the recipe says."""
        compile_model(self.model, self.machine)

    def run(self) -> None:
        """One step."""
        self.step.gradient(self.number)
        self.step.apply(self.number)
        self.number += 1


def halving(bench: Bench, batch: int, measure: Callable[[int], Row]) -> Row:
    """A measurement with a batch; with half of it if the memory is too small."""
    while True:
        try:
            return measure(batch)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2  # here, where the error is gone with all that it held
        gc.collect()
        if bench.real:
            torch.accelerator.empty_cache()


def peak_of(bench: Bench, run: Callable[[], object]) -> int | None:
    """The most bytes of tensors while something runs, on an accelerator that counts them."""
    if not bench.real:
        run()
        return None
    torch.accelerator.reset_peak_memory_stats()
    run()
    return int(torch.accelerator.max_memory_allocated())
