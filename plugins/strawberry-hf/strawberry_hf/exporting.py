"""From a run to a folder that `transformers` loads."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor

from strawberry.errors import RecipeError, StrawberryError
from strawberry.files import new_folder
from strawberry.generation import LoadedRun, load_run
from strawberry_hf.card import model_card
from strawberry_hf.config import config_of
from strawberry_hf.own import PREFIX, own_config
from strawberry_hf.recipes import head_order, shape_of_recipe
from strawberry_hf.shape import Part, Shape, parts, theirs_of

if TYPE_CHECKING:
    from strawberry.data import Tokenizer
    from strawberry.plugin import Plugins

Form: TypeAlias = Literal["auto", "native", "strawberry"]
TOKENIZER = "tokenizer.json"
HEAD = "lm_head."
"""Tensors outside the trunk in a checkpoint; all others have the trunk's name as prefix."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The written files.

    Attributes:
        folder: where.
        model_type: transformers' name of the architecture.
        step: the checkpoint's, of the run.
        parameters: how many numbers.
        tokenizer: whether there is one; a run on bare tokens has none.
    """

    folder: Path
    model_type: str
    step: int
    parameters: int
    tokenizer: bool


def export_run(
    run: str | Path | LoadedRun,
    out: str | Path,
    *,
    form: Form = "auto",
    plugins: Plugins | None = None,
) -> Exported:
    """Write a run's newest checkpoint as a checkpoint of transformers, in float32.

    In an architecture of transformers' own, logits are the run's to rounding, and dropout is
    GPT-2's alone. In the other form, which any recipe has, the recipe is in config.json,
    `import strawberry_hf` registers its class, and logits are the run's bit for bit.

    Args:
        run: a run folder, or a loaded run.
        out: the folder to make: config.json, model.safetensors, the tokenizer's files, and a model
            card.
        form: `native` for an architecture of transformers, `strawberry` for the other form, `auto`
            for the first where the recipe has a counterpart.
        plugins: what the recipe's names are resolved with; None loads those of the environment.

    Raises:
        RecipeError: with `native`, each part of the recipe that transformers has no counterpart of.
        StrawberryError: there is no run, or `out` is in use.
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run, device="cpu", plugins=plugins)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StrawberryError(f"{folder}: already there and not empty; name another folder")
    tokenizer = None
    if (loaded.folder / TOKENIZER).exists():
        tokenizer = loaded.tokenizer()
    config, tensors = _content(loaded, tokenizer, form)
    count = sum(tensor.numel() for tensor in tensors.values())
    with new_folder(folder) as part:
        if tokenizer is not None:
            ends = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
            config |= ends
            # What no text of the tokenizer has is never generated there either.
            beyond = range(tokenizer.vocab_size, loaded.recipe.model.vocab_size)
            wordless = [*tokenizer.gaps, *beyond]
            _write(
                part / "generation_config.json",
                ends | ({"suppress_tokens": wordless} if wordless else {}),
            )
            _write_tokenizer(tokenizer, part, loaded)
        _write(part / "config.json", config)
        weights = part / "model.safetensors"
        save_file(tensors, weights, metadata={"format": "pt"})
        weights.chmod((part / "config.json").stat().st_mode)  # the library lets only its owner read
        card = model_card(loaded, config["model_type"], count, folder.name)
        (part / "README.md").write_text(card, encoding="utf-8")
    return Exported(folder, config["model_type"], loaded.step, count, tokenizer is not None)


def _content(
    loaded: LoadedRun, tokenizer: Tokenizer | None, form: Form
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors, by their names in the file."""
    if form != "strawberry":
        try:
            shape = shape_of_recipe(loaded.recipe, loaded.model)
            return config_of(shape), exported_tensors(loaded, shape)
        except RecipeError:
            if form == "native":
                raise
    state = loaded.model.state_dict().items()
    tensors = {PREFIX + name: t.detach().cpu().contiguous() for name, t in state}
    return own_config(loaded, tokenizer), tensors


def exported_tensors(loaded: LoadedRun, shape: Shape) -> dict[str, Tensor]:
    """All tensors by transformers' names, float32, on the CPU."""
    state = {name: t.detach().float().cpu() for name, t in loaded.model.state_dict().items()}
    trunk = "transformer." if shape.is_gpt2 else "model."
    order = head_order(loaded.recipe, shape.head_width)
    blocks = [visit.path for visit in loaded.model.visits()]
    return {
        name if name.startswith(HEAD) else trunk + name: tensor
        for part in parts(shape, blocks)
        for name, tensor in theirs_of(_reordered(part, shape, order), state)
    }


def _reordered(part: Part, shape: Shape, order: Tensor | None) -> Part:
    """The part, with the rows of queries and keys, and their gains, in transformers' order."""
    if order is None:
        return part
    if part.ours.endswith((".q_norm", ".k_norm")):
        return replace(part, orders=(order,))
    if not part.ours.endswith(".qkv"):
        return part
    heads = (shape.n_head, shape.n_kv_head)
    return replace(part, orders=(*(_for_heads(order, count) for count in heads), None))


def _for_heads(order: Tensor, heads: int) -> Tensor:
    """The order of one head's rows, for several heads one after the other."""
    starts = torch.arange(heads)[:, None] * len(order)
    return (starts + order).flatten()


def _write_tokenizer(tokenizer: Tokenizer, folder: Path, loaded: LoadedRun) -> None:
    """Write `tokenizer.json`, and the other files that `AutoTokenizer` needs.

    Raises RecipeError if the tokenizer is of a form that `tokenizers` does not read.
    """
    from tokenizers import Tokenizer as Fast

    tokenizer.save(folder / TOKENIZER)
    try:
        end = Fast.from_file(str(folder / TOKENIZER)).id_to_token(tokenizer.eot)
    except Exception as error:  # the library raises bare Exceptions
        spec = loaded.recipe.tokenizer
        message = f"{spec.use!r} is saved in a form of its own, which transformers does not read"
        with spec.located():
            raise StrawberryError(message) from error
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": loaded.recipe.model.block_size,
            "bos_token": end,
            "eos_token": end,
            "clean_up_tokenization_spaces": False,
        },
    )


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
