"""What the emulated Modal answers about functions: their creation, and how a client finds them again."""

from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_rules import refuse
from modal_world import App, Function, World

PICKLE, CBOR = api.DATA_FORMAT_PICKLE, api.DATA_FORMAT_CBOR


class Functions:
    def __init__(self, world: World, check_objects: Any) -> None:
        """`check_objects(definition)` raises NOT_FOUND for an image, a mount, a secret or a volume it names in vain."""
        self.world, self._check_objects = world, check_objects
        self.rpcs: dict[str, Any] = {  # Any: an async function over two messages of the same method
            "FunctionPrecreate": self.precreate,
            "FunctionCreate": self.create,
            "FunctionGet": self.get,
            "FunctionGetById": self.get_by_id,
            "FunctionUpdateSchedulingParams": self.update_scheduling,
        }

    async def precreate(self, request: api.FunctionPrecreateRequest, _: object) -> api.FunctionPrecreateResponse:
        function = self._function(request.app_id, request.existing_function_id, request.function_name)
        if function.request is None:
            function.data.function_type = request.function_type
        return api.FunctionPrecreateResponse(function_id=function.id, handle_metadata=_metadata(function))

    def _function(self, app_id: str, id: str, name: str) -> Function:
        app = self.world.app(app_id)
        if app.is_stopped:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App {app.id} is stopped")
        if id:
            return self.world.function(id)
        function = Function(self.world.new_id("fu"), app.id, name)
        function.data.function_name = name
        self.world.functions[function.id] = function
        return function

    async def create(self, request: api.FunctionCreateRequest, _: object) -> api.FunctionCreateResponse:
        refuse(request)
        variants = sorted(request.function_data.ranked_functions, key=lambda r: r.rank)
        definition = variants[0].function if variants else request.function
        self._check_objects(definition)
        function = self._function(request.app_id, request.existing_function_id, definition.function_name)
        data = api.FunctionData()
        if variants:
            data.CopyFrom(request.function_data)
        else:
            shared = {f.name for f in api.Function.DESCRIPTOR.fields}
            for target in api.FunctionData.DESCRIPTOR.fields:
                if target.name in shared and _is_set(definition, target):
                    _copy(definition, data, target)
            data.ranked_functions.add(rank=0, function=definition)
        function.request, function.data = request, data
        function.definition = api.Function()
        function.definition.CopyFrom(definition)
        return api.FunctionCreateResponse(
            function_id=function.id,
            function=definition,
            function_data=data,
            handle_metadata=_metadata(function),
        )

    async def get(self, request: api.FunctionGetRequest, _: object) -> api.FunctionGetResponse:
        environment = self.world.environment(request.environment_name)
        app = self.world.deployed(request.app_name, environment)
        if app is None or request.object_tag not in app.functions:
            what = f"App '{request.app_name}'" if app is None else f"Function '{request.object_tag}'"
            raise GRPCError(Status.NOT_FOUND, f"{what} not found in environment '{environment}'")
        if request.app_version > len(app.deployments):
            raise GRPCError(Status.NOT_FOUND, f"App '{app.name}' has no version {request.app_version}")
        return self._got(self.world.function(app.functions[request.object_tag]))

    async def get_by_id(self, request: api.FunctionGetByIdRequest, _: object) -> api.FunctionGetByIdResponse:
        function = self.world.function(request.function_id)
        return api.FunctionGetByIdResponse(function=function.data, handle_metadata=_metadata(function))

    def _got(self, function: Function) -> api.FunctionGetResponse:
        return api.FunctionGetResponse(
            function_id=function.id, handle_metadata=_metadata(function), function=function.data
        )

    async def update_scheduling(
        self, request: api.FunctionUpdateSchedulingParamsRequest, _: object
    ) -> api.FunctionUpdateSchedulingParamsResponse:
        settings = self.world.function(request.function_id).definition.autoscaler_settings
        settings.MergeFrom(request.settings)
        await self.world.notify()
        return api.FunctionUpdateSchedulingParamsResponse(current_settings=settings)

    def layout(self, app: App) -> api.AppLayout:
        return api.AppLayout(
            function_ids=app.functions,
            objects=[
                api.Object(object_id=id, function_handle_metadata=_metadata(self.world.function(id)))
                for id in app.functions.values()
            ],
        )


def _metadata(function: Function) -> api.FunctionHandleMetadata:
    return api.FunctionHandleMetadata(
        function_name=function.name,
        function_type=function.definition.function_type or function.data.function_type,
        definition_id=f"de-{function.id[3:]}",
        app_id=function.app_id,
        supported_input_formats=list(function.data.supported_input_formats) or [PICKLE, CBOR],
        supported_output_formats=list(function.data.supported_output_formats) or [PICKLE, CBOR],
    )


def _is_repeated(field: Any) -> bool:  # Any: a descriptor, whose class depends on the implementation
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _is_set(message: api.Function, field: Any) -> bool:
    value = getattr(message, field.name)
    if _is_repeated(field):
        return len(value) > 0
    return bool(message.HasField(field.name) if field.message_type else value)


def _copy(source: api.Function, target: api.FunctionData, field: Any) -> None:
    value = getattr(source, field.name)
    if _is_repeated(field) or field.message_type:
        getattr(target, field.name).MergeFrom(value)
    else:
        setattr(target, field.name, value)
