"""File operations: atomic writes, locks, retries, the cache folder."""

from strawberry.files.atomic import explained, new_folder, write_atomic
from strawberry.files.storage import FileFingerprints, about, cache_folder, file_digest

__all__ = [
    "FileFingerprints",
    "about",
    "cache_folder",
    "explained",
    "file_digest",
    "new_folder",
    "write_atomic",
]
