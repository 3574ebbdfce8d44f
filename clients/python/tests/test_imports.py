"""What importing the client costs."""

import subprocess
import sys

HEAVY = ("asyncio", "numpy", "grpc", "aiohttp", "flatbuffers", "kingpole", "socket", "ssl")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_client_imports_nothing_heavy():
    loaded = run("import sys, kingpole_client; print(*sys.modules)").split()
    # An environment may import modules for itself before any of our code runs.
    before = run("import sys; print(*sys.modules)").split()
    assert not (set(HEAVY) & set(loaded)) - set(before)


def test_catching_an_error_imports_nothing_heavy():
    code = "import sys, kingpole_client as k; k.Unavailable, k.KingpoleError; print(*sys.modules)"
    before = run("import sys; print(*sys.modules)").split()
    assert not (set(HEAVY) & set(run(code).split())) - set(before)


def test_importing_the_client_takes_less_than_60_ms():
    code = "import time; t = time.perf_counter(); import kingpole_client; print(time.perf_counter() - t)"
    # The best of a few: a busy machine is not the import's fault.
    assert min(float(run(code)) for _ in range(5)) < 0.06


def test_every_public_name_can_be_had():
    import kingpole_client

    for name in kingpole_client.__all__:
        assert getattr(kingpole_client, name) is not None
    assert set(kingpole_client.__all__) <= set(dir(kingpole_client))
