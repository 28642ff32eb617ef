"""Where the parts meet; nothing else knows all of them."""

import asyncio
import re
from contextlib import nullcontext

from litestar import Litestar
from litestar.di import Provide
from litestar.plugins.pydantic import PydanticPlugin
from litestar.routes import HTTPRoute

from app.access import Access, all_spellings
from app.controllers import openapi
from app.controllers.activity import ActivityController
from app.controllers.adapters import AdaptersController
from app.controllers.autoload import refuse_autoload
from app.controllers.body import json_request
from app.controllers.body_budget import BodyBudget
from app.controllers.chat import ChatController
from app.controllers.completions import CompletionController, NativeController
from app.controllers.control import ControlController
from app.controllers.decisions import DecisionsController, SystemOneController
from app.controllers.embeddings import EmbeddingsController, NativeEmbeddingsController
from app.controllers.errors import HANDLERS
from app.controllers.hardware import HardwareController
from app.controllers.health import HealthController
from app.controllers.home import HomeController
from app.controllers.messages import MessagesController
from app.controllers.metrics import MetricsController
from app.controllers.models import ModelsController
from app.controllers.ollama import OllamaController
from app.controllers.openapi_schemas import BodySchemas, ReplySchemas
from app.controllers.props import PropsController
from app.controllers.proxy import ProxyController
from app.controllers.rerank import RerankController
from app.controllers.responses import ResponsesController
from app.controllers.router import RouterController
from app.controllers.session import SessionController
from app.controllers.slots import SlotsController
from app.controllers.streams import StreamsController
from app.controllers.timings import TimingsController
from app.controllers.tokens import TokensController
from app.controllers.tools import ToolsController
from app.controllers.usage import UsageController
from app.controllers.warmup import WarmupController
from app.dto.shared.base import RequestLimits
from app.gate import Gate
from app.services import atomic, awake, session
from app.services.activity import Activity
from app.services.available_models import AvailableModels
from app.services.awake import Awake
from app.services.conversation_streams import ConversationStreams
from app.services.downloads.service import Downloads
from app.services.mcp.proxy import McpProxy
from app.services.mcp.tools import McpTools
from app.services.memory.agent import MemoryAgent
from app.services.metrics import Metrics
from app.services.model_service import ModelService
from app.services.recent_timings import RecentTimings
from app.services.stored_responses import StoredResponses
from app.services.traces import Traces, over_http
from app.services.ui.folder import UiFolder
from app.services.usage_ledger import UsageLedger
from app.settings import Settings, read
from app.web_ui import WebUi


