import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.cli.stopping import EngineClient
from app.core.errors import DeadlineExceeded, SlipwayError, Unavailable

LOOKS = iter((1, 2))


class Engine(BaseHTTPRequestHandler):
    """Answers as REST does: one container can be stopped, one refuses."""

    def do_GET(self) -> None:
        if self.path == "/api/v1/vms":  # that of container 1 is there for two more looks
            vms = [{"container_id": "1"}] if next(LOOKS, None) else []
            self._answer(200, [*vms, {"container_id": "2"}])
        else:
            self._answer(200, [{"name": "web", "id": "1"}])

    def do_POST(self) -> None:
        if self.headers["Authorization"] != "Bearer secret":
            self._answer(401, {"detail": "The token is not known"})
        elif self.path == "/api/v1/containers/good/stop?timeout_s=3":
            self._answer(200, {})
        elif self.path == "/api/v1/containers/odd/stop":
            self._answer(500, None)
        else:
            self._answer(409, {"detail": "It is being removed"})

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is not the place."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_client_lists_and_stops(url: str) -> None:
    client = EngineClient(url, "secret")
    assert client.request("GET", "/containers") == [{"name": "web", "id": "1"}]
    assert client.stop("good", 3) == ""


def test_client_waits_until_the_vms_are_gone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = EngineClient(url, "secret")
    client.wait_until_gone({"1"})
    assert next(LOOKS, None) is None
    monkeypatch.setattr("app.cli.stopping.GONE_TIMEOUT_S", 0)
    with pytest.raises(DeadlineExceeded):
        client.wait_until_gone({"2"})


def test_refusal_is_told_in_the_engines_words(url: str) -> None:
    assert EngineClient(url, "secret").stop("bad", None) == "It is being removed"


def test_answer_that_is_no_problem_document_tells_its_status(url: str) -> None:
    assert EngineClient(url, "secret").stop("odd", None) == "HTTP status 500"


def test_unknown_token_is_an_error(url: str) -> None:
    with pytest.raises(SlipwayError, match="token is not known"):
        EngineClient(url, "wrong").request("POST", "/containers/good/stop?timeout_s=3")


def test_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        EngineClient("http://127.0.0.1:9", "secret").request("GET", "/containers")


def test_id_can_not_change_the_path(url: str) -> None:
    assert EngineClient(url, "secret").stop("good/stop?timeout_s=3#", None) != ""
