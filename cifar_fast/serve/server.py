"""Listens, and serves until Ctrl-C."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import webbrowser
from pathlib import Path

from cifar_fast.serve.guard import everywhere, is_loopback
from cifar_fast.utils.errors import CifarFastError

GRACE = 3  # seconds that answers under way are given at Ctrl-C


class ServeError(CifarFastError):
    "A server that cannot listen; the message says what to do instead."


def listen(host: str, port: int) -> socket.socket:
    "A socket that listens, so that a taken port is told before a net is loaded. Raises ServeError."
    if not 0 <= port <= 65535:
        raise ServeError(f"--port {port}: from 1 to 65535, or 0 for a free one")
    try:
        family, *_, address = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=512)
    except socket.gaierror as e:
        raise ServeError(f"--host {host}: {e.strerror}; 127.0.0.1 is this machine alone, 0.0.0.0 all of its "
                         f"addresses") from None
    except OverflowError:
        raise ServeError(f"--host {host}: no address can be so") from None
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise ServeError(f"port {port} of {host} is taken by another program; --port 0 takes a free one") from None
        if e.errno == errno.EACCES:
            raise ServeError(f"port {port} is not open to your user; take one from 1024 up, or --port 0") from None
        raise ServeError(f"--host {host} --port {port}: {e.strerror}; 127.0.0.1 is this machine alone") from None


def url(sock: socket.socket, host: str) -> str:
    "What to open: the machine itself where it listens everywhere."
    name = "127.0.0.1" if everywhere(host) else host
    return f"http://{f'[{name}]' if ':' in name else name}:{sock.getsockname()[1]}/"


def warning(host: str) -> str | None:
    if is_loopback(host):
        return None
    return (f"--host {host}: anyone who can reach this machine over the network can use this page and see the runs; "
            f"without --host only this machine can")


def run(exported, name: str, folder: Path, sock: socket.socket, host: str, verbose: bool = False,
        browser: bool = False) -> None:
    "Serve until a signal ends it, which is raised again afterwards."
    import uvicorn

    from cifar_fast.serve.app import create_app

    config = uvicorn.Config(create_app(exported, name, folder, host), log_level="info" if verbose else "warning",
                            access_log=verbose, timeout_graceful_shutdown=GRACE, server_header=False,
                            proxy_headers=False, ws="none", lifespan="off")
    address = url(sock, host)
    print(f"{name} at {address}  (Ctrl-C ends it)", flush=True)
    if message := warning(host):
        print(f"cifar_fast: {message}", file=sys.stderr, flush=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    uvicorn.Server(config).run(sockets=[sock])
    raise KeyboardInterrupt  # nothing else ends it; asyncio swallows the one that uvicorn raises again, now and then
