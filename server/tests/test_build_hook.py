from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from served_process import needs_core

ROOT = Path(__file__).parents[2]


def hatch_build() -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_data(module: Any, version: str, root: Path) -> dict[str, Any]:
    data: dict[str, Any] = {"force_include": {}}
    module.CargoBuildHook(str(root), {}, None, None, "", "wheel").initialize(version, data)
    return data


def built_extension() -> Path:
    spec = importlib.util.find_spec("kingpole._core")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def sections(library: Path) -> str:
    listed = subprocess.run(
        ["readelf", "--wide", "--sections", library], capture_output=True, text=True, check=True
    )
    return listed.stdout


needs_binutils = pytest.mark.skipif(
    shutil.which("objcopy") is None, reason="objcopy is missing: apt-get install binutils"
)


@needs_core
@needs_binutils
def test_the_extension_asks_for_no_libpython_so_that_any_interpreter_loads_it() -> None:
    listed = subprocess.run(
        ["readelf", "--wide", "--dynamic", built_extension()], capture_output=True, text=True, check=True
    )
    needed = [line for line in listed.stdout.splitlines() if "(NEEDED)" in line]
    assert any("libc.so" in line for line in needed)
    assert not [line for line in needed if "libpython" in line]


@needs_core
@needs_binutils
def test_a_wheels_extension_is_parted_from_its_debug_information_and_still_loads(tmp_path: Path) -> None:
    library = tmp_path / "libkingpole_core.so"
    shutil.copy2(built_extension(), library)
    if ".debug_info" not in sections(library):
        pytest.skip("the extension that is installed here is stripped already")
    stripped = hatch_build().strip(library)
    assert stripped.stat().st_size < library.stat().st_size / 2
    assert ".debug_" not in sections(stripped).replace(".gnu_debuglink", "")
    assert {".symtab", ".gnu_debuglink"} <= set(sections(stripped).split())
    assert ".debug_info" in sections(stripped.with_name("_core.abi3.so.debug"))
    load = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('kingpole._core', sys.argv[1]);"
        " m = u.module_from_spec(s); s.loader.exec_module(m); print(m.Server.__name__)"
    )
    said = subprocess.run([sys.executable, "-c", load, stripped], capture_output=True, text=True, check=True)
    assert said.stdout == "Server\n"


def test_an_extension_that_is_already_built_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = tmp_path / "built.so"
    built.write_bytes(b"any")
    monkeypatch.setenv("KINGPOLE_EXTENSION", str(built))
    monkeypatch.setenv("PATH", "")  # neither cargo nor objcopy
    module = hatch_build()
    assert build_data(module, "standard", tmp_path)["force_include"] == {
        str(built): f"kingpole/{module.EXTENSION}"
    }
    (tmp_path / "server" / "kingpole").mkdir(parents=True)
    assert build_data(module, "editable", tmp_path)["force_include"] == {}
    assert (tmp_path / "server" / "kingpole" / module.EXTENSION).read_bytes() == b"any"


def test_an_extension_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINGPOLE_EXTENSION", str(tmp_path / "none.so"))
    with pytest.raises(SystemExit, match=r"KINGPOLE_EXTENSION names no file: .*none\.so"):
        build_data(hatch_build(), "standard", tmp_path)
