"""The machine: card, torch, packages, and torch's kernels, without code of this project."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from typing import Any

import torch
from bench import ROOT, Bench, Measurements, Row, Skip, Wrong, digits
from torch import Tensor, nn
from torch.nn import functional as F


def measurements(bench: Bench) -> Measurements:
    """Facts first, then each kernel by itself."""
    yield "machine", lambda: facts(bench)
    yield "packages", packages
    yield "bfloat16 products", lambda: peak(bench)
    yield "float32 products", lambda: product(bench, "highest")
    yield "TensorFloat32 products", lambda: product(bench, "high")
    yield "copies within the device", lambda: copies(bench)
    yield "fused attention", lambda: attention(bench)
    yield "grouped products", lambda: grouped(bench)
    yield "fused AdamW", lambda: adamw(bench)
    yield "compiled kernel", lambda: compiled(bench)
    yield "FlexAttention", lambda: flex(bench)


def facts(bench: Bench) -> Row:
    """Names and versions."""
    row: Row = {"python": platform.python_version(), "torch": torch.__version__}
    row["cores"] = os.cpu_count()
    if bench.device == "cuda":
        about: Any = torch.cuda.get_device_properties(0)
        row |= {
            "card": about.name,
            "GiB": digits(about.total_memory / 2**30),
            "capability": f"{about.major}.{about.minor}",
            "CUDA": torch.version.cuda,
            "driver": _driver(),
            "C compiler": os.environ.get("CC") or shutil.which("cc") or "none: nothing compiles",
            "bfloat16": torch.cuda.is_bf16_supported(),
        }
    return row


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def packages() -> Row:
    """Dependencies of this project that are missing, or older than required."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    missing, old = [], []
    for line in project["dependencies"]:
        wanted = Requirement(line)
        try:
            have = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(wanted.name)
            continue
        if not wanted.specifier.contains(re.sub(r"\+.*", "", have), prereleases=True):
            old.append(f"{wanted.name} {have}, not {wanted.specifier}")
    row: Row = {"missing": ", ".join(missing) or "none", "old": ", ".join(old) or "none"}
    if missing:
        raise Wrong("packages are missing: parts that need them fail; see --wheels", row)
    return row


def peak(bench: Bench) -> Row:
    """The reference of shares of the peak, and the data sheet's figure."""
    row: Row = {"TFLOP/s": digits(bench.peak / 1e12)}
    return row if bench.promised is None else {**row, "by its data sheet": bench.promised / 1e12}


def product(bench: Bench, precision: str) -> Row:
    """A float32 product at one of torch's precisions."""
    side = 256 if bench.quick else 4096
    a, b = (torch.randn(side, side, device=bench.device) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        spent = bench.seconds(lambda: a @ b)
        exact = (a[:64].double().cpu() @ b.double().cpu()).abs().max()
        error = ((a[:64] @ b).double().cpu() - a[:64].double().cpu() @ b.double().cpu()).abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    return {"TFLOP/s": digits(2 * side**3 / spent / 1e12), "error": digits(float(error / exact))}


def copies(bench: Bench) -> Row:
    """Bytes read and written."""
    x = torch.empty((1 << 22) if bench.quick else (1 << 30), device=bench.device)
    y = torch.empty_like(x)
    return {"GB/s": digits(2 * x.nbytes / bench.seconds(lambda: y.copy_(x)) / 1e9)}


def attention(bench: Bench) -> Row:
    """Forward and backward of causal attention in bfloat16, against plain products in float32."""
    shape = (1, 2, 64, 32) if bench.quick else (8, 12, 1024, 64)
    q, k, v = (torch.randn(shape, device=bench.device).bfloat16() for _ in range(3))

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def plain(*qkv: Tensor) -> Tensor:
        q, k, v = (x.float() for x in qkv)
        scores = (q @ k.mT * shape[-1] ** -0.5).masked_fill(
            ~torch.ones(shape[2], shape[2], dtype=torch.bool, device=q.device).tril(), -torch.inf
        )
        return scores.softmax(-1) @ v

    return _against(bench, fused, plain, [q, k, v])


def grouped(bench: Bench) -> Row:
    """`grouped_mm` in bfloat16, an empty group among them, against a loop."""
    if not hasattr(F, "grouped_mm"):
        raise Skip("this torch has no grouped_mm")
    rows, width = (64, 32) if bench.quick else (8192, 1024)
    x = torch.randn(rows, width, device=bench.device).bfloat16()
    bank = torch.randn(4, width, width, device=bench.device).bfloat16() * width**-0.5
    ends = [rows // 4, rows // 4, rows // 2, rows]
    offsets = torch.tensor(ends, device=bench.device, dtype=torch.int32)

    def kernel(x: Tensor, bank: Tensor) -> Tensor:
        return F.grouped_mm(x, bank, offs=offsets)

    def loop(x: Tensor, bank: Tensor) -> Tensor:
        starts = [0, *ends[:-1]]
        parts = [x[a:b].float() @ w.float() for a, b, w in zip(starts, ends, bank, strict=True)]
        return torch.cat(parts)

    return _against(bench, kernel, loop, [x, bank])


def adamw(bench: Bench) -> Row:
    """The fused step against the plain loop."""
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(65, 33, device=bench.device)) for _ in range(3)]
        options: dict[str, Any] = {"fused": True} if fused else {"foreach": False}
        optimizer = torch.optim.AdamW(parameters, lr=0.1, **options)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape).to(bench.device)
        optimizer.step()
        found.append(torch.cat([p.detach().flatten() for p in parameters]))
    return {"error": _error(*found)}