def create_app(
    settings: Settings | None = None, service: ModelService | None = None, traces: Traces | None = None
) -> Litestar:
    """Put the server together. Its engine runs while the application does.

    Raises SettingError for settings that cannot be used together.
    """
    settings = settings or read()
    settings.check()
    service = service or ModelService(settings)
    metrics = Metrics(service.meter)
    agent = MemoryAgent(service, settings)
    limits = RequestLimits(
        settings.max_messages, settings.max_stop_strings, settings.max_stop_length, settings.max_choices
    )
    responses = StoredResponses(
        settings.data_dir / "responses",
        enabled=settings.store,
        days=settings.store_days,
        most_bytes=settings.store_size,
    )
    body_budget = BodyBudget(settings)
    streams = ConversationStreams()
    ledger = UsageLedger(settings.data_dir, enabled=settings.usage)
    timings = RecentTimings()
    mcp, has_mcp = settings.mcp_servers, settings.mcp_config is not None
    mcp_tools = McpTools(mcp.servers, settings.data_dir / "mcp", enabled=has_mcp)
    own_keys = {spelling for key in settings.api_key for spelling in all_spellings(key)}
    mcp_proxy = McpProxy(mcp.urls, own_keys, enabled=has_mcp)
    if traces is None and settings.otlp_traces_endpoint:
        traces = over_http(settings.otlp_traces_endpoint)
    activity = Activity(service.meter, service.active)
    available = AvailableModels()

    async def look_again() -> None:
        """See which models there are, after one was downloaded or deleted."""
        available.forget()
        if settings.models_dir is not None:
            await service.models.states()

    downloads = Downloads(settings, service.models, service.events, on_change=look_again)
    keeper = Awake(service.active, awake.command() if settings.keep_awake else None)

    async def tidy() -> None:
        await asyncio.to_thread(responses.tidy)
        await asyncio.to_thread(_tidy, settings)

    app = Litestar(
        route_handlers=[
            ActivityController,
            AdaptersController,
            ChatController,
            CompletionController,
            EmbeddingsController,
            ControlController,
            DecisionsController,
            HardwareController,
            HealthController,
            HomeController,
            MessagesController,
            MetricsController,
            ModelsController,
            NativeController,
            NativeEmbeddingsController,
            OllamaController,
            PropsController,
            ProxyController,
            RerankController,
            ResponsesController,
            RouterController,
            SessionController,
            SlotsController,
            StreamsController,
            SystemOneController,
            TimingsController,
            ToolsController,
            TokensController,
            UsageController,
            WarmupController,
            openapi.page_files(),
            openapi.yaml_document(),
        ],
        dependencies={
            "model_service": Provide(lambda: service, sync_to_thread=False),
            "memory_agent": Provide(lambda: agent, sync_to_thread=False),
            "settings": Provide(lambda: settings, sync_to_thread=False),
            "stored_responses": Provide(lambda: responses, sync_to_thread=False),
            "conversation_streams": Provide(lambda: streams, sync_to_thread=False),
            "active_generations": Provide(lambda: service.active, sync_to_thread=False),
            "activity": Provide(lambda: activity, sync_to_thread=False),
            "available_models": Provide(lambda: available, sync_to_thread=False),
            "downloads": Provide(lambda: downloads, sync_to_thread=False),
            "recent_timings": Provide(lambda: timings, sync_to_thread=False),
            "usage_ledger": Provide(lambda: ledger, sync_to_thread=False),
            "mcp_tools": Provide(lambda: mcp_tools, sync_to_thread=False),
            "mcp_proxy": Provide(lambda: mcp_proxy, sync_to_thread=False),
            "metrics": Provide(lambda: metrics, sync_to_thread=False),
            "body_budget": Provide(lambda: body_budget, sync_to_thread=False),
            "limits": Provide(lambda: limits, sync_to_thread=False),
        },
        plugins=[
            PydanticPlugin(validate_strict=True),  # without it "5" and true would be numbers
            BodySchemas(),
            ReplySchemas(),
        ],
        before_request=refuse_autoload(service.models),
        exception_handlers=HANDLERS,
        on_startup=[tidy],
        lifespan=[
            lambda _: ledger.running(),
            lambda _: service.running(),
            lambda _: downloads.running(),
            lambda _: agent.running(),
            lambda _: streams.running(),
            lambda _: activity.running(),
            lambda _: keeper.running(),
            lambda _: mcp_tools.running(),
            lambda _: traces.running() if traces is not None else nullcontext(),
        ],
        openapi_config=openapi.config(),
        request_class=json_request(settings, limits, body_budget),
        logging_config=None,
    )
    _resolve_in_turn(app)
    app.asgi_handler = body_budget.around(app.asgi_handler)
    _surround(app, settings, metrics, service, ledger, timings, traces)
    return app


def _tidy(settings: Settings) -> None:
    """Remove files that a process was killed over; the other stores see to their own."""
    atomic.tidy(settings.data_dir / "slots", re.compile(r".+\.safetensors"))
    if not settings.skip_session_persist:
        files = (settings.session_file, session.conversation_file(settings.session_file))
        atomic.tidy(settings.session_file.parent, re.compile("|".join(re.escape(file.name) for file in files)))


def _resolve_in_turn(app: Litestar) -> None:
    """Have what a handler asks for resolved one after the other.

    Side by side, Litestar starts a task for each, which takes longer than all that these lambdas do.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                model.dependency_batches = [{one} for batch in model.dependency_batches for one in batch]


def _methods(app: Litestar) -> dict[str, str]:
    """Give the methods of each path. Litestar makes a route for each handler, whose OPTIONS tells of that one alone."""
    methods: dict[str, set[str]] = {}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            methods.setdefault(route.path_format, set()).update(
                route.methods, {"HEAD"} if "GET" in route.methods else ()
            )
    return {path: ", ".join(sorted(names)) for path, names in methods.items()}


def _surround(
    app: Litestar,
    settings: Settings,
    metrics: Metrics,
    service: ModelService,
    ledger: UsageLedger,
    timings: RecentTimings,
    traces: Traces | None,
) -> None:
    """Put the Web UI and the gate around the routes, unknown ones included. A file never stands for a route."""
    first_segments = {route.path.split("/")[1] for route in app.routes} - {""}
    ui = UiFolder(settings.ui_folder, reserved=first_segments)
    access = Access(settings, is_ui_file=lambda path: ui.find(path) is not None)
    inner, methods = WebUi(app.asgi_handler, ui), _methods(app)
    app.asgi_handler = Gate(inner, access, metrics.count, methods, service.require_open, ledger, timings, traces)
