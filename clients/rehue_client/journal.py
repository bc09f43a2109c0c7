"""Which outputs `rehue colorize --resume` can skip."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rehue_client.choices import CHOICES
from rehue_client.edits import Edits
from rehue_client.outputs import Job
from rehue_client.picture import Options

NAME = ".rehue-journal.jsonl"


class Journal:
    """How each picture in an output folder was made: one JSON object per line.

    A picture is made again if its source (path, size, modification time), the model
    or an option has changed. A picture that the journal does not know, from another
    program or an older version, counts as done unless its source is newer.

    Args:
        folder: the output folder; None: the output is one file, which has no journal.
    """

    def __init__(self, folder: Path | None, options: Options) -> None:
        self._folder = folder
        self._options = options
        self._edits = _describe_edits(options.edits)
        self._records: dict[str, dict[str, Any]] = {}

    def load(self) -> None:
        """Read the records of earlier runs; lines that are not valid are ignored.

        Raises:
            OSError: the journal exists and cannot be read.
        """
        if self._folder is None or not (self._folder / NAME).exists():
            return
        for line in (
            (self._folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            try:
                record = json.loads(line)
                self._records[record["output"]] = record
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # a line that was cut short

    def is_done(self, job: Job, model: str | None) -> bool:
        """Return whether the output exists and would be the same again.

        Args:
            model: name and version of the model in use; None if not known.
        """
        try:
            output, source = job.output.stat(), job.source.stat()
        except OSError:
            return False
        record = self._records.get(self._get_key(job))
        if record is None:
            return output.st_mtime >= source.st_mtime
        expected = self.describe(job)
        return all(record.get(name) == value for name, value in expected.items()) and (
            model is None or record.get("model") == model
        )

    def add(self, description: dict[str, Any], model: str) -> None:
        """Record that an output was made by ``model``.

        Args:
            description: of the job, from before its source was read.

        Raises:
            OSError: the journal cannot be written.
        """
        if self._folder is None:
            return
        record = {**description, "model": model}
        with (self._folder / NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def describe(self, job: Job) -> dict[str, Any]:
        """Return what the output depends on, except for the model."""
        try:
            status = job.source.stat()
            version = [status.st_size, status.st_mtime_ns]
        except OSError:
            version = []
        return {
            "output": self._get_key(job),
            "source": str(job.source.resolve()),
            "version": version,
            "strength": self._options.strength,
            "format": job.format,
            "quality": self._options.quality,
            "metadata": self._options.metadata,
            **_describe_choices(self._options),
            **self._edits,
        }

    def _get_key(self, job: Job) -> str:
        if self._folder is not None and job.output.is_relative_to(self._folder):
            return str(job.output.relative_to(self._folder))
        return str(job.output)


def _describe_choices(options: Options) -> dict[str, Any]:
    """Return the parameters that older journals do not have; a default is None, as in those."""
    chosen = {name: getattr(options, name) for name in ("depth", "profile", "mark")}
    return {name: None if value == CHOICES[name][0] else value for name, value in chosen.items()}


def _describe_edits(edits: Edits) -> dict[str, Any]:
    """Return what the output depends on of edits: nothing is None, as in older journals."""
    reference = edits.reference
    digest = hashlib.sha256(reference).hexdigest() if isinstance(reference, bytes) else None
    return {"edits": edits.to_document() if edits else None, "reference": digest}
