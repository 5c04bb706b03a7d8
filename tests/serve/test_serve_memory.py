"""Memory of large images is returned."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from serving import UPLOAD, connect, form, image, process, received

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")

BLOCKS = """
from pathlib import Path
from cifar_fast.utils.memory import return_large_blocks

def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024  # MB

return_large_blocks()
large = b"x" * (30 << 20)
del large  # glibc alone now keeps blocks of up to 30 MB: the growth is 81 MB
before, blocks, pins = rss(), [], []
for _ in range(8):
    blocks.append(b"x" * (10 << 20))
    pins.append(b"x" * 200_000)  # above the block, so that the heap cannot shrink
del blocks
print(rss() - before)
"""


def test_freed_blocks_are_returned():
    growth = subprocess.run([sys.executable, "-c", BLOCKS], text=True, capture_output=True, check=True).stdout
    assert int(growth) < 5


def test_large_images_leave_no_memory_behind(made):
    "Uploads of 18 MB, and images that need 64 MB when decoded, several at a time."
    def rss():
        with open(f"/proc/{running.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024

    def upload(body):
        assert b"200 OK" in received(connect(port, UPLOAD.replace(b"X-", b"Connection: close\r\nX-") % len(body), body))

    file = BytesIO()
    Image.new("L", (4000, 4000), 99).save(file, "png")
    many_bytes, many_pixels = form(("a.bmp", image("bmp", (2500, 2400)))), form(("a.png", file.getvalue()))
    with process(made) as (running, port), ThreadPoolExecutor(8) as pool:
        upload(form(("small.png", image())))
        before = rss()
        for body in (many_bytes, many_pixels):
            list(pool.map(upload, [body] * 6))
        assert rss() - before < 50
