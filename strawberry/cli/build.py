"""`strawberry build`: show a recipe's model without allocating it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge

from strawberry.cli.numbers import Counted
from strawberry.cli.options import Json, Overrides, RecipePath
from strawberry.figures import readable, short
from strawberry.plugin.kinds import CORE
from strawberry.recipe.walk import walk_components

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from strawberry.model.accounting import CostReport, PartReport
    from strawberry.model.language_model import LanguageModel
    from strawberry.model.stack import BlockNode, Stack
    from strawberry.recipe.spec import ComponentSpec, NodeSpec, Recipe, RecurSpec
    from strawberry.training.optimizers import Assignment
    from strawberry.training.outline import Outline
    from strawberry.training.rank_cost import RankCost


def command(
    recipe: RecipePath,
    world_size: Annotated[
        int | None,
        typer.Option(help="Show memory and traffic per rank for N ranks."),
        Ge(1),
        Counted,
    ] = None,
    parallel: Annotated[
        str | None, typer.Option(help="Way in which ranks share the model: ddp or fsdp.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show a recipe's model: tree, parameters, FLOPs, memory.

    Nothing is allocated, so a model of any size takes seconds. The report includes the optimizer of
    each parameter, and warnings.
    """
    from strawberry.cli import context
    from strawberry.cli.console import print_json
    from strawberry.data.opening import wordless_ahead
    from strawberry.model.accounting import account
    from strawberry.recipe import load_recipe
    from strawberry.training.horizon import untimely
    from strawberry.training.outline import outline
    from strawberry.training.rank_cost import rank_cost
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()

    changes = [*(overrides or ()), *([f"train.parallel={parallel}"] if parallel else [])]
    loaded = load_recipe(recipe, changes, plugins=context.plugins())
    outlined = outline(loaded)
    report = account(loaded, outlined.model)
    report = replace(
        report, warnings=[*untimely(loaded), *wordless_ahead(loaded), *report.warnings]
    )
    cost = rank_cost(outlined, report)
    rank = None if world_size is None else rank_cost(outlined, report, world_size)
    if as_json:
        ranks = {} if rank is None else {"rank": rank.as_dict()}
        print_json({**_as_json(outlined, report, cost), **ranks})
        return
    _show(outlined, report, cost, rank)


def _as_json(outlined: Outline, report: CostReport, cost: RankCost) -> dict[str, Any]:
    from strawberry.data.opening import divided_ahead
    from strawberry.training.planned import planned

    recipe = outlined.recipe
    run = {"run": planned(recipe)._asdict()} if recipe.curriculum else {}
    counted = asdict(report)
    del counted["casts"]  # each matrix by its name
    return {
        **counted,
        "cast_bytes": report.cast_bytes,
        "total_parameters": report.total_parameters,
        "parameter_bytes": cost.parameters,
        "gradient_bytes": cost.gradients,
        "optimizer_bytes": cost.optimizer,
        "averages_bytes": cost.averages,
        **run,
        "optimizers": [
            {
                "use": a.component.use,
                "lr": a.lr,
                "unit": a.factory.unit,
                "parameters": [i.name for i in a.infos],
                "matrices": [
                    {"parameter": info.name, **asdict(matrix)}
                    for info in a.infos
                    for matrix in info.matrices()
                ],
            }
            for a in outlined.assignments
        ],
        "data": divided_ahead(outlined.recipe),
        "notes": list(outlined.recipe.notes),
    }


def _show(outlined: Outline, report: CostReport, cost: RankCost, rank: RankCost | None) -> None:
    from strawberry.cli.console import console, show, table
    from strawberry.data.opening import divided_ahead

    out, recipe = console(), outlined.recipe
    show(_tree(recipe, outlined.model, report), out)
    out.print()
    facts = table("", "")
    facts.show_header = False
    shared = [] if rank is None else _rank_facts(rank)
    for name, text in [*_facts(recipe, report, cost), *shared]:
        facts.add_row(name, text)
    show(facts, out)
    out.print()
    rows = table("optimizer", "peak lr", "takes", "parameters", "such as")
    for assignment in outlined.assignments:
        infos = assignment.infos
        kinds = ", ".join(sorted({info.kind for info in infos}))
        count = sum(info.parameter.numel() for info in infos)
        name = assignment.component.use.removeprefix("strawberry/")
        examples = min((info.name for info in infos), key=len, default="")
        kinds += _taken_apart(assignment)
        rows.add_row(name, _peak(assignment), kinds, f"{count:,}", examples)
    show(rows, out)
    if divided := divided_ahead(recipe):
        out.print(f"data: {divided}")
    for note in recipe.notes:
        out.print(f"note: {note}", style="cyan")
    for warning in report.warnings:
        out.print(f"warning: {warning}", style="yellow")


