"""How much room there is, and what a node is asked before it runs anything."""

import re
from pathlib import Path

import pytest
import yaml
from strawberry_ray import node
from strawberry_ray.attempts import claim
from strawberry_ray.cluster import places

from strawberry.ablate import make_executor
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins


@pytest.mark.parametrize(("nodes", "cpus", "gpus", "expected"), [
    ([(1, 0), (4, 0)], 1, 0, 5),
    ([(1, 0), (5, 0)], 2, 0, 2),
    ([(8, 2), (8, 0)], 1, 1, 2),
    ([(8, 2)], 1, 0.5, 4),
    ([(8, 2)], 1, 0.4, 4),  # five would put one on two GPUs
    ([(1, 2)], 1, 0.1, 1),
    ([(16, 1)], 1, 0.1, 10),
    ([], 1, 0, 0),
])  # fmt: skip
def test_places(nodes: list[tuple[int, int]], cpus: int, gpus: float, expected: int) -> None:
    """Uneven nodes and fractions of GPUs: no trial lies on two of either."""
    found = [{"CPU": float(cpu), "GPU": float(gpu)} for cpu, gpu in nodes]
    assert places(found, cpus, gpus) == expected


@pytest.mark.parametrize(("field", "why"), [
    ("gpus: 1.5", "at most 1"),
    ("cpus: 0", "at least 1"),
    ('address: "ray://head:10001"', "run this on a node"),
])  # fmt: skip
def test_fields_that_cannot_work(field: str, why: str) -> None:
    """They are refused where the executor is named."""
    wanted = yaml.safe_load(f"{{use: ray, {field}}}")
    with pytest.raises(RecipeError, match=re.escape(f"executor.{field.partition(':')[0]}")) as told:
        make_executor(wanted, Plugins.load(disabled=["fla"]))
    assert why in str(told.value)


def test_a_node_that_does_not_share_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so in one line, and starts nothing; so does one with another torch."""
    monkeypatch.setattr(node, "VISIBLE", 0.2)
    claimed = claim(tmp_path / "trial", {"key": "k", "threads": 1, "gpus": 0}, 1)
    elsewhere = str(tmp_path / "elsewhere" / claimed.folder.name)
    found = node.attempt(elsewhere, claimed.request, 60, node.installed())
    assert found["status"] == node.UNFIT
    assert f"does not see {elsewhere}; --out must name a folder on a disk" in found["error"]
    other = {**node.installed(), "torch": "1.0"}
    found = node.attempt(str(claimed.folder), claimed.request, 60, other)
    assert found["status"] == node.UNFIT
    assert "and not 1.0" in found["error"]
    assert not (claimed.folder / "log.txt").exists()
