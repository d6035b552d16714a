"""One HTTP/1.1 answer as it comes; httptools parses."""

import httptools

from pytest_joules.errors import is_expected

__tracebackhide__ = is_expected


class BadAnswer(Exception):
    """The server answered, but not as it should."""


class HttpAnswer:
    """What has come back so far to the last request on a socket."""

    def __init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """Expect the first answer on another socket.

        A parser and its owner hold each other, so an owner is used again, not made anew.
        """
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Expect the next answer; the last one must have been whole."""
        self._pieces: list[bytes] = []
        self._has_length = False
        self._keeps = False
        self.status = 0
        """0 until the headers have come."""

        self.is_whole = False

    @property
    def is_kept(self) -> bool:
        """Whether the socket may be used again."""
        return self.is_whole and self._keeps

    def take(self, block: bytes) -> None:
        """Take what came; nothing where the server hung up, which may be how an answer ends.

        Raises:
            ConnectionError: It hung up too early.
            BadAnswer: It is no HTTP.
        """
        if not block:
            self._hang_up()
            return
        try:
            self._parser.feed_data(block)
        except httptools.HttpParserError as error:
            self._keeps = False
            raise BadAnswer(f"what came is no HTTP: {error}") from None

    def body(self) -> bytes:
        """Return what has come of the body since this was asked last."""
        body, self._pieces = b"".join(self._pieces), []
        return body

    def _hang_up(self) -> None:
        self._keeps = False
        if not self.status or self._has_length:
            raise ConnectionError("the server closed the connection midway")
        self.is_whole = True

    def on_message_begin(self) -> None:
        """httptools: an answer; a second one to the same request is nobody's."""
        self._keeps = not self.is_whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        del value
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._has_length = True

    def on_headers_complete(self) -> None:
        """httptools: all headers."""
        if not self.is_whole:
            self.status = self._parser.get_status_code()
            self._keeps = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """httptools: a piece of the body."""
        if not self.is_whole:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """httptools: the end of the answer."""
        self.is_whole = True
