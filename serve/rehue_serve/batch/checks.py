"""Checks before the first photograph, each with one sentence for the terminal."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rehue_client.checks import PROBE
from rehue_serve.admission import Admission
from rehue_serve.batch.manifest import Recipe
from rehue_serve.batch.options import BatchFailed, Options
from rehue_serve.batch.sources import NAME_COLLISION, is_photograph
from rehue_serve.batch.stores import FOLDER, describe_os_error, get_store, is_local, join_location
from rehue_serve.choices import Parameters
from rehue_serve.errors import RehueError
from rehue_serve.parameters import ColorizeParameters
from rehue_serve.pipeline import Pipeline
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient, build_triton_client

TRITON_WAIT = 30.0  # seconds for a Triton that is starting
MOST_LISTED = 20  # collisions in an error
CONTENT = b"rehue batch checks that it can write here\n"


def check_locations(options: Options) -> None:
    """Check that the source can be listed and has photographs, and the target be written.

    Raises:
        BatchFailed: with the reason.
    """
    source, target = options.source.root, options.target
    if is_photograph(source) and is_local(source) and Path(source).is_file():
        raise BatchFailed(f"{source} is one photograph: use `rehue colorize`.")
    if f"{target}/".startswith(f"{source}/") or f"{source}/".startswith(f"{target}/"):
        raise BatchFailed("SOURCE and TARGET must not be the same, or one in the other.")
    try:
        first = next(options.source.list_photographs(), None)
    except OSError as error:
        raise BatchFailed(_describe("source", source, error)) from None
    if first is None:
        raise BatchFailed(f"There is no photograph in {options.source.describe()}.")
    _check_target(target)


def _check_target(target: str) -> None:
    probe = join_location(target, f"{FOLDER}/check")
    try:
        store = get_store(target)
        store.write(probe, CONTENT, target)
        if store.read(probe) != CONTENT:
            raise BatchFailed(f"The target {target} does not keep what is written to it.")
        store.delete(probe)
    except OSError as error:
        raise BatchFailed(_describe("target", target, error)) from None


def _describe(kind: str, location: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        what = "folder" if is_local(location) else "bucket or folder"
        return f"The {kind} {location} cannot be used: there is no such {what}."
    if isinstance(error, PermissionError):
        return (
            f"The {kind} {location} cannot be used: access is denied ({describe_os_error(error)})."
        )
    return f"The {kind} {location} cannot be used: {describe_os_error(error)}."


def check_collisions(options: Options) -> None:
    """Check that no two pictures have the same name.

    A photograph whose format is not written changes its name, and with a format of the
    pictures many do. Without one, object stores and lists are not listed up front, which would
    take long; those that collide there are failures of the run.

    Raises:
        BatchFailed: with the first of them.
    """
    source = options.source
    if source.format == "auto" and (source.is_list or not is_local(source.root)):
        return
    try:
        listed = options.source.list_photographs()
        collisions = [photograph for photograph in listed if photograph.reason == NAME_COLLISION]
    except OSError as error:
        raise BatchFailed(_describe("source", options.source.root, error)) from None
    if collisions:
        lines = [f"  {photograph.name}: {photograph.problem}" for photograph in collisions]
        more = [f"  and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
        shown = "\n".join(lines[:MOST_LISTED] + more)
        raise BatchFailed(f"Pictures would overwrite each other:\n{shown}")


def check_model(options: Options) -> Recipe:
    """Colorize a tiny photograph as the workers will.

    Raises:
        BatchFailed: there is no such model, a parameter is wrong, or no Triton answers.
    """
    # In a process of its own: gRPC's threads complain about each process that is started later.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            model = pool.submit(_run_probe, options.settings, options.parameters).result()
        except RehueError as error:
            raise BatchFailed(str(error)) from None
    return Recipe.build(model, options.parameters)


def _run_probe(settings: Settings, parameters: dict[str, Any]) -> str:
    chosen = ColorizeParameters(**parameters).build_parameters()
    return asyncio.run(_colorize_probe(settings, chosen))


async def _colorize_probe(settings: Settings, parameters: Parameters) -> str:
    triton = build_triton_client(settings)
    await triton.start()
    pipeline = Pipeline(settings, triton, Admission(settings))
    try:
        await _wait_for_triton(triton, settings)
        deadline = asyncio.get_running_loop().time() + settings.timeout
        return (await pipeline.colorize(PROBE, parameters, deadline)).model
    finally:
        pipeline.close()
        await triton.close()


async def _wait_for_triton(triton: TritonClient, settings: Settings) -> None:
    deadline = asyncio.get_running_loop().time() + TRITON_WAIT
    while not triton.ready:
        if asyncio.get_running_loop().time() > deadline:
            urls = ", ".join(settings.triton_urls)
            raise BatchFailed(f"No Triton at {urls} serves the model {settings.model}.")
        await asyncio.sleep(0.1)
