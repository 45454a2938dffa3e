"""What the measuring scripts share: the release binary, servers of their own, a command and what it took, tables."""
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def have(tool):
    return shutil.which(tool) is not None


def require(*tools):
    """Ends the script, with a word that says what to do, unless all of them are there."""
    missing = [tool for tool in tools if not have(tool)]
    if missing:
        sys.exit(f"{', '.join(missing)}: not found, and nothing can be measured without. Install Redis 7.0 or later "
                 "(Debian and Ubuntu: apt install redis-server), or put the folder with its programs in PATH.")


def keeper():
    """The release binary: that which RDBKEEPER names, or one that is made now."""
    named = os.environ.get("RDBKEEPER")
    if named:
        return os.path.abspath(named)
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet"], cwd=ROOT, check=True)
    return str(TARGET / "release" / "rdbkeeper")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A redis-server in a folder of its own."""

    def __init__(self, folder, *more):
        self.port = free_port()
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
             "--repl-diskless-sync-delay", "0", "--logfile", str(folder / "log"), *more])
        while self.cli("ping") != "PONG":
            if self.process.poll() is not None:
                sys.exit((folder / "log").read_text())
            time.sleep(0.02)

    def cli(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True).stdout.strip()

    def info(self, fact):
        """A fact of INFO, or an empty string."""
        lines = (line.partition(":") for line in self.cli("info", "all").splitlines())
        return next((value.strip() for name, _, value in lines if name == fact), "")

    def fill(self, *maker):
        """Gives it what a script of benches/data prints."""
        words = " ".join(str(word) for word in maker)
        command = f"{sys.executable} {ROOT}/benches/data/{words} | redis-cli -p {self.port} --pipe"
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, stdout=subprocess.DEVNULL)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class Run:
    """What one run of a command took: seconds, seconds of processor, MiB."""

    def __init__(self, wall, cpu, peak):
        self.wall, self.cpu, self.peak = wall, cpu, peak


def run(command, stdout=subprocess.DEVNULL):
    """A command by the shell. Processor time and memory are those of all that it started and waited for."""
    begin = time.monotonic()
    child = subprocess.Popen(["bash", "-o", "pipefail", "-c", command], stdout=stdout, stderr=subprocess.PIPE)
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - begin
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command}\n{errors.decode(errors='replace')[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), errors.decode(errors="replace")


def configuration(folder, server, **more):
    """A configuration with one database, `web`, and one storage, in `folder`."""
    keys = "\n".join(f"{key} = {value}" for key, value in more.items())
    path = folder / "rdbkeeper.toml"
    path.write_text(f"""
[daemon]
state_dir = "{folder}/state"
spool_dir = "{folder}/spool"
[storage.disk]
kind = "local"
path = "{folder}/archive"
[[database]]
name = "web"
url = "redis://127.0.0.1:{server.port}/0"
{keys}
""")
    return path


def machine():
    """One line that tells where something was measured."""
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout.split()
    version = next((word[2:] for word in version if word.startswith("v=")), "?")
    return f"{os.cpu_count()} cores ({platform.machine()}) shared by server and client, Redis {version}"


def markdown(rows):
    """A table; its first row is the head."""
    head, *rest = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in (head, ["---"] * len(head), *rest))


def publish(text, path):
    """Prints a result, and keeps it where that is wanted."""
    print(text)
    if path:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"written to {path}", file=sys.stderr)
