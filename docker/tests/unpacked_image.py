"""Runs a built image as a container engine would: buildah unpacks it, unshare and chroot confine it.

It keeps to the strictest way in which an image is run: uid 1000, no new privileges, no capability, a process
namespace whose first process is the entry point, a root file system and models that nobody can write to, no
writable /tmp. Only the network is this machine's, so that a test can ask.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGE = os.environ.get("KINGPOLE_IMAGE", "localhost/kingpole:cpu")
# $1 root, $2 models; then the environment and the command.
_CONFINE = """
root=$1 models=$2; shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root/dev"
mount --bind "$models" "$root/models"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs env -i "$@"
"""


def buildah(*arguments: object) -> str:
    """Run a buildah command and return what it says."""
    said = subprocess.run(["buildah", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def why_not() -> str | None:
    """Say why no image can be run here, or None."""
    for tool in ("buildah", "unshare", "setpriv", "chroot"):
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install buildah util-linux coreutils"
    if os.geteuid() != 0:
        return "mounting needs root"
    asked = ["buildah", "inspect", "--type", "image", IMAGE]
    if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        return f"there is no image {IMAGE}: docker/build-with-buildah"
    return None


@dataclass
class UnpackedImage:
    """An image laid out as files, which `run` starts commands in."""

    container: str = ""
    root: Path = Path()
    configuration: dict[str, Any] = field(default_factory=dict)

    def unpack(self) -> None:
        """Lay the image out."""
        document = json.loads(buildah("inspect", "--type", "image", IMAGE))
        self.configuration = document["Docker"]["config"]
        self.container = buildah("from", "--pull-never", IMAGE)
        self.root = Path(buildah("mount", self.container))

    def remove(self) -> None:
        """Remove what `unpack` made."""
        if self.container:
            buildah("rm", self.container)

    def run(self, models: Path, *command: str, **variables: str) -> Running:
        """Start a command (without one: the image's own), with its entry point, environment and user."""
        environment = [*self.configuration["Env"], *(f"{name}={text}" for name, text in variables.items())]
        user = self.configuration["User"]
        chroot = [shutil.which("chroot") or "chroot", f"--userspec={user}", "--groups=", str(self.root)]
        return Running(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", _CONFINE, "confine",
             str(self.root), str(models), *environment, *chroot,
             *(command or (*self.configuration["Entrypoint"], *self.configuration["Cmd"]))]
        )  # fmt: skip


class Running:
    """A command in an unpacked image."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []

    def wait(self, seconds: float = 60) -> tuple[int, str]:
        """Return the exit code, and what was said since the last line that was read."""
        said, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def read_until(self, *starts: str) -> None:
        """Read lines until one begins like this."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(starts):
                return
        raise AssertionError("it ended:\n" + "\n".join(self.lines))

    def find(self, pattern: str) -> str:
        """Find a group of a pattern in the lines that were read."""
        found = re.search(pattern, "\n".join(self.lines))
        assert found, self.lines
        return found.group(1)

    def first_process(self) -> int:
        """The entry point's process, as this machine numbers it; inside it is number 1."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def terminate(self) -> None:
        """Ask the entry point to end, as an engine does."""
        os.kill(self.first_process(), signal.SIGTERM)

    def end(self) -> None:
        """End it at once: with its first process a namespace ends as a whole."""
        if self.process.poll() is None:
            os.kill(self.first_process(), signal.SIGKILL)
        self.process.communicate()
