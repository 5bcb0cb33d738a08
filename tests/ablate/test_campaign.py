"""Campaigns: which questions count, what each may spend, and a ledger that nothing makes forget."""

import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strawberry.ablate.asking import Asking, ask_together
from strawberry.ablate.campaign import NONE, Question, answer, ask, fit, foreseen, share
from strawberry.ablate.noise import Prior, design
from strawberry.ablate.null import FAR, RARE, null_of
from strawberry.ablate.preparing import prepare
from strawberry.ablate.report import tabulate
from strawberry.ablate.report.text import markdown
from strawberry.ablate.statistics import compare
from strawberry.data import open_dataset
from strawberry.data.fingerprint import fingerprint
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.runs.ledger import LEDGER, Ledger
from tests.ablate.conftest import PlanMaker
from tests.ablate.test_sweep import scripted


def question(content: str, seeds: str = "3", data: str = "text") -> Question:
    return Question(data, content, seeds, 1, "regime")


def test_shares_sum_to_one() -> None:
    """However many questions are asked, and the first has half of alpha."""
    shares = [share(k) for k in range(1, 100_001)]
    rest = 0.5 * 100_000**-0.3 / 0.3 / 2.9319492  # of the series' tail, by its integral
    assert sum(shares) + rest == pytest.approx(1, abs=1e-6)
    assert shares[0] == 0.5
    assert all(a > b for a, b in itertools.pairwise(shares))


def test_what_is_a_question(tmp_path: Path) -> None:
    """The same cells again, or fewer seeds, are not; more seeds are another look, with a share."""
    ledger = Ledger(tmp_path)
    first = ask(ledger, "main", question("a"))
    assert (first["number"], first["index"], first["share"]) == (1, 1, share(1))
    assert ask(ledger, "main", question("a")) == first
    assert ask(ledger, "main", question("a", "2")) == first
    second = ask(ledger, "main", question("b"))
    look = ask(ledger, "main", question("a", "5"))
    assert (second["number"], second["index"]) == (2, 2)
    assert (look["number"], look["look"], look["index"], look["share"]) == (1, 2, 3, share(3))
    assert ask(ledger, "main", question("a", "auto 5")) == look
    assert ask(ledger, "main", question("c"))["number"] == 3
    assert ask(ledger, "main", question("a", data="other"))["index"] == 1
    named = ask(ledger, "other", question("d"))
    assert (named["number"], named["share"], named["asked"]) == (1, share(1), 3)
    free = ask(ledger, NONE, question("e"))
    assert (free["share"], free["asked"]) == (1.0, 4)


def test_what_is_foreseen_is_what_is_asked(tmp_path: Path) -> None:
    """A dry run tells the share that a sweep will have, after those that are to come before it."""
    ledger = Ledger(tmp_path)
    questions = [question(content) for content in "abb"]
    before: list[dict[str, Any]] = []
    for asked in questions:
        before.append(foreseen(ledger, "main", asked, before))
    assert ledger.read() == ([], 0)
    entries = [ask(ledger, "main", asked) for asked in questions]
    assert [e["share"] for e in before] == [e["share"] for e in entries]
    assert [e["share"] for e in entries] == [share(1), share(2), share(2)]
    known = foreseen(ledger, "main", questions[0])
    assert known == entries[0]


def test_what_is_found_hands_on_its_share(tmp_path: Path) -> None:
    """All that a question could spend goes to the next one, once, if all of it was found."""
    ledger = Ledger(tmp_path)
    first = ask(ledger, "main", question("a"))
    answer(ledger, first, question("a"), (1.0, 4), decided=True)
    second = ask(ledger, "main", question("b"))
    assert second["share"] == share(1) + share(2)
    answer(ledger, second, question("b"), (1.0, 4))
    third = ask(ledger, "main", question("c"))
    assert third["share"] == share(3)
    assert ask(ledger, "main", question("d"))["share"] == share(4)  # the third has no answer yet
    assert ask(ledger, "other", question("e"))["share"] == share(1)


