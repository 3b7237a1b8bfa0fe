"""A judge at an address, played by a local server: replies, errors, keys, and going on after a stop."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from framecast.infer.judge import EndpointJudge, JudgeError, JudgeRefusal, judge_answers
from framecast.metrics.judging import JudgeItem, Message

ITEMS = [
    JudgeItem(f"v{i}/é q", f"q{i}?", "yes", "yes" if i % 2 else "no", ["even", "odd"][i % 2])
    for i in range(6)
]
Answer = tuple[int, Any]


class Endpoint:
    """Answers chat requests with what a function makes of them, and remembers them."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.reply: Callable[[str], Answer] = lambda text: (200, fair(text))
        self.extra: dict[str, str] = {}
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append(body)
                endpoint.headers.append(dict(self.headers))
                endpoint.paths.append(self.path)
                status, text = endpoint.reply(body["messages"][1]["content"])
                data = text if isinstance(text, bytes) else json.dumps(text).encode()
                if isinstance(text, str) and status == 200:
                    data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
                self.send_response(status)
                for key, value in endpoint.extra.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that does not wait

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def judge(self, **options: Any) -> EndpointJudge:
        settings: dict[str, Any] = {"pause_s": 0.01, "timeout_s": 10, **options}
        return EndpointJudge(self.url, "tiny-judge", **settings)


