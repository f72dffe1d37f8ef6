"""The table of operations says what the routes do, and the page says what the table does."""

import re
import warnings
from pathlib import Path
from typing import cast

from fastapi import FastAPI

from app.docker_api.app import create_docker_app
from app.docker_api.coverage import OPERATIONS, Verdict, support_table
from app.services.bundle import Services

DOCS = Path(__file__).parents[3] / "docs" / "docker-api.md"
BEGIN, END = "<!-- support table: begin -->\n", "<!-- support table: end -->"
OUR_OWN = {"POST /grpc"}  # what buildx asks beside /session; no operation of the reference
MANAGED = ("nodes", "services", "tasks", "secrets", "configs")
WEBSOCKET = "GET /containers/{}/attach/ws"  # no OpenAPI document tells of it


def routes() -> set[str]:
    """`METHOD /path/{}` of every route."""
    app = cast(FastAPI, vars(create_docker_app(cast(Services, None)))["_app"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one function serves several paths
        paths = app.openapi()["paths"]
    return {
        f"{method.upper()} {plain(path)}" for path, item in paths.items() for method in item
    } - OUR_OWN


def plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def is_managed(route: str) -> bool:
    """One route serves all of a Swarm's managers, whatever follows."""
    return route.split(" ")[1].split("/")[1] in MANAGED


def test_each_operation_is_listed_once() -> None:
    listed = [f"{each.method} {each.path}" for each in OPERATIONS]
    assert len(set(listed)) == len(listed) == 107


def test_the_table_says_what_the_routes_do() -> None:
    listed = {f"{each.method} {plain(each.path)}": each.verdict for each in OPERATIONS}
    served = {route for route in routes() if not is_managed(route)}
    expected = {
        route
        for route, verdict in listed.items()
        if verdict is not Verdict.NOT_YET and not is_managed(route) and route != WEBSOCKET
    }
    assert served == expected


def test_the_page_shows_the_table() -> None:
    text = DOCS.read_text()
    shown = text.partition(BEGIN)[2].partition(END)[0]
    assert shown == support_table(), "write the table of app.docker_api.coverage into the page"
