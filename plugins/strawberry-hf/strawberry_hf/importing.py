"""From a folder of transformers to a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import strawberry
from strawberry.data import Progress
from strawberry.errors import StrawberryError
from strawberry.recipe import Recipe, load_recipe, patch
from strawberry.training import begin
from strawberry_hf.config import shape_of_config
from strawberry_hf.own import MODEL_TYPE, PREFIX
from strawberry_hf.recipes import model_section
from strawberry_hf.shape import Shape, ours_of, parts

if TYPE_CHECKING:
    from strawberry.plugin import Plugins

RECIPE = Path(__file__).with_name("finetune.yaml")
"""The default data, optimizer and schedule of an imported run."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends of the names of tensors that are no weights: older versions saved masks and angles."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import.

    Attributes:
        run: the run folder.
        model_type: transformers' name of the architecture.
        parameters: how many numbers the model has.
    """

    run: Path
    model_type: str
    parameters: int


def import_checkpoint(
    folder: str | Path,
    run: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    plugins: Plugins | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Make a run of a checkpoint of transformers; its logits are the checkpoint's, to rounding.

    The run is at step 0: it generates and evaluates, and `strawberry train RUN --run-dir RUN
    --resume` trains it further. Only safetensors are read, and nothing is executed.

    Args:
        folder: holds config.json, the weights, and tokenizer.json.
        run: the run folder to make.
        recipe: gives data, optimizer, schedule and training; its model and its tokenizer are
            those of the checkpoint. None takes a recipe for fine-tuning on the standard library.
        overrides: `train.max_iters=100` and the like, on top.
        plugins: what names are resolved with; None loads those of the environment.
        progress: progress callback while data is prepared.

    Raises:
        RecipeError: the recipe does not work, or its data can't be had.
        StrawberryError: the folder is no checkpoint, or one that can't be expressed.
    """
    source = Path(folder).expanduser().absolute()
    if not source.is_dir():
        raise StrawberryError(f"{folder}: no such folder; `hf download OWNER/NAME` makes one")
    config = _read_json(source / "config.json")
    files = _weight_files(source)
    if not (source / "tokenizer.json").is_file():
        raise StrawberryError(
            f"{source}: no tokenizer.json; transformers writes one: "
            "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`"
        )
    if recipe is None:
        name = source.name.lstrip(".")[:100] or "imported"
        base = patch(load_recipe(RECIPE, plugins=plugins), {"name": name})
    else:
        base = load_recipe(recipe, plugins=plugins)
    if config.get("model_type") == MODEL_TYPE:
        adapted, weights = _own(base, config, files, source, overrides)
    else:
        adapted, weights = _native(base, config, files, source, overrides)
    path = begin(adapted, run, weights, progress=progress)
    return Imported(path, str(config["model_type"]), sum(w.numel() for w in weights.values()))


def _native(
    base: Recipe,
    config: Mapping[str, Any],
    files: Sequence[Path],
    source: Path,
    overrides: Sequence[str],
) -> tuple[Recipe, dict[str, Tensor]]:
    """Recipe and weights of an architecture of transformers."""
    shape = shape_of_config(config, source / "config.json")
    if shape.tied and not _tied(shape, files):
        shape = replace(shape, tied=False)
    adapted = _recipe(base, shape, source, overrides)
    blocks = [visit.path for visit in strawberry.build(adapted, "meta").visits()]
    return adapted, _weights(shape, files, blocks, source)


def _own(
    base: Recipe,
    config: Mapping[str, Any],
    files: Sequence[Path],
    source: Path,
    overrides: Sequence[str],
) -> tuple[Recipe, dict[str, Tensor]]:
    """Recipe and weights of a model with a recipe; data and training are those of `base`."""
    content = config.get("recipe")
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise StrawberryError(f"{source / 'config.json'}: recipe: has no model")
    changes: dict[str, Any] = {"model": content["model"], "tokenizer": _tokenizer(source)}
    if "objective" in content:
        changes["objective"] = content["objective"]
    recipe = patch(base, changes)
    recipe = patch(recipe, overrides) if overrides else recipe
    wanted = strawberry.build(recipe, "meta").state_dict()
    weights = {name: t for file in files for name, t in _stored(file, wanted).items()}
    if missing := sorted(wanted.keys() - weights.keys()):
        raise StrawberryError(f"{source}: there is no tensor {PREFIX}{missing[0]}")
    return recipe, weights


