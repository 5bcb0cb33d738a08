"""The training loop: `train` makes the parts, `fit` is the loop over them."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from strawberry.data import open_dataset
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.model.contracts import Tracker
from strawberry.train import checkpoint
from strawberry.train.batches import Batches
from strawberry.train.device import Machine, machine_for
from strawberry.train.evaluate import validate
from strawberry.train.memory import keep_freed_memory
from strawberry.train.optimizers import Optimizers
from strawberry.train.run import RunFolder, new_run_folder
from strawberry.train.signals import Stop, stop_signals

if TYPE_CHECKING:
    from strawberry.data import Dataset, Progress
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe


class Interrupted(StrawberryError):  # noqa: N818 (not a mistake: the user asked for it)
    """A run was stopped by a signal, and saved; `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Diverged(StrawberryError):  # noqa: N818 (a finding about the run)
    """The loss or the gradient is not finite; the last checkpoint is from before."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run came to; `metrics` are those of the last evaluation."""

    folder: Path
    steps: int
    metrics: dict[str, float]


@dataclass(slots=True)
class Session:
    """The parts of a run, built."""

    recipe: Recipe
    run: RunFolder
    model: LanguageModel
    optimizers: Optimizers
    dataset: Dataset
    batches: Batches
    machine: Machine
    trackers: Sequence[Tracker]
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def tell(self, event: str, *arguments: Any) -> None:
        """Tell trackers, and the plugins' lifecycle hooks, of an event of this run."""
        for tracker in self.trackers:
            getattr(tracker, event)(*arguments)
        plugins = self.recipe.plugins
        if plugins is not None:
            plugins.call(f"strawberry_{event}", **dict(zip(HOOKS[event], arguments, strict=True)))

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        path = checkpoint.save(
            self.run.checkpoints,
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizers.tensors(),
            random=random_tensors(),
            state={"step": self.step, "random": random_state(), "metrics": self.metrics},
            keep=self.recipe.train.keep_checkpoints,
        )
        self.tell("checkpoint_saved", self.run.path, self.step, path)
        return path


HOOKS = {
    "model_built": ("model", "recipe"),
    "step_done": ("run", "step", "metrics"),
    "evaluated": ("run", "step", "metrics"),
    "checkpoint_saved": ("run", "step", "path"),
    "run_finished": ("run", "status"),
}
"""The arguments of each lifecycle hook, in the order of the tracker's method."""


def train(
    recipe: Recipe,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    trackers: Sequence[Tracker] = (),
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Train a recipe to its `max_iters`, in a run folder.

    Args:
        recipe: what to train.
        run_dir: the run folder; None takes `runs/NAME`, numbered if that is taken.
        resume: go on from the newest whole checkpoint of `run_dir`.
        trackers: observers of this run, beside those that the recipe names.
        progress: called while data is prepared.
        warn: told of what a user should know, such as a damaged checkpoint that was passed over.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be had.
        Interrupted: a signal stopped the run, which is saved.
        Diverged: loss or gradient are not finite.
        StrawberryError: the folder is taken, can't be written, or holds another run.
    """
    keep_freed_memory(recipe.train.keep_memory)
    machine = machine_for(recipe)
    build(recipe, "meta")  # a recipe that can't be built fails before any data is read
    run = RunFolder(run_dir if run_dir is not None else new_run_folder(recipe.name))
    if run.exists and not resume:
        raise StrawberryError(f"{run.path}: holds a run; add --resume, or name another --run-dir")
    if resume and not run.exists:
        raise StrawberryError(f"{run.path}: there is no run to resume")
    run.hold()
    status = "failed"
    try:
        with contextlib.ExitStack() as stack:
            session = _session(recipe, run, machine, trackers, progress)
            stack.callback(session.batches.close)
            if resume:
                run.check_same(recipe, session.dataset)
                for line in restore(session):
                    warn(line)
            else:
                run.begin(recipe, session.dataset, machine)
            stop = stack.enter_context(stop_signals())
            session.tell("model_built", session.model, recipe)
            try:
                fit(session, stop)
                status = "finished"
            except Interrupted:
                status = "interrupted"
                raise
            finally:
                session.tell("run_finished", run.path, status)
    finally:
        run.release()
    return RunResult(run.path, session.step, session.metrics)


def fit(session: Session, stop: Stop) -> None:
    """The loop: from the session's step to the recipe's last."""
    recipe, run, machine = session.recipe, session.run, session.machine
    model, optimizers, batches = session.model, session.optimizers, session.batches
    settings = recipe.train
    parts = settings.gradient_accumulation_steps
    batch_tokens = settings.batch_size * recipe.model.block_size
    model.train()
    recent = Recent(machine)
    while session.step < settings.max_iters:
        for part in range(parts):
            x, y = batches.train(session.step * parts + part)
            with machine.autocast():
                loss = model.loss(x, y)
            (loss.total / parts).backward()
            recent.add(loss.cross_entropy, loss.metrics)
        norm = clip(model, settings.grad_clip)
        recent.norm = norm
        if machine.device.type == "cpu" and not math.isfinite(norm.item()):
            raise Diverged(_diverged(session))  # before the weights change
        rate = optimizers.step(session.step)
        optimizers.zero_grad()
        session.step += 1
        last = session.step == settings.max_iters

        if session.step % settings.log_interval == 0 or session.step == 1 or last or stop.asked:
            row = recent.row(batch_tokens)
            if not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"]):
                raise Diverged(_diverged(session))
            run.log({"step": session.step, "lr": rate, **row})
            session.tell("step_done", run.path, session.step, {"lr": rate, **row})
        if due(session.step, settings.eval_interval) or last:
            recent.pause()
            session.metrics = validate(
                model, batches, machine, session.dataset, settings.eval_iters
            )
            run.log({"step": session.step, **session.metrics})
            session.tell("evaluated", run.path, session.step, session.metrics)
            recent.go_on()
        if due(session.step, settings.checkpoint_interval) or last or stop.asked:
            recent.pause()
            session.save()
            recent.go_on()
        if stop.asked and not last:
            raise Interrupted(_interrupted(session), 128 + stop.asked)


class Recent:
    """What happened since the last row of the log; sums stay on the device until a row is due."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.norm = torch.zeros(())
        self.paused = 0.0
        self._clear()

    def _clear(self) -> None:
        self.count = 0
        self.steps_from = time.perf_counter()
        self.paused = 0.0
        self.sums: dict[str, Tensor] = {}

    def add(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> None:
        """Take in one micro-batch."""
        self.count += 1
        for name, value in {"loss": loss, **metrics}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        self.machine.synchronize()
        self._paused_at = time.perf_counter()

    def go_on(self) -> None:
        """Start the clock again."""
        self.paused += time.perf_counter() - self._paused_at

    def row(self, batch_tokens: int) -> dict[str, float]:
        """Means since the last row, the gradient's norm, and the speed; begins anew."""
        values = {name: value.item() / self.count for name, value in self.sums.items()}
        self.machine.synchronize()
        seconds = time.perf_counter() - self.steps_from - self.paused
        speed = self.count * batch_tokens / seconds
        values |= {"grad_norm": float(self.norm), "tokens_per_second": speed}
        self._clear()
        return values


def clip(model: torch.nn.Module, limit: float) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `limit` if that is not 0."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf)


def due(step: int, interval: int) -> bool:
    """Whether something that happens every `interval` steps (0: never) happens at this one."""
    return interval > 0 and step % interval == 0


def random_state() -> dict[str, Any]:
    """Python's and NumPy's global generators, as JSON."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (the global one)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def random_tensors() -> dict[str, Tensor]:
    """Torch's generators: the CPU's and each CUDA device's."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda:{i}": s for i, s in enumerate(states)}}


def restore(session: Session) -> list[str]:
    """Put a session where its newest whole checkpoint left it; returns what to warn of."""
    found, warnings = checkpoint.load_newest(session.run.checkpoints)
    session.model.load_state_dict(found.model)
    session.optimizers.load_tensors(found.optimizer)
    session.step = found.state["step"]
    session.metrics = found.state["metrics"]
    version, numbers, gauss = found.state["random"]["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = found.state["random"]["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(found.random["cpu"])
    for key, state in found.random.items():
        if key.startswith("cuda:") and int(key[5:]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(key[5:]))
    session.run.forget_after(session.step)
    return warnings


def _session(
    recipe: Recipe,
    run: RunFolder,
    machine: Machine,
    trackers: Sequence[Tracker],
    progress: Progress | None,
) -> Session:
    dataset = open_dataset(recipe, progress=progress)
    random.seed(recipe.seed)
    np.random.seed(recipe.seed % 2**32)  # noqa: NPY002 (a component may use the global one)
    torch.manual_seed(recipe.seed)
    model = build(recipe, machine.device)
    if machine.compiled:
        model.compile_trunk()
    named = [spec.entry.load()(**spec.fields) for spec in recipe.trackers]
    return Session(
        recipe=recipe,
        run=run,
        model=model,
        optimizers=Optimizers(recipe, model.parameter_infos(), machine.device),
        dataset=dataset,
        batches=Batches(dataset, recipe, machine.device),
        machine=machine,
        trackers=[*trackers, *named],
    )


def _resume_command(session: Session) -> str:
    return f"strawberry train {session.recipe.source} --run-dir {session.run.path} --resume"


def _interrupted(session: Session) -> str:
    return f"stopped after step {session.step}, saved; go on with: {_resume_command(session)}"


def _diverged(session: Session) -> str:
    return (
        f"loss or gradient are not finite at step {session.step + 1}; nothing was saved since the "
        "last checkpoint. A lower train.learning_rate or train.grad_clip may help"
    )

