"""The coordinate check: activations of each part, and what its steps are worth, against the width.

Yang et al. 2022, arXiv 2203.03466, appendix D.1. Under a parametrization that carries rates over,
the mean absolute activation of every part is about the same at every width, after each step. One
that is smaller in a wide model before the first step may stay so (appendix D.2: the logits start
at width^-0.5). Such a start hides for many steps what is learned, so that is measured by itself:
for each matrix, the sum over steps of |gradient * step|, by which its steps lower the loss to first
order. It too is about the same at every width.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
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
    from strawberry.contracts import ParameterInfo
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
"""Power of the width with which an activation, or what a matrix learns, may grow or fall."""

Sizes = Mapping[str, list[list[float]]]
"""A size of each part: for each width, after each step, from 0 on."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What the check measured.

    Attributes:
        widths: the widths.
        sizes: the mean absolute activation of each part.
        learned: by how much the steps of each matrix have lowered the loss to first order, in nats;
            of embeddings, the head, and matrices both of whose sides grow. Theory has no rule for
            the others inside a block, such as a bottleneck of a fixed rank.
    """

    widths: list[int]
    sizes: Sizes
    learned: Sizes

    def slope(self, each: list[list[float]], step: int = STEPS) -> float:
        """The power of the width with which one of these sizes grows, by least squares."""
        x = [math.log(width) for width in self.widths]
        y = [math.log(max(steps[step], 1e-12)) for steps in each]
        middle = sum(x) / len(x)
        spread = sum((one - middle) ** 2 for one in x)
        return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / spread

    def slopes(self) -> dict[str, float]:
        """The powers of all, by name: of an activation, how much it falls beyond its start."""
        slopes = {f"learning of {name}": self.slope(each) for name, each in self.learned.items()}
        for part, each in self.sizes.items():
            slope = self.slope(each)
            slopes[part] = slope if slope > 0 else min(slope - min(self.slope(each, 0), 0), 0)
        return slopes


def coordinates(subject: Subject) -> str:
    """Are activations, and what matrices learn, alike over widths after 1 to 10 steps?"""
    measured = measure(_recipe(subject))
    if subject.picture is not None:
        draw(measured, subject.recipe.name, subject.picture)
    slopes = measured.slopes()
    over = f"widths {measured.widths[0]} to {measured.widths[-1]} after {STEPS} steps"
    wrong = {part: slope for part, slope in slopes.items() if abs(slope) > SLOPE}
    if wrong:
        worst = sorted(wrong, key=lambda part: -abs(wrong[part]))
        told = ", ".join(f"{part} {_power(wrong[part])}" for part in worst[:4])
        more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
        message = f"{told}{more} over {over}"
        raise Finding(f"{message}; `model.parametrization: mup` carries rates over")
    low, high = min(slopes.values()), max(slopes.values())
    return (
        f"{len(measured.sizes)} parts, and what {len(measured.learned)} matrices learn, "
        f"change as width^{low:.2f} to width^{high:.2f} over {over}"
    )


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


@dataclass(slots=True)
class Run:
    """What ten steps at one width showed.

    Attributes:
        sizes: the mean absolute activation of each part, before the first step and after each.
        learned: of each matrix, the sum of |gradient * step| until then, in nats.
        sides: the sides of each matrix that may grow; of embeddings and the head, both as one.
    """

    sizes: dict[str, list[float]] = field(default_factory=dict)
    learned: dict[str, list[float]] = field(default_factory=dict)
    sides: dict[str, tuple[int, ...]] = field(default_factory=dict)


def measure(recipe: Recipe) -> Coordinates:
    """Train the recipe at several widths on one batch; raises StrawberryError if one can't be."""
    widths = [recipe.model.n_embd * times for times in TIMES]
    every = [
        [trained(resized(recipe, width), SEED + number) for number in range(SEEDS)]
        for width in widths
    ]
    if len({(*run.sizes, *run.sides) for runs in every for run in runs}) > 1:
        raise StrawberryError("its parts have other names at other widths")
    narrow, wide = every[0][0].sides, every[-1][0].sides
    grown = [name for name in wide if all(map(operator.lt, narrow[name], wide[name]))]
    return Coordinates(
        widths,
        {
            part: [_mean([r.sizes[part] for r in runs]) for runs in every]
            for part in every[0][0].sizes
        },
        {name: [_mean([r.learned[name] for r in runs]) for runs in every] for name in grown},
    )


