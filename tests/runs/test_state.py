"""An optimizer's state as tensors and JSON, whatever containers it is kept in."""

import enum
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from strawberry.errors import StrawberryError
from strawberry.runs.state import pack, unpack


def test_containers_come_back_as_they_were() -> None:
    """Lists stay lists and tuples tuples, at any depth, and no key is taken for a form of ours."""
    state = {
        "step": 3,
        "GG": [torch.eye(2), [], torch.ones(3)],
        "expressions": ("ab,b->a", ("x",), None, True),
        "tensor": {"tensor": torch.zeros(1), "tuple": [1.5, float("inf")]},
    }
    tensors: dict[str, Tensor] = {}
    packed = json.loads(json.dumps(pack(state, "0/w", tensors)))
    assert set(tensors) == {"0/w/GG/0", "0/w/GG/2", "0/w/tensor/tensor"}
    back = unpack(packed, tensors, lambda tensor: tensor)
    assert type(back["expressions"]) is tuple
    assert type(back["GG"]) is list
    assert repr(back) == repr(state)


class Mode(enum.IntEnum):
    """A number that JSON would forget the name of."""

    FAST = 1


@pytest.mark.parametrize("value", [object(), torch.float32, Mode.FAST, {1: 2}, {"a": [print]}])
def test_what_cannot_be_saved_is_named(value: Any) -> None:
    """The message has the place of it."""
    with pytest.raises(StrawberryError, match=r"optimizer state 0/w/kept.*can't be saved"):
        pack({"kept": value}, "0/w", {})
