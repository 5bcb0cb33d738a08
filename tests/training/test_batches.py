import torch

from strawberry.data import open_dataset
from strawberry.training.batches import Batches
from tests.training.conftest import RecipeMaker


def test_micro_batches_are_a_function_of_their_step(make_recipe: RecipeMaker) -> None:
    """Asked in any order, by any object, a step gives the same ids; targets follow inputs."""
    recipe = make_recipe()
    first, second = (Batches(open_dataset(recipe), recipe, torch.device("cpu")) for _ in range(2))
    forward = [first.train(step)[0] for step in range(4)]
    backward = [second.train(step)[0] for step in reversed(range(4))][::-1]
    for (x, y), (x2, y2) in zip(forward, backward, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
        assert torch.equal(x[:, 1:], y[:, :-1])
    assert not torch.equal(forward[0][0], forward[1][0])
    assert forward[0][0].dtype == torch.int64
    assert forward[0][0].shape == (2, 16)
