"""Find the photograph that kills its worker, such as one that a codec crashes on.

Ray starts a dead worker again and repeats its windows, without end. So each photograph in
flight has a small file in the temporary folder. Files of a dead process are suspects: they are
done alone, and one that kills its worker again has failed.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

MOST_CRASHES = 2  # the second one is the photograph's own, because it was alone


class CrashWatch:
    """The photographs in flight in one worker, and those at which earlier ones died."""

    def __init__(self, run: str, folder: Path | None = None) -> None:
        """Find the suspects.

        Args:
            run: the job's.
            folder: for the files; None: the machine's temporary folder.
        """
        self._prefix = str((folder or Path(tempfile.gettempdir())) / f"rehue-batch-{run}-")
        self._suspects: dict[int, int] = {}  # crashes by key
        for path in Path(self._prefix).parent.glob("rehue-batch-*"):
            with contextlib.suppress(OSError, ValueError):
                pid, crashes = map(int, path.read_text().split())
                if psutil.pid_exists(pid):
                    continue
                if str(path).startswith(self._prefix):
                    self._suspects[int(path.name.rpartition("-")[2], 16)] = crashes + 1
                else:
                    path.unlink()  # left by a run that was killed

    def count_crashes(self, key: int) -> int:
        """Return how many workers died with this photograph in flight."""
        return self._suspects.get(key, 0)

    @contextlib.contextmanager
    def watch(self, key: int) -> Iterator[None]:
        """Mark a photograph as in flight during the block.

        Args:
            key: of its record.
        """
        path = Path(f"{self._prefix}{key:016x}")
        with contextlib.suppress(OSError):  # a full disk costs the watch, not the photograph
            path.write_text(f"{os.getpid()} {self.count_crashes(key)}")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            self._suspects.pop(key, None)
