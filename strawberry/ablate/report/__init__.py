"""What an ablation says, for people: a table, and one page that holds everything."""

from strawberry.ablate.report.files import write_report
from strawberry.ablate.report.table import CellRow, ResultTable, tabulate

__all__ = ["CellRow", "ResultTable", "tabulate", "write_report"]
