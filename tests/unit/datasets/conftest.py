"""A web server on this machine whose answers the tests control."""

import functools
import http.server
import threading

import pytest

CONTENT = bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; `server.stops` are lengths after which it disconnects, in turn."""

    def do_GET(self):
        server, start = self.server, 0
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if self.path == "/missing":
            return self.send_error(404)
        is_same = self.headers.get("If-Range", server.tag) == server.tag
        if server.ranges and wanted and is_same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.tag)
        if server.chunks:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        stop = server.stops.pop(0) if server.stops else None
        body = server.content[start:stop]
        if server.chunks:
            body = b"%x\r\n%s\r\n" % (len(body), body) + (b"0\r\n\r\n" if stop is None else b"")
        self.wfile.write(body)
        return None

    def log_message(self, *arguments):
        pass


class Http11(Handler):
    """Sends chunks, which only HTTP 1.1 has."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        super().do_GET()
        self.close_connection = True


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Http11) as server:
        server.content, server.ranges, server.tag = CONTENT, True, '"first"'
        server.stops, server.asked, server.chunks = [], [], False
        server.address = f"http://127.0.0.1:{server.server_port}/data.zip"
        thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
