"""What an ablation says, for people: a table, and one page that holds everything."""

from strawberry.ablate.report.files import write_report
from strawberry.ablate.report.table import Row, Table, tabulate

__all__ = ["Row", "Table", "tabulate", "write_report"]
