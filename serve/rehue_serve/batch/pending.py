"""The photographs that a run has to do: what the source has and the manifest does not."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rehue_serve.batch.index import Index, Known
from rehue_serve.batch.manifest import Recipe, hash_version
from rehue_serve.batch.options import Options
from rehue_serve.batch.pictures import Pictures
from rehue_serve.batch.sources import Photograph, split_into_lists


def list_pending(
    options: Options, recipe: Recipe, index: Index, pictures: Pictures | None = None
) -> Iterator[Photograph]:
    """Yield the photographs that this run has yet to do, in the order of the source.

    Args:
        pictures: those of the target, to notice deleted ones; None: they are not looked for.

    Raises:
        OSError: the source or the target cannot be listed.
    """
    for photograph in options.source.list_photographs():
        known = index.find(photograph.name)
        if _is_pending(photograph, known, options, recipe):
            yield photograph
        elif (
            pictures is not None and known and known.done and not known.recent
            and options.redo == "changed" and photograph.output not in pictures
        ):  # fmt: skip
            yield photograph


@dataclass(frozen=True)
class Counts:
    """How many photographs of the source there are.

    Attributes:
        done, failed: in this run or an earlier one.
        missing: that have no record, or are to be done again.
        pending: those of the missing ones that this run does.
    """

    done: int = 0
    failed: int = 0
    missing: int = 0
    pending: int = 0


def count_photographs(options: Options, recipe: Recipe) -> Counts:
    """List the source once more, and count.

    Raises:
        OSError: the source cannot be listed, or the manifest not be read.
    """
    index = Index(options.target, options.run)
    counts: Counter[str] = Counter()
    for photograph in options.source.list_photographs():
        known = index.find(photograph.name)
        is_pending = _is_pending(photograph, known, options, recipe)
        counts["pending"] += is_pending
        if known is None or is_pending:
            counts["missing"] += 1
        else:
            counts["done" if known.done else "failed"] += 1
    return Counts(**counts)


def list_windows(options: Options, recipe: Recipe, size: int) -> Iterator[str]:
    """Yield what is pending in JSON lists of this many photographs."""
    index, pictures = Index(options.target, options.run), Pictures(options.target)
    for window in split_into_lists(list_pending(options, recipe, index, pictures), size):
        yield json.dumps([asdict(photograph) for photograph in window])


def parse_window(window: str) -> list[Photograph]:
    """Parse one window of `list_windows`."""
    return [Photograph(**entry) for entry in json.loads(window)]


def _is_pending(
    photograph: Photograph, known: Known | None, options: Options, recipe: Recipe
) -> bool:
    if known is None:
        return options.redo != "failed"
    if known.recent:
        return False
    if options.redo == "failed":
        return not known.done
    if options.redo == "all" or known.fingerprint != hash_version(photograph, recipe):
        return True
    return not known.done and known.can_retry
