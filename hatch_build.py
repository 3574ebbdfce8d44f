"""Build hook: compiles the Rust extension `kingpole._core` with cargo.

Runs for editable installs and wheels alike, and knows nothing of what is inside the crate. For an editable
install the extension is put beside the Python sources, where the type checkers look for it as well; else it
is added to the wheel. There it has no debug information, which is four fifths of its size: that is kept in
`target/release/_core.abi3.so.debug`, for debuggers and profilers.

`KINGPOLE_EXTENSION` names an extension that is already built; it is taken as it is, and cargo is not needed.
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
    """Compiles the crate and installs the extension; a wheel's tag says the stable ABI of one platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, put the extension where it belongs, and tell hatchling about it."""
        root = Path(self.root)
        built = os.environ.get("KINGPOLE_EXTENSION")
        if built and not Path(built).is_file():
            raise SystemExit(f"kingpole: KINGPOLE_EXTENSION names no file: {built}")
        library = Path(built).resolve() if built else compile_crate(root)
        if version == "editable":
            place(library, root / "server" / "kingpole" / EXTENSION)
        else:
            library = library if built else strip(library)
            build_data["force_include"][str(library)] = f"kingpole/{EXTENSION}"
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"{OLDEST_PYTHON}-abi3-{platform}"


def compile_crate(root: Path) -> Path:
    """Build the crate in the release profile and return the shared library that cargo made."""
    if shutil.which("cargo") is None:
        raise SystemExit(
            "kingpole: cargo is missing; install Rust, for example with: apt-get install cargo (or rustup)"
        )
    # The interpreter is named, so that pyo3's build script never picks up another one from PATH. An extension
    # module takes Python's symbols from whoever loads it; else it would ask for this interpreter's libpython.
    environment = os.environ | {"PYO3_PYTHON": sys.executable, "PYO3_BUILD_EXTENSION_MODULE": "1"}
    command = ["cargo", "build", "--release", "-p", CRATE]
    subprocess.run(command, cwd=root, env=environment, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return root / target / "release" / LIBRARY


def strip(library: Path) -> Path:
    """Part a library from its debug information; return the stripped copy, which names the other file.

    Function names stay, so that a backtrace is still read without the other file. Where there is no objcopy
    (it comes with the linker, but not with every one) the library is returned as it is.
    """
    objcopy = shutil.which("objcopy") or shutil.which("llvm-objcopy")
    if sys.platform != "linux" or objcopy is None:
        print("kingpole: no objcopy, so the extension keeps its debug information", file=sys.stderr)
        return library
    debug, stripped = library.with_name(f"{EXTENSION}.debug"), library.with_name(EXTENSION)
    subprocess.run([objcopy, "--only-keep-debug", library, debug], check=True)
    subprocess.run([objcopy, "--strip-debug", f"--add-gnu-debuglink={debug}", library, stripped], check=True)
    return stripped


def place(library: Path, extension: Path) -> None:
    """Put the library at its final name in one step: a server that has the old one mapped keeps running."""
    beside = extension.with_name(f".{extension.name}.{os.getpid()}")
    shutil.copy2(library, beside)
    beside.replace(extension)


if __name__ == "__main__":  # `make` rebuilds the extension this way after a change, without pip
    ROOT = Path(__file__).resolve().parent
    place(compile_crate(ROOT), ROOT / "server" / "kingpole" / EXTENSION)
