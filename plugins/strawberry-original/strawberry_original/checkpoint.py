"""The original project's checkpoints (`.strawberry`), made into run folders.

Such a file is what `torch.save` made of {model, hyperparams, optimizer_hyperparams, optimizers,
stats, device}. It is read by torch's weights-only loader, which builds tensors and plain data and
calls nothing else. The weights are those of the original's factorised model: `lr_qkvo` holds the
rows of our three bases one below the other, `lr_layers` those of the blocks. Its other versions
have other tensors and are refused by their names.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import strawberry
from strawberry.errors import Location, StrawberryError
from strawberry.files import file_digest
from strawberry.recipe import Recipe, located, recipe_from
from strawberry.training import write_run
from strawberry_original.configuration import recipe_tree

if TYPE_CHECKING:
    from strawberry.data import Tokenizer
    from strawberry.plugin import Plugins

EMBEDDING, BASES, LAYERS = "unembed.weight", "block.lr_qkvo.weight", "block.lr_layers.weight"
NAMES = {EMBEDDING, BASES, LAYERS, "embed.weight"}
CONSTANTS = {"cos", "sin"}
"""Tables that some versions save and that are computed here."""

PREFIX = "_orig_mod."
"""The prefix that torch.compile adds to names."""


def import_checkpoint(
    path: Path, out: Path, plugins: Plugins | None, tokenizer: Tokenizer | None
) -> int:
    """Make the new run folder `out` of a checkpoint; returns its step.

    The optimizers' state is not taken over: a `--fork` of the run starts them afresh.

    Raises StrawberryError if the file is no such checkpoint, or if the folder is in use.
    """
    saved = read(path)
    recipe = _recipe(saved, path, plugins)
    if tokenizer is not None and tokenizer.vocab_size > recipe.model.vocab_size:
        raise StrawberryError(
            f"the encoder has {tokenizer.vocab_size} ids, more than the {recipe.model.vocab_size} "
            f"of {path}"
        )
    model = strawberry.build(recipe)
    _copy(model, _weights(saved, path), path)
    step = _step(saved)
    origin = {"file": str(path), "sha256": file_digest(path)}
    weights = model.state_dict()
    write_run(recipe, out, weights, step=step, origin=origin, tokenizer=tokenizer)
    return step


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive in the form of `torch.save`."""
    return zipfile.is_zipfile(path)


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint: tensors on the CPU and plain data. Raises StrawberryError."""
    _check_archive(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes
        reason = " ".join(str(error).split())[:200]
        raise StrawberryError(
            f"{path}: refused by torch's weights-only loader: {reason}"
        ) from error
    if not isinstance(saved, dict) or not {"model", "hyperparams"} <= saved.keys():
        raise StrawberryError(f"{path}: not a checkpoint of the original project")
    return saved


def _check_archive(path: Path) -> None:
    """Raise StrawberryError for an archive that is none of `torch.save`, which never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise StrawberryError(f"{path}: not a complete archive: {error}") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise StrawberryError(
                f"{path}: {entry.filename!r} is compressed, which torch never does"
            )
        if entry.filename.startswith("/") or ".." in Path(entry.filename).parts:
            raise StrawberryError(f"{path}: {entry.filename!r} leads outside the archive")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise StrawberryError(f"{path}: its entries are larger than the file")


def _recipe(saved: dict[str, Any], path: Path, plugins: Plugins | None) -> Recipe:
    """The recipe of the checkpoint's hyper-parameters; raises RecipeError for what they are not."""
    config = {"model_hyperparams": saved["hyperparams"], "seed": 0}
    if isinstance(saved.get("optimizer_hyperparams"), dict):
        config["optimizer_hyperparams"] = saved["optimizer_hyperparams"]
    tree, notes = recipe_tree(located(config, Location(str(path), 1, 1)))
    return recipe_from(tree, path, plugins=plugins, notes=notes)


def _weights(saved: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of the model, by the original's names."""
    given = saved["model"]
    if not isinstance(given, dict) or not all(isinstance(v, Tensor) for v in given.values()):
        raise StrawberryError(f"{path}: its model must be a mapping of tensors")
    tensors = {str(name).removeprefix(PREFIX): tensor for name, tensor in given.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in CONSTANTS}
    if tensors.keys() != NAMES:
        odd = ", ".join(sorted(tensors.keys() ^ NAMES)[:5])
        raise StrawberryError(
            f"{path}: a model of another version of the original project ({odd}); supported: "
            f"{', '.join(sorted(NAMES))}"
        )
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise StrawberryError(f"{path}: {name} must be a matrix of numbers")
    if not torch.equal(tensors[EMBEDDING], tensors["embed.weight"]):
        raise StrawberryError(f"{path}: embed.weight and {EMBEDDING} differ; they are tied there")
    return tensors


@torch.no_grad()
def _copy(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Fill the model; raises StrawberryError if a shape is not the one it has here."""
    named = dict(model.named_parameters())
    ours: dict[str, list[str]] = {EMBEDDING: ["embedding.weight"]}
    ours[BASES] = [name for part in ("qkv", "swiglu", "out")
                   for name in named if f".bases.attention_{part}_" in name]  # fmt: skip
    ours[LAYERS] = [name for name in named if ".weights.blocks." in name]
    for source, names in ours.items():
        rows = torch.cat([named[name] for name in names])
        if rows.shape != weights[source].shape:
            have, want = list(weights[source].shape), list(rows.shape)
            raise StrawberryError(
                f"{path}: {source} is {have}, but its hyper-parameters say {want}"
            )
        start = 0
        for name in names:
            count = named[name].shape[0]
            named[name].copy_(weights[source][start : start + count])
            start += count


def _step(saved: dict[str, Any]) -> int:
    stats = saved.get("stats")
    step = stats.get("step") if isinstance(stats, dict) else 0
    return step if type(step) is int and step >= 0 else 0