def _peak(assignment: Assignment) -> str:
    """The peak rate, or the least and the largest where the parametrization scales it."""
    every = [assignment.lr * i.step(assignment.factory.update).rate for i in assignment.infos]
    ends = dict.fromkeys((min(every), max(every)))
    return " to ".join(f"{rate:.3g}" if len(ends) > 1 else f"{rate:g}" for rate in ends)


def _taken_apart(assignment: Assignment) -> str:
    """The number of matrices, or heads, that an optimizer treats separately."""
    unit = assignment.factory.unit
    if unit == "parameter":
        return ""
    every = [matrix for info in assignment.infos for matrix in info.matrices()]
    matrices = sum(matrix.count for matrix in every)
    if unit == "matrix":
        return f" ({matrices} matrices)"
    heads = sum(matrix.count * matrix.heads for matrix in every)
    return f" ({matrices} matrices, as {heads} by head)"


def _facts(recipe: Recipe, report: CostReport, cost: RankCost) -> list[tuple[str, str]]:

    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.parameters.items())
    batch = f"{recipe.train.batch_size} x {report.block_size} tokens"
    casts = f", copies of weights {readable(report.cast_bytes)}" if report.casts else ""
    averages = f", averages {readable(cost.averages)}" if cost.averages else ""
    cache = f"{readable(report.cache_bytes_per_token)} a token"
    if report.cache_fixed_bytes:
        cache += f", {readable(report.cache_fixed_bytes)} fixed"
    return [
        ("parameters", f"{report.total_parameters:,} unique ({kinds})"),
        ("", f"{report.effective_parameters:,} effective, if nothing were shared or factorized"),
        ("depth", f"{report.depth} block uses of {report.unique_depth} blocks"),
        (
            "FLOPs a token",
            f"{short(report.flops_forward_per_token)} forward, "
            f"{short(report.flops_training_per_token)} forward and backward",
        ),
        *_parametrization_facts(recipe),
        *_run_facts(recipe),
        ("cache", f"{cache} (float32, one sequence)"),
        (
            "memory",
            f"{readable(cost.total)} for {batch} in {report.dtype}: weights "
            f"{readable(cost.parameters)}, gradients {readable(cost.gradients)}, optimizer "
            f"{readable(cost.optimizer)}{averages}, activations "
            f"{readable(report.activation_bytes)}{casts}",
        ),
    ]


def _parametrization_facts(recipe: Recipe) -> list[tuple[str, str]]:
    """The parametrization, where it is not the default without changes."""
    spec = recipe.model.components["parametrization"]
    kind = next(kind for kind in CORE if kind.name == spec.kind)
    plain = spec.use == kind.default and not spec.explicit
    return [] if plain else [("parametrization", styled(_label(spec)).plain)]


def _run_facts(recipe: Recipe) -> list[tuple[str, str]]:
    """What the whole run comes to, where steps differ."""
    from strawberry.training.planned import planned

    if not recipe.curriculum:
        return []
    run = planned(recipe)
    shapes = f"steps of {run.shapes} shapes"
    return [("the run", f"{short(run.tokens)} tokens, {short(run.flops)} FLOPs, {shapes}")]


def _rank_facts(rank: RankCost) -> list[tuple[str, str]]:
    """Lines for the memory and traffic of each rank."""
    gathered = f", gathered {readable(rank.gathered)}" if rank.gathered else ""
    often = f", {rank.gathers} all-gathers a micro-batch" if rank.gathers else ""
    return [
        (
            f"each of {rank.ranks}",
            f"{readable(rank.total)} ({rank.parallel}): weights {readable(rank.parameters)}, "
            f"gradients {readable(rank.gradients)}, "
            f"optimizer {readable(rank.optimizer)}{gathered}, "
            f"activations {readable(rank.activations)}",
        ),
        ("", f"sends {readable(rank.sent)} a step{often}"),
    ]


