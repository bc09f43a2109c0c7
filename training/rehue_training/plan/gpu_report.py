"""Formats the result of `rehue gpu-check` as Markdown tables."""

from typing import Any

from rehue_training.plan.cost import Cost

TABLE = (
    "| Batch | Latency, ms | p99, ms | Images/s | TFLOP/s | GB/s | Share of the ceiling |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


def format_head(result: dict[str, Any]) -> str:
    """Formats what was measured on, and its ceiling."""
    ceiling = result["ceiling"]
    return (
        f"{result['gpu']}; {result['runner']}; {result['precision']}; {result['date']}\n"
        f"Ceiling of this GPU in the same run: {ceiling['operations'] / 1e12:.1f} TFLOP/s in an "
        f"FP16 matrix product, {ceiling['bytes'] / 1e9:.0f} GB/s in a copy"
    )


def format_model(name: str, measured: dict[str, Any]) -> str:
    """Formats one model's part of the result."""
    for reason in ("refused", "failed"):
        if reason in measured:
            return f"\n{name}: {reason}: {measured[reason]}"
    rows = map(_format_row, measured["batches"])
    return "\n".join(["", _format_heading(name, measured), "", *TABLE, *rows])


def _format_heading(name: str, measured: dict[str, Any]) -> str:
    cost = Cost(**measured["cost"])
    distances = ", ".join(f"{key} {value:.4f}" for key, value in measured["parity"].items())
    return (
        f"{name}: {cost.operations / 1e9:.2f} GFLOP and {cost.traffic / 1e6:.1f} MB "
        f"a photograph, {cost.weights / 1e6:.1f} MB of weights a batch; "
        f"distance to the ONNX file: {distances}"
    )


def _format_row(row: dict[str, float]) -> str:
    return (
        f"| {row['batch']:.0f} | {row['latency_ms']:.3f} | {row['latency_p99_ms']:.3f} "
        f"| {row['images_per_second']:.0f} | {row['operations_per_second'] / 1e12:.2f} "
        f"| {row['bytes_per_second'] / 1e9:.0f} | {row['of_ceiling']:.2f} |"
    )
