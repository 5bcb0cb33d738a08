"""What only an accelerator is given, computed on a CPU wherever torch can, against the fallback."""

import warnings
from pathlib import Path

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from strawberry.check.pretend import NAME, accelerator
from strawberry.components.attention import flex
from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import attend
from strawberry.components.optimizer.adamw import AdamW
from strawberry.contracts import OptimizerSite, ParameterInfo
from strawberry.data import open_dataset
from strawberry.generation import Sampling
from strawberry.generation.decode import sample_batch
from strawberry.model import grouped
from strawberry.model.build import build
from strawberry.runs import randomness
from strawberry.runs.device import Machine
from strawberry.training.batches import Batches
from strawberry.training.space import peak_memory, total_memory
from tests.support import TINY, recipe_of, tiny


@pytest.mark.slow
def test_flex_attention_as_it_is_compiled():
    """A window, documents, a bias, grouped heads: the dense mask's values.

    Forward alone, and without a sink: torch has neither a backward of it on a CPU nor the sums that
    a sink needs. tests/components has all changes one by one, by torch's uncompiled reference;
    grouped products by themselves are in tests/model/test_grouped.py.
    """
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 32, 16) for heads in (4, 2, 2))
    documents = (torch.arange(32) // 9).expand(2, -1)
    scores = Scores(bias=torch.randn(4, 32, 32), window=7, documents=documents)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own deprecations
        compiled = flex.attend(q, k, v, scores, kernel=torch.compile(flex_attention))

    torch.testing.assert_close(compiled, attend(q, k, v, scores), rtol=1e-5, atol=1e-5)


def test_a_mixture_by_its_kernel_waits_for_nothing(monkeypatch):
    """In bfloat16 by torch's grouped product, as on CUDA: the loop's loss, and no host read."""
    recipe = tiny({"repeat": 2, "attention": "mha", "ffn": {"use": "moe", "n_ffn": 32}})
    idx = torch.arange(32).view(2, 16)
    found = []
    with accelerator() as stalls:
        for device, kernels in (("cpu", set()), (NAME, {NAME})):
            monkeypatch.setattr(grouped, "WITH_KERNEL", kernels)
            torch.manual_seed(0)
            model, given = build(recipe).to(device).train(), idx.to(device)
            stalls.take()
            with torch.autocast(device, torch.bfloat16):
                loss = model.loss(given, given).total
            loss.backward()
            assert not stalls.counts("read", "copy")
            found.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])

    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs.cpu(), mine, rtol=2e-2, atol=2e-2)


def test_ids_that_no_text_has_cost_a_token_nothing():
    """They are on the device from the first token on; the host reads the new id alone."""
    model = build(tiny({"attention": "mha"})).eval()
    model.drawable, model.gaps = 50, (3, 7)
    with accelerator() as stalls:
        tokens = sample_batch(model.to(NAME), [[1, 2]], 4, Sampling(0.0), [torch.Generator()])
        taken = [(next(tokens), stalls.take())[1] for _ in range(4)]

    assert [[stall.kind for stall in each] for each in taken[1:]] == [["read"]] * 3


def test_fused_adamw():
    """Torch's fused kernel takes the steps of its plain loop over parameters."""
    torch.manual_seed(0)
    start = [torch.randn(5, 7), torch.randn(7)]
    grads = [[torch.randn_like(p) for p in start] for _ in range(4)]
    found = []
    for fused in (True, False):
        parameters = [torch.nn.Parameter(p.clone()) for p in start]
        infos = [ParameterInfo(str(n), p, "matrix") for n, p in enumerate(parameters)]
        optimizer = AdamW(OptimizerSite()).make(infos, lr=1e-2, device=torch.device("cpu"))
        assert all(group["fused"] for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group.update(fused=fused, foreach=False)
        for step in grads:
            for parameter, grad in zip(parameters, step, strict=True):
                parameter.grad = grad.clone()
            optimizer.step()
        found.append([p.detach() for p in parameters])

    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


def test_batches_by_way_of_pinned_memory(tmp_path: Path):
    """A thread that pins batches and copies them ahead gives those of the CPU, unstalled."""
    (tmp_path / "text.txt").write_text("strawberry " * 400)
    recipe = recipe_of(
        {**TINY, "vocab_size": 257, "stack": [{"ffn": "mlp"}]},
        data={"use": "text", "path": str(tmp_path / "text.txt")},
        tokenizer="bytes",
        train={"batch_size": 3, "gradient_accumulation_steps": 2},
    )
    dataset = open_dataset(recipe)
    with accelerator() as stalls:
        here, there = (Batches(dataset, recipe, torch.device(name)) for name in ("cpu", NAME))
        pairs = [
            (a, b) for step in range(3)
            for a, b in zip(here.train(step), there.train(step), strict=True)
        ]  # fmt: skip
        there.close()
        assert not list(stalls)
        for mine, theirs in pairs:
            for a, b in zip(mine, theirs, strict=True):
                if isinstance(a, torch.Tensor):
                    assert b.device.type == NAME
                    assert torch.equal(a, b.cpu())


def test_an_accelerators_random_numbers_are_saved_and_held():
    """Its state is among those of a checkpoint, and an evaluation leaves it as it was."""
    with accelerator():
        device = torch.device(NAME)
        assert set(randomness.tensors()) == {"cpu", f"{NAME}:0"}
        before = torch.get_rng_state()
        with randomness.held(device):
            torch.randn(3, device=device)
        assert torch.equal(torch.get_rng_state(), before)

        plain, saved = randomness.numbers(), randomness.tensors()
        first = torch.randn(3, device=device).cpu()
        randomness.restore(plain, saved)
        assert torch.equal(torch.randn(3, device=device).cpu(), first)
    assert set(randomness.tensors()) == {"cpu"}


@pytest.mark.parametrize("name", ["cpu", NAME])
def test_memory_and_waiting(name):
    """A device that counts no memory has the host's, and every device can be waited for."""
    with accelerator():
        device = torch.device(name)
        Machine(device, torch.float32, compiled=False).synchronize()
        peak, total = peak_memory(device), total_memory(device)
        assert peak is not None
        assert total is not None
        assert 0 < peak < total
