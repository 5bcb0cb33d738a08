"""The proof for a GPU, run where there is none: what it measures, and that nothing stops it."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools/gpu"


def prove(out: Path, *options: str) -> tuple[int, dict]:
    """The exit code of a run, and its results."""
    command = [sys.executable, str(TOOLS / "prove.py"), "--quick", "--out", str(out), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
    assert (out / "table.md").read_text().strip() == done.stdout.strip(), done.stderr
    return done.returncode, json.loads((out / "results.json").read_text())


def rows(results: dict) -> dict[str, dict]:
    """How every measurement ended, by part and name."""
    return {
        f"{part}/{name}": row
        for part, found in results["parts"].items()
        for name, row in found["rows"].items()
    }


def test_a_measurement_of_each_part(tmp_path: Path):
    """On a CPU: every part begins, and what it measures is there."""
    names = ["machine", "fused AdamW", "attention mha", "optimizer muon", "gpt2", "speedrun"]
    code, results = prove(
        tmp_path, "--device", "cpu", "--minutes", "4", "--only", *names, "on the pretend"
    )
    found = rows(results)

    assert {row["status"] for row in found.values()} <= {"done", "skipped"}, found
    assert code == 0
    assert results["finished"]
    assert found["recipes/gpt2, eager"]["row"]["resumed"] == "equal"
    assert found["recipes/gpt2, compiled"]["row"]["breaks"] == 0
    assert found["speed/speedrun"]["row"]["tokens/s"] > 0
    assert found["decoding/speedrun, int8 packed"]["row"]["tokens/s"] > 0
    assert found["stalls/gpt2"]["row"]["pretended"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_all_of_it(tmp_path: Path, device: str):
    """Everything that a quick run takes: nothing fails, and the time is kept."""
    began = time.perf_counter()
    code, results = prove(tmp_path, "--device", device, "--minutes", "4")

    assert code == 0, {n: r for n, r in rows(results).items() if r["status"] == "failed"}
    assert time.perf_counter() - began < 260
    assert {"left"}.isdisjoint(row["status"] for row in rows(results).values())


def children(process: int) -> list[str]:
    """Ids of the processes that one has begun."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into Linux's /proc")
def test_what_was_measured_is_there_when_it_is_killed(tmp_path: Path):
    """At whatever moment: the results are whole JSON, and no process of it goes on."""
    command = [sys.executable, str(TOOLS / "prove.py"), "--quick", "--device", "cpu"]
    process = subprocess.Popen([*command, "--out", str(tmp_path), "--parts", "machine"])
    file, deadline = tmp_path / "results.json", time.monotonic() + 120
    done = 0
    while not done and time.monotonic() < deadline:
        time.sleep(0.05)
        if file.exists():
            found = rows(json.loads(file.read_text()))
            done = sum(row["status"] == "done" for row in found.values())
    (worker,) = children(process.pid)
    process.kill()
    process.wait()

    assert done
    while Path(f"/proc/{worker}").exists():  # it would hold the card
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not json.loads(file.read_text())["finished"] or done > 5


def test_no_minute_is_spent_without_a_gpu(tmp_path: Path):
    """Where torch finds no CUDA device it says why at once, and has measured nothing."""
    command = [sys.executable, str(TOOLS / "prove.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)

    assert done.returncode == 2
    assert "no GPU: " in done.stderr
    assert "--device cpu --quick" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    """Until it does; a single sequence that does not fit is the failure that it is."""
    monkeypatch.syspath_prepend(str(TOOLS))
    bench, steps = importlib.import_module("bench"), importlib.import_module("steps")
    there = bench.Bench("cpu", True, None, Path())

    def measure(batch: int) -> dict[str, int]:
        if batch > room:
            raise torch.OutOfMemoryError
        return {"sequences": batch}

    room = 5
    assert steps.halving(there, 16, measure) == {"sequences": 4}
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        steps.halving(there, 16, measure)


@pytest.fixture
def driver(monkeypatch, tmp_path: Path):
    """The driver, with a worker that acts as its measurements are named."""
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("driver")
    (tmp_path / "worker.py").write_text(
        """
import json, os, sys, time
job = json.load(sys.stdin)
say = lambda **line: print(json.dumps(line), flush=True)
for part in job["parts"]:
    say(what="part", part=part, deadline=time.time() + 3)
    say(what="names", part=part, names=["fine", "dies", "after", "hangs", "then"])
    if part == "stalls" and "stalls/late" not in job["known"]:
        say(what="left" if len(job["parts"]) > 1 else "done", part=part, name="late", row={})
        continue
    for name in ("fine", "dies", "after", "hangs", "then"):
        if f"{part}/{name}" in job["known"]:
            continue
        say(what="begin", part=part, name=name)
        if name == "dies":
            os.abort()
        if name == "hangs":
            time.sleep(60)
        say(what="done", part=part, name=name, seconds=0, row={"x": 1})
"""
    )
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "LEAST", 0.5)
    return module


def test_time_that_is_over_goes_to_what_was_left(driver, tmp_path: Path):
    """What its part had no time for is measured in the end, if others needed less than theirs."""
    results = driver.drive(driver.Job(tmp_path / "out", "cpu", True, 1, ["stalls", "speed"]))

    assert rows(results.found)["stalls/late"]["status"] == "done"


def test_nothing_takes_the_rest_along(driver, tmp_path: Path):
    """A process that dies costs its measurement alone, and so does one that hangs."""
    job = driver.Job(tmp_path / "out", "cpu", True, 1, ["machine", "speed"])
    results = driver.drive(job)
    found = rows(results.found)

    ends = {"fine": "done", "dies": "failed", "after": "done", "hangs": "cut", "then": "done"}
    for part in ("machine", "speed"):
        assert {name: found[f"{part}/{name}"]["status"] for name in ends} == ends
    assert "exit code -6" in found["machine/dies"]["error"]
    assert results.found["finished"]
    assert (tmp_path / "out/results.json").read_text() == json.dumps(results.found, indent=1) + "\n"
