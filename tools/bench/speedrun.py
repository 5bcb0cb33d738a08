"""Time until a validation loss: recipes/speedrun/ against nanoGPT's own code, in turns.

    python tools/bench/speedrun.py char --nanogpt FOLDER --text tinyshakespeare.txt
    python tools/bench/speedrun.py code --nanogpt FOLDER
        [--seeds 5] [--peer-runs 5] [--threads 2] [--loss 1.4697] [--recipe FILE]
        [--set train.max_iters=300] [--json]

Both run as their users run them, as separate processes, and are timed from outside: at each line
that a process prints, its user and system time is read from /proc (so this needs Linux). The time
before training begins and that of evaluations are printed, but don't count.

nanoGPT is a folder that you have; nothing is written into it. For `char` its
data/shakespeare_char/prepare.py must have been run. For `code` its train.py gets our tokens of the
standard library in a temporary folder. Its seed is fixed in its code.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from turns import show

from strawberry.data import open_dataset
from strawberry.recipe import load_recipe

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Track:
    """A text, a threshold, and how nanoGPT is run on the text.

    Attributes:
        loss: the threshold, in nats a token; None takes what nanoGPT ends with in the same
            command.
        settings: options of nanoGPT's train.py, after its configuration for Shakespeare.
    """

    loss: float | None
    settings: str


CPU = (
    "--device=cpu --compile=False --log_interval=1 --block_size=64 --batch_size=12 "
    "--n_layer=4 --n_head=4 --n_embd=128 --dropout=0.0"
)
"""nanoGPT's settings for a CPU, from its README."""
TRACKS = {
    # 1.88 is what its README says for these settings.
    "char": Track(1.88, f"{CPU} --eval_iters=20 --max_iters=2000 --lr_decay_iters=2000"),
    # As many steps as take about three minutes of CPU.
    "code": Track(
        None,
        f"{CPU} --dataset=code --eval_iters=100 --eval_interval=900 --max_iters=1800 "
        "--lr_decay_iters=1800",
    ),
}
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


class Seconds(NamedTuple):
    """Seconds of the processor, and of the clock."""

    cpu: float = 0.0
    wall: float = 0.0

    def plus(self, now: Seconds, last: Seconds) -> Seconds:
        """These, and what has passed between two moments."""
        return Seconds(self.cpu + now.cpu - last.cpu, self.wall + now.wall - last.wall)


@dataclass(slots=True)
class Timed:
    """Seconds of one run, by what they went to.

    Attributes:
        start: until the first step could begin.
        training: steps alone, until the end.
        evaluation: evaluations.
        evaluations: (step, loss, `training` until then) of each.
    """

    start: Seconds = field(default_factory=Seconds)
    training: Seconds = field(default_factory=Seconds)
    evaluation: Seconds = field(default_factory=Seconds)
    evaluations: list[tuple[int, float, Seconds]] = field(default_factory=list)

    def until(self, threshold: float) -> Seconds | None:
        """Seconds of training until a loss at most this was measured."""
        return next((time for _, loss, time in self.evaluations if loss <= threshold), None)


