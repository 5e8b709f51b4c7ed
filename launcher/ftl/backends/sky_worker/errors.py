"""What SkyPilot says, as one line."""

import re

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def said(error):
    """What an exception says, in one line and without its colours."""
    text = ANSI.sub("", str(error)).strip()
    return re.sub(r"\s*\n\s*", "; ", text)[:1500] or type(error).__name__


def is_unreachable(error):
    """Whether a catalog could not be had, which says nothing of the task."""
    return isinstance(error, OSError) or "requests error" in str(error) or "Max retries" in str(error)
