"""Traces and logs of a running server: complete traces, log lines without secrets."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from collector import Collector, Span, run_collector
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from paths import ROOT

from rehue_client import AsyncClient, Client, InvalidImage, Unauthenticated
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from rehue_serve import metrics, tracing
from rehue_serve.settings import Settings
from rehue_serve.stages import STAGES
from rehue_serve.testing.servers import Server, start_server

KEY = "the-key-of-these-tests"
CALL = "inference.GRPCInferenceService/ModelInfer"
SERVED = {"http": "POST /v1/colorize", "grpc": "rehue.v1.Colorizer/Colorize"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with run_collector() as running:
        yield running


@pytest.fixture(scope="module")
def watched(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("watched")
    (directory / "keys").write_text(KEY)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_TRACES_EXPORTER", "otlp")
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        running = start_server(
            directory / "log", log_format="json", api_keys_file=str(directory / "keys")
        )
        try:
            running.wait_until_ready()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def tracer(collector: Collector) -> Iterator[trace.Tracer]:
    """The caller's own traces, sent to the same collector."""
    provider = TracerProvider(resource=Resource({"service.name": "caller"}))
    exporter = OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield provider.get_tracer("tests")
    provider.shutdown()


def wait_for_trace(collector: Collector, id: int, *names: str) -> list[Span]:
    """Return the spans of a trace once those of these names have arrived."""
    name = trace.format_trace_id(id)

    def mine(spans: list[Span]) -> list[Span]:
        return [span for span in spans if span.trace == name]

    # All send theirs every half second; what Triton has lost is not worth a longer wait.
    return mine(
        collector.wait(lambda spans: set(names) <= {span.name for span in mine(spans)}, timeout=5)
    )


def get_span(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("awaited", [False, True])
async def test_one_trace_from_the_caller_into_triton(
    watched: Server,
    collector: Collector,
    tracer: trace.Tracer,
    photo: bytes,
    protocol: str,
    awaited: bool,
) -> None:
    url = watched.http_url if protocol == "http" else watched.grpc_url
    chain = [
        ("caller", "tests"),
        ("caller", "rehue.colorize"),
        ("caller", "rehue.attempt"),
        ("rehue", SERVED[protocol]),
        ("rehue", "infer"),
        ("rehue", CALL),
        ("rehue-triton", "InferRequest"),
        ("rehue-triton", "rehue"),
    ]
    names = [name for _, name in chain]
    for _ in range(6):  # Triton misses a traceparent now and then: 9 to 39 of 500
        with tracer.start_as_current_span("tests") as span:
            if awaited:
                async with AsyncClient(url, api_key=KEY) as theirs:
                    picture = await theirs.colorize(photo)
            else:
                with Client(url, api_key=KEY) as ours:
                    (result,) = ours.colorize_many([photo])
                assert result.picture is not None
                picture = result.picture
        spans = wait_for_trace(collector, span.get_span_context().trace_id, *names, *STAGES)
        if set(names) <= {found_span.name for found_span in spans}:
            break
    parent = ""
    for service, name in chain:
        found_span = get_span(spans, name)
        assert (found_span.service, found_span.parent) == (service, parent), name
        parent = found_span.id
    served = get_span(spans, SERVED[protocol])
    assert served.attributes["rehue.request_id"] == picture.request_id
    assert served.attributes["rehue.model"] == picture.model == "rehue/1"
    assert [get_span(spans, stage).parent for stage in STAGES] == [served.id] * len(STAGES)
    call = get_span(spans, CALL)
    assert (call.attributes["rehue.attempt"], call.attributes["rehue.outcome"]) == (1, "OK")
    assert not any(found_span.failed for found_span in spans)


def test_photographs_that_share_a_call_keep_their_traces(
    watched: Server, collector: Collector, photo: bytes
) -> None:
    """A stream's photographs share calls; all of it is the caller's one trace."""
    name = "ab" * 16
    metadata = [("authorization", f"Bearer {KEY}"), ("traceparent", f"00-{name}-{'cd' * 8}-01")]
    with grpc.insecure_channel(watched.grpc_url.removeprefix("grpc://")) as channel:
        stub = rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]
        requests = [rehue_pb2.ColorizeRequest(image=photo, id=str(item)) for item in range(12)]
        answers = list(stub.ColorizeStream(iter(requests), metadata=metadata))
    assert all(answer.image for answer in answers)

    def mine(spans: list[Span]) -> list[Span]:
        return [span for span in spans if (span.trace, span.name) == (name, CALL)]

    calls = mine(collector.wait(lambda spans: len(mine(spans)) >= 12))
    assert len(calls) == len({call.parent for call in calls}) == 12
    shared = [call for call in calls if call.attributes["rehue.photographs"] > 1]
    ids = {call.id for call in calls}
    assert shared
    assert any(item.links for item in shared)
    assert {link for item in shared for link in item.links} <= ids


