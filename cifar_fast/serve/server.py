"""The command: a socket, the address to open, and the server until Ctrl-C."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import webbrowser
from pathlib import Path

from cifar_fast.serve.guard import everywhere, is_loopback
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.signals import StopRequested, handling
from cifar_fast.utils.text import printable


class ServeError(CifarFastError):
    "The server cannot listen on the host or port; the message says what to use instead."


def listen(host: str, port: int) -> socket.socket:
    "A listening socket, opened before the model is loaded: a port in use is an error at once. Raises ServeError."
    name = printable(host)
    if not 0 <= port <= 65535:
        raise ServeError(f"--port {port}: expected 1 to 65535, or 0 for any free port")
    try:
        family, *_, address = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and everywhere(host) and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=512, dualstack_ipv6=both)
    except socket.gaierror as e:
        raise ServeError(f"--host {name}: {e.strerror}; 127.0.0.1 is this machine only, 0.0.0.0 all of its "
                         f"addresses") from None
    except (OverflowError, UnicodeError):
        raise ServeError(f"--host {name}: not a valid address; 127.0.0.1 is this machine only") from None
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise ServeError(f"port {port} of {name} is used by another program; --port 0 uses a free one") from None
        if e.errno == errno.EACCES:
            raise ServeError(f"port {port} needs administrator rights; use one from 1024 up, or --port 0") from None
        raise ServeError(f"--host {name} --port {port}: {e.strerror}; 127.0.0.1 is this machine only") from None


def url(sock: socket.socket, host: str) -> str:
    "The address to open in a browser; 127.0.0.1 for a server that listens on all addresses."
    name = "127.0.0.1" if everywhere(host) else host
    return f"http://{f'[{name}]' if ':' in name else name}:{sock.getsockname()[1]}/"


def warning(host: str) -> str | None:
    if is_loopback(host):
        return None
    return (f"--host {printable(host)}: anyone who can reach this machine over the network can use this page and see "
            f"the runs; without --host only this machine can")


def run(predictor, name: str, folder: Path, sock: socket.socket, host: str, verbose: bool = False,
        browser: bool = False) -> None:
    "Serve until SIGINT or SIGTERM, which is raised as StopRequested once the requests under way have ended."
    from cifar_fast.serve.app import create_app
    from cifar_fast.serve.connections import Server
    from cifar_fast.utils.memory import return_large_blocks

    return_large_blocks()
    server = Server(create_app(predictor, name, folder, host), verbose)
    with handling(server.stop):
        address = url(sock, host)
        print(f"{printable(name)} at {address}  (Ctrl-C stops the server)", flush=True)
        if message := warning(host):
            print(f"cifar_fast: {message}", file=sys.stderr, flush=True)
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.run(sockets=[sock])
    raise StopRequested(server.signum)
