"""Checks of one model in several forms: cached, cast, rebuilt, saved, on meta, compiled."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import SEED, Subject
from strawberry.contracts import Loop, Router, components
from strawberry.model.build import build
from strawberry.model.cache import Cache
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares
from strawberry.plugin.registry import resolve


def shape(subject: Subject) -> str:
    """Is every output (B, T, C), of the input's dtype, and finite?"""
    for dtype in (torch.float32, torch.float64):
        model = subject.model(dtype=dtype)
        for name, part in subject.parts(model):
            x, run = subject.call(model, part)
            y = run(x)
            if y.shape != x.shape:
                raise Finding(f"{name}: {tuple(x.shape)} in, {tuple(y.shape)} out")
            if y.dtype != dtype:
                raise Finding(f"{name}: {_short(dtype)} in, {_short(y.dtype)} out")
        logits = model(subject.tokens())
        if not logits.isfinite().all():
            raise Finding(f"{_short(dtype)}: logits are not finite")
    return "in float32 and in float64"


def bfloat16(subject: Subject) -> str:
    """Under bfloat16 autocast and with bfloat16 weights: finite, close, of the right dtype?"""
    idx = subject.tokens()
    routed = any(info.kind == "router" for info in subject.model().parameter_infos())
    with torch.no_grad():
        exact = subject.model()(idx)
        with torch.autocast("cpu", torch.bfloat16):
            cast = subject.model()(idx)
        half = subject.model(dtype=torch.bfloat16)(idx)
    if half.dtype != torch.bfloat16:
        raise Finding(f"bfloat16 weights give {_short(half.dtype)} logits")
    figures = []
    for form, output in (("autocast", cast), ("weights", half)):
        error = (output.float() - exact).abs().amax(-1).flatten()
        if not error.isfinite().all():
            raise Finding(f"bfloat16 {form}: logits are not finite")
        # A norm of nearly nothing turns rounding into a few large errors; a router's choice into
        # many, since tokens go elsewhere.
        typical = float(error.quantile(0.7) / exact.abs().max())
        if typical > (0.5 if routed else 0.1):
            raise Finding(f"bfloat16 {form}: logits change by {typical:.2g} of the largest")
        figures.append(f"{form} {typical:.1g}")
    return ", ".join(figures) + " of the largest logit"


