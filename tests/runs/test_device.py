import pytest
import torch

from strawberry.errors import RecipeError
from strawberry.runs.device import machine_for
from tests.training.conftest import RecipeMaker


def test_auto_is_what_is_there(make_recipe: RecipeMaker) -> None:
    """`auto` always resolves; on a CPU it means float32 and no compilation."""
    machine = machine_for(make_recipe(train={"device": "auto"}))
    if machine.device.type == "cpu":
        assert (machine.dtype, machine.compiled) == (torch.float32, False)


def test_bfloat16_is_autocast(make_recipe: RecipeMaker) -> None:
    """A matrix product under the recipe's bfloat16 comes out in it; parameters stay float32."""
    machine = machine_for(make_recipe(train={"dtype": "bfloat16"}))
    layer = torch.nn.Linear(4, 4)
    with machine.autocast():
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["gpu", "meta", "cpu:x", "xpu"])
def test_a_device_that_is_not_there_is_refused_at_its_line(
    make_recipe: RecipeMaker, name: str
) -> None:
    """The error names the field, the place and what to write instead."""
    with pytest.raises(RecipeError, match="auto") as caught:
        machine_for(make_recipe(train={"device": name}))
    assert "train.device" in str(caught.value)
    assert caught.value.problems[0].location is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused(make_recipe: RecipeMaker) -> None:
    """Asking for CUDA on a machine without it is a located error, before any data is read."""
    with pytest.raises(RecipeError, match="not available"):
        machine_for(make_recipe(train={"device": "cuda"}))


def test_threads_are_set(make_recipe: RecipeMaker) -> None:
    """`train.threads` reaches torch."""
    machine_for(make_recipe(train={"threads": 2}))
    assert torch.get_num_threads() == 2
