import json
from pathlib import Path

import pytest

from strawberry.runs import checkpoint
from tests.training.parallel.ranks import difference, job, rows, run

NOISE = 2e-5
"""How far losses near 6 may be apart: sums over the batch are taken in another order."""

SCALES = {"skip": 1, "back_off": 0.5, "stop": 1}
"""What becomes of the learning rate, by policy."""


def compare(tmp_path: Path, parallel: str, policies: tuple[str, ...]) -> None:
    """With a NaN on one rank of two at step 4, both go the way that one process goes."""
    settings = {
        "train__checkpoint_interval": 2,
        "train__eval_interval": 2,
        "train__keep_best": True,
    }
    jobs = {
        ranks: [
            job("gpt2", tmp_path / f"{ranks}-{policy}", poison=4, train__on_nonfinite=policy,
                train__parallel=parallel, **settings)
            for policy in policies
        ]
        for ranks in (1, 2)
    }  # fmt: skip
    run(1, jobs[1], tmp_path / "jobs")
    mine, other = run(2, jobs[2], tmp_path / "jobs")
    for policy, *ended in zip(policies, mine, other, strict=True):
        if policy == "stop":
            assert ended == [{"diverged": 4, "told": False}, {"diverged": 4, "told": True}]
        else:
            assert ended[0] == ended[1]  # to the last bit: they choose the best one alike
        one, two = (tmp_path / f"{ranks}-{policy}" for ranks in (1, 2))
        assert difference(one, two) < NOISE, policy
        expected, found = (checkpoint.load_newest(each / "checkpoints")[0] for each in (one, two))
        assert found.state["best"]["step"] == expected.state["best"]["step"]
        assert found.state["scale"] == expected.state["scale"] == SCALES[policy]
        assert sum(row.get("skipped", 0) for row in rows(two)) == (policy == "skip")
        kept = json.loads((two / "nonfinite" / "step-00000004.json").read_text())
        assert (kept["step"], kept["weights"]) == (4, [])


def test_two_ranks_judge_a_step_together(tmp_path: Path) -> None:
    """A loss that is not finite on one alone is skipped, or backed off from, by both (DDP)."""
    compare(tmp_path, "ddp", ("skip", "back_off"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_follow_every_policy(tmp_path: Path, parallel: str) -> None:
    """And where they end, one says so; in shards they go back only to what is whole on disk."""
    compare(tmp_path, parallel, ("skip", "back_off", "stop"))
