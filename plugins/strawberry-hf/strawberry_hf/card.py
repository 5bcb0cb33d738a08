"""The model card of an exported run: what it is, what it learned from, and how to load it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.generation import LoadedRun
from strawberry_hf.own import MODEL_TYPE, required

_LOSSES = {
    "val_loss": "validation loss, nats a token",
    "val_loss_se": "its standard error",
    "bits_per_byte": "bits a byte",
}


def model_card(loaded: LoadedRun, model_type: str, parameters: int, folder: str) -> str:
    """The README.md of an exported folder, as Markdown with the hub's metadata."""
    recipe = loaded.recipe
    info = _info(loaded)
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n"
        f"- {MODEL_TYPE}\n---",
        f"# {recipe.name}",
        f"A language model of {parameters:,} parameters, trained for {loaded.step:,} steps by "
        f"[Strawberry](https://github.com/RPDevelops/Strawberry) {strawberry.__version__}. In "
        f"transformers it is a `{model_type}`.",
        f"## Load it\n\n{_loading(loaded, model_type, folder)}",
        f"## Data\n\n{_data(loaded, info)}",
        f"## Losses\n\n{_losses(loaded)}",
        f"## Made with\n\n{_made(loaded, info)}",
        f"## Recipe\n\n```yaml\n{recipe.to_yaml().rstrip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _info(loaded: LoadedRun) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = json.loads((loaded.folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return info


def _loading(loaded: LoadedRun, model_type: str, folder: str) -> str:
    own = model_type == MODEL_TYPE
    needed = required(loaded, loaded.recipe.to_dict()) if own else {}
    packages = ["strawberry-hf", *needed] if own else ["transformers"]
    first = "import strawberry_hf  # registers the model\n" if own else ""
    return (
        f"```sh\npip install {shlex.join(packages)}\n```\n\n```python\n{first}"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{folder}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n```'
        + ("\n\nNo code of the folder runs; the recipe below is its model." if own else "")
    )


def _data(loaded: LoadedRun, info: Mapping[str, Any]) -> str:
    told = info.get("data", {})
    lines = [f"- source: `{json.dumps(loaded.recipe.data.to_dict())}`"]
    for key, words in (
        ("train_tokens", "training tokens"),
        ("val_tokens", "validation tokens"),
        ("fingerprint", "fingerprint"),
    ):
        if told.get(key) is not None:
            value = told[key]
            lines.append(
                f"- {words}: {value:,}" if isinstance(value, int) else f"- {words}: `{value}`"
            )
    return "\n".join(lines)


def _losses(loaded: LoadedRun) -> str:
    rows = []
    try:
        for line in (loaded.folder / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            if "val_loss" in row and row["step"] <= loaded.step:
                rows.append(row)
    except (OSError, ValueError):
        pass
    if not rows:
        return "Not measured."
    last = rows[-1]
    lines = [f"At step {last['step']:,}:", ""]
    lines += [f"- {words}: {last[name]:.4f}" for name, words in _LOSSES.items() if name in last]
    others = [
        name for name in last
        if name.startswith("val_") and name not in _LOSSES and isinstance(last[name], float)
    ]  # fmt: skip
    return "\n".join([*lines, *(f"- `{name}`: {last[name]:.4f}" for name in others)])


def _made(loaded: LoadedRun, info: Mapping[str, Any]) -> str:
    lines = []
    if command := info.get("command"):
        program = (
            "strawberry" if str(command[0]).endswith(("strawberry", "__main__.py")) else command[0]
        )
        lines.append(f"- command: `{shlex.join([str(program), *map(str, command[1:])])}`")
    plugins = {**required(loaded, loaded.recipe.to_dict())}
    versions = {
        "strawberry-lab": info.get("strawberry", strawberry.__version__),
        "torch": info.get("torch"),
        "Python": info.get("python"),
        **plugins,
    }
    lines += [f"- {name} {version}" for name, version in versions.items() if version]
    if info.get("device"):
        lines.append(f"- device: {info['device']}, {info.get('dtype', '')}")
    return "\n".join(lines)
