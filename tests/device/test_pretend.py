"""The pretend accelerator itself: the CPU's numbers, a GPU's refusals, and what it takes down."""

import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.check.pretend import NAME, Stalls, accelerator


@pytest.fixture
def stalls() -> Iterator[Stalls]:
    """The device is there; what stalls it."""
    with accelerator() as found:
        yield found


def losses(device: str, dtype: torch.dtype) -> list[float]:
    """Three steps of a model whose operators torch's CPU has kernels of its own for."""
    torch.manual_seed(0)
    embedding, norm, mix = nn.Embedding(11, 16), nn.LayerNorm(16), nn.Linear(16, 48)
    conv, head = nn.Conv1d(16, 16, 3, padding=2, groups=16), nn.Linear(16, 11)
    model = nn.ModuleList([embedding, norm, mix, conv, head]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    ids = torch.randint(0, 11, (2, 8)).to(device)
    visible = torch.ones(8, 8, dtype=torch.bool, device=device).tril()
    generator = torch.Generator(device).manual_seed(3)
    found = []
    for _ in range(3):
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            x = norm(embedding(ids))
            x = x + conv(x.mT)[..., :8].mT
            q, k, v = mix(x).view(2, 8, 2, 24).transpose(1, 2).split(8, -1)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = y + F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
            y = F.dropout(y, 0.1).transpose(1, 2).reshape(2, 8, 16)
            y = y + torch.randn(y.shape, device=device, generator=generator)
            loss = F.cross_entropy(head(mix(y)[..., :16]).flatten(0, 1).float(), ids.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_what_a_cpu_does(dtype: torch.dtype, stalls: Stalls) -> None:
    """Fused attention, convolution, dropout, autocast, a fused optimizer: bit for bit."""
    assert losses(NAME, dtype) == losses("cpu", dtype)


def test_gradients_reach_through_views_that_are_written_to(stalls: Stalls) -> None:
    """Writing in place into a view, whose gradient torch finds by its place in memory."""
    start = torch.arange(12.0).view(3, 4)
    found = []
    for device in ("cpu", NAME):
        leaf = start.clone().to(device).requires_grad_()
        whole = leaf * 2
        whole[1:, 2].mul_(leaf[:2, 0])
        whole[0].exp_()
        (whole * whole).sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad.cpu())
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda x: x + torch.arange(5), "at least two devices, pretend:0 and cpu"),
        (lambda x: torch.cat([x, torch.arange(2)]), "at least two devices"),
        (lambda x: F.embedding(x, torch.randn(5, 2)), "at least two devices"),
        (lambda x: torch.where(x > 2, x, torch.arange(5)), "at least two devices"),
        (lambda x: x.numpy(), "can't convert pretend:0"),
        (lambda x: x.float().normal_(generator=torch.Generator()), "Expected a 'pretend' device"),
    ],
)
def test_it_refuses_what_a_gpu_refuses(
    mistake: Callable[[Tensor], object], message: str, stalls: Stalls
) -> None:
    """Tensors of two devices, a look from numpy, a generator of the other device."""
    x = torch.arange(5, device=NAME)
    with pytest.raises((RuntimeError, TypeError), match=message):
        mistake(x)


def test_a_number_of_the_cpu_is_no_mistake(stalls: Stalls) -> None:
    """A zero-dimensional CPU tensor goes with elementwise operators, and costs nothing."""
    x = torch.ones(3, device=NAME)
    y = torch.where(x > 0, x * torch.tensor(2.0), torch.tensor(0.0))
    assert not len(stalls)
    assert y.tolist() == [2, 2, 2]


WAITS: dict[str, tuple[Callable[[Tensor], object], list[str]]] = {
    "item": (lambda x: x[0].item(), ["read"]),
    "branch": (lambda x: 1 if (x > 0).any() else 0, ["read"]),
    "tolist": (lambda x: x.tolist(), ["read"]),
    "cpu": (lambda x: x.cpu(), ["read"]),
    "without waiting": (lambda x: x.to("cpu", non_blocking=True), []),
    "nonzero": (lambda x: x.nonzero(), ["read"]),
    "mask": (lambda x: x[x > 2], ["read"]),
    "fill by a mask": (lambda x: x.__setitem__(x > 2, 0), []),
    "write by a mask": (lambda x: x.__setitem__(x < 9, x), ["read"]),
    "index": (lambda x: x[x], []),
    "index by a tensor": (lambda x: x[x[1]], ["read"]),
    "index of the CPU": (lambda x: x[torch.arange(2)], ["copy"]),
    "index by a list": (lambda x: x[[1, 2]], ["copy"]),
    "unique": (lambda x: x.unique(), ["read"]),
    "equal": (lambda x: torch.equal(x, x + 1), ["read"]),
    "repeat": (lambda x: x.repeat_interleave(x), ["read"]),
    "repeat to a size": (lambda x: x.repeat_interleave(x, output_size=10), []),
    "a list": (lambda x: torch.tensor([1, 2], device=x.device), ["copy"]),
    "a number": (lambda x: torch.full((), 2, device=x.device), []),
    "a range": (lambda x: torch.arange(9, device=x.device), []),
    "unpinned": (lambda x: torch.ones(3).to(x.device, non_blocking=True), ["copy"]),
    "pinned": (lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True), []),
    "pinned, waited for": (lambda x: torch.ones(3).pin_memory().to(x.device), ["copy"]),
    "float64": (lambda x: torch.zeros(2, device=x.device, dtype=torch.float64), ["float64"]),
    "draw": (lambda x: torch.multinomial(x.float(), 1), ["read"]),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_a_host_waits_for_is_taken_down(name: str, stalls: Stalls) -> None:
    """Each way to wait, beside those that look alike and don't; with the line of this file."""
    act, expected = WAITS[name]
    x = torch.arange(5, device=NAME)
    stalls.take()
    act(x)
    assert [stall.kind for stall in stalls] == expected
    assert all(stall.stack[0].file == __file__ for stall in stalls)


def test_what_waits_backwards_has_the_line_of_the_forward_pass(stalls: Stalls) -> None:
    """In anomaly mode, which takes these down: a product, whose gradient asks for zeros."""
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        x = torch.ones(3, device=NAME, requires_grad=True)
        product, line = x.prod(), inspect.currentframe().f_lineno  # type: ignore[union-attr]
        product.backward()

    assert [stall.place for stall in stalls] == [f"{__file__}:{line}"]


def test_nothing_of_it_is_left_behind() -> None:
    """Outside of the context there is no accelerator, and torch's own classes are in place."""
    generator = torch.Generator
    with accelerator():
        assert torch.accelerator.current_accelerator(check_available=True) == torch.device(NAME)
        assert torch.ones(2).pin_memory().is_pinned()
        assert torch.get_device_module(NAME).is_available()
    assert torch.accelerator.current_accelerator(check_available=True) is None
    assert not torch.ones(2).is_pinned()
    assert torch.Generator is generator
