"""CPU seconds until a validation loss: recipes/speedrun/ against nanoGPT's own code, in turns.

    python tools/bench/speedrun.py char --nanogpt FOLDER --text tinyshakespeare.txt
        [--seeds 5] [--peer-runs 5] [--threads 2] [--set train.max_iters=300] [--json]

Both run as their users run them, as separate processes, and are timed from outside: at each line
that a process prints, its user and system time is read from /proc (so this needs Linux). The time
before training begins and that of evaluations are printed, but don't count.

nanoGPT is a folder that you have, whose data/shakespeare_char/prepare.py has been run. Its command
is that of its README for a CPU. Its seed is fixed in its code. The threshold is that of the track.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import turns

ROOT = Path(__file__).parents[2]
THRESHOLDS = {"char": 1.88}
"""Loss in nats a token of each track, fixed before any run: what nanoGPT's README says it gets."""

NANOGPT = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 "
    "--n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Lines:
    """Meaning of the lines of a program: patterns over their beginnings.

    Attributes:
        begun: of the last line before the first step.
        step: of a line after each step.
        evaluated: of an evaluation; its groups are the step and the loss.
    """

    begun: str
    step: str
    evaluated: str


OURS = Lines(
    begun=r"\S+: [\d,]+ parameters",
    step=r"step \d+/\d+ ",
    evaluated=r"step (\d+)  validation loss ([\d.]+)",
)
THEIRS = Lines(
    begun=r"step 0: ",
    step=r"iter \d+: ",
    evaluated=r"step (\d+): train loss [\d.]+, val loss ([\d.]+)",
)


@dataclass(slots=True)
class Timed:
    """CPU seconds of one run, by what they went to.

    Attributes:
        start: until the first step could begin.
        training: steps alone, until the end.
        evaluation: evaluations.
        evaluations: (step, loss, `training` until then) of each.
    """

    start: float = 0.0
    training: float = 0.0
    evaluation: float = 0.0
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)

    def until(self, threshold: float) -> float | None:
        """Seconds of training until a loss at most this was measured."""
        return next((cpu for _, loss, cpu in self.evaluations if loss <= threshold), None)


class Clock:
    """Books what a program has used since its last line to what that line ends."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.found, self.last, self.begun = lines, Timed(), 0.0, False

    def take(self, line: str, used: float) -> None:
        """A line, and the CPU seconds that the program has used up to it."""
        if not self.begun:
            if re.match(self.lines.begun, line):
                self.begun, self.last, self.found.start = True, used, used
            return
        if evaluated := re.match(self.lines.evaluated, line):
            self.found.evaluation += used - self.last
            step, loss = evaluated.groups()
            self.found.evaluations.append((int(step), float(loss), self.found.training))
        elif re.match(self.lines.step, line):
            self.found.training += used - self.last
        else:
            return
        self.last = used


def timed(command: list[str], lines: Lines, threads: int, folder: Path) -> Timed:
    """Run a program to its end; exits with what it printed where it failed."""
    clock, said = Clock(lines), []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            clock.take(line, used(process.pid))
    if process.returncode:
        sys.exit("".join(said[-20:]))
    return clock.found


def used(pid: int) -> float:
    """User and system seconds of a process and all of its threads."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        sys.exit(f"CPU time can't be read: {error}")
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("track", choices=THRESHOLDS)
    parser.add_argument("--nanogpt", type=Path, required=True, help="nanoGPT's folder")
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--seeds", type=int, default=5, help="runs of ours, from seed 1 on")
    parser.add_argument("--peer-runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="K=V", dest="sets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.nanogpt / "data/shakespeare_char/train.bin").exists():
        parser.error(f"run {options.nanogpt}/data/shakespeare_char/prepare.py first")
    turns.show(measure(options), table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    runs: dict[str, list[Timed]] = {"nanoGPT": [], "ours": []}
    for turn in range(max(options.seeds, options.peer_runs)):
        with tempfile.TemporaryDirectory() as folder:
            if turn < options.peer_runs:
                runs["nanoGPT"].append(theirs(options, Path(folder)))
            if turn < options.seeds:
                runs["ours"].append(ours(options, Path(folder), seed=turn + 1))
    threshold = THRESHOLDS[options.track]
    return {
        "track": options.track,
        "threshold": threshold,
        "threads": options.threads,
        "contenders": {name: summary(found, threshold) for name, found in runs.items() if found},
    }


def theirs(options: argparse.Namespace, out: Path) -> Timed:
    """The script of nanoGPT, unchanged, with its README's settings for a CPU."""
    script = ["train.py", "config/train_shakespeare_char.py"]
    command = [sys.executable, *script, *NANOGPT.split(), f"--out_dir={out / 'nanogpt'}"]
    return timed(command, THEIRS, options.threads, options.nanogpt)


def ours(options: argparse.Namespace, out: Path, *, seed: int) -> Timed:
    """The track's recipe by `strawberry train`."""
    sets = [f"seed={seed}", f"data.path={json.dumps(str(options.text.resolve()))}",
            f"train.threads={options.threads}", "train.log_interval=1", *options.sets]  # fmt: skip
    recipe = ROOT / f"recipes/speedrun/{options.track}.yaml"
    command = [sys.executable, "-m", "strawberry", "train", str(recipe), "--run-dir", "run"]
    return timed([*command, *(word for s in sets for word in ("--set", s))], OURS,
                 options.threads, out)  # fmt: skip


def summary(found: list[Timed], threshold: float) -> dict[str, Any]:
    """Each run's figures, with the least and the median of those that got there."""
    times = [run.until(threshold) for run in found]
    there = [time for time in times if time is not None]
    return {
        "seconds": times,
        "least": min(there) if len(there) == len(found) else None,
        "median": median(there) if len(there) == len(found) else None,
        "training": [run.training for run in found],
        "last_loss": [run.evaluations[-1][1] for run in found],
        "best_loss": [min(loss for _, loss, _ in run.evaluations) for run in found],
        "start": median(run.start for run in found),
        "evaluation": median(run.evaluation for run in found),
    }


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"CPU seconds of training until a validation loss of {result['threshold']}, "
             f"{result['threads']} threads", "",
             "| | runs | least | median | all steps, median | last loss | start | evaluations |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, found in result["contenders"].items():
        losses = ", ".join(f"{loss:.4f}" for loss in found["last_loss"])
        least, middle = (
            "not all" if found[key] is None else f"{found[key]:.1f}" for key in ("least", "median")
        )
        lines.append(
            f"| {name} | {len(found['seconds'])} | {least} | {middle} "
            f"| {median(found['training']):.1f} | {losses} | {found['start']:.1f} "
            f"| {found['evaluation']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
