"""Fla's own layers on the CPU, their kernels run by Triton's interpreter: errors as JSON.

Run with TRITON_INTERPRET=1. Triton's autotuner needs a GPU even so: here it takes the first of its
configurations. Kernels expect a loop's counter to be castable, so it is given them as one that is.
The interpreter has no bfloat16 products, hence the float16.
"""

# ruff: noqa: D101, D102 (as in the tests)

import builtins
import contextlib
import importlib
import json
import logging
import sys

import torch
from strawberry_fla import available
from triton.runtime import autotuner

import strawberry
from strawberry.contracts import Use
from strawberry.plugin import Plugins
from strawberry.recipe import recipe_from

CASES = {
    "gla": ({"use": "fla/gla"}, {"rule": "gla", "n_qkv": 32, "n_v": 64}),
    "gla conv": ({"use": "fla/gla", "conv": 4}, {"rule": "gla", "n_qkv": 32, "n_v": 64, "conv": 4}),
    "delta_net": ({"use": "fla/delta_net"}, {"rule": "delta"}),
    "gated_delta_net": (
        {"use": "fla/gated_delta_net", "head_dim": 16},
        {"rule": "gated_delta", "n_qkv": 32, "n_v": 64},
    ),
    "mamba2": ({"use": "fla/mamba2", "head_dim": 16, "state": 16, "chunk": 16}, None),
}
SHORT = ([13], [1] * 13, [6, 1, 6], [1, 12])
LONG = ([66, 1, 3], [3, 67])
"""Pieces above 64 tokens go to the kernels in chunks; the others to the recurrent ones."""


class Counter(int):
    def to(self, *_, **__):
        return self

    def __mul__(self, other):
        product = super().__mul__(other)
        return product if product is NotImplemented else Counter(product)


def counted(*limits):
    return map(Counter, builtins.range(*map(int, limits)))


def first_configuration(self, *args, **kwargs):
    self.nargs = dict(zip(self.arg_names, args, strict=False))
    return self.fn.run(*args, **{**kwargs, **self.configs[0].all_kwargs()})


def built(attention, plugins):
    model = {
        "vocab_size": 61,
        "block_size": 64,
        "n_embd": 64,
        "norm": {"use": "rmsnorm", "eps": 1e-5},
        "stack": [{"attention": attention}],
    }
    recipe = recipe_from({"name": "same", "model": model}, "same", plugins=plugins)
    model = strawberry.build(recipe).eval()
    return model, model.visits()[0].block.attention


def copy_weights(theirs, ours):
    """Fla's weights into the built-in `linear`."""
    L = theirs.layer
    pairs = [
        (ours.qkv.weight, torch.cat([L.q_proj.weight, L.k_proj.weight, L.v_proj.weight])),
        (ours.out.weight, L.o_proj.weight),
    ]
    if ours.gate is not None:
        pairs.append((ours.gate.weight, L.g_proj.weight))
    if ours.beta is not None:
        pairs.append((ours.beta.weight, L.b_proj.weight))
    if ours.conv is not None:
        taps = [getattr(L, f"{name}_conv1d").weight[:, 0] for name in "qkv"]
        pairs.append((ours.conv.weight, torch.cat(taps).flip(-1).T))
    if hasattr(L, "gk_proj"):
        down, up = L.gk_proj
        pairs += [(ours.decay.down.weight, down.weight), (ours.decay.up.weight, up.weight)]
        pairs.append((ours.decay.offset, up.bias))
    if hasattr(L, "a_proj"):
        pairs.append((ours.decay.step.weight, L.a_proj.weight))
        pairs += [(ours.decay.log_rate, L.A_log), (ours.decay.offset, L.dt_bias)]
    for mine, value in pairs:
        mine.copy_(value)


def off(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def cached(model, splits):
    """By split: how far cached calls over its pieces are from one call over all."""
    found = {}
    for split in splits:
        idx = torch.randint(61, (2, sum(split)), generator=torch.Generator().manual_seed(0))
        cache = model.new_cache(2, sum(split))
        pieces = [model(piece, cache=cache) for piece in torch.split(idx, split, dim=1)]
        found[str(split)] = off(torch.cat(pieces, 1), model(idx))
    return found


@torch.no_grad()
def errors(theirs, same, plugins):
    model, mixer = built({**theirs, **({"n_head": 2} if same else {})}, plugins)
    found = cached(model, SHORT)
    half = mixer.half_from is not None
    with torch.autocast("cpu", torch.float16) if half else contextlib.nullcontext():
        found |= cached(model, LONG)
    if same is not None:
        _, ours = built({"use": "linear", "n_head": 2, **same}, plugins)
        copy_weights(mixer, ours)
        x = torch.randn(2, 13, 64, generator=torch.Generator().manual_seed(1))
        use = Use(torch.arange(13), 0, model.positional, model.weights)
        found["linear"] = off(mixer(x, use), ours(x, use))
    return found


def main():
    logging.disable(logging.WARNING)
    autotuner.Autotuner.run = first_configuration
    available.missing = list
    available.DEVICES = ("cuda", "cpu")
    importlib.import_module("fla.layers")
    for name, module in [*sys.modules.items()]:
        if name.startswith("fla.ops"):
            module.range = counted
    plugins = Plugins.load()
    found = {name: errors(*case, plugins) for name, case in CASES.items()}
    print(json.dumps(found))  # noqa: T201 (what it is for)


if __name__ == "__main__":
    main()
