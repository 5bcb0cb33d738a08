"""The parts of a run: how they are built, saved and used by the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strawberry.contracts import StopRun, Tracker, to_local
from strawberry.data import open_dataset
from strawberry.data.opening import text_files, wordless
from strawberry.data.readers import Readers
from strawberry.errors import PluginError
from strawberry.ranks.world import World
from strawberry.recipe.seeds import seed_of
from strawberry.referee.foreign import files_of
from strawberry.referee.weights import bits, moved
from strawberry.runs import randomness
from strawberry.runs.averages import Averages
from strawberry.runs.checkpoint import CheckpointData, CheckpointPolicy
from strawberry.runs.device import Machine
from strawberry.runs.folder import RunFolder
from strawberry.training.batches import Batches
from strawberry.training.documents import separator
from strawberry.training.engine import Engine, engine_for
from strawberry.training.evaluate import measures_of
from strawberry.training.optimizers import Optimizers
from strawberry.training.outline import Outline
from strawberry.training.recent import Diverged, RecentSums, all_finite

if TYPE_CHECKING:
    from strawberry.data import Dataset, Progress
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe


@dataclass(slots=True)
class Session:
    """The parts of a run, built.

    Attributes:
        enough: whether a tracker asked for the end of the run.
        best: step and val_loss of the best checkpoint.
        row_nats: losses of the last evaluation's rows, of all ranks.
        measured: the metrics of each evaluation of this process, by step.
        readers: code that has read the validation split meanwhile.
        noticed: breaches that were seen since the referee's last report.
    """

    recipe: Recipe
    run: RunFolder
    model: LanguageModel
    optimizers: Optimizers
    averages: Averages
    dataset: Dataset
    batches: Batches
    machine: Machine
    trackers: Sequence[Tracker]
    engine: Engine
    world: World
    warn: Callable[[str], None] = lambda _: None
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    refereed: bool = False
    enough: bool = False
    row_nats: Sequence[float] = ()
    measured: dict[int, dict[str, float]] = field(default_factory=dict)
    readers: Readers = field(default_factory=lambda: Readers(()))
    noticed: list[str] = field(default_factory=list)

    def tell(self, event: str, *arguments: Any) -> None:
        """Send an event of this run to trackers, and to the plugins' lifecycle hooks.

        All of them receive it, even after one has raised, which then becomes a PluginError. Only
        the main rank sends events.
        """
        if not self.world.main:
            return
        failures: list[Exception] = []
        before = bits(self.model) if self.trackers else {}
        for tracker in self.trackers:
            name = type(tracker).__qualname__
            try:
                # Each has a copy: what one writes into it is nobody else's measurement.
                getattr(tracker, event)(*(dict(a) if isinstance(a, dict) else a for a in arguments))
            except StopRun:
                self.enough = True
            except Exception as error:
                message = f"tracker {name}: {event} raised {type(error).__name__}: {error}"
                failures.append(PluginError(message))
                failures[-1].__cause__ = error
            after = bits(self.model)
            self.noticed += [
                f"tracker {name}: {event} changes {path}" for path in moved(before, after)
            ]
            before = after
        plugins = self.recipe.plugins
        if plugins is not None:
            try:
                copies = (dict(a) if isinstance(a, dict) else a for a in arguments)
                hook = dict(zip(HOOKS[event], copies, strict=True))
                plugins.call(f"strawberry_{event}", **hook)
            except PluginError as error:
                failures.append(error)
        if failures:
            raise PluginError("\n".join(map(str, failures))) from failures[0]

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row to the run's metrics, on the main rank."""
        if self.world.main:
            self.run.log(row)

    def was_measured(self) -> bool:
        """Return whether the log has an evaluation of this step; the same on all ranks."""
        return self.run.was_measured(self.step)

    def save(self, recent: RecentSums) -> None:
        """Write a checkpoint of the current state; raises Diverged if it is damaged."""
        recent.check(self.step)
        with self.optimizers.evaluating():
            self.write(recent)
        self.announce()

    def announce(self) -> None:
        """Report checkpoints that were completed on disk."""
        for step, path in self.engine.saved():
            self.tell("checkpoint_saved", self.run.path, step, path)

    def leave(self) -> None:
        """Wait for checkpoints, and for all ranks, at the end of a run."""
        self.engine.settle()
        self.announce()
        self.world.barrier()

    def write(self, recent: RecentSums) -> None:
        """Write the checkpoint's folder, or start to; raises as `save` does."""
        kept, plain = self.optimizers.state()
        finite = all_finite(map(to_local, [*self.model.parameters(), *kept.values()]))
        if self.world.most(not finite):
            raise Diverged(self.step)
        random, generators = randomness.of_ranks(self.world)
        state = {
            "step": self.step,
            "random": random,
            "metrics": self.metrics,
            "recent": recent.state(),
            "optimizer": plain,
            "scale": self.optimizers.scale,
            "best": self.best,
        }
        train = self.recipe.train
        kept_steps = frozenset(
            {*train.checkpoint_steps, *([self.best["step"]] if self.best else [])}
        )
        self.engine.save(
            self.run.checkpoints,
            CheckpointData(
                self.model.state_dict(), kept | self.averages.state(), generators, state
            ),
            CheckpointPolicy(train.keep_checkpoints, kept_steps, self.warn),
        )


HOOKS = {
    "model_built": ("model", "recipe"),
    "step_done": ("run", "step", "metrics"),
    "evaluated": ("run", "step", "metrics"),
    "checkpoint_saved": ("run", "step", "path"),
    "run_finished": ("run", "status"),
}
"""The arguments of each lifecycle hook, in the order of the tracker's method."""


def open_session(
    outline: Outline,
    run: RunFolder,
    machine: Machine,
    world: World,
    *,
    trackers: Sequence[Tracker] = (),
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Session:
    """Build the parts of a run that is outlined, at its first step.

    Raises RecipeError if one can't be built, or the batch can't be divided among the ranks.
    """
    recipe = outline.recipe
    measures_of(recipe)  # what is wrong with one is told before the first step
    readers = Readers.active = Readers(files_of(recipe.plugins), text_files(recipe))
    dataset = open_by_one(recipe, world, progress)
    tokenizer, room = dataset.tokenizer, recipe.model.vocab_size
    unused = [] if tokenizer is None else wordless(tokenizer.vocab_size, room, tokenizer.gaps)
    for line in [*dataset.notes, *unused] if world.main else ():
        warn(line)
    randomness.seed(seed_of(recipe, "dropout") + world.rank)
    engine = engine_for(recipe, world, machine)
    model = engine.model
    model.separator = separator(recipe, dataset)
    return Session(
        recipe=recipe,
        run=run,
        model=model,
        optimizers=Optimizers(recipe, model.parameter_infos(), machine.device, outline.assignments),
        averages=Averages(recipe, model),
        dataset=dataset,
        batches=Batches(dataset, recipe, machine.device, world),
        machine=machine,
        trackers=trackers,
        engine=engine,
        world=world,
        readers=readers,
        warn=warn if world.main else lambda _: None,
    )


def open_by_one(recipe: Recipe, world: World, progress: Progress | None) -> Dataset:
    """The recipe's data set; one rank prepares it for all."""
    return world.main_first(lambda: open_dataset(recipe, progress=progress if world.main else None))