def test_what_the_caller_does_not_sample_is_not_traced(
    watched: Server, collector: Collector, photo: bytes
) -> None:
    name = "ef" * 16
    headers = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{name}-{'cd' * 8}-00"}
    url = f"{watched.http_url}/v1/colorize"
    assert httpx.post(url, content=photo, headers=headers, timeout=60).status_code == 200
    headers["traceparent"] = f"00-{'fe' * 16}-{'cd' * 8}-01"
    for _ in range(6):  # Triton misses a traceparent now and then
        assert httpx.post(url, content=photo, headers=headers, timeout=60).status_code == 200
    after = {"rehue", "rehue-triton"}  # what came later is there
    spans = collector.wait(
        lambda spans: after <= {span.service for span in spans if span.trace == "fe" * 16}
    )
    assert after <= {span.service for span in spans if span.trace == "fe" * 16}
    assert not [span for span in spans if span.trace == name]


@pytest.mark.parametrize(("delay", "given"), [("500", 1), ("", 0), ("soon", 0)])
def test_triton_sends_its_spans_as_often_as_we_do(
    monkeypatch: pytest.MonkeyPatch, delay: str, given: int
) -> None:
    """As the standard variable says, where it is a number: Triton does not start with another."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", delay)
    arguments = tracing.build_triton_arguments(Settings())
    assert arguments[5:] == (f"--trace-config=opentelemetry,bsp_schedule_delay={delay}",) * given


def wait_for_log_lines(server: Server, *ids: str) -> list[dict[str, Any]]:
    """Return the lines of the log once those of the requests have been written."""
    deadline = time.monotonic() + 20
    while not all(id in server.read_log() for id in ids):
        assert time.monotonic() < deadline, f"no line of one of {ids}"
        time.sleep(0.1)
    return [json.loads(line) for line in server.read_log().splitlines()]


def test_every_line_is_json_and_names_its_request(watched: Server, photo: bytes) -> None:
    with Client(watched.http_url, api_key=KEY) as http, Client(watched.grpc_url, api_key=KEY) as g:
        pictures = {"http": http.colorize(photo), "grpc": g.colorize(photo)}
        with pytest.raises(InvalidImage) as broken:
            http.colorize(photo[:5000])
        with pytest.raises(InvalidImage) as broken_too:
            g.colorize(photo[:5000])
    stranger = Client(watched.grpc_url, api_key=f"not-{KEY}")
    with stranger, pytest.raises(Unauthenticated) as refused:
        stranger.colorize(photo)
    outcomes = {picture.request_id: "ok" for picture in pictures.values()}
    for caught in (broken, broken_too):
        outcomes[str(caught.value.request_id)] = "INVALID_IMAGE"
    outcomes[str(refused.value.request_id)] = "UNAUTHENTICATED"
    assert len(outcomes) == 5
    logged = wait_for_log_lines(watched, *outcomes)
    for id, outcome in outcomes.items():
        (line,) = [entry for entry in logged if entry.get("request_id") == id]
        assert (line["message"], line["outcome"], line["level"]) == ("photograph", outcome, "INFO")
        assert line["model"] == ("rehue/1" if outcome == "ok" else "")
    for protocol, picture in pictures.items():
        (line,) = [entry for entry in logged if entry.get("request_id") == picture.request_id]
        assert (line["protocol"], line["bytes_in"]) == (protocol, len(photo))
        assert line["bytes_out"] == len(picture.data)
        assert {f"{stage}_ms" for stage in STAGES} <= line.keys()
    assert any("Stop: Ctrl-C" in entry["message"] for entry in logged)  # the server's own words too


def test_the_log_tells_no_secrets(watched: Server, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "grandmother-1912.jpg"
    path.write_bytes(photo)
    url = f"{watched.http_url}/v1/colorize"
    with Client(watched.http_url, api_key=KEY) as client:
        last = client.colorize(path)
    form = {"image": (path.name, photo, "image/jpeg")}
    named = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "the-form"}
    assert httpx.post(url, files=form, headers=named, timeout=60).status_code == 200
    wait_for_log_lines(watched, last.request_id, "the-form")
    text = watched.read_log()
    for secret in (KEY, path.name, "/v1/colorize?", "JFIF", base64.b64encode(photo[:30]).decode()):
        assert secret not in text.replace("-o colour.jpg", "")


def test_the_guide_lists_the_metrics() -> None:
    assert metrics.format_metrics_table() in (ROOT / "docs" / "observability.md").read_text()
