"""Which requests are answered, and the security headers of every response, also of those that fail."""

from __future__ import annotations

import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

LOOPBACK = ("localhost", "127.0.0.1", "::1")

OWN = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
       "form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
"Content-Security-Policy of our pages: their own files, and images inside the page (data: URIs)."

REPORT = ("default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; font-src data:; form-action 'none'; "
          "base-uri 'none'; frame-ancestors 'none'; sandbox")
"Content-Security-Policy of a report, one file with all that it needs: no script runs, nothing is loaded."

HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY",
           "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
           "cache-control": "no-store"}


class Guard:
    "Middleware: refuses requests for another host name or from another site; adds headers to all responses."

    def __init__(self, app, host: str = "127.0.0.1"):  # host: on which the server listens
        self.app, self.host = app, host
        self.names = {*LOOPBACK, host.lower(), *(own_names() if everywhere(host) else ())}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "content-security-policy": OWN}.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self.problem(scope["method"], scope["path"], Headers(scope=scope))
        app = PlainTextResponse(problem, status_code=403) if problem else self.app
        await app(scope, receive, with_headers)

    def problem(self, method: str, path: str, headers: Headers) -> str | None:
        "Why a request is refused; None if it is not."
        host = headers.get("host", "")
        if not self.known(host):
            # DNS rebinding: another site's name made to resolve to this machine would be in the Host header.
            return "This server is not known by that host name. Open the address that it printed.\n"
        # Browsers send the first, which no page can forge; older ones send the second, other programs neither.
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if method in ("GET", "HEAD"):
            # The review starts work and serves your images, so that no other site may have a browser ask for them.
            own = not path.startswith("/review/") or site in (None, "same-origin", "none")
            return None if own else "Only this server's own page can load this. Open the address that it printed.\n"
        own = site == "same-origin" if site else origin in (None, f"http://{host}")
        return None if own else "Images can only be sent from this server's own page.\n"

    def known(self, host: str) -> bool:
        name = without_port(host)
        return name in self.names or (everywhere(self.host) and is_address(name))


def without_port(host: str) -> str:
    "The name in a Host header: `[::1]:8000` → `::1`."
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_address(name: str) -> bool:
    "Whether this is an IP address, which resolves to no other machine."
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def everywhere(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def is_loopback(host: str) -> bool:
    "Whether only this machine can reach a server that listens on `host`."
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def own_names() -> tuple[str, str]:
    name = socket.gethostname().lower()
    return name, f"{name}.local"
