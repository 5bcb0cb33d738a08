"""The training loop: `train` builds the parts, `fit` runs the loop."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.contracts import Tracker, TrackerSite
from strawberry.errors import PluginError, StrawberryError
from strawberry.model.risks import ahead
from strawberry.ranks.world import joined
from strawberry.recipe.origin import Origin, noted_in
from strawberry.runs.curricula import Curricula
from strawberry.runs.device import machine_for
from strawberry.runs.folder import RunFolder, new_run_folder
from strawberry.runs.memory import explained
from strawberry.training.account import tampered
from strawberry.training.fork import fork
from strawberry.training.guard import Guard
from strawberry.training.horizon import untimely
from strawberry.training.measuring import due, measure, measured
from strawberry.training.outline import outline
from strawberry.training.recent import Diverged, RecentSums
from strawberry.training.restore import restore
from strawberry.training.session import Session, open_session
from strawberry.training.signals import StopRequest, stop_signals
from strawberry.training.space import check_disk, check_memory
from strawberry.training.spikes import SpikeDetector
from strawberry.training.step import Step

if TYPE_CHECKING:
    from strawberry.data import Progress
    from strawberry.recipe.spec import Recipe


ENOUGH = 1 << 16
"""More than any signal's number: a tracker asked for the end of the run."""


class Interrupted(StrawberryError):  # noqa: N818 (not a mistake: the user asked for it)
    """A signal stopped a run, which is saved; `exit_code` is 128 + the signal's number."""

    def __init__(self, recipe: Recipe, folder: Path, step: int, number: int) -> None:
        self.folder, self.step, self.exit_code = folder, step, 128 + number
        words = ["strawberry", "train", str(recipe.source), "--run-dir", str(folder), "--resume"]
        command = shlex.join(words)
        super().__init__(f"stopped after step {step}, saved; resume with: {command}")


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        metrics: metrics of the last evaluation.
        breaches: reasons why its validation loss can't be trusted.
    """

    folder: Path
    steps: int
    metrics: dict[str, float]
    breaches: tuple[str, ...] = ()


def train(
    recipe: Recipe,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    fork_of: str | Path | None = None,
    fork_step: int | None = None,
    trackers: Sequence[Tracker] = (),
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Train a recipe to its `max_iters`, in a run folder.

    Args:
        recipe: the recipe.
        run_dir: the run folder; None takes `runs/NAME`, numbered if that is taken.
        resume: resume from the newest intact checkpoint of `run_dir`.
        fork_of: a run from whose newest checkpoint this new run starts, with another recipe or
            other data.
        fork_step: start from its checkpoint after this step instead.
        trackers: observers of this run, in addition to the recipe's.
        progress: progress callback while data is prepared.
        warn: receives warnings: a component that sees later tokens, or a damaged checkpoint that
            was skipped.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be opened.
        Interrupted: a signal stopped the run, which is saved.
        Diverged: loss or gradient are not finite.
        StrawberryError: the folder is taken, can't be written, or holds another run.
    """
    recipe = _placed(recipe, run_dir if resume else None, fork_of)
    Curricula(recipe)
    outlined = outline(recipe)  # a recipe that can't be built fails before any data is read
    machine = machine_for(recipe)
    with joined(machine.device) as (world, device):
        machine = replace(machine, device=device)
        for line in [*ahead(recipe, outlined.model), *untimely(recipe)] if world.main else ():
            warn(line)
        outlined.check_ranks(world.size)
        shares = world.size if recipe.train.parallel == "fsdp" else 1
        world.by_main(lambda: check_memory(outlined.model, machine.device, shares))
        run = RunFolder(world.by_main(lambda: _folder(recipe, run_dir)), world)
        try:
            again = run.take(resume)
            with contextlib.ExitStack() as stack:
                stack.enter_context(explained(recipe, run))
                site = TrackerSite(recipe.name, recipe.train.max_iters)
                watching = recipe.trackers if world.main else ()
                named = [spec.construct(site, contract=Tracker) for spec in watching]
                session = open_session(
                    outlined, run, machine, world, trackers=[*trackers, *named], progress=progress,
                    warn=warn,
                )  # fmt: skip
                stack.callback(session.batches.close)
                recent = RecentSums(machine, world)
                extra = session.averages.nbytes()
                check_disk(run, recipe.train, session.model, session.optimizers, extra)
                _start(session, recent, again, fork_of, fork_step)
                stop = stack.enter_context(stop_signals(insist=world.size == 1))
                _run(session, stop, recent)
                for line in tampered(session):
                    session.warn(f"the validation loss can't be trusted: {line}")
        finally:
            run.release()
    return RunResult(run.path, session.step, session.metrics, tuple(run.breaches()))


