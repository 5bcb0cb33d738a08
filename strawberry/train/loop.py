"""The training loop: `train` makes the parts, `fit` is the loop over them."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from strawberry.data import open_dataset
from strawberry.errors import PluginError, StrawberryError
from strawberry.model.build import build
from strawberry.model.contracts import Tracker
from strawberry.model.risks import ahead
from strawberry.train import checkpoint, randomness
from strawberry.train.batches import Batches
from strawberry.train.compiling import compile_model
from strawberry.train.device import Machine, machine_for
from strawberry.train.documents import separator
from strawberry.train.evaluate import validate
from strawberry.train.fork import fork
from strawberry.train.memory import explained, keep_freed_memory
from strawberry.train.nonfinite import Guard
from strawberry.train.optimizers import Optimizers
from strawberry.train.recent import Diverged, Recent, all_finite
from strawberry.train.restore import restore
from strawberry.train.run import RunFolder, new_run_folder
from strawberry.train.signals import Stop, stop_signals
from strawberry.train.space import check_disk, check_memory
from strawberry.train.spikes import Spikes

if TYPE_CHECKING:
    from strawberry.data import Dataset, Progress
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe


class Interrupted(StrawberryError):  # noqa: N818 (not a mistake: the user asked for it)
    """A run was stopped by a signal, and saved; `exit_code` is 128 + the signal's number."""

    def __init__(self, recipe: Recipe, folder: Path, step: int, number: int) -> None:
        self.folder, self.step, self.exit_code = folder, step, 128 + number
        command = f"strawberry train {recipe.source} --run-dir {folder} --resume"
        super().__init__(f"stopped after step {step}, saved; go on with: {command}")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run came to; `metrics` are those of the last evaluation."""

    folder: Path
    steps: int
    metrics: dict[str, float]


@dataclass(slots=True)
class Session:
    """The parts of a run, built; `best` is the step and val_loss of the best checkpoint."""

    recipe: Recipe
    run: RunFolder
    model: LanguageModel
    optimizers: Optimizers
    dataset: Dataset
    batches: Batches
    machine: Machine
    trackers: Sequence[Tracker]
    warn: Callable[[str], None] = lambda _: None
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None

    def tell(self, event: str, *arguments: Any) -> None:
        """Tell trackers, and the plugins' lifecycle hooks, of an event of this run.

        All are told, even after one has raised; then that is a PluginError.
        """
        failures: list[Exception] = []
        for tracker in self.trackers:
            try:
                getattr(tracker, event)(*arguments)
            except Exception as error:
                name = type(tracker).__qualname__
                message = f"tracker {name}: {event} raised {type(error).__name__}: {error}"
                failures.append(PluginError(message))
                failures[-1].__cause__ = error
        plugins = self.recipe.plugins
        if plugins is not None:
            try:
                hook = dict(zip(HOOKS[event], arguments, strict=True))
                plugins.call(f"strawberry_{event}", **hook)
            except PluginError as error:
                failures.append(error)
        if failures:
            raise PluginError("\n".join(map(str, failures))) from failures[0]

    def evaluate(self) -> bool:
        """Measure the validation loss and tell of it; True if this is a best one to be kept."""
        with self.optimizers.evaluating():
            self.metrics = validate(
                self.model, self.batches, self.machine, self.dataset, self.recipe.train.eval_iters
            )
        self.run.log({"step": self.step, **self.metrics})
        self.tell("evaluated", self.run.path, self.step, self.metrics)
        loss = self.metrics["val_loss"]
        if not self.recipe.train.keep_best or not math.isfinite(loss):
            return False
        if self.best is not None and loss >= self.best["val_loss"]:
            return False
        self.best = {"step": self.step, "val_loss": loss}
        return True

    def save(self, recent: Recent) -> Path:
        """Write a checkpoint of this moment; raises Diverged if it is not worth keeping."""
        recent.check(self.step)
        with self.optimizers.evaluating():
            path = self.write(recent)
        self.tell("checkpoint_saved", self.run.path, self.step, path)
        return path

    def write(self, recent: Recent) -> Path:
        """Write the checkpoint's folder; raises as `save` does."""
        kept, plain = self.optimizers.state()
        if not all_finite([*self.model.parameters(), *kept.values()]):
            raise Diverged(self.step)
        return checkpoint.save(
            self.run.checkpoints,
            step=self.step,
            model=self.model.state_dict(),
            optimizer=kept,
            random=randomness.tensors(),
            state={
                "step": self.step,
                "random": randomness.numbers(),
                "metrics": self.metrics,
                "recent": recent.state(),
                "optimizer": plain,
                "scale": self.optimizers.scale,
                "best": self.best,
            },
            keep=self.recipe.train.keep_checkpoints,
            best=self.best["step"] if self.best else None,
            warn=self.warn,
        )


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
    fork_of: str | Path | None = None,
    trackers: Sequence[Tracker] = (),
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Train a recipe to its `max_iters`, in a run folder.

    Args:
        recipe: what to train.
        run_dir: the run folder; None takes `runs/NAME`, numbered if that is taken.
        resume: go on from the newest whole checkpoint of `run_dir`.
        fork_of: a run whose newest checkpoint this new run begins from, with another recipe or
            other data than that one had.
        trackers: observers of this run, beside those that the recipe names.
        progress: called while data is prepared.
        warn: told of what a user should know: a component that looks at later tokens, a damaged
            checkpoint that was passed over.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be had.
        Interrupted: a signal stopped the run, which is saved.
        Diverged: loss or gradient are not finite.
        StrawberryError: the folder is taken, can't be written, or holds another run.
    """
    keep_freed_memory(recipe.train.keep_memory)
    machine = machine_for(recipe)
    # A recipe that can't be built fails before any data is read.
    drawn = build(recipe, "meta")
    for line in ahead(recipe, drawn):
        warn(line)
    check_memory(drawn, machine.device)
    run = RunFolder(run_dir if run_dir is not None else new_run_folder(recipe.name))
    if run.exists and not resume:
        raise StrawberryError(f"{run.path}: holds a run; add --resume, or name another --run-dir")
    if resume and not run.exists:
        raise StrawberryError(f"{run.path}: there is no run to resume")
    run.hold()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(explained(recipe, run))
            session = _session(recipe, run, machine, trackers, progress, warn)
            stack.callback(session.batches.close)
            recent = Recent(machine)
            check_disk(run, recipe.train, session.model, session.optimizers)
            if resume:
                run.check_same(recipe, session.dataset)
                for line in [*run.elsewhere(recipe, machine), *restore(session, recent)]:
                    warn(line)
            elif fork_of is not None:
                fork(session, recent, RunFolder(fork_of))
            else:
                run.begin(recipe, session.dataset, machine)
            stop = stack.enter_context(stop_signals())
            try:
                session.tell("model_built", session.model, recipe)
                fit(session, stop, recent)
            except BaseException as error:
                status = "interrupted" if isinstance(error, Interrupted) else "failed"
                with contextlib.suppress(PluginError):  # `error` is what matters
                    session.tell("run_finished", run.path, status)
                raise
            session.tell("run_finished", run.path, "finished")
    finally:
        run.release()
    return RunResult(run.path, session.step, session.metrics)


def begin(
    recipe: Recipe,
    run_dir: str | Path,
    weights: Mapping[str, Tensor],
    *,
    progress: Progress | None = None,
) -> Path:
    """Begin a run with weights that are there already: its checkpoint of step 0 holds them.

    What a run folder is used for works on it: generation, evaluation, and, as its training,
    `train(recipe, run_dir, resume=True)`.

    Args:
        recipe: what the run is to be.
        run_dir: the run folder to make.
        weights: the model's `state_dict`.
        progress: called while data is prepared.

    Returns:
        The run folder.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be had.
        StrawberryError: the weights are not finite, or not this model's, or the folder is taken or
            can't be written.
    """
    for name, tensor in weights.items():
        if not all_finite([tensor]):
            raise StrawberryError(f"the weights are not finite: {name}")
    machine = machine_for(recipe)
    build(recipe, "meta")  # a recipe that can't be built fails before any data is read
    run = RunFolder(run_dir)
    if run.exists:
        raise StrawberryError(f"{run.path}: holds a run; name another folder")
    run.hold()
    try:
        session = _session(recipe, run, machine, (), progress, lambda _: None)
        try:
            session.model.load_state_dict(weights)
            with session.optimizers.evaluating():
                session.write(Recent(machine))
            run.begin(recipe, session.dataset, machine)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise StrawberryError(f"the weights are not this model's: {reason}") from error
        finally:
            session.batches.close()
            if not run.exists:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
                run.tokenizer_file.unlink(missing_ok=True)
                run.info_file.unlink(missing_ok=True)
    finally:
        run.release()
    return run.path


def fit(session: Session, stop: Stop, recent: Recent) -> None:
    """The loop: from the session's step to the recipe's last."""
    recipe, run, machine = session.recipe, session.run, session.machine
    model, optimizers, batches = session.model, session.optimizers, session.batches
    settings = recipe.train
    parts = settings.gradient_accumulation_steps
    batch_tokens = settings.batch_size * recipe.model.block_size
    guard = Guard(session, recent, lambda: restore(session, recent))
    spikes = Spikes(run.losses())
    model.train()
    if settings.on_nonfinite == "back_off" and session.step == 0:
        session.save(recent)  # something to go back to
    recent.start()
    while session.step < settings.max_iters:
        guard.begin_step()
        for part in range(parts):
            x, y = batches.train(session.step * parts + part)
            with machine.autocast():
                loss = model.loss(x, y)
            (loss.total / parts).backward()  # type: ignore[no-untyped-call]
            recent.add(loss)
        recent.end_step(clip(model, settings.grad_clip))
        rate = optimizers.rate(session.step)
        verdict = guard.judge()
        if verdict == "again":
            spikes = Spikes(run.losses())
            continue
        if verdict == "take":
            optimizers.step(session.step)
            model.after_step()
        optimizers.zero_grad()
        session.step += 1
        last = session.step == settings.max_iters
        asked = stop.asked

        if session.step % settings.log_interval == 0 or session.step == 1 or last:
            guard.check()
            log(session, recent, spikes, rate, batch_tokens)
        best = False
        if due(session.step, settings.eval_interval) or last:
            recent.pause()
            best = session.evaluate()
            recent.go_on()
        if due(session.step, settings.checkpoint_interval) or last or asked or best:
            recent.pause()
            saved = guard.save()
            recent.go_on()
            if not saved:
                continue
        if asked and not last:
            raise Interrupted(recipe, run.path, session.step, asked)


def log(session: Session, recent: Recent, spikes: Spikes, rate: float, batch_tokens: int) -> None:
    """Write a row of what happened since the last one; trackers are told of it."""
    row = {"step": session.step, "lr": rate, **recent.row(batch_tokens)}
    if "loss" not in row:  # every step of it was skipped
        session.run.log(row)
        return
    if (ratio := spikes.ratio(row["loss"])) is not None:
        row["loss_spike"] = ratio
        session.warn(
            f"step {session.step}: loss {row['loss']:.4g} is {ratio:.3g} times what it was before"
        )
    session.run.log(row)
    del row["step"]
    session.tell("step_done", session.run.path, session.step, row)


def clip(model: torch.nn.Module, limit: float) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `limit` if that is not 0."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf)


def due(step: int, interval: int) -> bool:
    """Whether something that happens every `interval` steps (0: never) happens at this one."""
    return interval > 0 and step % interval == 0


def _session(
    recipe: Recipe,
    run: RunFolder,
    machine: Machine,
    trackers: Sequence[Tracker],
    progress: Progress | None,
    warn: Callable[[str], None],
) -> Session:
    named = [spec.construct(contract=Tracker) for spec in recipe.trackers]
    dataset = open_dataset(recipe, progress=progress)
    randomness.seed(recipe.seed)
    model = build(recipe, machine.device)
    model.separator = separator(recipe, dataset)
    compile_model(model, machine)
    return Session(
        recipe=recipe,
        run=run,
        model=model,
        optimizers=Optimizers(recipe, model.parameter_infos(), machine.device),
        dataset=dataset,
        batches=Batches(dataset, recipe, machine.device),
        machine=machine,
        trackers=[*trackers, *named],
        warn=warn,
    )
