"""The minimal examples in the docstrings of a model's contracts work as they stand."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import pytest
import torch

import strawberry
from strawberry.contracts import Block, Loop, Residual
from strawberry.plugin import Plugins
from tests.support import TINY, recipe_of

HEAD = """import torch
from strawberry.contracts import *
from strawberry.plugin import hookimpl

{code}

@hookimpl
def strawberry_register(registry):
    registry.{kind}("example", {name})
"""
PLACES = {Block: {"block": "example"}, Residual: {"residual": "example"}, Loop: {"loop": "example"}}


@pytest.mark.parametrize("contract", PLACES, ids=lambda contract: contract.__name__)
def test_the_example_of_a_contract_is_a_plugin(contract: type, tmp_path: Path) -> None:
    """Registered, it builds, decodes with a cache as without, and has a gradient everywhere."""
    text = inspect.getdoc(contract) or ""
    found = re.search(r"^    class (\w+)\(.*?(?=^\S)", text, re.DOTALL | re.MULTILINE)
    code = found[0] if found else text[text.index("    class ") :]
    name = re.findall(r"class (\w+)", code)[0]
    kind = contract.__name__.lower()
    file = tmp_path / "example.py"
    file.write_text(HEAD.format(code=textwrap.dedent(code), kind=kind, name=name))
    plugins = Plugins.load(files=[file], disabled=["all"])
    block = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
    place = PLACES[contract]
    loop = place if contract is Loop else {}
    model = {**TINY, **({} if loop else place), "stack": [block, {"recur": 2, **block, **loop}]}
    built = strawberry.build(recipe_of(model, plugins=plugins)).eval()
    ids = torch.arange(14).view(2, 7)
    cache = built.new_cache(2, 7)
    parts = [built(piece, cache) for piece in ids.split([3, 1, 3], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), built(ids), rtol=1e-4, atol=1e-5)
    built.loss(ids, ids).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())
