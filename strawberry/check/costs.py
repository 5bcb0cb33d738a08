"""Checks of costs: counted against measured, growth with the length, time against the built-in."""

from __future__ import annotations

import math
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject, with_length
from strawberry.contracts import Loop, Router
from strawberry.model.accounting import account
from strawberry.model.build import build
from strawberry.model.risks import declares
from strawberry.recipe.spec import Recipe

LENGTHS = (1024, 2048)
"""Lengths between which the growth of memory is measured, in tokens."""
STEEPEST = 2.2
"""Largest accepted exponent of that growth."""
SLOWEST = 50.0
"""Largest accepted ratio to the built-in's time."""
TIMED_LENGTH = 128
"""Length at which time is measured, in tokens."""


def counted(subject: Subject) -> str:
    """Do the FLOPs and cache of the cost report equal those of a real pass?"""
    recipe = with_length(subject.recipe, subject.recipe.model.block_size)
    model = build(recipe)
    routers = [module for module in model.modules() if isinstance(module, Router)]
    loops = [m for m in model.modules() if isinstance(m, Loop) and m.tokens != "all"]
    if not all(part.exact for part in (*routers, *loops)):
        raise NotApplicable(
            "the number of tokens depends on the data; the count uses the intended share"
        )
    model.train(bool(routers))
    length = recipe.model.block_size
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(subject.tokens(1, length))
    report = account(recipe)
    counted, ran = report.flops_forward_per_token * length, counter.get_total_flops()
    if abs(counted - ran) > 1e-6 * ran:  # the report's is a quotient for each token
        raise Finding(f"{counted:.6g} FLOPs counted on meta, {ran:.6g} executed")
    if report.total_parameters != sum(p.numel() for p in model.parameters()):
        raise Finding("the number of parameters differs on meta")
    text = f"{ran / length:.4g} FLOPs and {report.total_parameters} parameters"
    if not declares(model.eval(), "causal"):
        return f"{text} (the whole model)"
    whole = model.new_cache(1, length).nbytes() if declares(model, "cacheable") else 0
    per_token = report.cache_bytes_per_token * length + report.cache_fixed_bytes
    if whole != per_token:
        raise Finding(
            f"the cost report counts a cache of {per_token} bytes, but {whole} bytes were allocated"
        )
    return f"{text}, {whole // length} bytes of cache a token (the whole model)"


def memory(subject: Subject) -> str:
    """How do the activations kept for the backward pass grow with the sequence length?"""
    sizes = [account(with_length(subject.recipe, length)).activation_bytes for length in LENGTHS]
    exponent = math.log2(sizes[1] / sizes[0])
    if exponent > STEEPEST:
        raise Finding(f"as T^{exponent:.2f}, from {LENGTHS[0]} to {LENGTHS[1]} tokens")
    between = "between linear and quadratic"
    word = "linearly" if exponent < 1.2 else between if exponent < 1.7 else "quadratically"
    return f"{word}: T^{exponent:.2f} at {LENGTHS[1]} tokens"


def speed(subject: Subject) -> str:
    """How long do forward and backward pass take, compared with the built-in of the kind?"""
    if subject.plain is None:
        raise NotApplicable("there is no built-in to compare with")
    ours, theirs = _seconds(subject, subject.recipe, subject.plain)
    ratio = ours / theirs
    text = (
        f"{ratio:.2f} x the time of the model with the built-in ({1e3 * ours:.1f} ms "
        f"against {theirs * 1e3:.1f})"
    )
    if ratio > SLOWEST:
        raise Finding(text)
    return text


def _seconds(subject: Subject, *recipes: Recipe) -> list[float]:
    """The fastest of several alternating runs of each recipe; the first run warms up."""
    idx = subject.tokens(2, TIMED_LENGTH)
    models = [build(with_length(recipe, TIMED_LENGTH)) for recipe in recipes]
    best = [math.inf] * len(models)
    for turn in range(4):
        for number, model in enumerate(models):
            start = time.perf_counter()
            model.loss(idx, idx).total.backward()  # type: ignore[no-untyped-call]
            if turn:
                best[number] = min(best[number], time.perf_counter() - start)
    return best
