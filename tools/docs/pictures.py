"""The pictures of the concept pages: boxes and arrows, as SVG."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final

FILLS: Final = {"blue": ("#eef3fb", "#5b7db1"), "red": ("#fdecee", "#b3404f"), "green": ("#edf6ec", "#5a8f53"),
                "sand": ("#fdf3e3", "#b98a3a"), "none": ("#fff", "#999")}  # fmt: skip
FONT: Final = 'font-family="Helvetica, Arial, sans-serif" font-size="14"'


class Drawing:
    """An SVG picture of a size in pixels; coordinates are of top left corners."""

    def __init__(self, width: int, height: int, label: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT} role="img" '
            f'aria-label="{escape(label)}"><defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#444"/>'
            f'</marker></defs><rect width="{width}" height="{height}" fill="#fff"/>'
        ]

    def box(self, x: int, y: int, w: int, h: int, *lines: str, fill: str = "blue") -> None:
        """A box with lines of text in its middle, the first of them bold."""
        inner, edge = FILLS[fill]
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{inner}" stroke="{edge}"/>'
        )
        top = y + h / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            weight = ' font-weight="bold"' if number == 0 else ' font-size="12" fill="#333"'
            self.parts.append(
                f'<text x="{x + w / 2}" y="{top + 18 * number}" text-anchor="middle"{weight}>'
                f"{escape(line)}</text>"
            )

    def arrow(self, *points: tuple[int, int], dashed: bool = False) -> None:
        """A line through points with a head at its end."""
        path = " L".join(f"{x} {y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{path}" fill="none" stroke="#444" stroke-width="1.5"{dash} marker-end="url(#a)"/>'
        )

    def text(self, x: int, y: int, line: str, *, anchor: str = "start") -> None:
        """A line of small text."""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="12" fill="#555" text-anchor="{anchor}">{escape(line)}</text>'
        )

    def svg(self) -> str:
        """The whole picture."""
        return "\n".join([*self.parts, "</svg>\n"])


def recipe() -> Drawing:
    """What a recipe becomes."""
    d = Drawing(760, 190, "A recipe names components; the result is a model, a run, a table")
    d.box(20, 60, 150, 70, "recipe.yaml", "names and numbers", fill="sand")
    d.box(240, 10, 170, 50, "components", "built in and of plugins")
    d.box(240, 75, 170, 50, "checked", "every error with its line", fill="none")
    d.arrow((170, 95), (240, 100))
    d.arrow((325, 60), (325, 75))
    for y, name, what in ((5, "build", "cost, without allocating"), (70, "train", "a run, bit-exact to resume"),
                          (135, "ablate", "a table with verdicts")):  # fmt: skip
        d.box(500, y, 240, 50, f"strawberry {name}", what, fill="green")
        d.arrow((410, 100), (455, 100), (455, y + 25), (500, y + 25))
    return d


def stack() -> Drawing:
    """A stack of blocks."""
    d = Drawing(
        760, 250, "A stack: ids, embedding, blocks that read and write a residual stream, head"
    )
    d.box(20, 100, 110, 50, "ids", "(B, T)", fill="none")
    d.box(160, 100, 110, 50, "embedding", "(B, T, C)", fill="sand")
    d.box(620, 100, 120, 50, "norm, head", "(B, T, V)", fill="sand")
    d.arrow((130, 125), (160, 125))
    d.arrow((270, 125), (620, 125))
    for x, name in ((330, "attention"), (470, "ffn")):
        d.box(x, 20, 110, 50, name, "of norm(x)")
        d.arrow((x - 12, 125), (x - 12, 45), (x, 45))
        d.arrow((x + 110, 45), (x + 122, 45), (x + 122, 122))
        d.text(x + 126, 116, "+")
    d.box(305, 175, 300, 46, "one block", "repeat: 2 writes it twice into the stack", fill="none")
    d.text(275, 142, "residual stream")
    return d


def recursion() -> Drawing:
    """The same blocks, several times."""
    d = Drawing(760, 220, "A recursion runs the same blocks R times; a router chooses who goes on")
    for number in range(3):
        x = 40 + 235 * number
        d.box(x, 80, 170, 60, "the same blocks", f"step {number}", fill="red")
        if number < 2:
            d.arrow((x + 170, 110), (x + 235, 110))
        d.arrow((x + 85, 140), (x + 85, 175), dashed=True)
    d.box(40, 175, 640, 36, "router: tokens that are done leave here", fill="none")
    d.box(
        40, 15, 640, 36, "weights: one set for all steps, or one that differs by step", fill="sand"
    )
    for number in range(3):
        d.arrow((125 + 235 * number, 51), (125 + 235 * number, 80))
    return d


def weights() -> Drawing:
    """Where matrices come from."""
    d = Drawing(
        760, 230, "A mixer asks for matrices; the weight source decides where they come from"
    )
    d.box(20, 90, 180, 60, "a component", 'asks for "qkv", 3C x C')
    d.box(270, 90, 170, 60, "weight source", "of this part of the stack", fill="sand")
    d.arrow((200, 120), (270, 120))
    rows = (("owned", "a matrix of its own"), ("shared", "one for all uses"),
            ("factorized", "two thin matrices"), ("step_lora", "one, and a small change by step"))  # fmt: skip
    for number, (name, what) in enumerate(rows):
        y = 8 + 55 * number
        d.box(510, y, 230, 48, name, what, fill="green")
        d.arrow((440, 120), (475, 120), (475, y + 24), (510, y + 24))
    return d


def cache() -> Drawing:
    """A state for each use of a block."""
    d = Drawing(760, 210, "Each use of a block has a slot in the cache")
    d.text(20, 30, "step 0 of the recursion")
    d.text(300, 30, "step 1")
    d.text(580, 30, "after it")
    for x, name, slot in ((20, "block A", 0), (150, "block B", 1), (300, "block A", 2), (430, "block B", 3),
                          (580, "block C", 4)):  # fmt: skip
        d.box(x, 45, 110, 46, name, fill="red" if slot < 4 else "blue")
        d.box(x, 140, 110, 46, f"slot {slot}", "keys and values", fill="sand")
        d.arrow((x + 45, 91), (x + 45, 140))
        d.arrow((x + 65, 140), (x + 65, 91))
    for x in (130, 260, 410, 540):
        d.arrow((x, 68), (x + (20 if x in (130, 410) else 40), 68))
    return d


def fairness() -> Drawing:
    """What is equal in a comparison."""
    d = Drawing(
        760, 240, "Cells train on the same seeds, data and budget; pairs of runs are compared"
    )
    for row, cell in enumerate(("baseline", "variant")):
        y = 50 + 80 * row
        d.box(20, y, 130, 50, cell, fill="sand")
        for seed in range(3):
            d.box(190 + 110 * seed, y, 90, 50, f"seed {seed}", "same data", fill="blue")
    for seed in range(3):
        d.arrow((235 + 110 * seed, 100), (235 + 110 * seed, 130))
        d.arrow((235 + 110 * seed, 130), (235 + 110 * seed, 100))
    d.text(190, 30, "equal tokens, FLOPs, parameters or time; a learning rate tuned for each")
    d.text(190, 205, "a difference for each seed: what the seeds share cancels")
    d.box(
        540,
        60,
        200,
        110,
        "verdict",
        "better, worse, equivalent,",
        "or not decidable",
        "with an interval",
        fill="green",
    )
    d.arrow((500, 115), (540, 115))
    return d


PICTURES: Final[dict[str, Callable[[], Drawing]]] = {
    "recipe": recipe, "stack": stack, "recursion": recursion, "weights": weights, "cache": cache,
    "fairness": fairness,
}  # fmt: skip


def write(folder: Path) -> None:
    """Write every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"concept-{name}.svg").write_text(draw().svg())
