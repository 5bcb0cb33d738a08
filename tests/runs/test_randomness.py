import json
import random

import numpy as np
import torch

from strawberry.runs import randomness


def draw() -> list[float]:
    return [random.random(), random.gauss(), np.random.normal(), torch.rand(()).item()]


def test_every_generator_goes_on_where_it_was() -> None:
    """Python's, NumPy's (half of a pair still to come) and torch's, through JSON and tensors."""
    randomness.seed(5)
    draw()
    numbers, tensors = json.loads(json.dumps(randomness.numbers())), randomness.tensors()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    expected = [draw() for _ in range(3)]
    randomness.seed(6)
    randomness.restore(numbers, tensors)
    assert [draw() for _ in range(3)] == expected


def test_a_seed_decides_all_of_them() -> None:
    """The same seed gives the same draws, also one beyond NumPy's 32 bits."""
    for seed in (0, 2**32 + 3):
        randomness.seed(seed)
        first = draw()
        randomness.seed(seed)
        assert draw() == first
