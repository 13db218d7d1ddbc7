#!/usr/bin/env python3
"""Topics and queues of Platziverse for Python, in one file, with the standard library alone.

    import chasqui

    client = chasqui.Client("http://127.0.0.1:8080", key="pk_...")
    jobs = client.queue("jobs")
    jobs.create()
    jobs.publish("sweep the floor")

    for job in jobs.consume():
        with job:                       # acknowledged at the end, given back on an exception
            print(job.text)

A topic copies a message to each of its subscribers but the publisher; a queue gives a message to one
of its subscribers. A publish has ended well when the message is stored safely. A message that is
consumed is lent: unless it is acknowledged before its lease is over, it is delivered again.

A request that no server answers, or that one cannot do now, is made again, with growing waits, until
`retry_for` seconds are over. So a publish whose answer was lost may arrive twice, unless it has an
idempotency key.

A client may be used by several threads: each has a connection of its own.

Needs Python 3.9 or newer. `python3 chasqui.py --help` shows the same from a shell.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import random
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

__all__ = ["Client", "Destination", "Error", "Lent", "Message", "Published", "Refused", "Unreached", "User"]

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 3.0
_OWN = "x-header-"
# What may do a moment later: of the service, and of a balancer on the way to it. Not `queue_full`: of a
# topic's subscribers, those that have room have the message.
_PASSING = ("unavailable", "request_timeout", "status_502", "status_503", "status_504")


class Error(Exception):
    """What can go wrong."""


class Refused(Error):
    """The server has said no.

    `code` is a stable word such as `unknown_queue`, `detail` says for people what to change, `status` is
    the HTTP status, and `retry_after` says how many seconds to wait before the next try, if the server
    has said so.
    """

    def __init__(self, status: int, code: str, detail: str, retry_after: Optional[float] = None):
        super().__init__(f"{detail} ({code})")
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after


class Unreached(Error):
    """No server has answered; what was asked for may have been done or not."""


@dataclass(frozen=True)
class User:
    """A user, with the key that nobody tells again."""

    id: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Published:
    """What became of a message: its id, and to how many subscribers it goes."""

    id: str
    receivers: int


@dataclass(frozen=True)
class Message:
    """A message that was consumed."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]
    id: Optional[str]
    publisher: Optional[str]
    timestamp: Optional[str]
    redelivered: bool

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Client:
    """A client of the HTTP API at `url`, with the user's `key`.

    `timeout` is how many seconds a server may be silent in an attempt of a request, besides what it is
    asked to wait; `retry_for` is for how many seconds a request that no server answers is tried again.
    An address that is none raises `ValueError`; all else that goes wrong is an `Error`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        key: Optional[str] = None,
        timeout: float = 10.0,
        retry_for: float = 30.0,
    ):
        parts = urllib.parse.urlsplit(url)
        try:
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError(f"{url!r} is no address such as http://host:8080")
        self.url, self.key, self.timeout, self.retry_for = url, key, timeout, retry_for
        self._parts = parts
        self._local = threading.local()

    def topic(self, name: str) -> Destination:
        """A topic; it need not exist yet."""
        return Destination(self, "topics", name)

    def queue(self, name: str) -> Destination:
        """A queue; it need not exist yet."""
        return Destination(self, "queues", name)

    def topics(self, which: str = "created") -> Iterator[dict]:
        """The topics that the user has `created`, or is `subscribed` to, by name."""
        return self._list("topics", which)

    def queues(self, which: str = "created") -> Iterator[dict]:
        """The queues that the user has `created`, or is `subscribed` to, by name."""
        return self._list("queues", which)

    def register(self) -> User:
        """Makes a user. This client uses its key from now on if it has none."""
        made = self._json("POST", "/v1/users")
        user = User(made["id"], made["key"])
        self.key = self.key or user.key
        return user

    def user(self) -> str:
        """The id of the user that the key belongs to."""
        return self._json("GET", "/v1/users/me")["id"]

    def rotate_key(self) -> str:
        """Replaces the user's key, here too: the old one is invalid at once.

        It is tried once: whoever hears no answer does not know which key is valid.
        """
        # A connection that has been idle may be gone, which only the attempt would show.
        self.close()
        self.key = self._json("POST", "/v1/users/me/key", retry=False)["key"]
        return self.key

    def delete_user(self) -> None:
        """Deletes the user and its subscriptions. Refused while it has topics or queues."""
        self._request("DELETE", "/v1/users/me", done=("unknown_key",))

    def close(self) -> None:
        """Closes this thread's connection. It is opened again when it is needed."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _list(self, kind: str, which: str) -> Iterator[dict]:
        query = {"which": which}
        while True:
            page = self._json("GET", f"/v1/{kind}?{urllib.parse.urlencode(query)}")
            yield from page["items"]
            if page.get("next") is None:
                return
            query["after"] = page["next"]

    def _json(self, method: str, path: str, **options: Any) -> Any:
        status, _, answer = self._request(method, path, **options)
        try:
            return json.loads(answer)
        except ValueError:
            raise Refused(status, "no_answer", f"{self.url} answers something else: is it the right address?") from None

    def _request(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        headers: Optional[Mapping[str, bytes]] = None,
        wait: float = 0.0,
        done: Sequence[str] = (),
        retry: bool = True,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Makes a request, again while no server answers and there is time.

        `done` names the codes of a later attempt that mean that an earlier one, which had no answer or
        was not finished in time, has done it.
        """
        deadline = None
        longest = _FIRST_WAIT
        is_open = False
        while True:
            try:
                return self._attempt(method, path, body, headers or {}, wait)
            except Refused as refused:
                if is_open and refused.code in done:
                    return refused.status, {}, b""
                pause = None
                if refused.status == 429:
                    pause = refused.retry_after
                elif refused.code in _PASSING:
                    is_open, pause = True, refused.retry_after or 0.0
                if pause is None or not retry:
                    raise
                error: Error = refused
            except (OSError, http.client.HTTPException) as lost:
                self.close()
                is_open, pause = True, 0.0
                error = Unreached(f"{self.url} does not answer: {lost or type(lost).__name__}")
                error.__cause__ = lost
                if not retry:
                    raise error
            now = time.monotonic()
            deadline = now + self.retry_for if deadline is None else deadline
            pause = max(pause, longest * random.uniform(0.5, 1.0))
            longest = min(longest * 2, _LONGEST_WAIT)
            if now + pause > deadline:
                raise error
            time.sleep(pause)

    def _attempt(
        self, method: str, path: str, body: Optional[bytes], headers: Mapping[str, bytes], wait: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = self._connection()
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(self.timeout + wait)
        all_headers = {"User-Agent": b"chasqui.py", **headers}
        if self.key is not None:
            all_headers["Authorization"] = f"Bearer {self.key}".encode()
        connection.request(method, self._parts.path.rstrip("/") + path, body=body, headers=all_headers)
        response = connection.getresponse()
        answer = response.read()
        answered = {name.lower(): _utf8(value) for name, value in response.getheaders()}
        if response.status < 300:
            return response.status, answered, answer
        raise _refused(response.status, answered, answer)

    def _connection(self) -> http.client.HTTPConnection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            secure = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            connection = kind(self._parts.hostname, self._parts.port, timeout=self.timeout)
            self._local.connection = connection
        return connection


class Destination:
    """A topic or queue, through a client; it need not exist yet."""

    def __init__(self, client: Client, kind: str, name: str):
        self.client, self.kind, self.name = client, kind, name
        self._path = f"/v1/{kind}/{urllib.parse.quote(name, safe='')}"

    def __repr__(self) -> str:
        return f"<{self.kind[:-1]} {self.name!r}>"

    def create(
        self,
        max_length: Optional[int] = None,
        message_ttl: Optional[float] = None,
        delivery_limit: Optional[int] = None,
    ) -> bool:
        """Creates it and subscribes the user. False if it was there already, the user's and the same.

        `max_length` is how many messages may wait, of a topic for each subscriber; `message_ttl` is how
        many seconds one waits before it is dead; `delivery_limit` is how often one may come back;
        once more, and it is dead. What is not said is as the server's settings say.
        """
        ttl = None if message_ttl is None else round(message_ttl * 1000)
        options = {"max_length": max_length, "message_ttl": ttl, "delivery_limit": delivery_limit}
        wanted = {"name": self.name, **{key: value for key, value in options.items() if value is not None}}
        headers = {"Content-Type": b"application/json"}
        path = f"/v1/{self.kind}"
        status, _, _ = self.client._request("POST", path, json.dumps(wanted).encode(), headers)
        return status == 201

    def show(self) -> dict:
        """What is known of it: who created it, how many messages wait, how many users subscribe."""
        return self.client._json("GET", self._path)

    def delete(self) -> None:
        """Deletes it with its messages. Only its creator may."""
        self.client._request("DELETE", self._path, done=("unknown_topic", "unknown_queue"))

    def subscribe(self) -> None:
        """Subscribes the user."""
        self.client._request("POST", f"{self._path}/subscription", done=("already_subscribed",))

    def unsubscribe(self) -> None:
        """Ends the user's subscription; of a topic, also deletes the messages that wait for it."""
        self.client._request("DELETE", f"{self._path}/subscription", done=("not_subscribed",))

    def publish(
        self,
        body: Union[bytes, str, Any],
        content_type: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str] = None,
    ) -> Published:
        """Publishes a message; when it answers, the message is stored safely.

        Bytes and text go as they are, anything else as JSON. The names of `headers` arrive in small
        letters. Published again under the same idempotency key, a message is published once. Refused
        with `queue_full`, it has reached those subscribers of a topic that have room.
        """
        if isinstance(body, (bytes, bytearray, memoryview)):
            data, kind = bytes(body), "application/octet-stream"
        elif isinstance(body, str):
            data, kind = body.encode(), "text/plain; charset=utf-8"
        else:
            data, kind = json.dumps(body).encode(), "application/json"
        sent = {"Content-Type": (content_type or kind).encode()}
        for name, value in (headers or {}).items():
            sent[f"X-Header-{name}"] = value.encode()
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key.encode()
        answer = self.client._json("POST", f"{self._path}/messages", body=data, headers=sent)
        return Published(answer["id"], answer["receivers"])

    def take(self, wait: float = 0.0) -> Optional[Message]:
        """Takes one message, waiting for it so many seconds.

        It is gone with the answer, also if that is lost on its way.
        """
        taken = self._consume({"wait": _span(wait), "ack": "auto"}, wait)
        return None if taken is None else taken[0]

    def lend(self, wait: float = 0.0, lease: float = 30.0) -> Optional[Lent]:
        """Borrows one message, waiting for it so many seconds.

        It goes back unless it is acknowledged before `lease` seconds are over.
        """
        query = {"wait": _span(wait), "ack": "manual", "lease": _span(lease)}
        taken = self._consume(query, wait)
        return None if taken is None else Lent(self.client, *taken)

    def consume(self, lease: float = 30.0, wait: float = 30.0) -> Iterator[Lent]:
        """Borrows one message after the other, without end: each request waits so many seconds for one.

        Where no server does it for `retry_for` seconds, it ends with an `Error`; consume again to go on.
        """
        while True:
            lent = self.lend(wait, lease)
            if lent is not None:
                yield lent

    def peek(self, limit: int = 10) -> list[Message]:
        """The first messages that wait; they stay where they are.

        Before RabbitMQ 4.3, each look counts as a delivery of theirs.
        """
        answer = self.client._json("GET", f"{self._path}/messages?limit={limit:d}")
        return [
            Message(
                body=base64.b64decode(item["body"]),
                content_type=item["content_type"],
                headers=item["headers"],
                id=item["id"],
                publisher=item["publisher"],
                timestamp=item["timestamp"],
                redelivered=item["redelivered"],
            )
            for item in answer["items"]
        ]

    def purge(self) -> int:
        """Deletes the messages that wait, and answers how many: of a queue, for its creator; of a
        topic, the user's own."""
        return self.client._json("DELETE", f"{self._path}/messages")["purged"]

    def _consume(self, query: Mapping[str, str], wait: float) -> Optional[tuple[Message, str]]:
        path = f"{self._path}/consume?{urllib.parse.urlencode(query)}"
        status, headers, body = self.client._request("POST", path, wait=wait)
        if status == 204:
            return None
        message = Message(
            body=body,
            content_type=headers.get("content-type", ""),
            headers={name[len(_OWN) :]: value for name, value in headers.items() if name.startswith(_OWN)},
            id=headers.get("message-id"),
            publisher=headers.get("message-publisher"),
            timestamp=headers.get("message-timestamp"),
            redelivered=headers.get("message-redelivered") == "true",
        )
        return message, headers.get("lease", "")


