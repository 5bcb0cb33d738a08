"""Every component on the device, in float32 and bfloat16, against itself on the CPU in float64."""

from __future__ import annotations

from functools import partial

import torch
from bench import Bench, Measurements, Row, Skip, Wrong, digits
from torch import Tensor

from strawberry.check.subject import Subject, of_component
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares
from strawberry.plugin import Plugins
from strawberry.training.optimizers import Optimizers

KINDS = ("attention", "ffn", "positional", "norm", "weights", "router")
FLOAT32, GRADIENTS, BFLOAT16, ROUTED = 1e-3, 1e-2, 0.15, 0.5
"""Largest error relative to the largest value; with a router, tokens may go elsewhere."""


def measurements(bench: Bench) -> Measurements:
    """Mixers first, then whatever else a model is made of, and optimizers."""
    plugins = Plugins.load()
    for kind in KINDS:
        for entry in plugins.registry.entries(kind):
            name = plugins.registry.short_name(entry)
            yield f"{kind} {name}", partial(component, bench, plugins, kind, name)
    for entry in plugins.registry.entries("optimizer"):
        name = plugins.registry.short_name(entry)
        yield f"optimizer {name}", partial(optimizer, bench, plugins, name)


def component(bench: Bench, plugins: Plugins, kind: str, name: str) -> Row:
    """Errors of logits, gradients, causality and cache; raises Wrong for large ones."""
    subject = _subject(plugins, kind, name)
    idx = subject.tokens()
    exact, exact_grads = _run(subject.model(dtype=torch.float64), idx)
    model, there = subject.model().to(bench.device), idx.to(bench.device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        logits, grads = _run(model, there)
        row: Row = {
            "float32": _off(logits, exact),
            "gradients": max(
                _off(grads[n], g) for n, g in exact_grads.items() if g.abs().max() > 1e-9
            ),
            "bfloat16": _bfloat16(model, there, exact),
        }
        if declares(model, "causal"):
            row["later tokens"] = _later(model, there)
            if declares(model, "cacheable"):
                row["cache"] = _cache(model, there)
    finally:
        torch.set_float32_matmul_precision(before)
    routed = any(info.kind == "router" for info in model.parameter_infos())
    limits = dict.fromkeys(row, FLOAT32) | {"gradients": GRADIENTS}
    limits["bfloat16"] = ROUTED if routed else BFLOAT16
    wrong = [what for what, error in row.items() if not error <= limits[what]]
    if wrong:
        raise Wrong(f"too far off: {', '.join(wrong)}", row)
    return row


def optimizer(bench: Bench, plugins: Plugins, name: str) -> Row:
    """Five steps on the same gradients, on the device and on the CPU."""
    subject = _subject(plugins, "optimizer", name)
    found = []
    for device in ("cpu", bench.device):
        model = subject.model(training=True).to(device)
        optimizers = Optimizers(subject.recipe, model.parameter_infos(), torch.device(device))
        generator = torch.Generator().manual_seed(1)
        for step in range(5):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
            optimizers.step(step)
            optimizers.zero_grad()
        found.append({n: p.detach().cpu() for n, p in model.named_parameters()})
    row: Row = {"parameters": max(_off(p, found[0][n]) for n, p in found[1].items())}
    if not row["parameters"] <= (ROUTED if name == "muon" else FLOAT32):  # Muon is in bfloat16
        raise Wrong("too far off", row)
    return row


def _subject(plugins: Plugins, kind: str, name: str) -> Subject:
    try:
        subject = of_component(kind, name, plugins=plugins)
        subject.model()
    except (RecipeError, StrawberryError) as error:
        raise Skip(str(error).splitlines()[0]) from error
    return subject


def _run(model: LanguageModel, idx: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of a weighted sum of them."""
    logits = model(idx)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weight.to(logits)).sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


def _bfloat16(model: LanguageModel, idx: Tensor, exact: Tensor) -> float:
    """The error of seven tokens in ten, under autocast, backward too."""
    with torch.autocast(idx.device.type, torch.bfloat16):
        logits = model(idx)
    logits.float().square().mean().backward()
    error = (logits.detach().cpu().double() - exact).abs().amax(-1).flatten()
    if not error.isfinite().all():
        return float("inf")
    return digits(float(error.quantile(0.7) / exact.abs().max()))


@torch.no_grad()
def _later(model: LanguageModel, idx: Tensor) -> float:
    """Change of outputs when later tokens change."""
    half = idx.shape[1] // 2
    other = idx.clone()
    other[:, half:] = (other[:, half:] + 1) % int(model.vocab_size)
    return _off(model(other)[:, :half], model(idx)[:, :half].cpu())


@torch.no_grad()
def _cache(model: LanguageModel, idx: Tensor) -> float:
    """A token at a time with a cache, against all at once."""
    cache = model.new_cache(batch=len(idx), length=idx.shape[1])
    pieces = [model(idx[:, t : t + 1], cache=cache) for t in range(idx.shape[1])]
    return _off(torch.cat(pieces, dim=1), model(idx).cpu())


def _off(found: Tensor, expected: Tensor) -> float:
    """The largest error, as a part of the largest value."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return digits(float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)))