def _mean(runs: list[list[float]]) -> list[float]:
    return [fmean(step) for step in zip(*runs, strict=True)]


def trained(recipe: Recipe, seed: int) -> Run:
    """Train for some steps on one batch of random tokens."""
    model = build(patch(recipe, {"seed": seed})).train()
    infos = model.parameter_infos()
    optimizers = Optimizers(recipe, infos, torch.device("cpu"))
    matrices = {i.name: i.parameter for i in infos if i.parameter.ndim > 1}
    generator = torch.Generator().manual_seed(SEED)
    length = min(LENGTH, recipe.model.block_size)
    ids = torch.randint(recipe.model.vocab_size, (ROWS, length + 1), generator=generator)
    run = Run(sides={i.name: _sides(i) for i in infos if i.name in matrices})
    run.learned = {name: [0.0] for name in matrices}
    torch.manual_seed(SEED)
    for step in range(STEPS + 1):
        with Watched(model) as watched, torch.no_grad():
            watched.add("logits", model(ids[:, :-1]))
        for part, size in watched.means().items():
            run.sizes.setdefault(part, []).append(size)
        loss = model.loss(ids[:, :-1], ids[:, 1:]).total
        optimizers.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        before = {
            name: (weight.detach().clone(), weight.grad.clone())
            for name, weight in matrices.items()
            if weight.grad is not None
        }
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.grad_clip or math.inf)
        optimizers.step(step)
        model.after_step()
        for name, (old, gradient) in before.items():
            worth = ((matrices[name].detach() - old) * gradient).sum().abs().item()
            run.learned[name].append(run.learned[name][-1] + worth)
    return run


def _sides(info: ParameterInfo) -> tuple[int, ...]:
    """The sides of a matrix for which the theory has a rule if both grow."""
    rows, columns = info.parameter.shape[-2:]
    return (rows * columns,) if info.kind == "embedding" else (rows, columns)


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
    """Activations against width, a picture for each of some steps, and what matrices have learned.

    Raises StrawberryError if matplotlib is not installed, or the file can't be written.
    """
    from strawberry.runs.plot import canvas

    shown = [
        (f"{title}, after {step} steps", measured.sizes, step) for step in (0, 1, STEPS // 2, STEPS)
    ]
    shown.append((f"what matrices learn in {STEPS} steps", measured.learned, STEPS))
    figure, save = canvas(4 * len(shown), 4)
    axes = figure.subplots(1, len(shown))
    for place in axes[1:-1]:
        place.sharey(axes[0])  # before anything is drawn, so that all of it counts
    for place, (told, sizes, step) in zip(axes, shown, strict=True):
        for number, (part, each) in enumerate(sizes.items()):
            heights = [max(steps[step], 1e-12) for steps in each]
            label = part.replace("stack.nodes.", "")
            place.plot(measured.widths, heights, marker="o", color=f"C{number % 10}", label=label)
        place.set_xscale("log", base=2)
        place.set_yscale("log", base=2)
        place.set_title(told)
        place.set_xlabel("width")
        place.grid(alpha=0.25)
    axes[0].set_ylabel("mean absolute activation")
    axes[-1].set_ylabel("nats, to first order")
    for place in axes[-2:]:
        place.legend(frameon=False, fontsize="xx-small", loc="upper left", bbox_to_anchor=(1, 1))
    save(out)
