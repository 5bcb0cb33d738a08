"""Ablations: the plan, fair budgets, trials, statistics, and the report.

plan.py         what is compared with what, from options or a file
cells.py        named patches of a recipe
fair.py         budgets, and widths that make cells agree
trials.py       what is run, known by the hash of all that decides its result
worker.py       a trial, in a process of its own
process.py      that process, for executors: started, watched, stopped
suite.py        the same comparison on several tasks, a table for each
sweep.py        all of it, in order; interrupted, the same call goes on
statistics.py   what the numbers can and can't show
report/         the tables and the page
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.ablate.plan import Plan as Plan
    from strawberry.ablate.preparing import prepare as prepare
    from strawberry.ablate.process import (
        TrialActivity as TrialActivity,
        TrialProcess as TrialProcess,
        outcome as outcome,
        stop as stop,
        write_request as write_request,
    )
    from strawberry.ablate.record import Record as Record
    from strawberry.ablate.report import tabulate as tabulate
    from strawberry.ablate.sweep import (
        Sweep as Sweep,
        SweepObserver as SweepObserver,
        make_executor as make_executor,
    )
    from strawberry.ablate.waiting import wait_for as wait_for
    from strawberry.ablate.worker import GRACE as GRACE, holds as holds
    from strawberry.stopping import STOPPING as STOPPING

__all__, __getattr__, __dir__ = lazily(__name__, __file__)
