"""The original project's JSON configuration, read as a recipe.

The meaning of its keys (sections in brackets):

- `dataset` {`path`, `data_division`, `load_from_file`}: `data` {use: text, path, data_division}.
  The path is needed only when data is opened, where pickled files are refused.
- `checkpoints` {`interval`, `create_checkpoints`, `path`}: `train.checkpoint_interval` (0 without
  checkpoints, which still saves at the end); `path` and `model_path` become notes, because the run
  folder holds everything.
- `model_hyperparams`: `model`. `n_layer` low-rank weight sets, each applied twice in a row; every
  fourth block has the Expert Abundance, the others AFT; `n_ffn` is the hidden width of their
  mini-FFN.
- `optimizer_hyperparams`: `optimizer` adamw, or muon with adamw for the rest.
- `encoder_path`: a `tokenizer.json` is used; a pickled encoder is refused when it is opened.
- `init_from`: `scratch`; a pretrained model is refused, because it is a pickle.
- `decay_lr`: schedule `trapezoid`, or `constant`.
- all others keep their names, under `train` and at the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strawberry.errors import Problem, RecipeError
from strawberry.recipe import Node, in_order, located, show, unknown_keys

TRAIN_KEYS = (
    "gradient_accumulation_steps", "batch_size", "max_iters", "eval_interval", "log_interval",
    "eval_iters", "lr_decay_iters", "learning_rate", "cooldown_frac", "warmup_iters", "min_lr",
)  # fmt: skip
KNOWN: dict[str, set[str]] = {
    "": {
        "dataset", "checkpoints", "model_hyperparams", "optimizer_hyperparams", "model_path",
        "encoder_path", "init_from", "seed", "decay_lr", *TRAIN_KEYS,
    },
    "dataset": {"data_division", "load_from_file", "path"},
    "checkpoints": {"path", "interval", "create_checkpoints"},
    "model_hyperparams": {
        "vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_qkv", "n_ffn",
    },
    "optimizer_hyperparams": {"eps", "beta1", "beta2", "weight_decay", "use_muon", "momentum"},
}  # fmt: skip
MAX_LAYERS = 10_000
BOOLEANS = (
    "dataset.load_from_file", "checkpoints.create_checkpoints", "optimizer_hyperparams.use_muon",
    "decay_lr",
)  # fmt: skip
RMS_EPS = 1.1920928955078125e-07
"""The epsilon of the original's `rms_norm` in float32: that of the dtype."""


def recipe_tree(tree: Node) -> tuple[Node, list[str]]:
    """The recipe tree of a configuration, and notes; raises RecipeError."""
    config = _Config(tree)
    problems = in_order(config.problems())
    if problems:
        raise RecipeError(problems)
    notes: list[str] = []
    sections: dict[str, Any] = {
        "model": config.model(notes),
        "data": config.data(),
        "optimizer": config.optimizer(),
        "schedule": "constant" if config.value("decay_lr") is False else "trapezoid",
        "train": config.train(notes),
    }
    if (encoder := config.node("encoder_path")) is not None:
        sections["tokenizer"] = config.at(encoder, {"use": "bpe", "path": encoder})
    if (seed := config.node("seed")) is not None:
        sections["seed"] = seed
    if (path := config.value("model_path")) is not None:
        notes.append(f"model_path {path!r} is ignored: the run folder holds the model")
    children = {key: located(value, tree.location) for key, value in sections.items()}
    return Node(children, tree.location, {k: n.location for k, n in children.items()}), notes


