"""Rounds, results, tables, servers and clients for the scripts of this folder.

Needs only Python's standard library.
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

# Pause for thread pools that spin after their last work (libomp: 200 ms).
SETTLE_SECONDS = 0.5

# Share of the processors used by other programs above which a run counts as disturbed.
BUSY = 0.1


class Skip(Exception):
    """Raised with the reason if a peer cannot be measured on this machine."""


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Returns a parser with the options of all scripts."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(made, rounds)
    return made


def add_options(made: argparse.ArgumentParser, rounds: int) -> None:
    """Adds the options of all scripts."""
    made.add_argument("--infer", type=Path, default=TARGET / "release" / "infer", help="default: %(default)s")
    made.add_argument("--rounds", type=int, default=rounds, help="number of rounds (default: %(default)s)")
    made.add_argument("-o", "--output", choices=["table", "json"], default="table")


def finish(main: Callable[[], dict | list[dict]]) -> int:
    """Runs a script and returns its exit code; 0 also if its peer is missing."""
    try:
        measured = main()
    except Skip as reason:
        print(f"skipped: {Path(sys.argv[0]).name}: {reason}")
        return 0
    except subprocess.CalledProcessError as error:
        stderr = (error.stderr or b"") if isinstance(error.stderr, bytes) else (error.stderr or "").encode()
        print(f"{error}\n{stderr.decode(errors='replace')}", file=sys.stderr)
        return 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if measured is not None else 1


def needed(path: Path, how: str) -> Path:
    """Returns the path of a required file. Raises Skip if it does not exist."""
    if not path.exists():
        raise Skip(f"`{path}` is missing; {how}")
    return path


@dataclass
class Comparison:
    """Results of several sides over the same rounds.

    Higher is better, except for the metrics in `costs`.
    """

    title: str
    ours: str
    costs: tuple[str, ...] = ()
    seen: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, side: str, figures: dict[str, float]) -> None:
        """Adds one turn of a side."""
        for metric, value in figures.items():
            self.seen.setdefault(side, {}).setdefault(metric, []).append(value)

    def metrics(self) -> list[str]:
        """Returns the metrics of all sides, in the order of their first appearance."""
        return list(dict.fromkeys(metric for rows in self.seen.values() for metric in rows))

    def best(self, metric: str) -> str | None:
        """Returns the peer with the best median of a metric."""
        peers = [side for side, rows in self.seen.items() if side != self.ours and metric in rows]
        choose = min if metric in self.costs else max
        return choose(peers, key=lambda side: statistics.median(self.seen[side][metric]), default=None)

    def ratio(self, metric: str) -> list[float] | None:
        """Returns our value divided by that of the best peer, for each round."""
        peer, mine = self.best(metric), self.seen.get(self.ours, {}).get(metric)
        if peer is None or not mine:
            return None
        return [ours / theirs for ours, theirs in zip(mine, self.seen[peer][metric]) if theirs]

    def as_json(self) -> dict:
        """Returns all results."""
        ratios = {metric: self.ratio(metric) for metric in self.metrics()}
        return {
            "title": self.title,
            "ours": self.ours,
            "turns": self.seen,
            "medians": {side: {m: statistics.median(v) for m, v in rows.items()} for side, rows in self.seen.items()},
            "ratios": {
                metric: {
                    "median": statistics.median(of), "min": min(of), "max": max(of), "against": self.best(metric)
                }
                for metric, of in ratios.items()
                if of
            },
        }  # fmt: skip

    def as_table(self) -> str:
        """Returns a Markdown table of medians, minima and maxima."""
        metrics = self.metrics()
        lines = [f"| {self.title} | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        for side, rows in self.seen.items():
            lines.append(f"| {side} | {' | '.join(spread(rows.get(metric)) for metric in metrics)} |")
        ratios = [self.ratio(metric) for metric in metrics]
        cells = [
            f"**{statistics.median(of):.2f}** ({min(of):.2f}–{max(of):.2f})" if of else "–" for of in ratios
        ]
        lines.append(f"| {self.ours} / the best peer | {' | '.join(cells)} |")
        return "\n".join(lines)


def spread(values: list[float] | None) -> str:
    """Formats a median with its minimum and maximum."""
    if not values:
        return "–"
    middle = statistics.median(values)
    digits = 0 if middle >= 1000 else 1 if middle >= 10 else 2
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def interleave(
    comparison: Comparison, sides: dict[str, Callable[[int], dict[str, float]]], rounds: int
) -> Comparison:
    """Gives each side a turn in each round.

    The order rotates, so that a drift of the machine favours no side.
    """
    names = list(sides)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            progress(f"{comparison.title}: round {turn + 1} of {rounds}, {name}")
            comparison.add(name, sides[name](turn))
            time.sleep(SETTLE_SECONDS)
    progress("")
    return comparison


class Machine:
    """Share of the processors that other programs used while a script ran."""

    def __init__(self) -> None:
        self.then = self.ticks()

    @staticmethod
    def ticks() -> tuple[float, float]:
        """Returns busy seconds: of all processors, and of this script and its programs."""
        numbers = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle, own = numbers[3] + numbers[4], os.times()
        busy = (sum(numbers) - idle) / os.sysconf("SC_CLK_TCK")
        return busy, own.user + own.system + own.children_user + own.children_system

    def warning(self, seconds: float) -> str | None:
        """Returns a warning if other programs were busy."""
        (busy, own), (then, own_then) = self.ticks(), self.then
        others = max(0.0, (busy - then) - (own - own_then)) / (seconds * (os.cpu_count() or 1))
        if others < BUSY:
            return None
        return (
            f"other programs used {others:.0%} of the processors, so these results are unreliable, above all the ratios"
            " to peers with spinning threads, such as llama.cpp; run it again on a quiet machine"
        )


def progress(line: str) -> None:
    """Shows a progress line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def show(comparisons: list[Comparison], output: str, versions: dict[str, str]) -> list[dict]:
    """Prints the tables, or all results as JSON."""
    warning = MACHINE.warning(time.monotonic() - BEGAN)
    host = {"warning": warning, "processor": processor(), "cores": cores(), **versions}
    if output == "json":
        print(json.dumps({"host": host, "comparisons": [one.as_json() for one in comparisons]}, indent=1))
    else:
        if warning:
            print(f"WARNING: {warning}\n")
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        print(f"{host['processor']}, {host['cores']} cores; {listed}; medians (minimum–maximum)")
        for one in comparisons:
            print(f"\n{one.as_table()}", flush=True)
    return [one.as_json() for one in comparisons]


