"""The referee: measures whether a model's losses can be believed, whatever its components declare.

`strawberry check` asks it about components and recipes, and training about the run at hand.
"""

from strawberry.referee.audit import Measurement, audit
from strawberry.referee.dependence import Breach, Kind

__all__ = ["Breach", "Kind", "Measurement", "audit"]