def compiled(bench: Bench) -> Row:
    """Whether torch.compile makes kernels here: on CUDA that is Triton."""
    x = torch.randn(1024, 64, device=bench.device)
    _compiler(bench)

    def plain(x: Tensor) -> Tensor:
        return F.layer_norm(F.gelu(x) + 1, (64,))

    return {"error": _error(torch.compile(plain)(x), plain(x))}


def flex(bench: Bench) -> Row:
    """A sliding window by FlexAttention, compiled, against a dense mask; backward on CUDA alone."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    _compiler(bench)
    T = 128 if bench.quick else 1024
    q, k, v = (torch.randn(2, 2, T, 64, device=bench.device) for _ in range(3))

    def seen(_b: Tensor, _h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & (j > i - 32)

    kernel: Any = torch.compile(flex_attention)
    blocks = create_block_mask(seen, None, None, T, T, device=bench.device)
    places = torch.arange(T, device=bench.device)
    mask = (places[:, None] >= places) & (places > places[:, None] - 32)

    def windowed(*qkv: Tensor) -> Tensor:
        made: Tensor = kernel(*qkv, block_mask=blocks)
        return made

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    if bench.device != "cpu":
        return _against(bench, windowed, dense, [q, k, v])
    with torch.no_grad():
        return {"error": _error(windowed(q, k, v), dense(q, k, v))}


def _compiler(bench: Bench) -> None:
    if bench.device == "pretend":
        raise Skip("the pretend accelerator has no compiler")
    if bench.quick:
        raise Skip("compiling takes a CPU too long for a quick run")


def _against(
    bench: Bench,
    kernel: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    given: list[Tensor],
) -> Row:
    """Milliseconds of a kernel, forward and backward, and how far its results are off."""
    results = []
    for function in (kernel, plain):
        inputs = [x.detach().clone().requires_grad_() for x in given]
        y = function(*inputs)
        weight = torch.linspace(-1, 1, y.shape[-1], device=y.device)
        torch.autograd.backward((y.float() * weight).sum())
        results.append([y.detach(), *(x.grad for x in inputs if x.grad is not None)])
    worst = max(_error(a, b) for a, b in zip(*results, strict=True))
    inputs = [x.detach().clone().requires_grad_() for x in given]

    def step() -> None:
        y = kernel(*inputs)
        torch.autograd.backward(y, torch.ones_like(y))

    row: Row = {"ms": digits(1e3 * bench.seconds(step)), "error": worst}
    if worst > 0.05:
        raise Wrong(f"off by {worst} of the largest value", row)
    return row


def _error(found: Tensor, expected: Tensor) -> float:
    difference = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
    return digits(float(difference))
