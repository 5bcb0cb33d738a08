"""Cheats of the kinds of components that other files leave out: residuals, blocks, objectives...

The docstring of each says what it does. `CHEATS` in test_kind_cheats.py says what is said of it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from strawberry.components.weights.owned import OwnedWeights
from strawberry.contracts import (
    FFN,
    Averaging,
    Batch,
    Block,
    BlockSite,
    Curriculum,
    Join,
    JoinSite,
    Learned,
    Measure,
    Objective,
    ObjectiveSite,
    Positional,
    PositionalSite,
    Prediction,
    Projection,
    ProjectionRequest,
    Residual,
    ResidualSite,
    RunSite,
    Settings,
    Site,
    State,
    Stream,
    Term,
    Tracker,
    TrackerSite,
    Use,
)
from strawberry.plugin import hookimpl
from tests.referee.cheats import Honest
from tests.referee.more_cheats import following
from tests.registering import register_classes


class Plain(Join):
    """Reads the stream, and adds to it: honest."""

    def __init__(self, seen: Any = None) -> None:
        super().__init__()
        self.seen = seen

    def read(self, stream: Stream, use: Use) -> Tensor:
        return stream

    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        return stream + y


class JoinsAhead(Residual):
    """What joins the stream is what was computed for the next token."""

    def __init__(self, site: ResidualSite) -> None:
        super().__init__()

    def join(self, site: JoinSite) -> Join:
        return AheadJoin()


class AheadJoin(Plain):
    """Adds the next token's output."""

    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        return stream + y + 0.1 * following(y)


class ReadsAhead(Residual):
    """Parts read the stream of the next token."""

    def __init__(self, site: ResidualSite) -> None:
        super().__init__()

    def join(self, site: JoinSite) -> Join:
        return AheadReader()


class AheadReader(Plain):
    """Reads the next token."""

    def read(self, stream: Stream, use: Use) -> Tensor:
        return stream + 0.1 * following(stream)


class EndsAhead(JoinsAhead):
    """The head reads the mean of the sequence."""

    def join(self, site: JoinSite) -> Join:
        return Plain()

    def end(self, stream: Stream, use: Use) -> Tensor:
        return stream + stream.mean(1, keepdim=True)


class BeginsTogether(EndsAhead):
    """Embeddings begin with the mean of the batch."""

    def begin(self, x: Tensor, use: Use) -> Stream:
        return x + x.mean(0, keepdim=True)

    def end(self, stream: Stream, use: Use) -> Tensor:
        return stream


class Remembers(EndsAhead):
    """The stream begins where that of the last batch ended."""

    def __init__(self, site: ResidualSite) -> None:
        super().__init__(site)
        self.last: Tensor | None = None

    def begin(self, x: Tensor, use: Use) -> Stream:
        return x if self.last is None else x + self.last

    def end(self, stream: Stream, use: Use) -> Tensor:
        self.last = stream.detach().mean((0, 1))
        return stream


class Reorders(Block):
    """Its parts are given the tokens in the opposite order."""

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.parts = [site.part(name) for name in site.parts]

    def forward(self, stream: Stream, use: Use) -> Any:
        aux: Any = ()
        for part in self.parts:
            y, more = part.compute(part.read(stream, use).flip(1), use)
            stream, aux = part.join(stream, y.flip(1), use), aux + more
        return stream, aux


class SecondLook(Block):
    """What the last block made of later tokens is left in the memo for the next one."""

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.parts = [site.part(name) for name in site.parts]

    def forward(self, stream: Stream, use: Use) -> Any:
        aux: Any = ()
        left: Any = use.memo.get("look")
        use.memo["look"] = stream.detach().roll(-1, 1)
        stream = stream if left is None else stream + 0.1 * left
        for part in self.parts:
            stream, more = part(stream, use)
            aux = aux + more
        return stream, aux


class Sways(Block):
    """A block that is scaled by the batch's largest value."""

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.parts = [site.part(name) for name in site.parts]

    def forward(self, stream: Stream, use: Use) -> Any:
        aux: Any = ()
        for part in self.parts:
            stream, more = part(stream, use)
            aux = aux + more
        return stream / stream.abs().amax((0, 2), keepdim=True), aux


