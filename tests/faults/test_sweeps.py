"""Section F: what trials and their processes do; most of it is in tests/ablate/test_sweep.py."""

from __future__ import annotations

import json
import os
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from strawberry.ablate import process
from strawberry.ablate.process import Life
from strawberry.ablate.report import tabulate
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from tests.ablate.conftest import PlanMaker, make_plan, plugins, recipe_file
from tests.ablate.test_sweep import FFN, run, scripted
from tests.faults.conftest import Figure

__all__ = ["make_plan", "plugins", "recipe_file"]

FAULTS = """
    import os, signal, sys
    import torch
    from strawberry.model.contracts import FFN
    from strawberry.plugin import hookimpl

    class Fault(FFN):
        def __init__(self, site, *, way: str = "raises"):
            super().__init__()
            self.way, self.steps = way, 0
            self.weight = torch.nn.Parameter(torch.zeros(site.n_embd))

        def forward(self, x, use):
            if x.device.type != "meta" and self.training:
                self.steps += 1
            if self.steps == 4:
                if self.way == "exits":
                    os._exit(1)
                if self.way == "crashes":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if self.way == "leaves":
                    raise SystemExit(3)
                if self.way == "fills the disk":
                    raise OSError(28, "No space left on device")
                if self.way == "can't be pickled":
                    raise type("Odd", (Exception,), {"__reduce__": None})("on purpose")
                if self.way == "shouts":
                    for _ in range(50):
                        sys.stderr.write("x" * 100_000)
            return x * self.weight

    @hookimpl
    def strawberry_register(registry):
        registry.ffn("fault", Fault)
"""
WAYS = {
    "exits": ("failed", "exit code 1"),
    "crashes": ("killed", "SIGSEGV"),
    "leaves": ("failed", "SystemExit: 3"),
    "fills the disk": ("failed", "No space left on device"),
    "can't be pickled": ("failed", "Odd: on purpose"),
}


@pytest.mark.slow
@pytest.mark.faults(41)
def test_more_ways_for_a_trial_to_fail(
    make_plan: PlanMaker, tmp_path: Path, figure: Figure
) -> None:
    """Each is told by its kind; one that writes 5 MB to its standard error is a result."""
    (tmp_path / "faults.py").write_text(textwrap.dedent(FAULTS))
    plugins = Plugins.load(files=[tmp_path / "faults.py"])
    cells = {way: {FFN: {"use": "fault", "way": way}} for way in (*WAYS, "shouts")}
    record, _ = run(make_plan(cells=cells, seeds=1), plugins, tmp_path / "out")
    table = tabulate(record)
    found = {failure.cell: failure for failure in table.failures}
    assert found.keys() == WAYS.keys()
    told = sum(found[way].status == status and text in found[way].error
               for way, (status, text) in WAYS.items())  # fmt: skip
    assert {row.name for row in table.rows if row.values} == {"recipe", "shouts"}
    figure(len(WAYS) + 2, told + 2, "trials told as what they are")


@pytest.mark.faults(46)
def test_a_folder_that_can_not_be_made_is_told(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """Where a file is in its way, before any trial is run."""
    (tmp_path / "file").write_text("")
    plan = make_plan(vary={FFN: ("swiglu", "none")})
    with pytest.raises((StrawberryError, OSError), match="file"):
        run(plan, plugins, tmp_path / "file" / "out")


@pytest.mark.faults(23)
def test_a_jump_of_the_clock_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that is heard of is not taken for one that hangs when the clock goes days back."""
    log = tmp_path / "run" / "metrics.jsonl"
    log.parent.mkdir()
    now, began, passed = time.time(), time.monotonic(), [0.0]
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    monkeypatch.setattr(time, "monotonic", lambda: began + passed[0])
    life = Life(tmp_path, 100)
    for number in range(5):
        passed[0] += 60
        log.write_text("x" * number)
        os.utime(log, (now - 86_400 * number, now - 86_400 * number))
        assert life.goes_on()
    passed[0] += 200
    assert not life.goes_on()


@pytest.mark.faults(41, control=True)
def test_a_result_from_before_would_be_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed trial with the result of an earlier try in its folder would count as finished."""
    (tmp_path / "result.json").write_text('{"status": "finished"}')
    assert process.outcome(tmp_path, -9)["status"] == "finished"
    started = type("Process", (), {"start": lambda self: None})()
    context = type("Context", (), {"Process": lambda self, **options: started})()
    monkeypatch.setattr(process, "_context", lambda: context)
    process.TrialProcess(tmp_path, {}, 10)
    assert process.outcome(tmp_path, -9)["status"] == "killed"


@pytest.mark.faults(42, control=True)
def test_what_is_not_known_as_done_is_run_again(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """A result that is of another recipe, seed or data is no result; else none is done twice."""
    started: list[str] = []

    def loss(recipe: Any) -> float:
        started.append(recipe["name"])
        return 1.0

    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=2)
    record = scripted(plan, plugins, tmp_path / "out", loss)
    assert len(started) == 4
    scripted(plan, plugins, tmp_path / "out", loss)
    assert len(started) == 4
    file = record.trials[0].folder / "trial.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "key": "another"}))
    scripted(plan, plugins, tmp_path / "out", loss)
    assert len(started) == 5
