"""`rehue plan` and `rehue gpu-check`: the words that need a GPU.

Their exit codes are their own, so that a script knows what happened.
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

from rehue_training.plan.identity import COMPATIBILITY, THIS_GPU

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
    plan.add_argument("--cache", type=Path, help="plans of several nodes, on a shared volume")
    plan.set_defaults(run=build, extra="plan")
    check = subparsers.add_parser(
        "gpu-check", help="build, compare and measure on this machine's GPU", epilog=EXITS,
        description="Builds the plans, compares them with their ONNX files and measures them "
        "beside the GPU's own ceiling; with PyTorch in TensorRT's place where that is missing.",
    )  # fmt: skip
    _add_models(check)
    check.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    check.add_argument("--out", type=Path, default=Path("results/gpu-check.json"))
    check.add_argument(
        "--triton", metavar="HOST:PORT",
        help="build and measure nothing: compare what the Triton at this gRPC address answers with "
        "the ONNX files, on any machine",
    )  # fmt: skip
    check.set_defaults(run=gpu_check, cache=None, extra="plan")


def _add_models(parser: Any) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all of them, if none is named")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--precision", choices=["fp16", "fp32", "int8", "fp8"], default="fp16")
    parser.add_argument(
        "--compatibility", default=THIS_GPU, choices=COMPATIBILITY,
        help="GPUs that the plan shall also run on (slower than a plan of their own)",
    )  # fmt: skip
    parser.add_argument(
        "--level", type=int, choices=range(6),
        help="of the builder's optimisation: 0 builds quickest, 5 searches longest; TensorRT's "
        "own, if none is given",
    )  # fmt: skip
    parser.add_argument(
        "--photos", type=Path, nargs="+", default=[], metavar="PHOTO",
        help="photographs to compare on; scikit-image's, if none is given",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, nargs="+", default=[], metavar="PHOTO",
        help="for int8 and fp8: a hundred photographs or so, like those to be served, and none "
        "of --photos",
    )  # fmt: skip


def build(arguments: argparse.Namespace, here: "Callable[[], TensorRT] | None" = None) -> int:
    """Runs `rehue plan`; `here` gives TensorRT (this machine's, if it is not given)."""
    from rehue_training.plan import plans, tensorrt
    from rehue_training.plan.cuda import CudaFailed, NoGpu
    from rehue_training.plan.identity import PlanRefused
    from rehue_training.plan.tensorrt_package import BuildFailed, NoTensorRT

    _say_what_is_done()
    try:
        found = plans.models(arguments.repository, arguments.models)
        engine = (here or tensorrt.load_on_first_gpu)()
        for model in found:
            work = plans.check if arguments.check else plans.ensure
            print(told(model.name, work(model, engine, _options(arguments))), flush=True)
    except (NoGpu, NoTensorRT) as error:
        return _end(NO_GPU, f"{error}. Plans are built on the GPU node that serves them.")
    except PlanRefused as error:
        return _end(REFUSED, str(error))
    except (BuildFailed, CudaFailed, ValueError, OSError) as error:
        return _end(FAILED, f"no plan was built: {error}")
    return 0


def told(name: str, outcome: Any) -> str:
    """What happened to one model's plan."""
    record = outcome.record
    if outcome.refused is None:
        return f"{name}: the plan of {record.built} fits"
    found = ", ".join(f"{key} {value:.4g}" for key, value in record.parity.items())
    way = f"built in {record.seconds:.0f} s" if outcome.built else "taken from the cache"
    return f"{name}: {outcome.refused}\n{name}: {way}; distance to the ONNX file: {found}"


def gpu_check(arguments: argparse.Namespace, on: "Callable[[], Runner] | None" = None) -> int:
    """Runs `rehue gpu-check`; `on` gives what to measure on (this machine's, if it is not given).

    The result's file and the tables grow with each model.
    """
    from rehue_training.plan import gpu_check, plans
    from rehue_training.plan.cuda import CudaFailed, NoGpu
    from rehue_training.plan.tensorrt_package import BuildFailed, NoTensorRT

    if arguments.triton:
        return compare_triton(arguments)
    effort = gpu_check.Effort(seconds=arguments.seconds)
    code = 0
    _say_what_is_done()
    try:
        found = plans.models(arguments.repository, arguments.models)
        runner = (on or gpu_check.runner)()
        results = gpu_check.check(found, _options(arguments), on=runner, effort=effort)
        print(gpu_check.head(_kept(next(results), arguments.out)), flush=True)
        for model, result in zip(found, results, strict=True):
            one = _kept(result, arguments.out)["models"][model.name]
            print(gpu_check.table(model.name, one), flush=True)
            code = REFUSED if "refused" in one else FAILED if "failed" in one else code
    except (NoGpu, NoTensorRT) as error:
        return _end(NO_GPU, f"{error}. {gpu_check.NEEDS}")
    except (BuildFailed, CudaFailed, ValueError, OSError) as error:
        return _end(FAILED, f"the check did not end: {error}")
    return code


def compare_triton(arguments: argparse.Namespace) -> int:
    """Runs `rehue gpu-check --triton`; prints a line for each model and writes the result."""
    from rehue_training.plan import triton_check
    from rehue_training.plan.served_model import find_served_models

    options = _options(arguments)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result: dict[str, Any] = {"date": date, "triton": arguments.triton, "models": {}}
    code = 0
    try:
        photographs = options.photographs()
        for model in find_served_models(arguments.repository, arguments.models):
            try:
                found = triton_check.compare_triton(
                    arguments.triton, model, photographs, options.tolerance
                )
            except triton_check.WrongAnswers as error:
                code, entry = REFUSED, {"refused": str(error)}
                print(error, file=sys.stderr, flush=True)
            else:
                entry = asdict(found)
                print(f"{model.name} through Triton: {found}", flush=True)
            result["models"][model.name] = entry
            _kept(result, arguments.out)
    except (triton_check.TritonUnreachable, ValueError, OSError) as error:
        return _end(FAILED, f"the comparison did not end: {error}")
    return code


def _kept(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """The result, after it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    return result


def _say_what_is_done() -> None:
    """The training package's log on stderr: steps that take minutes say so beforehand."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rehue_training").setLevel(logging.INFO)


def _options(arguments: argparse.Namespace) -> Any:
    from rehue_training.plan import parity, plans

    return plans.Options(
        precision=arguments.precision,
        compatibility=arguments.compatibility,
        level=arguments.level,
        cache=arguments.cache,
        photographs=lambda: parity.photographs(arguments.photos),
        calibration=tuple(arguments.calibration),
    )


def _end(code: int, sentence: str) -> int:
    print(f"rehue: {sentence}", file=sys.stderr)
    return code
