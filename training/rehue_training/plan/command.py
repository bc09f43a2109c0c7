"""The commands `rehue plan` and `rehue gpu-check`.

Their exit codes are their own, so that a script can tell what happened.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehue_training.plan.identity import COMPATIBILITY, DEFAULT_PRECISION, PRECISIONS, THIS_GPU

if TYPE_CHECKING:
    from rehue_training.plan.gpu_runners import Runner
    from rehue_training.plan.tensorrt import TensorRT

FAILED, REFUSED, NO_GPU = 1, 3, 4
EXITS = f"exit codes: {FAILED} failed, {REFUSED} a plan was refused, {NO_GPU} no GPU or no TensorRT"


def add_commands(subparsers: Any) -> None:
    """Adds `plan` and `gpu-check`."""
    plan = subparsers.add_parser(
        "plan", help="build the TensorRT plans for this machine's GPU", epilog=EXITS,
        description="Builds the plan of every model whose plan does not fit this GPU, "
        "TensorRT, driver and ONNX file.",
    )  # fmt: skip
    _add_models(plan)
    plan.add_argument("--check", action="store_true", help="refuse rather than build")
    plan.add_argument("--cache", type=Path, help="the plans of several nodes, on a shared volume")
    plan.set_defaults(run=build_plans, extra="plan")
    check = subparsers.add_parser(
        "gpu-check", help="build, compare and measure on this machine's GPU", epilog=EXITS,
        description="Builds the plans, compares them with their ONNX files and measures them "
        "beside the GPU's own ceiling; with PyTorch in TensorRT's place if that is missing.",
    )  # fmt: skip
    _add_models(check)
    check.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    check.add_argument("--out", type=Path, default=Path("results/gpu-check.json"))
    check.add_argument(
        "--triton", metavar="HOST:PORT",
        help="compare what the Triton at this gRPC address answers with the ONNX files, and build "
        "and measure nothing; on any machine",
    )  # fmt: skip
    check.set_defaults(run=check_gpu, cache=None, extra="plan")


def _add_models(parser: Any) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all of them if none is named")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--precision", choices=PRECISIONS, default=DEFAULT_PRECISION)
    parser.add_argument(
        "--compatibility", default=THIS_GPU, choices=COMPATIBILITY,
        help="other GPUs that the plan must also run on (slower than a plan of their own)",
    )  # fmt: skip
    parser.add_argument(
        "--level", type=int, choices=range(6),
        help="the builder's optimisation level: 0 builds fastest, 5 searches longest (TensorRT's "
        "own)",
    )  # fmt: skip
    parser.add_argument(
        "--photos", type=Path, nargs="+", default=[], metavar="PHOTO",
        help="photographs to compare on (three of scikit-image's)",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, nargs="+", default=[], metavar="PHOTO",
        help="for int8 and fp8: about a hundred photographs like those to be served, and none of "
        "--photos",
    )  # fmt: skip


def build_plans(arguments: argparse.Namespace, load: "Callable[[], TensorRT] | None" = None) -> int:
    """Runs `rehue plan`; `load` returns TensorRT (by default, this machine's)."""
    from rehue_training.plan import plans, tensorrt
    from rehue_training.plan.cuda import CudaFailed, NoGpu
    from rehue_training.plan.identity import PlanRefused
    from rehue_training.plan.served_model import find_served_models
    from rehue_training.plan.tensorrt_package import BuildFailed, NoTensorRT

    _show_log()
    try:
        models = find_served_models(arguments.repository, arguments.models)
        engine = (load or tensorrt.load_on_first_gpu)()
        for model in models:
            work = plans.check_plan if arguments.check else plans.ensure_plan
            outcome = work(model, engine, _read_options(arguments))
            print(describe_outcome(model.name, outcome), flush=True)
    except (NoGpu, NoTensorRT) as error:
        return _fail(NO_GPU, f"{error}. Plans are built on the GPU node that serves them.")
    except PlanRefused as error:
        return _fail(REFUSED, str(error))
    except (BuildFailed, CudaFailed, ValueError, OSError) as error:
        return _fail(FAILED, f"no plan was built: {error}")
    return 0


def describe_outcome(name: str, outcome: Any) -> str:
    """Says what was done for a model's plan."""
    record = outcome.record
    if outcome.refusal is None:
        return f"{name}: the plan of {record.built} fits"
    distances = ", ".join(f"{key} {value:.4g}" for key, value in record.parity.items())
    done = f"built in {record.seconds:.0f} s" if outcome.built else "taken from the cache"
    return f"{name}: {outcome.refusal}\n{name}: {done}; distance to the ONNX file: {distances}"


def check_gpu(arguments: argparse.Namespace, select: "Callable[[], Runner] | None" = None) -> int:
    """Runs `rehue gpu-check`; `select` returns what to measure on (by default, this machine's GPU).

    The result's file and the tables grow with each model.
    """
    if arguments.triton:
        return check_triton(arguments)
    from rehue_training.plan import gpu_check, gpu_report
    from rehue_training.plan.cuda import CudaFailed, NoGpu
    from rehue_training.plan.served_model import find_served_models
    from rehue_training.plan.tensorrt_package import BuildFailed, NoTensorRT

    options, effort = _read_options(arguments), gpu_check.Effort(seconds=arguments.seconds)
    code = 0
    _show_log()
    try:
        models = find_served_models(arguments.repository, arguments.models)
        runner = (select or gpu_check.select_runner)()
        results = gpu_check.check_models(models, options, runner=runner, effort=effort)
        print(gpu_report.format_head(_write_result(next(results), arguments.out)), flush=True)
        for model, result in zip(models, results, strict=True):
            measured = _write_result(result, arguments.out)["models"][model.name]
            print(gpu_report.format_model(model.name, measured), flush=True)
            code = REFUSED if "refused" in measured else FAILED if "failed" in measured else code
    except (NoGpu, NoTensorRT) as error:
        return _fail(NO_GPU, f"{error}. {gpu_check.NEEDS}")
    except (BuildFailed, CudaFailed, ValueError, OSError) as error:
        return _fail(FAILED, f"the check failed: {error}")
    return code


def check_triton(arguments: argparse.Namespace) -> int:
    """Runs `rehue gpu-check --triton`; prints a line for each model and writes the result."""
    from rehue_training.plan.served_model import find_served_models
    from rehue_training.plan.triton_check import TritonUnreachable, WrongAnswers, compare_triton

    options, url = _read_options(arguments), arguments.triton
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result: dict[str, Any] = {"date": date, "triton": url, "models": {}}
    code = 0
    try:
        photographs = options.photographs()
        for model in find_served_models(arguments.repository, arguments.models):
            try:
                parity = compare_triton(url, model, photographs, options.tolerance)
            except WrongAnswers as error:
                code = _fail(REFUSED, str(error))
                result["models"][model.name] = {"refused": str(error)}
            else:
                print(f"{model.name} through Triton: {parity}", flush=True)
                result["models"][model.name] = asdict(parity)
            _write_result(result, arguments.out)
    except (TritonUnreachable, ValueError, OSError) as error:
        return _fail(FAILED, f"the comparison failed: {error}")
    return code


def _write_result(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """Writes the result and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    return result


def _show_log() -> None:
    """Shows this package's log on stderr: steps that take minutes are announced there."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rehue_training").setLevel(logging.INFO)


def _read_options(arguments: argparse.Namespace) -> Any:
    from rehue_training.plan import parity
    from rehue_training.plan.options import PlanOptions

    return PlanOptions(
        precision=arguments.precision,
        compatibility=arguments.compatibility,
        level=arguments.level,
        cache=arguments.cache,
        photographs=lambda: parity.load_photographs(arguments.photos),
        calibration=tuple(arguments.calibration),
    )


def _fail(code: int, sentence: str) -> int:
    print(f"rehue: {sentence}", file=sys.stderr, flush=True)
    return code
