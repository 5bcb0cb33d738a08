"""One rank that takes one step by hand, and says what it held and what it sent."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp  # here, so that what it takes is not counted as the model's

from strawberry.contracts import is_sharded, to_local
from strawberry.ranks.world import joined
from strawberry.recipe import load_recipe
from strawberry.runs.device import machine_for
from strawberry.training.engine import Engine, ShardedEngine, engine_for
from strawberry.training.optimizers import Optimizers


class Traffic:
    """Counts collectives by name, and the bytes of the whole tensors that they make or take."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.nbytes: dict[str, int] = {}
        self.patch("all_gather_single")  # what FSDP2 calls
        self.patch("reduce_scatter_single")

    def patch(self, name: str) -> None:
        """Count the calls of a function of torch.distributed from now on."""
        original = getattr(dist, name)

        def call(*args: Any, **given: Any) -> Any:
            tensors = [v for v in (*args, *given.values()) if isinstance(v, torch.Tensor)]
            self.counts[name] = self.counts.get(name, 0) + 1
            self.nbytes[name] = self.nbytes.get(name, 0) + max(t.nbytes for t in tensors)
            return original(*args, **given)

        setattr(dist, name, call)


def nbytes(tensors: Any) -> int:
    return sum(to_local(tensor).nbytes for tensor in tensors)


def whole_bytes(engine: Engine) -> int:
    """Bytes of parameters that are gathered now."""
    return sum(p.nbytes for p in engine.model.parameters() if not is_sharded(p))


class Kept:
    """Bytes that autograd keeps for the backward pass, parameters apart."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.storages: dict[int, torch.UntypedStorage] = {}  # held: no address comes back
        self.nbytes = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """The hook that is called for each tensor that is kept."""
        storage = tensor.untyped_storage()
        # Under FSDP which of them are whole, and where, is not the same for long.
        own = (p for p in self.engine.model.parameters() if not is_sharded(p))
        known = {p.untyped_storage().data_ptr() for p in own}
        if storage.data_ptr() not in {*known, *self.storages}:
            self.storages[storage.data_ptr()] = storage
            self.nbytes += storage.nbytes()
        return tensor


def main(job: dict[str, Any]) -> dict[str, Any]:
    """The figures of this rank after one step of the recipe."""
    recipe = load_recipe(Path(job["recipe"]), job["sets"])
    machine = machine_for(recipe)
    with joined(machine.device) as (world, _):
        torch.manual_seed(world.rank)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        engine = engine_for(recipe, world, machine)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        drawn = most - pages * resource.getpagesize()
        model = engine.model
        optimizers = Optimizers(recipe, model.parameter_infos(), machine.device)
        traffic, gathered = Traffic(), [0]
        for unit in engine.units if isinstance(engine, ShardedEngine) else ():
            unit.register_forward_hook(
                lambda *_: gathered.append(whole_bytes(engine)), prepend=True
            )
        parts = recipe.train.gradient_accumulation_steps
        shape = (recipe.train.batch_size // world.size, recipe.model.block_size)
        count = engine.divisor([torch.zeros(shape)] * parts)
        for part in range(parts):
            x, kept = torch.randint(recipe.model.vocab_size, shape), Kept(engine)
            with engine.part(last=part == parts - 1), machine.autocast():
                with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
                    loss = engine.loss(x, x, count, 1 / parts).total
                loss.backward()
        # The head's gradient is made with the loss, and is counted with the gradients.
        head = recipe.model.vocab_size * recipe.model.n_embd * 4
        held = {
            "parameters": nbytes(model.parameters()),
            "gradients": nbytes(p.grad for p in model.parameters() if p.grad is not None),
        }
        optimizers.step(0)
        state, _ = optimizers.state()
        held["optimizer"] = nbytes(t for t in state.values() if t.ndim)
        held["activations"] = kept.nbytes - head
        world.barrier()
    return {
        **held, "drawn": drawn, "gathered": max(gathered),
        "counts": traffic.counts, "nbytes": traffic.nbytes,
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