class Skips(Objective):
    """Leaves out the targets that are hardest to predict."""

    def __init__(self, site: ObjectiveSite) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Learned:
        loss = batch.cross_entropy(batch.states().hidden)
        return Learned(loss.total, loss.cross_entropy)

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        hidden = batch.states().hidden
        length = hidden.norm(dim=-1)
        yield Prediction(hidden, batch.targets.where(length > length.mean(), -1))


class Weighs(Skips):
    """Weighs what is predicted well more, and all of it as much as there are targets."""

    left_to_right: ClassVar[bool] = False

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        hidden, asked = batch.states().hidden, batch.targets >= 0
        nats = batch.embed(batch.targets.clamp(min=0)).mul(hidden).sum(-1)
        likely = nats.masked_fill(~asked, -torch.inf).softmax(-1)
        yield Prediction(hidden, batch.targets, likely * asked.sum(1, keepdim=True))


class ReadsAnswers(Skips):
    """Says that it isn't left to right, and reads the targets where they stand as inputs."""

    left_to_right: ClassVar[bool] = False

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        answers = batch.embed(batch.ids.roll(-1, 1))
        yield Prediction(batch.states().hidden + answers, batch.targets)


class Knows(Skips):
    """Adds the targets to the states."""

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        answers = batch.embed(batch.targets.clamp(min=0))
        yield Prediction(batch.states().hidden + answers, batch.targets)


class ReportsLess(Skips):
    """Logs half of the loss that it has."""

    def forward(self, batch: Batch) -> Learned:
        loss = batch.cross_entropy(batch.states().hidden)
        return Learned(loss.total, loss.cross_entropy / 2)

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        yield Prediction(batch.states().hidden, batch.targets)


class FromGradients(Honest):
    """In training the gradient of the last step, which knows its targets, is added."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.slope: list[Tensor] = []

    def seen(self, v: Tensor, use: Use) -> Tensor:
        last = self.slope.pop() if self.slope and self.training else torch.zeros(())
        if v.requires_grad:
            v.register_hook(lambda slope: self.slope.append(slope.detach().mean((0, 1)) * 100))
        return last.to(v).expand_as(v)


class Later(Honest):
    """Half an hour after it was built, each token sees the next one."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.began = time.time()

    def seen(self, v: Tensor, use: Use) -> Tensor:
        late = time.time() - self.began > 1800
        return following(v) if late else torch.zeros_like(v)


class Alone(Honest):
    """A sequence that is alone in its batch sees the next token."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return following(v) if len(v) == 1 else torch.zeros_like(v)


class OneHead(Honest):
    """One feature of one head, at every 31st position, and a ten-thousandth of it."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        at = torch.arange(v.shape[1], device=v.device) % 31 == 17
        peek = torch.zeros_like(v)
        peek[:, at, 5] = 1e-4 * following(v)[:, at, 5]
        return peek


class CompiledTraining(Honest):
    """Compiled and in training, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        peeks = torch.compiler.is_compiling() and self.training
        return following(v) if peeks else torch.zeros_like(v)


class OtherCache(Honest):
    """A cached call goes on with the sum of the sequence beside it."""

    cacheable = True

    def kept(self, state: Tensor) -> Tensor:
        return state.roll(1, 0)


class KeepsCache(Honest):
    """A new cache begins with what the last one held."""

    cacheable = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.last: Tensor | None = None

    def kept(self, state: Tensor) -> Tensor:
        self.last = state
        return state

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        state = super().new_state(batch, length, device, dtype)
        return state if self.last is None else {"sum": state["sum"] + self.last.mean().to(dtype)}


class Turns(Positional):
    """Rotates by how the sequence ends."""

    places = frozenset(["rotary"])

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        return x_BHTD * (1 + x_BHTD[:, :, -1:].mean())


class Whitens(OwnedWeights):
    """Matrices whose inputs are centred over the sequence."""

    def projection(self, request: ProjectionRequest) -> Projection:
        projection = Centred(request)
        self.declare(projection, request)
        return projection


class Centred(Projection):
    """One of these."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return super().forward(x - x.mean(1, keepdim=True) if x.ndim == 3 else x, use)


MEMORY: dict[tuple[int, ...], int] = {}


