"""Server reflection, version 1, by which gRPC tools learn the services.

Ray's servers answer version v1alpha, without compressed messages. Both have the same messages, in
packages of other names.
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio
from ray.serve._private.grpc_util import gRPCGenericServer

from rehue_client.v1 import rehue_pb2
from rehue_serve.rpc_compression import accept_compressed

METHOD = "ServerReflectionInfo"


def add_reflection(_servicer: Any, server: gRPCGenericServer) -> None:
    """Register the service, which runs in the server itself, not in Ray's handlers."""
    described = (rehue_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    names = [service.full_name for file in described for service in file.services_by_name.values()]
    service = _describe_version_1()
    servicer = aio.ReflectionServicer([*names, service])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        accept_compressed(reflection_pb2.ServerReflectionRequest.FromString),
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_passthrough_service(service)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {METHOD: handler}),)
    )


def _describe_version_1() -> str:
    """Add the file of version 1 to those that reflection finds; return its service's name."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = text_format.MessageToString(file).replace("v1alpha", "v1")
    version_1 = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().Add(version_1)
    return f"{version_1.package}.{version_1.service[0].name}"