def _stored(file: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wanted tensors of a file; raises StrawberryError for one of another shape, or unknown."""
    tensors = {}
    try:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (it is no mapping)
                tensor, ours = stored.get_tensor(name), wanted.get(name.removeprefix(PREFIX))
                if ours is None:
                    raise StrawberryError(f"{file}: tensor {name} is of no known part")
                if tensor.shape != ours.shape:
                    shapes = f"{tuple(tensor.shape)}, not {tuple(ours.shape)}"
                    raise StrawberryError(f"{file}: tensor {name} is {shapes}")
                tensors[name.removeprefix(PREFIX)] = tensor.to(ours.dtype)
    except (SafetensorError, OSError) as error:
        raise StrawberryError(f"{file}: can't be read: {error}") from error
    return tensors


def _tokenizer(source: Path) -> dict[str, str]:
    """The tokenizer of a folder, as a recipe names it."""
    return {"use": "strawberry/bpe", "path": str(source / "tokenizer.json")}


def _recipe(base: Recipe, shape: Shape, source: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe of the run: the checkpoint's model and tokenizer in the base recipe."""
    # A learned table has as many rows as there are; a rotation goes as far as one wants.
    length = shape.length if shape.is_gpt2 else min(shape.length, base.model.block_size)
    changes = {"model": model_section(shape, length), "tokenizer": _tokenizer(source)}
    patched = patch(base, changes)
    return patch(patched, overrides) if overrides else patched


def _weights(
    shape: Shape, files: Sequence[Path], blocks: list[str], source: Path
) -> dict[str, Tensor]:
    """Our state_dict, of all tensors of the files; raises StrawberryError unless all fit."""
    ours: dict[str, Tensor] = {}
    for file in files:
        ours |= _read(file)
    if shape.tied:
        ours.pop("lm_head.weight", None)  # a copy of the table, where it is saved at all
    weights: dict[str, Tensor] = {}
    try:
        for part in parts(shape, blocks):
            weights |= ours_of(part, ours)
    except StrawberryError as error:
        raise StrawberryError(f"{source}: {error}") from error
    if ours:
        more = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
        raise StrawberryError(f"{source}: tensor {min(ours)}{more} is of no known part")
    return weights


def _tied(shape: Shape, files: Sequence[Path]) -> bool:
    """Return whether the weights tie head and table; a separate head overrides config.json."""
    table = f"{next(parts(shape, [])).theirs[0]}.weight"
    ends = [tensor for file in files for tensor in _read(file, ("lm_head.weight", table)).values()]
    return len(ends) < 2 or torch.equal(*ends)


def _read(file: Path, wanted: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a file in float32, by their names within the trunk; all, or those wanted."""
    tensors = {}
    try:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (it is no mapping)
                short = name.removeprefix("transformer.").removeprefix("model.")
                if not name.endswith(BUFFERS) and (not wanted or short in wanted):
                    tensor = stored.get_tensor(name)
                    if not tensor.is_floating_point() or tensor.element_size() < 2:
                        kind = str(tensor.dtype).removeprefix("torch.")
                        raise StrawberryError(f"{file}: {name} is {kind}: quantised weights")
                    tensors[short] = tensor.float()
    except (SafetensorError, OSError) as error:
        raise StrawberryError(f"{file}: can't be read: {error}") from error
    return tensors


def _weight_files(source: Path) -> list[Path]:
    """The safetensors of a checkpoint; raises StrawberryError if there are none, or not all."""
    if (source / INDEX).is_file():
        named = _read_json(source / INDEX).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise StrawberryError(f"{source / INDEX}: there is no weight_map in it")
        names = sorted(set(map(str, named.values())))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise StrawberryError(f"{source / INDEX}: {name!r} is no file of this folder")
            if not (source / name).is_file():
                raise StrawberryError(f"{source}: {name} is missing, of {len(names)} files")
        return [source / name for name in names]
    if (source / WEIGHTS).is_file():
        return [source / WEIGHTS]
    pickled = sorted(p.name for p in source.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickled:
        raise StrawberryError(
            f"{source}: {pickled[0]} is a pickle, which is never opened because a pickle can run "
            "code as it is read; take the checkpoint's safetensors, or let transformers write "
            "them: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)`"
        )
    raise StrawberryError(f"{source}: no {WEIGHTS} in this folder")


def _read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; raises StrawberryError if that is not what the file holds."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise StrawberryError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StrawberryError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StrawberryError(f"{path}: expected an object, not a {type(value).__name__}")
    return value
