"""Lets a language model judge predicted answers, at any address that speaks the OpenAI chat protocol.

    judge = EndpointJudge("http://localhost:8000/v1", "my-model")
    report = judge_answers(judge, read_answers("answers.jsonl"), "judged")
    report.compute("judge/official")["accuracy"]

Every question leaves a file with all that was asked and replied; a run that was stopped goes on where it
stopped. What was asked, the judge and its settings are part of the file: changed answers are judged anew.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from framecast.metrics.judging import (
    JudgeItem,
    Judgement,
    Message,
    Reply,
    correctness_messages,
    count_fine_grained,
    count_judgements,
    fine_grained_messages,
    is_usable,
    parse_reply,
)
from framecast.progress import track
from framecast.writing import json_text, write_file

KEY_FROM = ("FRAMECAST_JUDGE_KEY", "OPENAI_API_KEY")  # environment variables, the first that is set
AGAIN = (408, 409, 429, 500, 502, 503, 504, 529)  # statuses after which it is tried again
REFUSED = (400, 413, 422)  # statuses that concern this question, not the address or the key
LONGEST = 1 << 20  # bytes of a reply
LONGEST_WAIT_S = 60.0  # that an endpoint may ask for
Judge = Callable[[Sequence[Message]], str]


class JudgeError(OSError):
    """The judge cannot be asked: address, key or network."""


class JudgeRefusal(ValueError):
    """The endpoint will not answer this question."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *args: Any, **others: Any) -> None:
        return None