def fair(text: str) -> str:
    same = "Correct answer: yes\nPredicted answer: yes" in text
    return "{'pred': 'yes', 'score': 5}" if same else "{'pred': 'no', 'score': 1}"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in ("FRAMECAST_JUDGE_KEY", "OPENAI_API_KEY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    one = Endpoint()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_answers_are_judged_and_every_reply_is_kept(endpoint: Endpoint, tmp_path: Path) -> None:
    report = judge_answers(endpoint.judge(), ITEMS, tmp_path / "judged")
    assert [j.item for j in report.judgements] == ITEMS
    assert report.unjudged == ()
    scores = report.compute("judge/official")
    assert (scores["accuracy"], scores["score"]) == (50, 3)
    assert (scores["accuracy@odd"], scores["accuracy@even"]) == (100, 0)
    files = sorted((tmp_path / "judged").glob("*.json"))
    assert len(files) == len(ITEMS) == len(endpoint.requests)
    record = json.loads(files[0].read_text())
    assert record["replies"] == ["{'pred': 'no', 'score': 1}"]
    assert record["verdict"] == {"pred": "no", "score": 1.0}
    assert record["messages"] in [request["messages"] for request in endpoint.requests]
    assert endpoint.requests[0]["model"] == "tiny-judge"
    assert endpoint.requests[0]["temperature"] == 0
    assert set(endpoint.paths) == {"/v1/chat/completions"}


def test_a_second_run_asks_only_what_is_new(endpoint: Endpoint, tmp_path: Path) -> None:
    judge_answers(endpoint.judge(), ITEMS[:4], tmp_path)
    report = judge_answers(endpoint.judge(), ITEMS, tmp_path)
    assert len(endpoint.requests) == 6
    assert len(report.judgements) == 6
    changed = [*ITEMS[:5], JudgeItem(ITEMS[5].id, "q5?", "yes", "another answer")]
    judge_answers(endpoint.judge(), changed, tmp_path)
    assert len(endpoint.requests) == 7  # the answer that changed
    judge_answers(EndpointJudge(endpoint.url, "other-judge"), ITEMS, tmp_path)
    assert len(endpoint.requests) == 13  # another judge judges everything
    broken = next(tmp_path.glob("*.json"))
    broken.write_text("{half")
    judge_answers(EndpointJudge(endpoint.url, "other-judge"), ITEMS, tmp_path)
    assert len(endpoint.requests) == 14


def test_a_stopped_run_keeps_what_it_has(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda text: (
        (200, fair(text)) if "q3?" not in text else (401, {"error": {"message": "no key"}})
    )
    with pytest.raises(JudgeError, match=r"status 401, no key; set FRAMECAST_JUDGE_KEY or OPENAI_API_KEY"):
        judge_answers(endpoint.judge(), ITEMS, tmp_path, workers=1)
    assert len(list(tmp_path.glob("*.json"))) >= 3
    before = len(endpoint.requests)
    endpoint.reply = lambda text: (200, fair(text))
    assert len(judge_answers(endpoint.judge(), ITEMS, tmp_path).judgements) == 6
    assert len(endpoint.requests) - before <= 3


def test_useless_replies_are_asked_for_again_and_then_left(endpoint: Endpoint, tmp_path: Path) -> None:
    count = 0

    def reply(text: str) -> Answer:
        nonlocal count
        count += 1
        return 200, "I cannot say." if count < 3 else "As a dictionary: {'pred': 'yes', 'score': 4}"

    endpoint.reply = reply
    report = judge_answers(endpoint.judge(), ITEMS[:1], tmp_path / "a")
    assert (count, len(report.judgements[0].raw)) == (3, 3)
    assert report.judgements[0].reply == {"pred": "yes", "score": 4.0}
    endpoint.reply = lambda text: (200, "I cannot say.")
    report = judge_answers(endpoint.judge(), ITEMS[:2], tmp_path / "b", attempts=2)
    assert report.unjudged == (ITEMS[0].id, ITEMS[1].id)
    assert report.compute()["num_judged"] == 0
    endpoint.reply = lambda text: (200, fair(text))  # later it can
    assert judge_answers(endpoint.judge(), ITEMS[:2], tmp_path / "b").unjudged == ()


def test_the_official_reading_takes_the_bare_dictionary_alone(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda text: (200, "```{'pred': 'yes', 'score': 4}```")
    assert judge_answers(endpoint.judge(), ITEMS[:1], tmp_path, whole=True).unjudged == (ITEMS[0].id,)
    assert judge_answers(endpoint.judge(), ITEMS[:1], tmp_path).unjudged == ()


def test_a_refused_question_does_not_stop_the_others(endpoint: Endpoint, tmp_path: Path) -> None:
    said = {"error": {"message": "repetitive\npatterns"}}
    endpoint.reply = lambda text: (400, said) if "q2?" in text else (200, fair(text))
    report = judge_answers(endpoint.judge(), ITEMS, tmp_path)
    assert report.unjudged == (ITEMS[2].id,)
    assert report.judgements[2].refused == "status 400, repetitive patterns"
    assert report.compute("judge/official")["num_judged"] == 5


def test_errors_that_pass_are_waited_for(endpoint: Endpoint) -> None:
    endpoint.extra = {"Retry-After": "0"}
    statuses = [429, 503, 200]
    endpoint.reply = lambda text: (statuses.pop(0), "{'pred': 'yes', 'score': 4}")
    assert endpoint.judge()([message(), message()]) == "{'pred': 'yes', 'score': 4}"
    assert len(endpoint.requests) == 3
    endpoint.reply = lambda text: (500, {"error": "out of order"})
    with pytest.raises(JudgeError, match=r"status 500, out of order \(2 attempts\)"):
        endpoint.judge(attempts=2)([message(), message()])


def message() -> Message:
    return {"role": "user", "content": "?"}


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (
            (404, {"error": {"message": "no such model"}}),
            JudgeError,
            "status 404, no such model; the address ends",
        ),
        ((403, b"\xff not JSON"), JudgeError, "status 403"),
        ((422, {}), JudgeRefusal, "status 422"),
        ((200, b"<html>hello</html>"), JudgeError, "is no chat completion: '<html>"),
        ((200, {"choices": []}), JudgeError, "is no chat completion"),
        ((200, {"choices": [{"message": {"content": None}}]}), JudgeError, "is no chat completion"),
    ],
)
def test_errors_say_what_to_do(endpoint: Endpoint, answer: Answer, error: type[Exception], text: str) -> None:
    endpoint.reply = lambda _: answer
    with pytest.raises(error, match=text):
        endpoint.judge()([message(), message()])
    assert len(endpoint.requests) == 1


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_answers(endpoint.judge(), ITEMS[:1], tmp_path / "a")
    assert "Authorization" not in endpoint.headers[-1]
    monkeypatch.setenv("OPENAI_API_KEY", "sesame-1")
    monkeypatch.setenv("FRAMECAST_JUDGE_KEY", "sesame-2")
    judge_answers(endpoint.judge(), ITEMS[:1], tmp_path / "b")
    assert endpoint.headers[-1]["Authorization"] == "Bearer sesame-2"
    monkeypatch.setenv("MY_KEY", "sesame-3")
    judge = endpoint.judge(key_from="MY_KEY")
    judge_answers(judge, ITEMS[:1], tmp_path / "c")
    assert endpoint.headers[-1]["Authorization"] == "Bearer sesame-3"
    assert not any("sesame" in path.read_text() for path in tmp_path.rglob("*.json"))
    assert "sesame" not in repr(judge) + str(vars(judge))
    with pytest.raises(ValueError, match="environment variable NO_KEY is not set"):
        endpoint.judge(key_from="NO_KEY")


def test_the_key_does_not_follow_a_redirect(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    endpoint.extra = {"Location": f"{endpoint.url}/elsewhere"}
    endpoint.reply = lambda text: (302, {"error": "moved"})
    with pytest.raises(JudgeError, match=r"status 302, moved; it points to .*/elsewhere, give that address"):
        endpoint.judge()([message(), message()])
    assert endpoint.paths == ["/v1/chat/completions"]


def test_a_dead_or_slow_address(endpoint: Endpoint) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        judge = EndpointJudge(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "m", attempts=2, pause_s=0.01)
        with pytest.raises(JudgeError, match=r"cannot be reached .*\(2 attempts\)"):
            judge([message(), message()])
    wait = threading.Event()
    endpoint.reply = lambda text: (200, f"late {wait.wait(2)}")
    with pytest.raises(JudgeError, match=r"did not answer|cannot be reached"):
        endpoint.judge(timeout_s=0.2, attempts=1)([message(), message()])
    wait.set()


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/hosts", "ftp://host/v1", "https://"])
def test_addresses_are_checked(url: str) -> None:
    with pytest.raises(ValueError, match="is not of the form https://host/v1"):
        EndpointJudge(url, "m")


def test_passwords_in_addresses_are_refused() -> None:
    with pytest.raises(ValueError, match="holds a password"):
        EndpointJudge("https://me:sesame@host/v1", "m")
    assert EndpointJudge("https://host/v1/chat/completions", "m").url == "https://host/v1/chat/completions"


def test_any_function_can_judge_an_aspect(tmp_path: Path) -> None:
    def strict(messages: Any) -> str:
        return f"{{'score': {2 if 'order of events' in messages[0]['content'] else 4}}}"

    temporal = judge_answers(strict, ITEMS, tmp_path, aspect="temporal")
    detail = judge_answers(strict, ITEMS, tmp_path, aspect="detail")
    assert (temporal.compute(), detail.compute()) == ({"temporal": 2}, {"detail": 4})
    assert len(list(tmp_path.glob("*.json"))) == 2 * len(ITEMS)


def test_ids_tell_questions_apart(tmp_path: Path) -> None:
    same = [ITEMS[0], ITEMS[0]]
    with pytest.raises(ValueError, match="question id 'v0/é q' occurs twice"):
        judge_answers(lambda _: "", same, tmp_path)
    near = [
        JudgeItem("a/b", "q?", "a", "p"),
        JudgeItem("a-b", "q?", "a", "p"),
        JudgeItem("../x", "q?", "a", "p"),
    ]
    judge_answers(lambda _: "{'pred': 'yes', 'score': 1}", near, tmp_path / "inner")
    assert len(list((tmp_path / "inner").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]
