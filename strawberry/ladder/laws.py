"""Laws of loss: a floor, and terms that fall as powers of size, tokens or compute.

    L(N, D) = E + A / N^a + B / D^b                           Hoffmann et al. 2022, arXiv 2203.15556
    L(C)    = E + K / C^g                                     the same along a line in N and D
    L       = E + A / (N_once + r^phi N_rec)^a + B / D^b      arXiv 2604.21106, for recursion

Several architectures have one floor E, which is the text's; the rest is each one's own, or the
exponents are shared too. Of fits in logarithms: the floor is exp(e), a term is exp(l - p (x - m)),
where p = exp(q) is its exponent and m the mean of ln x, so that l is the term's size in the middle
of the runs and hardly moves with p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from strawberry.ladder.table import Numbers, Places, Runs


@dataclass(frozen=True, slots=True)
class PowerTerm:
    """A term of a law: `factor / column^exponent`.

    Attributes:
        column: what it falls with, a column of the runs; `effective` for recursion's.
        factor: the factor's letter.
        exponent: the exponent's letter.
        center: the exponent that is expected before any run is seen.
        spread: how far off that may be: one deviation of the exponent's logarithm.
    """

    column: str
    factor: str
    exponent: str
    center: float
    spread: float


EXPONENT: Final = 0.34
"""The exponents of N and D that are expected. Published ones lie between 0.2 and 0.5: 0.34 and 0.28
(Hoffmann et al. 2022), 0.35 and 0.37 (Besiroglu et al. 2024), 0.29 and 0.23 (MiniCPM, 2404.06395),
0.35 of both (Muennighoff et al. 2023)."""
EXPONENT_SPREAD: Final = 0.35
COMPUTE: Final = 0.17
"""That of compute: a b / (a + b) of the exponents above. Small models on a narrow text fall faster
than large ones on a broad one, so it may be further off."""
COMPUTE_SPREAD: Final = 0.65
FLOOR: Final = 0.6
"""The floor that is expected, as a share of the lowest loss. Chinchilla's is 0.77 of its lowest
loss, and of models that are a thousand times smaller about half."""
FLOOR_SPREAD: Final = 0.7
PHI: Final = 0.46
"""Exponent of a further recursion step (arXiv 2604.21106: 0.38 to 0.65)."""
PHI_SPREAD: Final = 0.25

SIZE = PowerTerm("parameters", "A", "a", EXPONENT, EXPONENT_SPREAD)
EFFECTIVE = replace(SIZE, column="effective")
TOKENS = PowerTerm("tokens", "B", "b", EXPONENT, EXPONENT_SPREAD)
ALL = PowerTerm("training_flops", "K", "g", COMPUTE, COMPUTE_SPREAD)

TERMS: Final[Mapping[str, tuple[PowerTerm, ...]]] = {
    "size_and_tokens": (SIZE, TOKENS),
    "compute": (ALL,),
    "recursion": (EFFECTIVE, TOKENS),
}
FORMULAS: Final[Mapping[str, str]] = {
    "size_and_tokens": "L = E + A / N^a + B / D^b",
    "compute": "L = E + K / C^g",
    "recursion": "L = E + A / (N_once + r^phi N_rec)^a + B / D^b",
}


@dataclass(frozen=True)
class Law:
    """A law for some architectures, over runs whose middle it knows.

    Its parameters are one vector: e; for each term the l of every architecture; for each term the
    q of every architecture, or one q where exponents are shared; phi, if it is recursion's.

    Attributes:
        name: one of `TERMS`.
        names: the architectures.
        middle: the mean of ln x of each term.
        floor: the floor that is expected, in nats.
        shared: whether architectures have the same exponents.
    """

    name: str
    names: tuple[str, ...]
    middle: tuple[float, ...]
    floor: float
    shared: bool = False
    terms: tuple[PowerTerm, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", TERMS[self.name])

    @classmethod
    def over(cls, name: str, runs: Runs, *, shared: bool = False) -> Law:
        """The law for these runs."""
        floor = FLOOR * float(runs.loss.min())
        law = cls(name, runs.names, (0.0,) * len(TERMS[name]), floor, shared)
        middle = [float(law.features(runs, PHI)[0][k].mean()) for k in range(len(law.terms))]
        return replace(law, middle=tuple(middle))

    @property
    def recursive(self) -> bool:
        """True if phi is one of its parameters."""
        return self.name == "recursion"

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.center)

    @property
    def labels(self) -> tuple[str, ...]:
        """The letter of each parameter, with its architecture if there are several."""

        def each(letter: str, *, one: bool = False) -> list[str]:
            many = len(self.names) > 1 and not one
            return [f"{letter}[{name}]" for name in self.names] if many else [letter]

        factors = [label for term in self.terms for label in each(term.factor)]
        exponents = [label for term in self.terms for label in each(term.exponent, one=self.shared)]
        return ("E", *factors, *exponents, *(["phi"] if self.recursive else []))

    @property
    def center(self) -> Numbers:
        """Prior mean of each parameter, nan for a term's size: (size,)."""
        return self._vector(math.log(self.floor), "center", PHI)

    @property
    def spread(self) -> Numbers:
        """One deviation of that; infinite where nothing is expected: (size,)."""
        return self._vector(FLOOR_SPREAD, "spread", PHI_SPREAD)

    def _vector(self, first: float, name: str, last: float) -> Numbers:
        many = 1 if self.shared else len(self.names)
        empty = [math.nan if name == "center" else math.inf] * len(self.names) * len(self.terms)
        known = [math.log(t.center) if name == "center" else t.spread for t in self.terms]
        exponents = [value for value in known for _ in range(many)]
        return np.array([first, *empty, *exponents, *([last] if self.recursive else [])])

    def features(self, runs: Runs, phi: float) -> tuple[Numbers, Numbers]:
        """Of each term ln x less its middle, and what that changes with phi: (terms, runs)."""
        values, slopes = [], []
        for term, middle in zip(self.terms, self.middle, strict=True):
            slope = np.zeros(len(runs))
            if term.column == "effective":
                once, recurred = runs.columns["once"], runs.columns["recurred"]
                turns = runs.columns["steps"]
                effective = once + turns**phi * recurred
                slope = turns**phi * np.log(turns) * recurred / effective
            else:
                effective = runs.columns[term.column]
            values.append(np.log(effective) - middle)
            slopes.append(slope)
        return np.array(values), np.array(slopes)

    def places(self, runs: Runs) -> tuple[Places, Places]:
        """Indices of each run's l and q of each term in the vector: (terms, runs) both."""
        k, count = np.arange(len(self.terms))[:, None], len(self.names)
        sizes = 1 + k * count + runs.place[None]
        start = 1 + len(self.terms) * count
        exponents = start + (k + 0 * runs.place[None] if self.shared else sizes - 1)
        return sizes, exponents

    def log_loss(self, vector: Numbers, runs: Runs) -> tuple[Numbers, Numbers]:
        """The ln L of each run, (runs,), and what it changes with each parameter, (runs, size)."""
        phi = float(vector[-1]) if self.recursive else 0.0
        x, slope = self.features(runs, phi)
        sizes, exponents = self.places(runs)
        power = np.exp(vector[exponents])
        parts = np.vstack([np.full((1, len(runs)), vector[0]), vector[sizes] - power * x])
        top = parts.max(axis=0)
        shares = np.exp(parts - top)
        total = shares.sum(axis=0)
        shares /= total
        change = np.zeros((len(runs), len(vector)))
        rows = np.arange(len(runs))
        change[:, 0] = shares[0]
        for k in range(len(self.terms)):
            change[rows, sizes[k]] = shares[k + 1]
            change[rows, exponents[k]] = -shares[k + 1] * power[k] * x[k]
            if self.recursive:
                change[:, -1] -= shares[k + 1] * power[k] * slope[k]
        return top + np.log(total), change

    def natural(self, vectors: Numbers) -> dict[str, Numbers]:
        """The parameters as the formula has them, by label: of (..., size) vectors, (...)."""
        count = len(self.names)
        values = {"E": np.exp(vectors[..., 0])}
        labels = iter(self.labels[1:])
        start = 1 + len(self.terms) * count
        for k, middle in enumerate(self.middle):
            for index in range(count):
                place = 1 + k * count + index
                exponent = vectors[..., start + (k if self.shared else place - 1)]
                # A factor may be larger than a float holds: it is what N^a is divided into.
                log = vectors[..., place] + np.exp(exponent) * middle
                values[next(labels)] = np.exp(np.minimum(log, 700))
        for place in range(start, len(self.labels) - self.recursive):
            values[next(labels)] = np.exp(vectors[..., place])
        if self.recursive:
            values["phi"] = vectors[..., -1]
        return values

    def exponent(self, vectors: Numbers, term: int, place: int) -> Numbers:
        """The exponent of a term for the architecture at a place: of (..., size) vectors, (...)."""
        count = len(self.names)
        start = 1 + len(self.terms) * count
        index = start + (term if self.shared else term * count + place)
        return np.asarray(np.exp(vectors[..., index]))
