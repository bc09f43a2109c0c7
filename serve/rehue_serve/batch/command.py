"""The command `rehue batch`."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from rehue_client.edit_options import add_edit_options, read_edits

if TYPE_CHECKING:
    from rehue_serve.batch.job import Summary
    from rehue_serve.batch.options import Options
    from rehue_serve.settings import Settings

EPILOG = """SOURCE is a folder, a pattern ('scans/**/*.tif'), or a list of photographs: a text file
with one path or URL per line, or a CSV or Parquet file with a column named source, path or
url. SOURCE and TARGET may be URLs: s3://, gs://, az://.

The job can be killed at any moment and started again with the same command: it continues
where it stopped. TARGET/.rehue/manifest has a record of every photograph, in Parquet.

exit codes:
  0    every photograph has its picture
  1    some failed, or the job was stopped; start it again to continue
  2    nothing was colorized: wrong options, or a check before the start failed
  130  interrupted (Ctrl-C); 143: terminated (SIGTERM)

Settings come from REHUE_* variables as for `rehue serve`: REHUE_TRITON_URLS,
REHUE_MAX_BYTES, REHUE_MAX_PIXELS, REHUE_THREADS and REHUE_TIMEOUT are used."""


def add_batch_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``batch`` to the ``rehue`` command."""
    parser = commands.add_parser(
        "batch", help="colorize whole archives, resumable, on Ray Data",
        description="Colorizes all photographs of a folder or an object store.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", help="folder, pattern, list or URL")
    parser.add_argument("target", metavar="TARGET", help="folder or URL for the pictures")
    _add_picture_options(parser)
    add_edit_options(parser)
    _add_run_options(parser)
    parser.set_defaults(run=run_batch)


def _add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Add the parameters of the API; `rehue_serve.parameters` checks their values."""
    add = parser.add_argument_group("pictures").add_argument
    add("--model", default="", help="name of the model (default: REHUE_MODEL)")
    add("--format", default="auto",
        help="jpeg, png, webp or tiff (default: by the suffix of the file name)")  # fmt: skip
    add("--quality", metavar="1..100", help="quality of JPEG and WebP")
    add("--metadata", default="keep", help="keep or none: EXIF, IPTC, XMP (default: keep)")
    add("--depth", help="8: 8 bits per sample, also for deeper photographs (default: auto)")
    add("--profile", help="keep: use the photograph's own RGB profile (default: srgb)")
    add("--mark", help="visible: a small mark in the corner (default: none)")
    add("--parameter", action="append", default=[], metavar="NAME=VALUE", type=_parse_parameter,
        help="any other parameter of /v1/colorize")  # fmt: skip


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--dry-run", action="store_true",
        help="count, and estimate time and cost from a sample; writes nothing")  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--retry-failed", action="store_true", help="repeat only what failed")
    which.add_argument("--overwrite", action="store_true",
        help="repeat everything")  # fmt: skip
    which.add_argument("--verify", action="store_true",
        help="read all pictures; repeat what is missing or changed")  # fmt: skip
    which.add_argument("--skip-existing", action="store_true",
        help="skip photographs whose picture exists, whatever the manifest says")  # fmt: skip
    add("--concurrency", type=_parse_count, default=64, metavar="N",
        help="photographs in flight in one worker (default: 64)")  # fmt: skip
    add("--rate", type=_parse_number, default=0.0, metavar="N",
        help="limit of the whole job, in photographs/s (default: none)")  # fmt: skip
    add("--background", action=argparse.BooleanOptionalAction,
        help="give way to a live service that uses the same Tritons (default: if "
        "REHUE_TRITON_URLS names them)")  # fmt: skip
    add("--patience", type=_parse_number, default=300.0, metavar="SECONDS",
        help="longest wait for a Triton or a store to answer (default: 300)")  # fmt: skip
    add("--price", type=_parse_number, default=0.0, metavar="N",
        help="price of the machines per hour, to report the cost")  # fmt: skip
    add("--address", default="", help="Ray cluster to join: auto, or HOST:PORT (default: none)")
    add("--workers", type=_parse_count, metavar="N",
        help="processes that colorize (default: REHUE_REPLICAS)")  # fmt: skip


def run_batch(arguments: argparse.Namespace) -> int:
    """Run the job behind a supervisor, which ends whatever a crash leaves behind."""
    # Imported here: `rehue --help` stays quick and the supervisor process small.
    from rehue_serve import local_ray, processes

    done, is_done = os.pipe()
    ended = processes.run_behind_supervisor()
    if ended is not None:
        os.set_blocking(done, False)
        os.close(is_done)
        if not os.read(done, 1):
            print("rehue: the job was killed; start it again to continue", file=sys.stderr)
        return ended
    _hide_native_logs()
    if not arguments.address:  # Ray reads its environment when it is imported
        os.environ.update(local_ray.build_base_environment())
    try:
        with processes.end_descendants_at_exit():
            return _run(arguments)
    finally:
        os.write(is_done, b".")


def _hide_native_logs() -> None:
    """Keep what Ray's C++ code prints off the terminal; its log files have it too."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)