class _Config:
    def __init__(self, tree: Node) -> None:
        self.tree = tree

    def node(self, path: str) -> Node | None:
        """The value at `section.key`, or None."""
        node: Node | None = self.tree
        for step in path.split("."):
            node = None if node is None else node.get(step)
        return node

    def value(self, path: str, default: Any = None) -> Any:
        """The plain value at `section.key`."""
        node = self.node(path)
        return default if node is None else node.plain()

    def at(self, near: Node | None, value: Any) -> Node:
        """Plain data with the location of `near`."""
        return located(value, self.tree.location if near is None else near.location)

    def problems(self) -> Iterator[Problem]:
        """Report keys that the original does not have, and unsupported values."""
        for section, known in KNOWN.items():
            node = self.tree if not section else self.tree.get(section)
            if node is None:
                continue
            if not node.is_map:
                yield Problem("expected a mapping", node.location, section)
                continue
            yield from unknown_keys(node, known, section or "a configuration", section)
        section = self.tree.value["model_hyperparams"]
        required = KNOWN["model_hyperparams"] - {"n_ffn"} if section.is_map else ()
        for key in sorted(required):
            node = section.get(key)
            if node is None:
                yield Problem(f"{key!r} is missing", section.location, "model_hyperparams")
            elif type(node.value) is not int or node.value < 1:
                message = f"expected a positive whole number, got {show(node)}"
                yield Problem(message, node.location, f"model_hyperparams.{key}")
            elif key == "n_layer" and node.value > MAX_LAYERS:
                message = f"expected at most {MAX_LAYERS}, got {node.value}"
                yield Problem(message, node.location, f"model_hyperparams.{key}")
        for key in BOOLEANS:
            node = self.node(key)
            if node is not None and not isinstance(node.value, bool):
                yield Problem(f"expected true or false, got {show(node)}", node.location, key)
        start = self.node("init_from")
        if start is not None and start.value != "scratch":
            message = (
                "a pretrained model is a pickle, which a recipe never opens; write scratch, "
                "or make it a run with `strawberry original import` and `train --fork` that"
            )
            yield Problem(message, start.location, "init_from")

    def model(self, notes: list[str]) -> Node:
        """The model section."""
        section = self.tree.value["model_hyperparams"]
        layers, width = section.value["n_layer"].value, section.value["n_embd"].value
        shared: dict[str, Any] = {"n_qkv": section.value["n_qkv"], "qk_eps": RMS_EPS}
        if (hidden := section.get("n_ffn")) is not None:
            shared["n_ffn"] = hidden
            notes.append(f"n_ffn {hidden.value}: the hidden width of each block's mini-FFN")
        aft = {"use": "aft_simple", **shared, "qk_norm": True, "den_eps": 1e-6, "head": "swiglu"}
        attention = {"use": "expert_abundance", **shared, "n_head": section.value["n_head"]}
        groups, more = divmod(layers, 4)
        blocks: list[dict[str, Any]] = [{"repeat": 3, "attention": aft}, {"attention": attention}]
        if groups != 1:
            blocks = [{"repeat": groups, "stack": blocks}] if groups else []
        if more:
            blocks.append({"repeat": more, "attention": aft})
        if layers < 4:
            notes.append(
                f"n_layer {layers} gives no Expert Abundance, which is every fourth layer; AFT "
                "uses no rotary positions, so positional is none"
            )
        model = {
            "vocab_size": section.value["vocab_size"],
            "block_size": section.value["block_size"],
            "n_embd": section.value["n_embd"],
            "tie_embeddings": True,
            "embedding_norm": True,
            "norm": {"use": "rmsnorm", "gain": False, "eps": RMS_EPS},
            "positional": {"use": "rope", "sign": -1} if layers >= 4 else "none",
            "stack": [
                {
                    "recur": 2,
                    "sharing": "sequence",
                    "weights": {
                        "use": "factorized",
                        "rank": max(1, width // 4),
                        "init": "original",
                    },
                    "stack": blocks,
                }
            ],
        }
        return self.at(section, model)

    def data(self) -> Node:
        """The data section."""
        section = self.node("dataset")
        if section is None:
            return self.at(None, "stdlib")
        fields: dict[str, Any] = {"use": "text"}
        for key in ("path", "data_division"):
            if (node := section.get(key)) is not None:
                fields[key] = node
        return self.at(section, fields)

    def optimizer(self) -> Node:
        """The optimizer section, with the original's defaults for missing values."""
        section = self.node("optimizer_hyperparams")

        def field(key: str, default: Any) -> Any:
            node = self.node(f"optimizer_hyperparams.{key}")
            return default if node is None else node

        adamw = {
            "use": "adamw",
            "betas": [field("beta1", 0.9), field("beta2", 0.95)],
            "eps": field("eps", 1e-10),
            "weight_decay": field("weight_decay", 0.1),
            "decay": "all",
        }
        if self.value("optimizer_hyperparams.use_muon") is not True:
            return self.at(section, adamw)
        muon = {
            "use": "muon",
            "momentum": field("momentum", 0.95),
            "momentum_warmup": 300,
            "weight_decay": field("weight_decay", 0.1),
            "rest": adamw,
        }
        return self.at(section, muon)

    def train(self, notes: list[str]) -> Node:
        """The train section."""
        fields: dict[str, Any] = {}
        for key in TRAIN_KEYS:
            if (node := self.node(key)) is not None:
                fields[key] = node
        interval = self.node("checkpoints.interval")
        if self.value("checkpoints.create_checkpoints") is False:
            fields["checkpoint_interval"] = 0
        elif interval is not None:
            fields["checkpoint_interval"] = interval
        if (path := self.value("checkpoints.path")) is not None:
            notes.append(
                f"checkpoints.path {path!r} is ignored: the run folder holds the checkpoints"
            )
        return Node(
            {key: located(value, self.tree.location) for key, value in fields.items()},
            self.tree.location,
        )
