"""Files that are whole or not there: atomic writes, locks, retries, the cache folder."""