def _tree(recipe: Recipe, model: LanguageModel, report: CostReport) -> Tree:
    from rich.tree import Tree

    spec = recipe.model
    lines = {part.path: part for part in report.parts}
    root = Tree(styled(f"[bold]{recipe.name}[/]  (B, T) ids -> (B, T, {spec.vocab_size}) logits"))
    norm = f", {spec.norm.entry.name}" if spec.embedding_norm else ""
    place = f" + {spec.positional.entry.name}" if "embedding" in model.positional.places else ""
    root.add(f"embedding{place}{norm}  (B, T) -> (B, T, {spec.n_embd})")
    scope = "" if spec.weights.entry.name == "owned" else f"  {_label(spec.weights)}"
    stack = root.add(styled(f"stack{scope}  {len(model.visits())} blocks deep"))
    _add_nodes(stack, spec.stack, model.stack, "stack", lines, report.block_size)
    tied = "embedding^T" if spec.tie_embeddings else "head"
    head = lines["head"]
    text = (
        f"{spec.norm.entry.name}, {tied}  (B, T, {spec.n_embd}) -> (B, T, {spec.vocab_size})  "
        f"[dim]{short(head.cost.flops_forward / report.block_size)} FLOPs a token[/]"
    )
    root.add(styled(text))
    for line in [*_brought(spec.components), *_brought(recipe.components)]:
        root.add(styled(line))
    return root


def _add_nodes(
    tree: Tree,
    specs: tuple[NodeSpec, ...],
    stack: Stack,
    path: str,
    lines: dict[str, PartReport],
    length: int,
    index: int = 0,
) -> int:
    """Add lines for the nodes of `stack` from `index` on; returns the index after them."""
    from strawberry.recipe.spec import BlockSpec, RecurSpec

    for spec in specs:
        node: Any = stack.nodes[index]
        here = f"{path}.nodes.{index}"
        weights = "" if spec.weights is None else f"  {_label(spec.weights)}"
        if isinstance(spec, BlockSpec):
            branch = tree.add(styled(_block_line(node, lines.get(here), length) + weights))
            for part in [*_parts(node), *_brought(spec.components)]:
                branch.add(styled(part))
            index += 1
            continue
        word = "recur" if isinstance(spec, RecurSpec) else "repeat"
        how = _how(spec) if isinstance(spec, RecurSpec) else ""
        how += "".join(f", {line}" for line in _brought(spec.components))
        branch = tree.add(styled(f"[bold]{word} {spec.count}[/]{how}{weights}"))
        if word == "repeat" and spec.weights is None:  # written out in the stack around it
            after = _add_nodes(branch, spec.stack, stack, path, lines, length, index)
            index += (after - index) * spec.count
        else:
            _add_nodes(branch, spec.stack, node, here, lines, length)
            index += 1
    return index


def _brought(components: Mapping[str, Any]) -> Iterator[str]:
    """The components of kinds that plugins provide; the tree shows no others of them."""
    from strawberry.recipe.spec import ComponentSpec

    ours = {kind.key for kind in CORE}
    for step in walk_components({k: v for k, v in components.items() if k not in ours}, ""):
        if step.parent is None and isinstance(step.spec, ComponentSpec):
            yield f"{step.path}  {_label(step.spec)}"


def _how(spec: RecurSpec) -> str:
    """Describe a recursion: its sharing, and settings other than the default."""
    parts = [f" {spec.sharing}"]
    if spec.router is not None:
        parts.append(f"router {_label(spec.router)}")
    if spec.loop is not None:
        parts.append(f"loop {_label(spec.loop)}")
    if spec.keys == "first":
        parts.append("keys of the first step")
    if spec.step_embedding:
        parts.append("an embedding for each step")
    if spec.step_norms:
        parts.append("norms for each step")
    return ", ".join(parts)


def styled(markup: str) -> Text:
    """Text with rich's markup, for text that this module writes itself."""
    from rich.text import Text

    return Text.from_markup(markup)


def _block_line(block: BlockNode, line: PartReport | None, length: int) -> str:
    text = "block"
    if line is not None:
        text += f"  [dim]{line.parameters:,} own parameters, "
        text += f"{short(line.cost.flops_forward / length)} FLOPs a token"
        text += f", {line.uses} uses[/]" if line.uses > 1 else "[/]"
    if block.positional is not None:
        text += f"  positional {type(block.positional).__name__}"
    return text


def _parts(block: BlockNode) -> list[str]:
    from strawberry.model.accounting import shapes

    return [
        f"[green]{type(part).__name__}[/]  {', '.join(shapes(part))}"
        for part in block.modules_of_parts
    ]


def _label(spec: ComponentSpec) -> str:
    given = ", ".join(f"{name}: {spec.fields[name]}" for name in sorted(spec.explicit))
    return f"[magenta]{spec.entry.name}[/]" + (f" ({given})" if given else "")
