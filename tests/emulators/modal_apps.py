"""What the emulated Modal answers about apps, environments and who is asking."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import empty_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_functions import Functions
from modal_proto import api_pb2 as api
from modal_world import App, World

EMPTY = empty_pb2.Empty()
BUILDER_VERSION = "2025.06"


class Apps:
    def __init__(self, world: World, functions: Functions, stop_containers: Callable[[App], Awaitable[None]]) -> None:
        self.world, self.functions, self._stop_containers = world, functions, stop_containers
        self.rpcs: dict[str, Any] = {  # Any: an async function over two messages of the same method
            "AppCreate": self.create,
            "AppGetOrCreate": self.get_or_create,
            "AppGetByDeploymentName": self.get_by_name,
            "AppGetLayout": self.layout,
            "AppGetLifecycle": self.lifecycle,
            "AppPublish": self.publish,
            "AppDeploymentHistory": self.history,
            "AppHeartbeat": self.heartbeat,
            "AppClientDisconnect": self.disconnect,
            "AppStop": self.stop,
            "AppList": self.list_apps,
            "AppSetTags": self.set_tags,
            "AppGetTags": self.get_tags,
            "EnvironmentGetOrCreate": self.environment_get_or_create,
            "EnvironmentList": self.environment_list,
            "EnvironmentCreate": self.environment_create,
            "ClientHello": self.hello,
            "AuthTokenGet": self.auth_token,
            "TokenInfoGet": self.token_info,
            "WorkspaceNameLookup": self.workspace,
        }

    async def create(self, request: api.AppCreateRequest, _: object) -> api.AppCreateResponse:
        app = self._new(request.description, request.environment_name, request.app_state, dict(request.tags))
        return api.AppCreateResponse(
            app_id=app.id, app_page_url=f"http://modal.invalid/{app.id}", app_logs_url=f"http://modal.invalid/{app.id}"
        )

    def _new(self, description: str, environment: str, state: "api.AppState.ValueType", tags: dict[str, str]) -> App:
        environment = self.world.environment(environment)
        now = self.world.now()
        app = App(self.world.new_id("ap"), "", description, environment, state, now, tags, heartbeat_at=now)
        self.world.apps[app.id] = app
        if self.world.behaviour.client_timeout_s is not None:
            self.world.start(self._stop_unless_heard(app, self.world.behaviour.client_timeout_s))
        return app

    async def _stop_unless_heard(self, app: App, timeout_s: float) -> None:
        while app.state in (api.APP_STATE_EPHEMERAL, api.APP_STATE_INITIALIZING):
            if (overdue_at := app.heartbeat_at + timeout_s) <= self.world.now():
                await self.end(app)
            await self.world.sleep_until(overdue_at)

    async def get_or_create(self, request: api.AppGetOrCreateRequest, _: object) -> api.AppGetOrCreateResponse:
        environment = self.world.environment(request.environment_name)
        app = self.world.deployed(request.app_name, environment)
        if app is None:
            if request.object_creation_type != api.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment '{environment}'")
            app = self._new(request.app_name, environment, api.APP_STATE_DEPLOYED, {})
            app.name = request.app_name
        return api.AppGetOrCreateResponse(app_id=app.id)

    async def get_by_name(
        self, request: api.AppGetByDeploymentNameRequest, _: object
    ) -> api.AppGetByDeploymentNameResponse:
        """An empty id if there is none."""
        environment = self.world.environment(request.environment_name)
        app = self.world.deployed(request.name, environment)
        return api.AppGetByDeploymentNameResponse(app_id=app.id if app else "", environment_name=environment)

    async def layout(self, request: api.AppGetLayoutRequest, _: object) -> api.AppGetLayoutResponse:
        return api.AppGetLayoutResponse(app_layout=self.functions.layout(self.world.app(request.app_id)))

    async def lifecycle(self, request: api.AppGetLifecycleRequest, _: object) -> api.AppGetLifecycleResponse:
        app = self.world.app(request.app_id)
        return api.AppGetLifecycleResponse(
            lifecycle=api.AppLifecycle(
                app_state=app.state, created_at=app.created_at, stopped_at=app.stopped_at, version=len(app.deployments)
            )
        )

    async def publish(self, request: api.AppPublishRequest, _: object) -> api.AppPublishResponse:
        app = self.world.app(request.app_id)
        if app.is_stopped:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App {app.id} is stopped")
        for function_id in request.function_ids.values():
            self.world.function(function_id)
        if request.app_state == api.APP_STATE_DEPLOYED:
            other = self.world.deployed(request.name, app.environment)
            if other not in (None, app):
                raise GRPCError(Status.ALREADY_EXISTS, f"App '{request.name}' is deployed as {other.id}")
            app.name = request.name
            app.deployments.append((self.world.now(), request.deployment_tag))
        app.state, app.functions = request.app_state, dict(request.function_ids)
        app.tags |= dict(request.tags)
        await self.world.notify()
        return api.AppPublishResponse(url=f"http://modal.invalid/{app.id}", deployed_at=self.world.now())

    async def history(self, request: api.AppDeploymentHistoryRequest, _: object) -> api.AppDeploymentHistoryResponse:
        app = self.world.app(request.app_id)
        return api.AppDeploymentHistoryResponse(
            app_deployment_histories=[
                api.AppDeploymentHistory(app_id=app.id, version=number, deployed_at=at, tag=tag)
                for number, (at, tag) in enumerate(app.deployments, 1)
            ],
            production_app_version=len(app.deployments),
        )

    async def heartbeat(self, request: api.AppHeartbeatRequest, _: object) -> empty_pb2.Empty:
        self.world.app(request.app_id).heartbeat_at = self.world.now()
        return EMPTY

    async def disconnect(self, request: api.AppClientDisconnectRequest, _: object) -> empty_pb2.Empty:
        """Ends an ephemeral app; a detached one goes on, and stops when its last call has ended."""
        app = self.world.app(request.app_id)
        if app.state in (api.APP_STATE_EPHEMERAL, api.APP_STATE_INITIALIZING):
            await self.end(app)
        elif app.state == api.APP_STATE_DETACHED:
            app.state = api.APP_STATE_DETACHED_DISCONNECTED
            self.world.start(self._stop_when_idle(app))
        return EMPTY

    async def _stop_when_idle(self, app: App) -> None:
        await self.world.wait_for(
            lambda: app.is_stopped or all(i.output is not None for i in self.world.inputs_of_app(app.id))
        )
        if not app.is_stopped:
            await self.end(app)

    async def stop(self, request: api.AppStopRequest, _: object) -> empty_pb2.Empty:
        app = self.world.app(request.app_id)
        if not app.is_stopped:
            await self.end(app)
        return EMPTY

    async def end(self, app: App) -> None:
        app.state, app.stopped_at = api.APP_STATE_STOPPED, self.world.now()
        await self._stop_containers(app)
        await self.world.notify()

    async def list_apps(self, request: api.AppListRequest, _: object) -> api.AppListResponse:
        environment = self.world.environment(request.environment_name)
        items = [
            api.AppListResponse.AppListItem(
                app_id=app.id,
                description=app.description,
                state=app.state,
                created_at=app.created_at,
                stopped_at=app.stopped_at,
                name=app.name,
                n_running_tasks=sum(i.container_id is not None for i in self.world.inputs_of_app(app.id)),
            )
            for app in self.world.apps.values()
            if app.environment == environment
        ]
        return api.AppListResponse(apps=items)

    async def set_tags(self, request: api.AppSetTagsRequest, _: object) -> empty_pb2.Empty:
        self.world.app(request.app_id).tags = dict(request.tags)
        return EMPTY

    async def get_tags(self, request: api.AppGetTagsRequest, _: object) -> api.AppGetTagsResponse:
        return api.AppGetTagsResponse(tags=self.world.app(request.app_id).tags)

    async def environment_get_or_create(
        self, request: api.EnvironmentGetOrCreateRequest, _: object
    ) -> api.EnvironmentGetOrCreateResponse:
        if request.object_creation_type == api.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
            self.world.environments.setdefault(request.deployment_name, self.world.new_id("en"))
        name = self.world.environment(request.deployment_name)
        settings = api.EnvironmentSettings(image_builder_version=BUILDER_VERSION, webhook_suffix="")
        return api.EnvironmentGetOrCreateResponse(
            environment_id=self.world.environments[name],
            metadata=api.EnvironmentMetadata(name=name, settings=settings),
        )

    async def environment_list(self, _request: empty_pb2.Empty, _: object) -> api.EnvironmentListResponse:
        items = [
            api.EnvironmentListItem(name=name, default=name == "main", environment_id=id)
            for name, id in self.world.environments.items()
        ]
        return api.EnvironmentListResponse(items=items)

    async def environment_create(self, request: api.EnvironmentCreateRequest, _: object) -> empty_pb2.Empty:
        if request.name in self.world.environments:
            raise GRPCError(Status.ALREADY_EXISTS, f"Environment '{request.name}' already exists")
        self.world.environments[request.name] = self.world.new_id("en")
        return EMPTY

    async def hello(self, _request: empty_pb2.Empty, _: object) -> api.ClientHelloResponse:
        return api.ClientHelloResponse(image_builder_version=BUILDER_VERSION)

    async def auth_token(self, _request: api.AuthTokenGetRequest, _: object) -> api.AuthTokenGetResponse:
        """A JWT that says no more than when it expires."""
        parts = ({"alg": "none"}, {"exp": int(self.world.now()) + 3600})
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        return api.AuthTokenGetResponse(token=".".join((*encoded, "emulated")))

    async def token_info(self, _request: api.TokenInfoGetRequest, _: object) -> api.TokenInfoGetResponse:
        return api.TokenInfoGetResponse(
            token_id=next(iter(self.world.tokens), ""), workspace_id="ac-1", workspace_name="emulated"
        )

    async def workspace(self, _request: empty_pb2.Empty, _: object) -> api.WorkspaceNameLookupResponse:
        return api.WorkspaceNameLookupResponse(workspace_name="emulated", username="tester")
