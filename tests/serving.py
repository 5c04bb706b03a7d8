"""A server in a thread, for tests that need a real one."""

import threading
from contextlib import contextmanager

import uvicorn

from cifar_fast.serve.server import listen


@contextmanager
def served(app):
    "The address at which `app` answers."
    with listen("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
