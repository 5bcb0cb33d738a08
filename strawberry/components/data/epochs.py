"""Training windows without replacement."""

from __future__ import annotations

from typing import Annotated

from strawberry.contracts.data import Dataset, DataSite, DataSource
from strawberry.data.epochs import EpochsDataset
from strawberry.plugin.signature import Kind
from strawberry.recipe.spec import ComponentSpec


class Epochs(DataSource):
    """Every window of the training text once, then again in another order, and so on.

    By default each row of a batch is a window from a random place: after one epoch's worth of
    tokens about 37 % of the text has not been seen, and some of it several times. A resumed run
    goes on in the same epoch, and ranks share it.

    Args:
        of: the data; anything with a text or ids that can be gone through.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        of: Annotated[ComponentSpec, Kind("data")] = "strawberry/stdlib",  # type: ignore[assignment]
    ) -> None:
        super().__init__(site)
        self.source: DataSource = of.construct(site, contract=DataSource)
        self.spec = of
        self.sampled_as(self.source)

    def open(self) -> Dataset:
        """Open the data set; raises RecipeError if the source's can't be opened."""
        with self.spec.located():
            return EpochsDataset(self.source.open())

    def known_ids(self, of_recipe: int | None) -> int | None:
        """As of the source."""
        return self.source.known_ids(of_recipe)

    def divided(self) -> str:
        """As of the source."""
        return self.source.divided()
