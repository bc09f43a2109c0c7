"""A plan's identity and record, as tests write them."""

from hashlib import sha256

from rehue_training.plan.identity import Identity, PlanRecord

IDENTITY = Identity(
    onnx="a" * 64,
    precision="fp16",
    profiles="lightness 1x1x256x256/32x1x256x256/32x1x256x256",
    tensorrt="11.1.0.106",
    gpu="NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    driver="580.82.07",
    compatibility="none",
    level="TensorRT's own",
)


def create_record(plan: bytes = b"plan", identity: Identity = IDENTITY) -> PlanRecord:
    return PlanRecord(
        sha256(plan).hexdigest(), identity, "2026-11-23T02:00:00+00:00", 61.0, {"ab_mean": 0.01}
    )
