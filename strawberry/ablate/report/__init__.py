"""The report of an ablation: tables, and one self-contained page."""

from strawberry.ablate.report.files import write_report
from strawberry.ablate.report.table import CellRow, ResultTable, tabulate

__all__ = ["CellRow", "ResultTable", "tabulate", "write_report"]