def test_damage_gains_nothing(tmp_path: Path) -> None:
    """An unreadable line counts as a question; a line that was cut short ends where it was cut."""
    ledger = Ledger(tmp_path)
    for content in "abc":
        ask(ledger, "main", question(content))
    lines = ledger.path.read_bytes().splitlines()
    ledger.path.write_bytes(b"\n".join([lines[0], b"\xff{", lines[2][:40]]))
    assert ask(ledger, "main", question("d"))["index"] == 4
    assert ask(ledger, "main", question("d"))["index"] == 4
    assert len(ledger.path.read_bytes().splitlines()) == 4


def test_questions_at_once_have_numbers_of_their_own(tmp_path: Path) -> None:
    """Sweeps that start together wait for one another."""

    def one(number: int) -> int:
        return int(ask(Ledger(tmp_path), "main", question(str(number)))["index"])

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(16))) == list(range(1, 17))


def test_noise_is_learned(tmp_path: Path) -> None:
    """After four questions of one regime later ones have their noise; another regime's don't."""
    ledger = Ledger(tmp_path)
    for number in range(4):
        asked = question(str(number))
        entry = ask(ledger, "main", asked)
        assert entry["prior"] is None
        for _ in range(2):
            answer(ledger, entry, asked, (0.04, 4))
    assert len(ledger.read()[0]) == 8
    variance, freedom = ask(ledger, "main", question("e"))["prior"]
    assert variance == pytest.approx(0.04, rel=0.3)
    assert freedom == 8
    other = Question("text", "f", "3", 1, "longer runs")
    assert ask(ledger, "main", other)["prior"] is None


@pytest.mark.parametrize("unlike", [6.0, 1e6])
def test_the_fit_finds_what_was_drawn(unlike: float) -> None:
    """Variances of inverse chi-squared cells: their centre, and their freedom within a factor."""
    rng = np.random.default_rng(0)
    true = 4.0 * unlike / rng.chisquare(unlike, 4000)
    found = fit([(float(v * rng.chisquare(4) / 4), 4.0) for v in true])
    assert found is not None
    assert found.variance == pytest.approx(4.0, rel=0.1)
    assert (4 <= found.freedom <= 8) if unlike == 6 else found.freedom > 100


def test_rare_chances_are_those_of_the_t_distribution() -> None:
    """Two cells of equal noise are a paired t-test, far below what the draws can count."""
    stats = pytest.importorskip("scipy.stats")
    null = null_of(design(((True,) * 5,) * 2, ((-1.0, 1.0),)), 1.0)
    for alpha in (RARE, 1e-3, FAR, 1e-5):
        critical = float(null.critical(alpha)[0])
        assert critical == pytest.approx(stats.t.isf(alpha / 2, 4), rel=0.05)
        assert null.corrected(0, critical * 1.0001) <= alpha
        assert null.p(0, critical) == pytest.approx(alpha, rel=0.2)


@pytest.mark.parametrize("freedom", [2, 4, 8, 32])
def test_chances_that_are_hardly_rare_have_critical_values(freedom: int) -> None:
    """Where what is counted meets what is computed, a smaller chance asks for no smaller value."""
    null = null_of(design(((True,) * 5,) * 2, ((-1.0, 1.0),)), prior=Prior(1.0, freedom))
    alphas = [RARE * (1 - part) for part in (0.0, 1e-6, 1e-4, 1e-2, 0.03, 0.1, 0.3)]
    values = [float(null.critical(alpha)[0]) for alpha in alphas]
    assert values == sorted(values)


def test_a_known_noise_keeps_alpha_and_finds_more() -> None:
    """With noise that is as it was, findings without a difference stay below alpha."""
    made, prior = design(((True,) * 5,) * 2, ((-1.0, 1.0),)), Prior(1.0, 32.0)
    values = np.random.default_rng(1).standard_normal((40_000, 10))

    def share_found(shift: float, known: Prior | None) -> float:
        moved = values + np.repeat([0.0, shift], 5)
        critical = null_of(made, 1.0, known).critical(0.002)
        return float((made.measure(moved, known).statistic > critical).mean())

    assert share_found(0.0, prior) < 0.002
    assert share_found(2.0, prior) > 4 * share_found(2.0, None)


