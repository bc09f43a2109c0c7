"""The command `rehue colorize`."""

import argparse
import asyncio
import contextlib
import io
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

from rehue_client.async_client import AsyncClient
from rehue_client.batch import Batch
from rehue_client.checks import check_server, check_writable, describe_error
from rehue_client.choices import CHOICES
from rehue_client.edit_options import add_edit_options, read_edits
from rehue_client.errors import RehueError
from rehue_client.hot_folder import HotFolder, watch_folder
from rehue_client.outputs import STDIN, STDOUT, Job, Search
from rehue_client.picture import Options
from rehue_client.report import Report, describe_left_out
from rehue_client.server_options import (
    add_server_options,
    create_client,
    describe_not_ready,
    get_servers,
    report_error,
)
from rehue_client.session import DEFAULT_BYTES_IN_FLIGHT, DEFAULT_MAX_BYTES

EPILOG = """exit codes:
  0    every photograph has its picture
  1    some failed, or the run was stopped because all others would fail
  2    nothing was colorized: wrong options, or a check before the start failed
  130  interrupted (Ctrl-C); 143: terminated (SIGTERM)

Before the first photograph the command checks that the output can be written and
that the server accepts the key, the model and the options."""

SIGTERM_EXIT = 143


def add_colorize_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rehue colorize`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="files and folders; - for standard input")
    add("-o", "--out", required=True, metavar="OUT",
        help="output folder; for a single photograph also a file name, whose suffix decides "
        "the format, or - for standard output")  # fmt: skip
    add_server_options(parser)
    add("--model", help="name of the model (default: the server's)")
    add("--format", choices=CHOICES["format"], default="auto",
        help="format of the pictures (default: by the suffix of the file name)")  # fmt: skip
    add("--quality", type=_parse_quality, metavar="1..100", help="quality of JPEG and WebP")
    add("--metadata", choices=CHOICES["metadata"], default="keep",
        help="keep EXIF, IPTC, XMP and resolution, or strip them (default: keep)")  # fmt: skip
    add("--depth", choices=CHOICES["depth"], default="auto",
        help="8: 8 bits per sample, also for deeper photographs (default: auto)")  # fmt: skip
    add("--profile", choices=CHOICES["profile"], default="srgb",
        help="colours in sRGB, or in the photograph's own RGB profile (default: srgb)")  # fmt: skip
    add("--mark", choices=CHOICES["mark"], default="none",
        help="visible: a small mark in the corner (default: none)")  # fmt: skip
    add("--concurrency", type=_parse_count, default=8, metavar="N",
        help="photographs in flight at a time (default: 8)")  # fmt: skip
    add("--max-bytes", type=_parse_count, default=DEFAULT_MAX_BYTES, metavar="N",
        help="refuse larger files without reading them (default: %(default)s)")  # fmt: skip
    add("--bytes-in-flight", type=_parse_count, default=DEFAULT_BYTES_IN_FLIGHT, metavar="N",
        help="limit of the bytes of all photographs in flight; a larger photograph is sent "
        "alone (default: %(default)s)")  # fmt: skip
    add("--follow-links", action="store_true", help="follow links to folders")
    add("--resume", action="store_true",
        help="skip photographs with a picture, unless source or options changed")  # fmt: skip
    add("--dry-run", action="store_true", help="list sources and outputs; contacts no server")
    add("--failures", type=Path, metavar="FILE",
        help="write a line for each failure: the source, a tab, the reason")  # fmt: skip
    add("--json", action="store_true",
        help="print a JSON object for each photograph to standard output")  # fmt: skip
    add("--watch", action="store_true",
        help="PATH is a hot folder: colorize files that have not changed for five seconds, until "
        "stopped, and move them to its folders done and failed")  # fmt: skip
    add("--quiet", action="store_true", help="print only failures")
    add_edit_options(parser)
    parser.set_defaults(run=run_colorize)


def run_colorize(namespace: argparse.Namespace) -> int:
    """Run `rehue colorize` and return its exit code."""
    with contextlib.ExitStack() as stack:
        try:
            edits, strength = read_edits(namespace)
            options = Options(
                model=namespace.model, strength=strength, edits=edits,
                quality=namespace.quality, **{name: getattr(namespace, name) for name in CHOICES},
            )  # fmt: skip
            out = STDOUT if namespace.out == "-" else Path(namespace.out)
            _check_standard_output(out, namespace)
            failures = None
            if namespace.failures is not None:
                failures = stack.enter_context(_open_failures(namespace.failures))
            create_report = partial(
                Report, json_lines=namespace.json, quiet=namespace.quiet, failures=failures,
                summary=sys.stderr if namespace.json or out == STDOUT else sys.stdout,
            )  # fmt: skip
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="surrogateescape")  # file names not in UTF-8
            if namespace.watch:
                return _run_watch(namespace, options, out, create_report)
            return _run_once(namespace, options, out, create_report)
        except RehueError as error:
            return report_error(describe_error(error))
        except (ValueError, OSError) as error:
            return report_error(error)


def _run_once(
    namespace: argparse.Namespace, options: Options, out: Path, create_report: Callable[[], Report]
) -> int:
    search = _create_search(namespace, out)
    jobs = search.list_jobs([STDIN if p == "-" else Path(p) for p in namespace.paths])
    if not jobs:
        left_out = describe_left_out(search.left_out)
        return report_error("no photographs found" + (left_out and f"; left out: {left_out}"))
    batch = Batch(
        jobs, search.folder, options, create_report(),
        concurrency=namespace.concurrency, resume=namespace.resume,
    )  # fmt: skip
    if namespace.dry_run:
        return _list_jobs(batch, search)
    if out != STDOUT:
        check_writable(search.folder or out.parent)
    client = _create_client(namespace)
    return asyncio.run(_run_batch(batch, client, search, get_servers(namespace)))


def _run_watch(
    namespace: argparse.Namespace, options: Options, out: Path, create_report: Callable[[], Report]
) -> int:
    if len(namespace.paths) != 1 or out == STDOUT or namespace.dry_run or namespace.resume:
        raise ValueError("--watch takes one folder, and neither --dry-run, --resume nor -o -")
    hot_folder = HotFolder(Path(namespace.paths[0]), lambda: _create_search(namespace, out))
    check_writable(out)
    check_writable(hot_folder.folder)
    client = _create_client(namespace)

    def create_batch(jobs: list[Job]) -> Batch:
        return Batch(jobs, out, options, create_report(), concurrency=namespace.concurrency)

    async def watch() -> int:
        async with client:
            await _check_ready(client, get_servers(namespace))
            await check_server(client, options)
            print(f"watching {hot_folder.folder}; stop with Ctrl-C", file=sys.stderr, flush=True)
            work = asyncio.create_task(watch_folder(hot_folder, client, create_batch))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
            try:
                await work  # its summary has said why it ended
            except asyncio.CancelledError:
                return SIGTERM_EXIT
            return 1

    return asyncio.run(watch())


def _create_client(namespace: argparse.Namespace) -> AsyncClient:
    return create_client(
        AsyncClient, namespace,
        max_bytes=namespace.max_bytes, bytes_in_flight=namespace.bytes_in_flight,
    )  # fmt: skip


def _create_search(namespace: argparse.Namespace, out: Path) -> Search:
    return Search(out, format=namespace.format, follow_links=namespace.follow_links)


async def _check_ready(client: AsyncClient, servers: list[str]) -> None:
    if not await client.ready():
        raise ValueError(describe_not_ready(servers))


async def _run_batch(batch: Batch, client: AsyncClient, search: Search, servers: list[str]) -> int:
    async with client:
        try:
            await _check_ready(client, servers)
            jobs = batch.select_pending(await batch.check(client))
        except RehueError as error:
            return report_error(describe_error(error))
        except (ValueError, OSError) as error:
            return report_error(error)
        work = asyncio.create_task(batch.run(client, jobs))

        def terminate() -> None:
            batch.report.stopped = "terminated (SIGTERM)"
            work.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        try:
            await work
        except asyncio.CancelledError:
            if batch.report.stopped is None:
                raise  # Ctrl-C: asyncio.run ends with KeyboardInterrupt
            return SIGTERM_EXIT
        finally:
            batch.report.print_summary(search.left_out)
    return 1 if batch.report.failed or batch.report.stopped else 0


def _open_failures(path: Path) -> TextIO:
    # File names are bytes; those that are not UTF-8 are written as they are.
    return path.open("w", encoding="utf-8", errors="surrogateescape")


def _list_jobs(batch: Batch, search: Search) -> int:
    jobs = batch.select_pending(None)
    for job in jobs:
        batch.report.add_planned(job)
    batch.report.print_plan(len(jobs), search.left_out)
    return 1 if batch.report.failed else 0


def _check_standard_output(out: Path, namespace: argparse.Namespace) -> None:
    if out != STDOUT or namespace.dry_run:
        return
    if namespace.json:
        raise ValueError("--json and -o - both write to standard output")
    if sys.stdout.isatty():
        raise ValueError("a terminal cannot show an image: redirect the output to a file")


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _parse_quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1 to 100")
    return int(text)