class EndpointJudge:
    """Asks a chat completion endpoint.

    url: up to and with the version, "https://host/v1". key_from: environment variable of the key, None = the
    usual ones; without any, none is sent, as local servers have it. attempts: per request, after errors that
    pass. pause_s: before the second attempt, doubled before each further one. options: further settings of
    the request, for example {"seed": 0}.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_from: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 200,
        timeout_s: float = 60.0,
        attempts: int = 5,
        pause_s: float = 1.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"judge address {url!r} is not of the form https://host/v1")
        if parts.username or parts.password:
            raise ValueError("the judge's address holds a password; put the key into an environment variable")
        if key_from is not None and not os.environ.get(key_from):
            raise ValueError(
                f"environment variable {key_from} is not set; it is to hold the key of the judge"
            )
        self.url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.model, self.temperature, self.max_tokens = model, temperature, max_tokens
        self.timeout_s, self.attempts, self.pause_s = timeout_s, attempts, pause_s
        self.options = dict(options or {})
        self._key_from = (key_from,) if key_from is not None else KEY_FROM
        self._opener = urllib.request.build_opener(_NoRedirect)

    @property
    def name(self) -> str:
        """What the replies depend on, for their records."""
        others = "".join(f", {key} {value}" for key, value in sorted(self.options.items()))
        return f"{self.model} at {self.url}, temperature {self.temperature:g}{others}"

    def __call__(self, messages: Sequence[Message]) -> str:
        """The text of the reply. Raises JudgeError or JudgeRefusal."""
        asked = {"model": self.model, "messages": list(messages), "temperature": self.temperature}
        body = json.dumps({**asked, "max_tokens": self.max_tokens, **self.options}).encode()
        why, wait_s = "", 0.0
        for attempt in range(self.attempts):
            time.sleep(max(wait_s, self.pause_s * 2 ** (attempt - 1)) if attempt else 0)
            data, why, wait_s = self._try(body)
            if data is not None:
                return self._text(data)
        raise JudgeError(f"{self.url}: {why} ({self.attempts} attempts)")

    def _try(self, body: bytes) -> tuple[bytes | None, str, float]:
        """The reply, or None, why it may be tried again and after how many seconds at least."""
        headers = {"Content-Type": "application/json", "User-Agent": "framecast"}
        if key := next((os.environ[name] for name in self._key_from if os.environ.get(name)), ""):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                return response.read(LONGEST), "", 0.0
        except urllib.error.HTTPError as error:
            why = self._status(error)
            given = error.headers.get("Retry-After", "")
            return None, why, min(float(given), LONGEST_WAIT_S) if given.isdecimal() else 0.0
        except urllib.error.URLError as error:
            return None, f"cannot be reached ({error.reason})", 0.0
        except (OSError, http.client.HTTPException) as error:  # cut off or too slow
            return None, f"did not answer ({error or type(error).__name__})", 0.0

    def _text(self, data: bytes) -> str:
        try:
            content = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            some = data[:200].decode(errors="replace")
            raise JudgeError(f"{self.url}: the reply is no chat completion: {some!r}")
        return content

    def _status(self, error: urllib.error.HTTPError) -> str:
        """Why it may be tried again. Raises JudgeRefusal or JudgeError where it may not."""
        said = _message(error.read(LONGEST))
        text = f"status {error.code}{f', {said}' if said else ''}"
        if error.code in AGAIN:
            return text
        if error.code in REFUSED:
            raise JudgeRefusal(text)
        if error.code in (401, 403):
            text += f"; set {' or '.join(self._key_from)} to a key that may use {self.model}"
        elif error.code == 404:
            text += "; the address ends before /chat/completions, and the model must exist there"
        elif 300 <= error.code < 400:
            text += f"; it points to {error.headers.get('Location')}, give that address"
        raise JudgeError(f"{self.url}: {text}")


def _message(data: bytes) -> str:
    """What an endpoint says about an error, in one line."""
    try:
        said = json.loads(data)["error"]
        said = said["message"] if isinstance(said, dict) else said
    except (ValueError, LookupError, TypeError):
        said = data.decode(errors="replace")
    return " ".join(str(said).split())[:300]


# --- Judging many answers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class JudgeReport:
    """The judgements of one run, in the order of the questions."""

    judgements: tuple[Judgement, ...]
    aspect: str | None = None
    unjudged: tuple[str, ...] = field(default=())  # ids of questions without a usable reply

    def compute(self, protocol: str = "judge/usable") -> dict[str, float]:
        """accuracy and score, or the score of the aspect; see metrics/judging.py."""
        if self.aspect is None:
            return count_judgements(self.judgements, protocol)
        return count_fine_grained({self.aspect: self.judgements}, protocol)


def judge_answers(
    judge: Judge,
    items: Iterable[JudgeItem],
    folder: str | Path,
    *,
    aspect: str | None = None,
    attempts: int = 3,
    workers: int = 4,
    whole: bool = False,
) -> JudgeReport:
    """Judge every answer once and keep all replies in a folder, one JSON file a question.

    judge: anything that turns messages into text. aspect: one of the five of metrics/judging.py, None = is it
    correct. attempts: replies asked for until one is usable. whole: take a reply only where it is the
    dictionary and nothing else, as the official evaluation does.

    Raises ValueError for ids that occur twice, JudgeError where the judge cannot be asked; what was judged
    until then is kept.
    """
    items, folder = list(items), Path(folder)
    ids = [item.id for item in items]
    if len(set(ids)) < len(ids):
        twice = next(own for own in ids if ids.count(own) > 1)
        raise ValueError(f"question id {twice!r} occurs twice; ids tell the files of the replies apart")
    if attempts < 1 or workers < 1:
        raise ValueError("attempts and workers must be at least 1")
    requests = [
        correctness_messages(i) if aspect is None else fine_grained_messages(i, aspect) for i in items
    ]
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(judge, item, messages, folder / _file_name(item.id, aspect), aspect, attempts, whole)
        for item, messages in zip(items, requests, strict=True)
    ]
    judgements: list[Judgement] = []
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(job.run) for job in jobs]
        try:
            judgements += [one.result() for one in track(running, "judging")]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    unjudged = tuple(j.item.id for j in judgements if not is_usable(j.reply, aspect))
    return JudgeReport(tuple(judgements), aspect, unjudged)


def _file_name(own: str, aspect: str | None) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", own)[:60].strip(".-")
    digest = hashlib.sha256(f"{aspect}:{own}".encode()).hexdigest()[:10]
    return f"{readable or 'question'}-{aspect or 'correct'}-{digest}.json"


@dataclass(frozen=True)
class _Job:
    """One question: the file of an earlier run, or the judge."""

    judge: Judge
    item: JudgeItem
    messages: list[Message]
    path: Path
    aspect: str | None
    attempts: int
    whole: bool

    def run(self) -> Judgement:
        name = getattr(self.judge, "name", None) or getattr(
            self.judge, "__qualname__", type(self.judge).__name__
        )
        asked = hashlib.sha256(json.dumps([name, self.messages]).encode()).hexdigest()
        if (known := self._from_file(asked)) is not None:
            return known
        raw, refused, reply = [], "", None
        while len(raw) < self.attempts and not is_usable(reply, self.aspect):
            try:
                raw.append(self.judge(self.messages))
            except JudgeRefusal as error:
                refused = str(error)
                break
            reply = parse_reply(raw[-1], whole=self.whole)
        record = {
            "id": self.item.id,
            "aspect": self.aspect or "correct",
            "judge": name,
            "asked": asked,
            "messages": self.messages,
            "replies": raw,
            "refused": refused,
            "verdict": reply,
        }
        write_file(self.path, json_text(record) + "\n")
        return Judgement(self.item, reply, tuple(raw), refused)

    def _from_file(self, asked: str) -> Judgement | None:
        """What an earlier run got to the same request, None where that cannot be used."""
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            raw = tuple(map(str, record["replies"]))
            reply: Reply | None = parse_reply(raw[-1], whole=self.whole) if raw else None
            same = record["asked"] == asked
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return Judgement(self.item, reply, raw) if same and is_usable(reply, self.aspect) else None
