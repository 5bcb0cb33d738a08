"""Prepared token files."""

from __future__ import annotations

from pathlib import Path

from strawberry.contracts.data import TEST, Dataset, DataSite, DataSource
from strawberry.data.division import Division, HeldBack, check_division, divided_text
from strawberry.data.files import MissingError, candidates
from strawberry.data.packed import META, open_packed, open_single, read_meta
from strawberry.data.preparing import open_parts, part_folders
from strawberry.data.reading import refuse_pickle
from strawberry.data.shards import SUFFIXES
from strawberry.data.tokenizer import tokenizer_beside
from strawberry.errors import FieldError, StrawberryError
from strawberry.files.storage import FileFingerprints, about


class Tokens(DataSource):
    """A folder from `strawberry data prepare`, or a single token file (`.tok`).

    A folder of parts (`data prepare --add`) is read whole, part after part; a run on it is another
    run once it has grown, unless the recipe names its parts. The recipe's `tokenizer` is not used:
    the folder has its own, and a file's folder may have one.

    Args:
        path: the folder or the file; looked up in the current folder, then in the recipe's.
        parts: names of the parts of a folder that grows; null for all that are there.
        data_division: for a single file: the fraction from its beginning for training. A folder is
            already divided.
        test_division: for a single file: the fraction that moves from the end of training to the
            locked test split.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        path: str,
        parts: tuple[str, ...] | None = None,
        data_division: Division = 0.9,
        test_division: HeldBack = 0.0,
    ) -> None:
        super().__init__(site)
        check_division(data_division, test_division)
        self.path = path
        self.parts = parts
        self.test_division = test_division
        self.data_division = data_division

    def open(self) -> Dataset:
        """Open the data set; raises FieldError about `path` if it is missing or damaged."""
        identities = FileFingerprints(self.site.cache)
        with about("path"):
            refuse_pickle(Path(self.path))
            place = _find(self.path, self.site.folders)
            if folders := self._parts(place):
                return open_parts(folders, identities)
            if place.is_dir():
                foreign = [f for f in sorted(place.iterdir()) if f.suffix in SUFFIXES]
                if foreign and not (place / META).exists():
                    raise StrawberryError(
                        f"{self.path}: not written by `strawberry data prepare`; ids of another "
                        f"project, such as {foreign[0].name}, need data {{use: shards}}"
                    )
                return open_packed(place, identities)
            refuse_pickle(place)
            tokenizer = tokenizer_beside(place)
            return open_single(place, identities, self.data_division, tokenizer, self.test_division)

    def _parts(self, place: Path) -> list[Path]:
        """The parts of a folder; none if it was written whole, or is a file."""
        if not place.is_dir() or (place / META).exists():
            if self.parts is not None:
                raise FieldError("parts", f"{place} has no parts")
            return []
        with about("path" if self.parts is None else "parts"):
            return part_folders(place, self.parts)

    def known_ids(self, of_recipe: int | None) -> int | None:
        """The vocabulary size of the folder's tokenizer, or of the one in the file's folder."""
        place = _find(self.path, self.site.folders)
        if place.is_dir():
            return read_meta((self._parts(place) or [place])[0]).vocab_size
        tokenizer = tokenizer_beside(place)
        return None if tokenizer is None else tokenizer.vocab_size

    def divided(self) -> str:
        """The division: by tokens for a folder, by fractions for a file."""
        place = _find(self.path, self.site.folders)
        if not place.is_dir():
            return divided_text(self.data_division, self.test_division)
        folders = self._parts(place) or [place]
        counts = [read_meta(folder).n_tokens for folder in folders]
        common = [split for split in counts[0] if all(split in count for count in counts)]
        sizes = {split: sum(count[split] for count in counts) for split in common}
        told = ", ".join(f"{split} {size:,} tokens" for split, size in sizes.items())
        return told + (" (locked)" if TEST in sizes else "; no test split")


def _find(path: str, folders: tuple[Path, ...]) -> Path:
    places = candidates(path, folders)
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(map(str, places))
    raise MissingError(f"{path}: no such file or folder; looked at {looked}")
