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
