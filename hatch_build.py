"""Build hook: compiles the Rust extension `kingpole._core` with cargo.

Runs for editable installs and wheels alike, and knows nothing of what is inside the crate. The extension is
put beside the Python sources, where an editable install and the type checkers look for it, and is added to
the wheel.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CRATE = "kingpole-core"
LIBRARY = {"darwin": "libkingpole_core.dylib", "win32": "kingpole_core.dll"}.get(
    sys.platform, "libkingpole_core.so"
)
EXTENSION = "_core.pyd" if sys.platform == "win32" else "_core.abi3.so"
# The extension uses the stable ABI as of this version, so that one wheel serves every later Python.
OLDEST_PYTHON = "cp310"


class CargoBuildHook(BuildHookInterface[Any]):
    """Compiles the crate and places the extension; the wheel is tagged for the stable ABI of one platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, place the extension beside the Python sources, and tell hatchling about it."""
        root = Path(self.root)
        extension = root / "server" / "kingpole" / EXTENSION
        place(compile_crate(root), extension)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"{OLDEST_PYTHON}-abi3-{platform}"
        if version != "editable":
            build_data["force_include"][str(extension)] = f"kingpole/{EXTENSION}"


def compile_crate(root: Path) -> Path:
    """Build the crate in the release profile and return the shared library that cargo made."""
    if shutil.which("cargo") is None:
        raise SystemExit(
            "kingpole: cargo is missing; install Rust, for example with: apt-get install cargo (or rustup)"
        )
    # The interpreter is named, so that pyo3's build script never picks up another one from PATH.
    environment = os.environ | {"PYO3_PYTHON": sys.executable}
    command = ["cargo", "build", "--release", "-p", CRATE]
    subprocess.run(command, cwd=root, env=environment, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return root / target / "release" / LIBRARY


def place(library: Path, extension: Path) -> None:
    """Put the library at its final name in one step: a server that has the old one mapped keeps running."""
    beside = extension.with_name(f".{extension.name}.{os.getpid()}")
    shutil.copy2(library, beside)
    beside.replace(extension)


if __name__ == "__main__":  # `make` rebuilds the extension this way after a change, without pip
    ROOT = Path(__file__).resolve().parent
    place(compile_crate(ROOT), ROOT / "server" / "kingpole" / EXTENSION)
