"""Any optimizer of pytorch-optimizer, by its name there, as a component."""

from pytorch_optimizer import get_supported_optimizers, load_optimizer

from strawberry.contracts import OptimizerSource
from strawberry.errors import FieldError
from strawberry.plugin import hookimpl


class PytorchOptimizer(OptimizerSource):
    def __init__(
        self, site, *, name: str = "adan", lr: float | None = None, weight_decay: float = 0.1
    ):
        if name not in get_supported_optimizers():
            raise FieldError("name", f"pytorch-optimizer has no {name!r}")
        self.lr, self.name, self.weight_decay = lr, name, weight_decay

    def make(self, infos, *, lr, device):
        matrices = [info.parameter for info in infos if info.parameter.ndim >= 2]
        others = [info.parameter for info in infos if info.parameter.ndim < 2]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others}]
        return load_optimizer(self.name)([g for g in groups if g["params"]], lr=lr)


@hookimpl
def strawberry_register(registry):
    registry.optimizer("pytorch_optimizer", PytorchOptimizer)