class Clock:
    """Books what a program has used since its last line to what that line ends."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.timed, self.last, self.begun = lines, Timed(), Seconds(), False

    def take(self, line: str, now: Seconds) -> None:
        """A line, and the seconds that the program has used up to it."""
        timed = self.timed
        if not self.begun:
            if re.match(self.lines.begun, line):
                self.begun, self.last, timed.start = True, now, now
            return
        if evaluated := re.match(self.lines.evaluated, line):
            timed.evaluation = timed.evaluation.plus(now, self.last)
            step, loss = evaluated.groups()
            timed.evaluations.append((int(step), float(loss), timed.training))
        elif re.match(self.lines.step, line):
            timed.training = timed.training.plus(now, self.last)
        else:
            return
        self.last = now


def timed(command: list[str], lines: Lines, threads: int, folder: Path) -> Timed:
    """Run a program to its end; exits with what it printed where it failed."""
    clock, said = Clock(lines), []
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            clock.take(line, Seconds(used(process.pid), time.monotonic() - began))
    if process.returncode:
        sys.exit("".join(said[-20:]))
    return clock.timed


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
    parser.add_argument("track", choices=TRACKS)
    parser.add_argument("--nanogpt", type=Path, required=True, help="nanoGPT's folder")
    parser.add_argument("--text", type=Path, help="tinyshakespeare.txt, for char")
    parser.add_argument("--seeds", type=int, default=5, help="runs of ours, from seed 1 on")
    parser.add_argument("--peer-runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loss", type=float, help="another threshold than the track's")
    parser.add_argument("--recipe", type=Path, help="another recipe than the track's")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", dest="sets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.track == "char":
        if options.text is None:
            parser.error("char needs --text tinyshakespeare.txt")
        if options.peer_runs and not (options.nanogpt / "data/shakespeare_char/train.bin").exists():
            parser.error(f"run {options.nanogpt}/data/shakespeare_char/prepare.py first")
    elif not options.peer_runs and options.loss is None:
        parser.error("without runs of nanoGPT this track needs --loss")
    show(measure(options), table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    runs: dict[str, list[Timed]] = {"nanoGPT": [], "ours": []}
    turns = max(options.seeds, options.peer_runs)
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            # Fewer runs of a side are spread over all turns.
            if turn * options.peer_runs % turns < options.peer_runs:
                runs["nanoGPT"].append(theirs(options, Path(folder)))
            if turn * options.seeds % turns < options.seeds:
                runs["ours"].append(ours(options, Path(folder), seed=len(runs["ours"]) + 1))
    threshold = options.loss or TRACKS[options.track].loss
    if threshold is None:
        threshold = median(run.evaluations[-1][1] for run in runs["nanoGPT"])
    return {
        "track": options.track,
        "threshold": threshold,
        "threads": options.threads,
        "contenders": {name: summary(each, threshold) for name, each in runs.items() if each},
    }


def theirs(options: argparse.Namespace, out: Path) -> Timed:
    """The script of nanoGPT, unchanged, with its README's settings for a CPU."""
    folder = options.nanogpt
    if options.track == "code":
        folder = out / "nanogpt"
        with_our_tokens(folder, options.nanogpt)
    script = ["train.py", "config/train_shakespeare_char.py"]
    settings = TRACKS[options.track].settings.split()
    command = [sys.executable, *script, *settings, f"--out_dir={(out / 'out').absolute()}"]
    return timed(command, THEIRS, options.threads, folder)


def with_our_tokens(folder: Path, nanogpt: Path) -> None:
    """A folder with links to nanoGPT's code, and the tokens of the track's recipe as its data."""
    data = folder / "data/code"
    data.mkdir(parents=True)
    for name in ("train.py", "model.py", "configurator.py", "config"):
        (folder / name).symlink_to((nanogpt / name).absolute())
    recipe = load_recipe(ROOT / "recipes/speedrun/code.yaml")
    dataset = open_dataset(recipe)
    for split in ("train", "val"):
        ids = np.concatenate([np.asarray(part) for part in dataset.arrays(split) or ()])
        ids.astype(np.uint16).tofile(data / f"{split}.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": recipe.model.vocab_size}))


def ours(options: argparse.Namespace, out: Path, *, seed: int) -> Timed:
    """The track's recipe by `strawberry train`."""
    sets = [f"seed={seed}", f"train.threads={options.threads}", "train.log_interval=1"]
    if options.text is not None:
        sets.append(f"data.path={json.dumps(str(options.text.resolve()))}")
    recipe = (options.recipe or ROOT / f"recipes/speedrun/{options.track}.yaml").resolve()
    command = [sys.executable, "-m", "strawberry", "train", str(recipe), "--run-dir", "run"]
    words = [word for each in (*sets, *options.sets) for word in ("--set", each)]
    return timed([*command, *words], OURS, options.threads, out)


def summary(runs: list[Timed], threshold: float) -> dict[str, Any]:
    """Each run's figures, with the least and the median of those that got there."""
    times = [run.until(threshold) for run in runs]
    there = [each for each in times if each is not None]
    whole = len(there) == len(runs)
    return {
        "cpu": [each and each.cpu for each in times],
        "wall": [each and each.wall for each in times],
        "least": min(each.cpu for each in there) if whole else None,
        "median": median(each.cpu for each in there) if whole else None,
        "median_wall": median(each.wall for each in there) if whole else None,
        "training": [run.training.cpu for run in runs],
        "last_loss": [run.evaluations[-1][1] for run in runs],
        "best_loss": [min(loss for _, loss, _ in run.evaluations) for run in runs],
        "start": median(run.start.cpu for run in runs),
        "evaluation": median(run.evaluation.cpu for run in runs),
    }


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"CPU seconds of training until a validation loss of {result['threshold']:g}, "
             f"{result['threads']} threads", "",
             "| | runs | least | median | seconds of the clock, median | all steps, median "
             "| last loss | start | evaluations |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, each in result["contenders"].items():
        losses = ", ".join(f"{loss:.4f}" for loss in each["last_loss"])
        least, middle, wall = (
            "not all" if each[key] is None else f"{each[key]:.1f}"
            for key in ("least", "median", "median_wall")
        )
        lines.append(
            f"| {name} | {len(each['cpu'])} | {least} | {middle} | {wall} "
            f"| {median(each['training']):.1f} | {losses} | {each['start']:.1f} "
            f"| {each['evaluation']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
