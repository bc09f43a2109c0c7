"""The API's definition, as people who write clients in other languages use it."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_args

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2

from rehue_client.choices import CHOICES
from rehue_client.outputs import OUTPUT_SUFFIXES
from rehue_client.picture import READ_SUFFIXES, SUFFIX_FORMATS, Timings
from rehue_client.v1 import rehue_pb2
from rehue_serve.formats import ANSWERED_AS, MEDIA_TYPES
from rehue_serve.parameters import ColorizeParameters
from rehue_serve.stages import STAGES

CLIENTS = Path(__file__).parents[2] / "clients"
DEFINITION = "rehue_client/v1/rehue.proto"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """What protoc finds in the client's folder, by name."""
    well_known = Path(grpc_tools.__file__).with_name("_proto")  # every protoc brings these
    out = tmp_path / "files"
    options = [f"-I{CLIENTS}", f"-I{well_known}", "--include_imports"]
    # In a process of its own: with TensorFlow's protobuf loaded beside it, protoc crashes.
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run([*protoc, *options, f"--descriptor_set_out={out}", DEFINITION], check=True)
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return {file.name: file for file in found}


def test_the_definition_loads_from_its_folder_alone(
    files: dict[str, descriptor_pb2.FileDescriptorProto],
) -> None:
    imported = {"google/rpc/status.proto", "google/protobuf/any.proto"}
    assert files.keys() == {DEFINITION, *imported}


def test_the_stubs_are_those_of_the_definition(
    files: dict[str, descriptor_pb2.FileDescriptorProto],
) -> None:
    definition = files[DEFINITION]
    for message in definition.message_type:
        for field in message.field:
            field.ClearField("json_name")  # which stubs do not have
    assert definition == descriptor_pb2.FileDescriptorProto.FromString(
        rehue_pb2.DESCRIPTOR.serialized_pb
    )


def test_parameters_and_formats_are_those_of_the_definition() -> None:
    for name, words in CHOICES.items():
        assert get_args(ColorizeParameters.model_fields[name].annotation) == words
    assert CHOICES["format"] == ("auto", *MEDIA_TYPES)
    assert MEDIA_TYPES.keys() == OUTPUT_SUFFIXES.keys() == set(SUFFIX_FORMATS.values())
    assert {name: READ_SUFFIXES[f".{name}"] for name in ANSWERED_AS} == ANSWERED_AS
    assert tuple(field.name for field in dataclasses.fields(Timings)) == STAGES
