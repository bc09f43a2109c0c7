"""What one `rehue batch` is asked to do."""

from dataclasses import dataclass, field
from typing import Any

from rehue_serve.batch.sources import Source
from rehue_serve.settings import Settings


class BatchFailed(Exception):
    """The job cannot start or go on. ``str()`` is a sentence for the terminal."""


@dataclass(frozen=True)
class Limits:
    """How much the job may take at a time.

    Attributes:
        workers: processes that colorize.
        concurrency: photographs in flight in one worker.
        rate: photographs/s of the whole job; 0: no limit.
        background: leave the Tritons to a live service, see `rehue_serve.background`.
        patience: seconds to wait for a Triton or a store that does not answer, before the
            job stops.
    """

    workers: int = 1
    concurrency: int = 64
    rate: float = 0.0
    background: bool = False
    patience: float = 300.0


@dataclass(frozen=True)
class Options:
    """A job.

    Attributes:
        target: folder or prefix of the pictures and the manifest.
        parameters: those of ``/v1/colorize``, see `rehue_serve.parameters`.
        redo: what to do with photographs that the manifest knows: ``changed`` does those again
            whose source, model or parameters changed, and failures that another try can help;
            ``failed`` does failures alone; ``all`` does everything again.
        verify: read the pictures that the manifest knows first; those that are missing or changed
            are done again.
        skip_existing: leave out photographs whose picture is there, whatever the manifest says.
        run: name of this run.
        address: of the Ray cluster to join; empty: start Ray on this machine.
        price: of an hour of the machines, in any currency; 0: not known.
        dry_run: write nothing.
    """

    source: Source
    target: str
    settings: Settings
    parameters: dict[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    redo: str = "changed"
    verify: bool = False
    skip_existing: bool = False
    run: str = ""
    address: str = ""
    price: float = 0.0
    dry_run: bool = False