class Lent:
    """A message that is lent: unless it is acknowledged in time, it is delivered again.

    As a context manager it is acknowledged at the end, and given back on an exception, unless it has
    been settled by then. What it says is in `message`, and `body`, `text` and `json()` are there too.
    """

    def __init__(self, client: Client, message: Message, lease: str):
        self.message, self.lease, self.is_settled = message, lease, False
        self._client = client

    @property
    def body(self) -> bytes:
        """What it says."""
        return self.message.body

    @property
    def text(self) -> str:
        """What it says, as text."""
        return self.message.text

    def json(self) -> Any:
        """What it says, read as JSON."""
        return self.message.json()

    def ack(self) -> None:
        """Is done with it.

        Refused with `lease_gone`, it goes back, unless the answer to an earlier attempt was lost: then it
        may be done with.
        """
        self._settle("ack")

    def nack(self) -> None:
        """Gives it back, to be delivered again."""
        self._settle("nack")

    def extend(self, lease: float = 30.0) -> None:
        """Keeps it for so many seconds from now on."""
        self._post(f"extend?lease={_span(lease)}")

    def _settle(self, how: str) -> None:
        self._post(how)
        self.is_settled = True

    def _post(self, what: str) -> None:
        lease = urllib.parse.quote(self.lease, safe="")
        self._client._request("POST", f"/v1/leases/{lease}/{what}")

    def __enter__(self) -> Lent:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.is_settled:
            return
        if kind is None:
            self.ack()
            return
        try:
            self.nack()
        except Error:
            # The exception on its way says more, and the message goes back when its lease is over.
            pass


