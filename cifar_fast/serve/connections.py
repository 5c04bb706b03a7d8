"""uvicorn with a time limit for the headers of a request, and a shutdown that waits for no client."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_SECONDS = 20  # to send the headers of a request; uvicorn alone waits forever
GRACE_SECONDS = 3  # for the requests under way after the first signal


class HeaderTimeoutProtocol(AutoHTTPProtocol):
    "Closes a connection on which the headers of a request are not complete in time; upload.py limits the body."

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self.start_timer()

    def data_received(self, data):
        latest = self.cycle  # of the last request whose headers are complete
        super().data_received(data)
        if self.cycle is not latest:
            self.stop_timer()
        elif self.timer is None and latest.response_complete:  # the next request on this connection
            self.start_timer()

    def connection_lost(self, exc):
        self.stop_timer()
        super().connection_lost(exc)

    def start_timer(self):
        self.timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def stop_timer(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Server(uvicorn.Server):
    """Ends on `stop`: requests under way have GRACE_SECONDS, a second `stop` ends them at once.

    uvicorn would cancel them, and log a traceback for each. When their connections are closed instead, they end as
    those do whose client has disconnected.
    """

    def __init__(self, app, verbose: bool = False):
        super().__init__(uvicorn.Config(
            app, http=HeaderTimeoutProtocol, ws="none", lifespan="off", log_level="info" if verbose else "warning",
            access_log=verbose, server_header=False, proxy_headers=False))
        self.signum: int | None = None
        self.stopped_twice = False

    def stop(self, signum: int, frame=None) -> None:
        "A signal handler."
        self.stopped_twice = self.should_exit
        self.should_exit, self.signum = True, signum

    def capture_signals(self):
        return nullcontext()  # `run` has them, from before the event loop starts until after it ends

    async def shutdown(self, sockets=None):
        closing = asyncio.create_task(self.close_connections())
        await super().shutdown(sockets)
        closing.cancel()

    async def close_connections(self):
        loop = asyncio.get_running_loop()
        end = loop.time() + GRACE_SECONDS
        while loop.time() < end and not self.stopped_twice:
            await asyncio.sleep(0.05)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
