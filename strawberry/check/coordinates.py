"""The coordinate check: activations of each part against the width of the model.

Yang et al. 2022, arXiv 2203.03466, appendix D.1. Under a parametrization that carries rates over,
the mean absolute activation of every part is about the same at every width, after each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from strawberry.check.outcome import Finding
from strawberry.check.subject import SEED, Subject
from strawberry.contracts import FFN, Attention, Projection
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.recipe.growth import resized
from strawberry.recipe.load import patch
from strawberry.training.optimizers import Optimizers

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe

STEPS: Final = 10
TIMES: Final = (1, 2, 4, 8)
"""Widths, as multiples of the narrowest one."""
SEEDS: Final = 2
NARROW: Final = 64
"""The narrowest width is a recipe's own, halved as long as it is at least this."""
ROWS, LENGTH = 4, 32
SLOPE: Final = 0.3
"""Power of the width with which an activation may grow or fall."""

Sizes = Mapping[str, list[list[float]]]
"""The mean absolute activation of each part: for each width, after each step, from 0 on."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What the check measured.

    Attributes:
        widths: the widths.
        sizes: of each part.
    """

    widths: list[int]
    sizes: Sizes

    def slope(self, part: str, step: int = STEPS) -> float:
        """The power of the width with which a part's activation grows, by least squares."""
        x = [math.log(width) for width in self.widths]
        y = [math.log(max(steps[step], 1e-12)) for steps in self.sizes[part]]
        middle = sum(x) / len(x)
        spread = sum((each - middle) ** 2 for each in x)
        return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / spread


def coordinates(subject: Subject) -> str:
    """Does the activation of each part stay alike over widths, after 1 to 10 steps?"""
    measured = measure(_recipe(subject))
    if subject.picture is not None:
        draw(measured, subject.recipe.name, subject.picture)
    slopes = {part: measured.slope(part) for part in measured.sizes}
    over = f"widths {measured.widths[0]} to {measured.widths[-1]} after {STEPS} steps"
    wrong = {part: slope for part, slope in slopes.items() if abs(slope) > SLOPE}
    if wrong:
        worst = sorted(wrong, key=lambda part: -abs(wrong[part]))
        told = ", ".join(f"{part} {_power(wrong[part])}" for part in worst[:4])
        more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
        message = f"{told}{more} over {over}"
        raise Finding(f"{message}; `model.parametrization: mup` carries rates over")
    low, high = min(slopes.values()), max(slopes.values())
    return f"{len(slopes)} parts change as width^{low:.2f} to width^{high:.2f} over {over}"


def _power(slope: float) -> str:
    return f"{'grows' if slope > 0 else 'falls'} as width^{slope:.2f}"


def _recipe(subject: Subject) -> Recipe:
    """The recipe at its narrowest; a component but a parametrization is tried under `mup`."""
    recipe = patch(subject.recipe, {"schedule": "constant", "train.warmup_iters": 0})
    width = recipe.model.n_embd
    if subject.entry is not None and subject.kind != "parametrization":
        base = {"use": "strawberry/mup", "base_width": width}
        changed: dict[str, Any] = {"model.parametrization": base}
        if subject.kind != "optimizer":
            changed["optimizer"] = "strawberry/adamw"  # whose rates follow the width most
        return patch(recipe, changed)
    while width % 2 == 0 and width // 2 >= NARROW:
        width //= 2
    return resized(recipe, width)


def measure(recipe: Recipe) -> Coordinates:
    """Train the recipe at several widths on one batch; raises StrawberryError if one can't be."""
    widths = [recipe.model.n_embd * times for times in TIMES]
    sizes: dict[str, list[list[float]]] = {}
    for width in widths:
        wide = resized(recipe, width)
        every = [_trained(wide, SEED + number) for number in range(SEEDS)]
        for part in every[0]:
            steps = [sum(one[part][step] for one in every) / SEEDS for step in range(STEPS + 1)]
            sizes.setdefault(part, []).append(steps)
    if any(len(steps) < len(widths) for steps in sizes.values()):
        raise StrawberryError("its parts have other names at other widths")
    return Coordinates(widths, sizes)


def _trained(recipe: Recipe, seed: int) -> dict[str, list[float]]:
    """The activation of each part before a step, and after each of them."""
    model = build(patch(recipe, {"seed": seed})).train()
    optimizers = Optimizers(recipe, model.parameter_infos(), torch.device("cpu"))
    generator = torch.Generator().manual_seed(SEED)
    length = min(LENGTH, recipe.model.block_size)
    ids = torch.randint(recipe.model.vocab_size, (ROWS, length + 1), generator=generator)
    seen: dict[str, list[float]] = {}
    torch.manual_seed(SEED)
    for step in range(STEPS + 1):
        with Watched(model) as watched, torch.no_grad():
            watched.add("logits", model(ids[:, :-1]))
        for part, size in watched.means().items():
            seen.setdefault(part, []).append(size)
        loss = model.loss(ids[:, :-1], ids[:, 1:]).total
        optimizers.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.grad_clip or math.inf)
        optimizers.step(step)
        model.after_step()
    return seen


class Watched:
    """The mean absolute outputs of a model's parts, while it is entered."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.sums: dict[str, list[float]] = {}
        self.hooks: list[Any] = []

    def __enter__(self) -> Watched:
        for name, module in _parts(self.model):
            self.hooks.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _hook(self, name: str) -> Any:
        return lambda _, __, y: self.add(name, y[0] if isinstance(y, tuple) else y)

    def add(self, name: str, y: Tensor) -> None:
        """Count one use of a part."""
        self.sums.setdefault(name, []).append(y.detach().abs().mean().item())

    def means(self) -> dict[str, float]:
        """The mean of each part over its uses."""
        return {name: sum(uses) / len(uses) for name, uses in self.sums.items()}


def _parts(model: LanguageModel) -> Iterator[tuple[str, nn.Module]]:
    """The embeddings, the mixers, networks and matrices of blocks, and what the head reads."""
    yield "embedding", model.embedding
    for name, module in model.stack.named_modules():
        if isinstance(module, (Attention, FFN, Projection)):
            yield f"stack.{name}", module


def draw(measured: Coordinates, title: str, out: Any) -> None:
    """Activations against width, a picture for each of some steps, a line for each part.

    Raises StrawberryError if matplotlib is not installed, or the file can't be written.
    """
    from strawberry.runs.plot import canvas

    shown = (0, 1, STEPS // 2, STEPS)
    figure, save = canvas(4 * len(shown), 4)
    axes = figure.subplots(1, len(shown), sharey=True)
    for place, step in zip(axes, shown, strict=True):
        for number, (part, sizes) in enumerate(measured.sizes.items()):
            heights = [max(steps[step], 1e-12) for steps in sizes]
            colour = f"C{number % 10}"
            label = part.replace("stack.nodes.", "") if step == shown[-1] else None
            place.plot(measured.widths, heights, marker="o", color=colour, label=label)
        place.set_xscale("log", base=2)
        place.set_yscale("log", base=2)
        place.set_title(f"{title}, after {step} steps")
        place.set_xlabel("width")
        place.grid(alpha=0.25)
    axes[0].set_ylabel("mean absolute activation")
    axes[-1].legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    save(out)
