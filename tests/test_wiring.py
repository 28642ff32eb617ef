"""How the parts are put together."""

from litestar.routes import HTTPRoute

from app.application import create_app
from app.settings import Settings


def test_what_handlers_ask_for_is_resolved_without_a_task_for_each() -> None:
    asked = [
        model
        for route in create_app(Settings()).routes
        if isinstance(route, HTTPRoute)
        for _, model in route.route_handler_map.values()
    ]
    assert any(len(model.dependency_batches) > 3 for model in asked)
    assert all(len(batch) == 1 for model in asked for batch in model.dependency_batches)
