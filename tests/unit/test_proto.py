"""The API's definition, as people who write clients in other languages use it."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from rehue_client.v1 import rehue_pb2

CLIENTS = Path(__file__).parents[2] / "clients"
DEFINITION = "rehue_client/v1/rehue.proto"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """What protoc finds in the client's folder, by name."""
    well_known = Path(protoc.__file__).with_name("_proto")  # every protoc brings these
    out = tmp_path / "files"
    options = [f"-I{CLIENTS}", f"-I{well_known}", "--include_imports"]
    assert protoc.main(["protoc", *options, f"--descriptor_set_out={out}", DEFINITION]) == 0
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