def _run(arguments: argparse.Namespace) -> int:
    from rehue_serve.batch import estimate, job, options
    from rehue_serve.batch.stores import describe_os_error
    from rehue_serve.errors import RehueError
    from rehue_serve.settings import SettingsError

    try:
        chosen = _build_options(arguments)
        if chosen.dry_run and chosen.verify:
            raise options.BatchFailed("--verify records what it finds: leave out --dry-run.")
        if chosen.dry_run:
            print(estimate.estimate_job(chosen).describe())
            return 0
        summary = job.run_job(chosen)
    except (options.BatchFailed, RehueError, SettingsError) as error:
        print(f"rehue: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of a store, between the checks and the end
        print(f"rehue: {describe_os_error(error)}; start it again to continue", file=sys.stderr)
        return 1
    print(_describe(summary))
    return 1 if summary.counts.failed or summary.counts.missing or summary.stopped else 0


def _build_options(arguments: argparse.Namespace) -> "Options":
    from rehue_serve import settings
    from rehue_serve.batch.manifest import create_run_name
    from rehue_serve.batch.options import Limits, Options
    from rehue_serve.batch.sources import Source
    from rehue_serve.batch.stores import clean_location
    from rehue_serve.parameters import ColorizeParameters

    loaded = settings.load_settings()
    given = {
        name: value
        for name in ("model", "format", "quality", "metadata", "depth", "profile", "mark")
        if (value := getattr(arguments, name))
    }
    given |= _read_edit_parameters(arguments, loaded) | dict(arguments.parameter)
    parameters = ColorizeParameters().add_fields({"model": loaded.model} | given)
    limits = Limits(
        workers=arguments.workers or loaded.replicas, concurrency=arguments.concurrency,
        rate=arguments.rate, patience=arguments.patience,
        background=bool(loaded.triton_urls) if arguments.background is None
        else arguments.background,
    )  # fmt: skip
    return Options(
        source=Source.parse(arguments.source, format=parameters.format),
        target=clean_location(arguments.target), settings=loaded,
        parameters=parameters.model_dump(), limits=limits, redo=_choose_redo(arguments),
        skip_existing=arguments.skip_existing, verify=arguments.verify, run=create_run_name(),
        address=arguments.address, price=arguments.price, dry_run=arguments.dry_run,
    )  # fmt: skip


def _read_edit_parameters(arguments: argparse.Namespace, settings: "Settings") -> dict[str, str]:
    """Return the parameters of colours. A reference becomes its palette here, once for all.

    Raises:
        BatchFailed: a file cannot be read or does not hold what it should.
        InvalidParameter: the reference is no picture in colour.
    """
    from rehue_serve.batch.options import BatchFailed
    from rehue_serve.reference import read_palette

    try:
        edits, strength = read_edits(arguments)
    except (OSError, ValueError) as error:
        raise BatchFailed(str(error)) from None
    if edits.palette and edits.reference:
        raise BatchFailed("reference and palette are both given; send one of them")
    parameters = edits.to_parameters() | {"strength": repr(float(strength))}
    if isinstance(edits.reference, bytes):
        palette = read_palette(
            edits.reference, max_bytes=settings.max_bytes, max_pixels=settings.max_pixels
        )
        parameters["palette"] = ",".join(palette)
    return parameters


def _choose_redo(arguments: argparse.Namespace) -> str:
    if arguments.overwrite:
        return "all"
    return "failed" if arguments.retry_failed else "changed"


def _describe(summary: "Summary") -> str:
    from rehue_serve.batch.progress import describe_failures, describe_left_out

    progress = summary.progress
    lines = [f"{progress.done:,} colorized in {summary.seconds:.1f} s"]
    counts = summary.counts
    lines.append(
        f"in all: {counts.done:,} done, {counts.failed:,} failed, {counts.missing:,} not tried"
    )
    if summary.left_out:
        lines.append(describe_left_out(summary.left_out))
    for reason, count in progress.failed.most_common():
        lines.append(f"{count:,} {reason}")
    lines += describe_failures(progress.first_failed)
    if progress.failed.total() > len(progress.first_failed):
        lines.append("  ... all of them are in the manifest")
    if summary.stopped:
        lines.append(f"stopped: {summary.stopped}; start it again to continue")
    if summary.report:
        lines.append(f"report: {summary.report}")
    return "\n".join(lines)


def _parse_parameter(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return number