MACHINE, BEGAN = Machine(), time.monotonic()


def cores() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Returns the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def version_of(infer: Path) -> str:
    """Returns the version that `infer --version` prints."""
    needed(infer, "build it with `make build`, or name it with --infer")
    return output_of([infer, "--version"]).split()[-1]


def output_of(command: list[object], **options: object) -> str:
    """Returns the output of a command. Raises CalledProcessError if it fails."""
    text = list(map(str, command))
    return subprocess.run(text, check=True, capture_output=True, text=True, **options).stdout


def bench(infer: Path, *arguments: object) -> dict:
    """Returns the report of one `infer bench`."""
    return json.loads(output_of([infer, "bench", *arguments, "-o", "json"]))


def free_port() -> int:
    """Returns a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(command: list[object], port: int, ready: str, seconds: float = 300) -> Iterator[subprocess.Popen]:
    """Starts a server, waits until it is ready, and stops it on exit."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + seconds
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", ready)
                    if connection.getresponse().status == 200:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    tail = log.read().decode(errors="replace")[-2000:]
                    raise ValueError(f"`{command[0]}` did not become ready:\n{tail}")
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


class CommandProcess:
    """A program that reads commands from standard input and answers each with a line of JSON."""

    def __init__(self, command: list[object], **options: object) -> None:
        self.name = str(command[0])
        text = list(map(str, command))
        self.process = subprocess.Popen(text, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def ask(self, line: str) -> object:
        """Sends a command and returns the answer."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise ValueError(f"`{self.name}` exited on the command `{line}`; see its output above")
        return json.loads(answer)

    def __enter__(self) -> "CommandProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()


def environment(name: str, requirements: Path) -> Path:
    """Returns the Python of a virtual environment with the packages of a requirements file."""
    folder = TARGET / "peers" / name
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    listed = requirements.read_text()
    if not done.exists() or done.read_text() != listed:
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            output = (error.stderr or error.stdout).decode(errors="replace").strip().splitlines() or [str(error)]
            raise Skip(f"`{requirements}` cannot be installed: {output[-1]}") from error
        done.write_text(listed)
    return python


def peak_megabytes(process: subprocess.Popen) -> float:
    """Returns the peak memory of a running process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError("`VmHWM` is missing in the process's /proc status")


class Client:
    """A client with one keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def get(self, path: str) -> dict:
        """Returns the JSON of the response. Raises ValueError if its status is not 200."""
        return self.send("GET", path, None, {})

    def post(self, path: str, body: bytes, kind: str = "application/json") -> dict:
        """Returns the JSON of the response. Raises ValueError if its status is not 200."""
        return self.send("POST", path, body, {"content-type": kind})

    def send(self, method: str, path: str, body: bytes | None, head: dict[str, str]) -> dict:
        """Returns the JSON of the response. Raises ValueError if its status is not 200."""
        for attempt in (1, 2):
            try:
                self.connection.request(method, path, body, head)
                response = self.connection.getresponse()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # Servers may close a connection after a number of requests.
                self.connection.close()
                if attempt == 2:
                    raise
        text = response.read()
        if response.status != 200:
            raise ValueError(f"{method} {path}: {response.status} {text[:500].decode(errors='replace')}")
        return json.loads(text)


def ask_all(port: int, path: str, bodies: list[bytes], concurrency: int) -> tuple[float, list[float]]:
    """Sends the bodies with `concurrency` clients. Returns requests/s and the latencies in ms.

    Each client sends its next request when it has the response to the last.
    """
    waiting = iter(bodies)

    def client() -> list[float]:
        mine, latencies = Client(port), []
        for body in waiting:  # shared by all clients; list iterators are safe under the GIL
            sent = time.perf_counter()
            mine.post(path, body)
            latencies.append((time.perf_counter() - sent) * 1e3)
        return latencies

    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        latencies = [one for done in [pool.submit(client) for _ in range(concurrency)] for one in done.result()]
    return len(bodies) / (time.perf_counter() - began), latencies


def percentile(values: list[float], part: float) -> float:
    """Returns the quantile `part` of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