def _placed(recipe: Recipe, resumed: str | Path | None, parent: str | Path | None) -> Recipe:
    """The recipe, which finds the data of the run to resume or to fork."""
    before, after = (
        (noted_in(Path(run)) if run is not None else None) or Origin() for run in (resumed, parent)
    )
    return replace(recipe, origin=before + recipe.origin + after)


def _folder(recipe: Recipe, run_dir: str | Path | None) -> Path:
    """The run's folder; raises StrawberryError if a restart would not find it again."""
    if run_dir is None and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        raise StrawberryError(
            "--max-restarts needs --run-dir, so that a restart can resume the run"
        )
    return Path(run_dir) if run_dir is not None else new_run_folder(recipe.name)


def _start(
    session: Session,
    recent: RecentSums,
    again: bool,
    fork_of: str | Path | None,
    fork_step: int | None,
) -> None:
    """Restore the session of a run to resume, or start the run."""
    recipe, run, machine = session.recipe, session.run, session.machine
    if again:
        run.check_same(recipe, session.dataset)
        for line in [*run.elsewhere(recipe, machine), *restore(session, recent)]:
            session.warn(line)
    elif fork_of is not None:
        fork(session, recent, RunFolder(fork_of), fork_step)
    else:
        run.begin(recipe, session.dataset, machine)


def _run(session: Session, stop: StopRequest, recent: RecentSums) -> None:
    """Run the loop; trackers receive its start and its outcome."""
    run, world = session.run, session.world
    try:
        session.tell("model_built", session.model, session.recipe)
        fit(session, stop, recent)
    except BaseException as error:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        with contextlib.suppress(PluginError):  # `error` is what matters
            session.tell("run_finished", run.path, status)
        if isinstance(error, Diverged):  # all ranks have it; one says so
            error.told = not world.main
            world.barrier()
        raise
    session.tell("run_finished", run.path, "finished")


def fit(session: Session, stop: StopRequest, recent: RecentSums) -> None:
    """The loop, from the session's step to the recipe's last."""
    recipe, run, settings = session.recipe, session.run, session.recipe.train
    step = Step(
        session.engine, session.optimizers, session.batches.train, session.machine,
        settings.grad_clip, session.batches.curricula,
    )  # fmt: skip
    session.batches.curricula.put(session.model, max(0, session.step - 1))
    guard = Guard(session, recent, lambda: restore(session, recent))
    spikes = SpikeDetector(run.losses())
    session.model.train()
    if settings.on_nonfinite == "back_off" and session.step == 0:
        session.save(recent)  # something to go back to
    recent.start()
    if session.step and measured(recipe, session.step) and not session.was_measured():
        measure(session, recent)  # where that failed, the run is resumed
        guard.save()
    enough = False
    while session.step < settings.max_iters and not enough:
        guard.begin_step()
        recent.end_step(step.gradient(session.step, recent.add))
        verdict = guard.judge()
        if verdict == "again":
            spikes = SpikeDetector(run.losses())
            continue
        (step.apply if verdict == "take" else step.skip)(session.step)
        session.step += 1
        session.averages.update(session.step)
        asked = session.world.most(ENOUGH if session.enough else stop.asked)
        enough = asked == ENOUGH
        last = session.step == settings.max_iters or enough

        if session.step % settings.log_interval == 0 or session.step == 1 or last:
            guard.check()
            log(session, recent, spikes)
        best = False
        if measured(recipe, session.step) or enough:
            best = measure(session, recent)
        named = session.step in settings.checkpoint_steps
        if due(session.step, settings.checkpoint_interval) or named or last or asked or best:
            recent.pause()
            saved = guard.save()
            recent.go_on()
            if not saved:
                continue
        session.announce()
        if asked and not last:
            session.leave()
            raise Interrupted(recipe, run.path, session.step, asked)
    session.leave()


def log(session: Session, recent: RecentSums, spikes: SpikeDetector) -> None:
    """Write a row of the log; trackers receive it."""
    curricula, step = session.batches.curricula, session.step
    since = max(0, step - max(1, recent.timed))
    tokens = curricula.tokens_before(step) - curricula.tokens_before(since)
    row = {"step": step, **session.optimizers.rates(), **recent.row(tokens / (step - since))}
    if curricula.parts:
        row["tokens"] = curricula.tokens_before(step)
    if "loss" not in row:  # every step of it was skipped
        session.log(row)
        return
    if (spike := spikes.observe(row["loss"])) is not None:
        row["loss_spike"] = spike.rise
        session.warn(f"step {session.step}: {spike}")
    session.log(row)
    del row["step"]
    session.tell("step_done", session.run.path, session.step, row)
