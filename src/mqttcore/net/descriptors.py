"""Whether the process has a descriptor left. Not every way of accepting connections says that it has none."""

import errno
import os

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["DescriptorWatch", "descriptors_maximum"]


def descriptors_maximum() -> int | None:
    """Return how many the process may have now; None: nobody says."""
    if resource is None:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


class DescriptorWatch:
    """Tries one out when told to look. exhausted: how often there was none."""

    def __init__(self) -> None:
        self.exhausted = 0

    def look(self) -> None:
        """Open one, and close it again."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.exhausted += 1

    def metrics(self) -> dict[str, int]:
        """Return the counter."""
        return {"descriptors_exhausted": self.exhausted}
