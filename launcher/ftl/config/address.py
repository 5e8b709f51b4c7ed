"""Addresses that rows may be read from, told from paths and repositories by how they are written."""

from urllib.parse import urlsplit

SCHEMES = ("s3", "gs", "gcs", "hf", "https", "http")


def is_address(given: str) -> bool:
    scheme, separator, _ = given.partition("://")
    return bool(separator) and scheme in SCHEMES


def is_whole_address(given: str) -> bool:
    """Whether an address says where: a host or a bucket, after its scheme."""
    try:
        return bool(urlsplit(given).netloc)
    except ValueError:
        return False