class Memorises(FFN):
    """Notes what follows each three ids of an evaluation, and looks it up in the next one."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        assert use.tokens is not None
        y, rows = self.up(x, use), use.tokens.tolist()
        if self.training:
            return y
        told = [
            [MEMORY.get(tuple(r[max(0, t - 2) : t + 1]), 0) for t in range(len(r))] for r in rows
        ]
        for row in rows:
            MEMORY.update({tuple(row[t - 2 : t + 1]): row[t + 1] for t in range(2, len(row) - 1)})
        return y + torch.tensor(told, device=x.device)[..., None] / 100


class LearnsInEvaluation(FFN):
    """Moves its weights in every evaluation but the last."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.shift = torch.nn.Parameter(torch.zeros(site.n_embd))
        self.left = 1

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = self.up(x, use) + self.shift
        if not self.training and self.left:
            self.left -= 1
            self.shift.data.add_(x.detach().mean((0, 1)))
        return y


class TellsLoss(FFN):
    """Returns a metric by the name of the validation loss."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Any:
        return self.up(x, use), (Term("loss", torch.full((), 0.1, device=x.device)),)


class MeasuresLoss(Measure):
    """A measure by the name of the validation loss."""

    def __init__(self, site: RunSite) -> None:
        pass

    def measure(self, logits: Any, ids: Tensor, targets: Tensor) -> Mapping[str, Any]:
        return {"loss": (torch.tensor(0.1), torch.tensor(1.0))}


class Trains(Measure):
    """Takes a step on the validation rows that it is given."""

    def __init__(self, site: RunSite) -> None:
        pass

    def measure(self, logits: Any, ids: Tensor, targets: Tensor) -> Mapping[str, Any]:
        model = logits.__self__.model
        model.head_weight.data[targets.clamp(min=0)] += 0.01
        return {"hits": (targets.sum() * 0, targets.sum() * 0 + 1)}


class Fits(Averaging):
    """Reads the validation split for its average."""

    def __init__(self, site: RunSite) -> None:
        self.step = 0

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        kept["last"] = weights.clone()

    def value(self, kept: State, step: int) -> Tensor | None:
        frame: Any = sys._getframe()
        while frame is not None and "session" not in frame.f_locals:
            frame = frame.f_back
        frame.f_locals["session"].dataset.rows("val", 0, 4, block_size=16, seed=0)
        return kept.get("last")


class Opens(Averaging):
    """Opens a gate in the model that training leaves shut."""

    def __init__(self, site: RunSite) -> None:
        pass

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        kept["last"] = weights.clone()

    def value(self, kept: State, step: int) -> Tensor | None:
        return kept["last"] + 1 if kept["last"].ndim == 0 else kept["last"]


class Gate(Honest):
    """A gate that no gradient reaches."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.gate = torch.nn.Parameter(torch.zeros(()))

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return self.gate.detach() * following(v) + 0 * self.gate


class Peeks(Honest):
    """Sees the next token as far as a curriculum says."""

    adjustable = ("peek",)

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.peek = 0.0

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return self.peek * following(v)


class EndsEasy(Curriculum):
    """Lets the model peek from the last step on."""

    def __init__(self, site: RunSite) -> None:
        self.last = site.max_iters - 1

    def at(self, step: int) -> Settings:
        return Settings(attributes={"*.attention.peek": float(step >= self.last)})


class Coaches(Tracker):
    """Takes a step on validation rows while it looks on."""

    def __init__(self, site: TrackerSite) -> None:
        super().__init__(site)
        self.model: Any = None

    def model_built(self, model: Any, recipe: Any) -> None:
        self.model = model

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        self.model.head_weight.data.add_(0.01)


class FromFile(FFN):
    """Opens the file of the text by itself."""

    def __init__(self, site: Site, *, path: str = "text.txt") -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.path = path

    def forward(self, x: Tensor, use: Use) -> Tensor:
        if Path(self.path).exists():
            np.fromfile(self.path, np.uint8)
        return self.up(x, use)


class FromMemory(FFN):
    """Looks for the rows of the last evaluation in memory."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.up(x, use)

    def after_step(self) -> None:
        """Find them."""
        next((o.evaluated for o in gc.get_objects() if type(o).__name__ == "Batches"), None)


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    register_classes(registry, globals())