def cache(subject: Subject) -> str:
    """Do calls with a decoding cache, split anywhere, agree with one call without a cache?"""
    model = subject.awake(dtype=torch.float64)
    if not declares(model, "causal"):
        raise NotApplicable("it declares itself non-causal, so there is no cache to compare")
    if not declares(model, "cacheable"):
        raise NotApplicable("it declares that it has no cache")
    idx = subject.tokens()
    T = idx.shape[1]
    worst = 0.0
    with torch.no_grad():
        expected = model(idx)
        for split in ([T], [1] * T, [T // 2, 1, T - T // 2 - 1]):
            difference = _cached(model, idx, split)
            error = (difference - expected).abs().amax((0, 2)) / expected.abs().max()
            worst = max(worst, float(error.max()))
            wrong = (error > 1e-6).nonzero().flatten()
            if len(wrong):
                first = int(wrong[0])
                raise Finding(
                    f"calls of {_calls(split)} tokens: logits differ from position {first} on, by "
                    f"{float(error.max()):.2g} of the largest"
                )
    return f"at most {worst:.1g} of the largest logit, in float64"


def recurrence(subject: Subject) -> str:
    """Token by token, does the gradient equal that of the parallel form?"""
    model = subject.model(dtype=torch.float64)
    if not declares(model, "causal"):
        raise NotApplicable("it declares itself non-causal, so there is no recurrent form")
    if not declares(model, "cacheable"):
        raise NotApplicable("it declares that it has no cache")
    idx = subject.tokens()
    weight = torch.randn(model(idx).shape, generator=torch.Generator().manual_seed(2)).double()
    parameters = dict(model.named_parameters())
    expected = torch.autograd.grad((model(idx) * weight).sum(), [*parameters.values()],
                                   allow_unused=True)  # fmt: skip
    state = model.new_cache(batch=len(idx), length=idx.shape[1])
    try:
        total = (_cached(model, idx, [1] * idx.shape[1], state) * weight).sum()
        gradients = torch.autograd.grad(total, [*parameters.values()], allow_unused=True)
    except RuntimeError as refusal:
        raise NotApplicable(
            "its cached form writes in place, which is not differentiable"
        ) from refusal
    if not any(t.requires_grad for kept in state.states for t in kept.values()):
        raise NotApplicable("its state carries no gradient to earlier tokens")
    # A gradient that is zero on paper is noise in both forms.
    noise = 1e-9 * max(float(g.abs().max()) for g in expected if g is not None)
    worst = 0.0
    pairs: list[tuple[Tensor | None, Tensor | None]] = list(zip(gradients, expected, strict=True))
    for name, (a, b) in zip(parameters, pairs, strict=True):
        if b is None or a is None:
            continue
        error = float((a - b).abs().max() / b.abs().max().clamp(min=noise))
        worst = max(worst, error)
        if error > 1e-6:
            raise Finding(f"the gradient of {name} differs by {error:.2g} of its largest value")
    return f"at most {worst:.1g} of the largest gradient"


def determinism(subject: Subject) -> str:
    """Do the same recipe and input give bit-identical weights and outputs?"""
    idx = subject.tokens()
    first, again = build(subject.recipe).eval(), build(subject.recipe).eval()
    with torch.no_grad():
        for name, value in again.state_dict().items():
            if not torch.equal(value, first.state_dict()[name]):
                raise Finding(f"two builds with one seed differ in {name}")
        if not torch.equal(first(idx), again(idx)) or not torch.equal(first(idx), first(idx)):
            raise Finding("the same weights and tokens give different logits the second time")
    return "bit-identical"


def meta(subject: Subject) -> str:
    """Does it build on the meta device, with the same parameters and nothing allocated?"""
    there = build(subject.recipe, "meta")
    here = {name: p.shape for name, p in subject.model().named_parameters()}
    if {name: p.shape for name, p in there.named_parameters()} != here:
        raise Finding("its parameters have other names or shapes on meta")
    real = [n for n, t in [*there.named_parameters(), *there.named_buffers()] if not t.is_meta]
    if real:
        raise Finding(f"on meta it allocates memory for {', '.join(real)}")
    return "nothing is allocated"


def saved(subject: Subject) -> str:
    """Does a saved state, loaded into a fresh model, give bit-identical logits?"""
    from safetensors.torch import load_model, save_model

    model = subject.model()
    idx = subject.tokens()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
        save_model(model, str(Path(folder, "model")))
        fresh = build(subject.recipe).eval()
        load_model(fresh, Path(folder, "model"))
        error = float((fresh(idx) - model(idx)).abs().max())
    if error > 0:
        raise Finding(f"logits differ by {error:.2g} after loading; part of its state is not saved")
    return "bit-identical"


def compiles(subject: Subject) -> str:
    """Does torch.compile produce one graph, with the same results?"""
    model = subject.awake(training=True)
    deciders = [module for module in model.modules() if isinstance(module, (Router, Loop))]
    for decider in deciders:
        if not decider.exact:
            kind = "router" if isinstance(decider, Router) else "loop"
            raise NotApplicable(f"its {kind} decides at run time how many tokens continue")
    idx = subject.tokens()
    torch._dynamo.reset()  # noqa: SLF001 (torch's own way to forget what it compiled)
    explained = torch._dynamo.explain(model.trunk)(idx)  # noqa: SLF001
    if explained.graph_break_count:
        for waiting in (component for component in components(model) if component.waits):
            name = type(waiting).__name__
            raise NotApplicable(f"{name} leaves the graph on purpose: {waiting.waits}")
        reasons = []
        for reason in explained.break_reasons:
            frame = reason.user_stack[-1]
            why = reason.reason.strip().splitlines()[0]
            reasons.append(f"{why} ({frame.filename}:{frame.lineno})")
        raise Finding(f"{explained.graph_break_count} graph breaks: " + "; ".join(reasons))
    torch._dynamo.reset()  # noqa: SLF001
    compiled = torch.compile(model.trunk, fullgraph=True, backend="aot_eager")
    with torch.random.fork_rng(devices=[]):
        outputs = []
        for form in (model.trunk, compiled):
            torch.manual_seed(SEED)  # what training draws, both draw
            outputs.append(form(idx)[0])
    error = float((outputs[1] - outputs[0]).abs().max() / outputs[0].abs().max())
    if error > 1e-4:
        raise Finding(f"its compiled output differs by {error:.2g} of the largest")
    return f"one graph, {explained.op_count} operations"


def _cached(
    model: LanguageModel, idx: Tensor, split: list[int], state: Cache | None = None
) -> Tensor:
    """The logits of cached calls over consecutive pieces of the sequences."""
    state = state or model.new_cache(batch=len(idx), length=idx.shape[1])
    return torch.cat([model(piece, cache=state) for piece in torch.split(idx, split, dim=1)], dim=1)


def _calls(split: list[int]) -> str:
    return "1" if set(split) == {1} else " + ".join(map(str, split))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def contract(subject: Subject) -> str:
    """Does its class derive from the contract of its kind?"""
    assert subject.entry is not None
    target = subject.kinds[subject.kind].contract
    wanted = resolve(target, f"kind {subject.kind!r}")
    if not isinstance(wanted, type) or not issubclass(subject.entry.load(), wanted):
        raise Finding(f"{subject.entry.where} does not derive from {target}")
    return target