def _span(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _utf8(value: str) -> str:
    # http.client reads headers as Latin-1; the server writes UTF-8.
    return value.encode("latin-1").decode("utf-8", "replace")


def _refused(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    try:
        problem = json.loads(body)
        code, detail = problem["code"], problem["detail"]
    except (ValueError, KeyError, TypeError):
        code, detail = f"status_{status}", body.decode("utf-8", "replace").strip()
    try:
        retry_after = float(headers["retry-after"])
    except (KeyError, ValueError):
        retry_after = None
    return Refused(status, code, detail, retry_after)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chasqui.py",
        description="Topics and queues of Platziverse from a shell.",
        epilog="Example: export CHASQUI_KEY=$(python3 chasqui.py register); python3 chasqui.py queue create jobs",
    )
    # Arguments are seen by everybody on the machine: a key is no argument.
    parser.add_argument(
        "--url", default=os.environ.get("CHASQUI_URL", "http://127.0.0.1:8080"), help="[$CHASQUI_URL, %(default)s]"
    )
    parser.add_argument("--key-file", help="the file with the user's key [the key in $CHASQUI_KEY]")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("register", help="make a user and print its key")
    for kind in ("topic", "queue"):
        place = commands.add_parser(kind, help=f"work with a {kind}")
        verbs = place.add_subparsers(dest="verb", required=True, metavar="VERB")
        listing = verbs.add_parser("list", help=f"the names of your {kind}s")
        listing.add_argument("--subscribed", action="store_true", help="those that you subscribe to")
        for verb, text in [
            ("create", "create it and subscribe to it"),
            ("show", "show what is known of it, as JSON"),
            ("delete", "delete it with its messages"),
            ("subscribe", "subscribe to it"),
            ("unsubscribe", "end your subscription"),
            ("publish", "publish a message"),
            ("consume", "print messages and acknowledge them"),
            ("peek", "print the first messages and leave them where they are"),
            ("purge", "delete the messages that wait"),
        ]:
            one = verbs.add_parser(verb, help=text)
            one.add_argument("name")
            if verb == "publish":
                one.add_argument("body", nargs="?", default="-", help="- is standard input [-]")
            if verb == "consume":
                one.add_argument("--wait", type=float, default=0.0, help="seconds to wait for a message [0]")
                one.add_argument("--follow", action="store_true", help="go on until interrupted")
    return parser


def _key(arguments: argparse.Namespace) -> Optional[str]:
    if arguments.key_file is None:
        return os.environ.get("CHASQUI_KEY")
    with open(arguments.key_file, encoding="utf-8") as file:
        return file.read().strip()


def _run(arguments: argparse.Namespace) -> int:
    client = Client(arguments.url, _key(arguments))
    if arguments.command == "register":
        print(client.register().key)
        return 0
    kind, verb = arguments.command, arguments.verb
    if verb == "list":
        which = "subscribed" if arguments.subscribed else "created"
        for item in client.topics(which) if kind == "topic" else client.queues(which):
            print(item["name"])
        return 0
    place = client.topic(arguments.name) if kind == "topic" else client.queue(arguments.name)
    if verb == "show":
        print(json.dumps(place.show(), indent=2))
    elif verb == "publish":
        body = sys.stdin.buffer.read() if arguments.body == "-" else arguments.body
        print(place.publish(body).id)
    elif verb == "peek":
        for message in place.peek():
            _print(message)
    elif verb == "purge":
        print(place.purge())
    elif verb == "consume":
        return _consume(place, arguments)
    else:
        getattr(place, verb)()
    return 0


def _consume(place: Destination, arguments: argparse.Namespace) -> int:
    while arguments.follow:
        try:
            for lent in place.consume():
                with lent:
                    _print(lent.message)
        except (Unreached, Refused) as away:
            if isinstance(away, Refused) and away.code not in _PASSING:
                raise
            print(f"chasqui.py: {away}; it is tried again", file=sys.stderr)
    lent = place.lend(arguments.wait)
    if lent is None:
        print("chasqui.py: no message waits, and none came", file=sys.stderr)
        return 1
    with lent:
        _print(lent.message)
    return 0


def _print(message: Message) -> None:
    sys.stdout.buffer.write(message.body.removesuffix(b"\n") + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """The command line."""
    try:
        return _run(_arguments().parse_args())
    except BrokenPipeError:
        # Whoever reads has all that it wants. Nothing is left to be written at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Error, OSError, ValueError) as error:
        print(f"chasqui.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
