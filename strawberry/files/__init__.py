"""File operations: atomic writes, locks, retries, the cache folder."""

from strawberry.files.atomic import write_atomic
from strawberry.files.storage import (
    FileFingerprints,
    about,
    cache_folder,
    explained,
    new_folder,
    write_file,
)

__all__ = [
    "FileFingerprints",
    "about",
    "cache_folder",
    "explained",
    "new_folder",
    "write_atomic",
    "write_file",
]