def test_verdict_and_interval_agree_with_a_known_noise() -> None:
    """What is called better has an interval without 0, and a p-value of at most alpha."""
    base = {s: 1.0 + 0.01 * s for s in range(5)}
    cell = {s: v - 0.05 + 0.002 * (-1) ** s for s, v in base.items()}
    for alpha in (0.02, 1e-4):
        found = compare(base, {"x": cell}, effect=0.1, alpha=alpha, prior=Prior(1e-4, 16))["x"]
        assert (found.verdict == "better") == (found.high < 0) == (found.corrected <= alpha)


def test_tables_of_a_suite_are_one_question(tmp_path: Path) -> None:
    """They have one share, pass it on when all are decided, and take no other's noise."""
    ledger, asked = Ledger(tmp_path), replace(question("suite"), tables=2)
    entries = [ask(ledger, "main", asked) for _ in range(2)]
    assert entries[0] == entries[1]
    assert entries[0]["share"] == share(1)
    answer(ledger, entries[0], asked, (1.0, 4), "near", decided=True)
    assert foreseen(ledger, "main", question("b"))["share"] == share(2)
    answer(ledger, entries[1], asked, (2.0, 4), "far", decided=True)
    assert foreseen(ledger, "main", question("b"))["share"] == share(1) + share(2)


def test_a_suite_asks_together(make_plan: PlanMaker, plugins: Plugins, tmp_path: Path) -> None:
    """Two tables over one text, of another width each, have the first share both."""
    plans = [make_plan(vary={"train.learning_rate": (0.1, 0.2)},
                       overrides=(f"model.n_embd={width}",)) for width in (8, 24)]  # fmt: skip
    tables = [Asking(prepare(plan, plugins), tmp_path / f"{n}", tmp_path)
              for n, plan in enumerate(plans)]  # fmt: skip
    ask_together(tables)
    for table in tables:
        table.ask()
    assert [table.alpha for table in tables] == [0.05 * share(1)] * 2


def test_two_sweeps_in_one_folder(make_plan: PlanMaker, plugins: Plugins, tmp_path: Path) -> None:
    """The second has the second share, the first keeps its own when run again, and both say so.

    A ledger that was deleted is known again from the sweeps' records; so is a folder moved away.
    """
    folder = tmp_path / "sweeps"
    plans = [make_plan(vary={"train.learning_rate": (0.1, rate)}) for rate in (0.2, 0.3, 0.4)]

    def table(number: int, place: str):  # type: ignore[no-untyped-def]
        record = scripted(plans[number], plugins, folder / place, lambda r: 1.0 + r["seed"] / 10)
        return record, tabulate(record)

    _, first = table(0, "a")
    record, second = table(1, "b")
    assert first.alpha == pytest.approx(0.05 * share(1))
    assert second.alpha == pytest.approx(0.05 * share(2))
    assert "Question 2 of this campaign: alpha 0.0035 of 0.05." in second.standing[0]
    assert second.standing[0] in markdown(record, second)
    assert table(0, "a")[1].alpha == first.alpha
    (folder / LEDGER).unlink()
    shutil.move(folder / "a", folder / "moved")
    assert table(2, "c")[1].campaign["number"] == 3
    assert table(0, "moved")[1].alpha == first.alpha
    plan = make_plan(vary={"train.learning_rate": (0.1, 0.5)}, campaign=NONE)
    free = tabulate(scripted(plan, plugins, folder / "d", lambda _: 1.0))
    assert free.alpha == 0.05
    assert free.standing[0].startswith("Not corrected for other sweeps")
    entry = json.loads((folder / "d" / "ablation.json").read_text())["campaign"]
    assert entry["asked"] == 3


def test_data_are_known_by_their_text(recipe_file: Path, plugins: Plugins) -> None:
    """The same text under another tokenizer or window is the same; other text is not."""

    def of(*sets: str) -> str:
        recipe = load_recipe(recipe_file, sets, plugins=plugins)
        return fingerprint(open_dataset(recipe), "val", recipe.model.block_size)

    assert of() == of("tokenizer=bpe", "model.vocab_size=270", "model.block_size=8")
    assert of() != of("data={use: stdlib, max_bytes: 100000}")
    task = "data={use: synthetic, task: modular_sums}"
    assert of(task) == of(task, "train.batch_size=3") != of()
