"""Whether the process has a descriptor left. Not every way of accepting connections says that it has none."""

import errno
import os

__all__ = ["DescriptorWatch"]


class DescriptorWatch:
    """Tries one out when told to look. exhausted: how often there was none."""

    def __init__(self) -> None:
        self.exhausted = 0

    def look(self) -> bool:
        """Open one, and close it again; False: there was none."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.exhausted += 1
            return False
        return True

    def metrics(self) -> dict[str, int]:
        """Return the counter."""
        return {"descriptors_exhausted": self.exhausted}
