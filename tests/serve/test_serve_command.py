"""The command: addresses, ports, and its end."""

import os
import signal
import socket
import threading
import time

import httpx2
import pytest

from cifar_fast.cli.main import main
from cifar_fast.serve.server import ServeError, listen, url


def test_a_taken_port_is_told_with_the_next_step(capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert url(taken, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        assert main(["serve", "exports/nothing", "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 is used" in (err := capsys.readouterr().err) and "--port 0" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("args, named", [
    (["exports/nothing", "--port", "0"], "no run exports/nothing"), (["x", "--port", "70000"], "1 to 65535"),
    (["x", "--host", "no such host"], "127.0.0.1 is this machine"), (["x", "--host", "203.0.113.9"], "127.0.0.1"),
])
def test_bad_input_is_refused(args, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *args]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1, err


def test_addresses():
    with pytest.raises(ServeError, match="65535"):
        listen("127.0.0.1", -1)
    with listen("localhost", 0) as sock:
        assert url(sock, "localhost").startswith("http://localhost:")
        assert url(sock, "::1").startswith("http://[::1]:") and "127.0.0.1" in url(sock, "0.0.0.0")
    if socket.has_dualstack_ipv6():
        with listen("::", 0) as sock:
            assert "127.0.0.1" in url(sock, "::")
            socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=5).close()  # what is printed answers


def test_it_prints_its_address_and_ctrl_c_stops_it(folder, capsys, monkeypatch):
    "The command as it is typed: it answers, warns if others can reach it, and writes no file."
    calls = []
    monkeypatch.setattr("cifar_fast.utils.memory.return_large_blocks", lambda: calls.append("memory"))
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    before, pages = sorted(folder.rglob("*")), []

    def ask():
        for _ in range(100):
            try:
                pages.append(httpx2.get(f"http://127.0.0.1:{port}/", timeout=5).text)
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=ask, daemon=True).start()
    assert main(["serve", str(folder / "net"), "--port", str(port), "--host", "0.0.0.0"]) == 130
    out, err = capsys.readouterr()
    assert "Classify images" in pages[0]
    assert f"net at http://127.0.0.1:{port}/" in out and "over the network" in err and "Traceback" not in err
    assert sorted(folder.rglob("*")) == before and calls == ["memory"]
