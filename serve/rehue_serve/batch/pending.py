"""The photographs that a run has to do: what the source has and the manifest does not."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rehue_serve.batch.index import Index, Known
from rehue_serve.batch.manifest import Recipe, hash_version
from rehue_serve.batch.options import Options
from rehue_serve.batch.sources import Photograph, split
from rehue_serve.batch.stores import is_local, join


def list_pending(options: Options, recipe: Recipe, index: Index) -> Iterator[Photograph]:
    """Yield the photographs that this run has yet to do, in the order of the source.

    Raises:
        OSError: the source cannot be listed.
    """
    for photograph in options.source.list_photographs():
        if _is_pending(photograph, index.find(photograph.name), options, recipe):
            yield photograph


def list_windows(options: Options, recipe: Recipe, size: int) -> Iterator[str]:
    """Yield what is pending in JSON lists of this many photographs."""
    index = Index(options.target, options.run)
    for window in split(list_pending(options, recipe, index), size):
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
    if not known.done:
        return known.can_retry
    # Object stores are not asked: a request for each picture takes longer than a listing.
    target = join(options.target, photograph.output)
    return is_local(target) and not Path(target).exists()
