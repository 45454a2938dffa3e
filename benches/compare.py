#!/usr/bin/env python3
"""Whole commands beside their peers, on real servers of this machine: the table of docs/performance.md.

    benches/compare.py [--data sess,mix] [--sessions 1000000] [--scale 1.0] [--runs 5] [--only S3,S7] [--markdown FILE]

SESS is a million session strings (453 MB of RDB file), MIX all types (991 MB). Each row runs our command and its peers in
turn, as many rounds as asked, and shows the median (least to greatest) of wall time, and of processor time and peak memory
of the client side, and the ratio of medians to the first peer. Only ratios of one run mean something. Peaks below 20 MiB
are this script's own: what it starts begins as a copy of it.

RDBKEEPER names the binary; otherwise the release build is made. Needs redis-server and redis-cli; pigz, zstd, gzip,
redis-check-rdb, redis-benchmark and the tool of the Rust crate `rdb` (RDB_TOOL, or in the path) are measured where they are
found, and left out, visibly, where not. Needs about 4 GB of memory and of TMPDIR.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.dont_write_bytecode = True
from support import ROOT, TARGET, Run, Server, configuration, have, keeper, machine, markdown, publish, require, run


def bare():
    """The peers that nobody else wrote."""
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet", "--example", "bare"], cwd=ROOT, check=True)
    return str(TARGET / "release" / "examples" / "bare")


class Bench:
    def __init__(self, args):
        self.args = args
        self.keeper, self.bare = keeper(), bare()
        self.work = Path(tempfile.mkdtemp(prefix="compare-"))
        self.source = self.target = None
        self.rows = []
        self.missing = set()
        self.only = set(filter(None, args.only.upper().split(",")))

    # ---- the data

    def load(self, data):
        print(f"-- {data}: making the data", file=sys.stderr)
        self.source = Server(self.work / f"{data}-source")
        self.target = Server(self.work / f"{data}-target")
        size = self.args.sessions if data == "sess" else self.args.scale
        self.source.fill(f"{data}.py", size)
        self.source.cli("save")
        self.dump = self.source.folder / "dump.rdb"
        self.keys = int(self.source.cli("dbsize"))
        self.config()

    def config(self, **more):
        configuration(self.work, self.source, **more)

    def unload(self):
        for server in (self.source, self.target):
            server.end()
            shutil.rmtree(server.folder)
        shutil.rmtree(self.work / "archive", ignore_errors=True)

    def ours(self, words):
        return f"exec {self.keeper} -q --config {self.work}/rdbkeeper.toml {words}"

    # ---- measuring

    def row(self, number, what, contenders, per=None):
        """`contenders`: name → command, or a function that gives a Run; ours first, then its peers."""
        if self.only and number not in self.only:
            return
        print(f"-- {number} {what}", file=sys.stderr)
        runs = {name: [] for name in contenders}
        for _ in range(self.args.runs):
            for name, command in contenders.items():
                result = command() if callable(command) else run(command)[0]
                if result:
                    runs[name].append(result)
        names = [name for name in contenders if len(runs[name]) == self.args.runs]
        self.missing.update(f"{number} {name} (over before it could be measured)" for name in contenders if name not in names)
        if not names:
            return
        medians = {name: statistics.median(r.wall for r in runs[name]) for name in names}
        base = medians[next((name for name in list(contenders)[1:] if name in medians), names[0])]
        for name in names:
            walls = sorted(r.wall for r in runs[name])
            cells = [number, what, name, f"{medians[name]:.2f}", f"{walls[0]:.2f}–{walls[-1]:.2f}",
                     f"{statistics.median(r.cpu for r in runs[name]):.2f}",
                     f"{statistics.median(r.peak for r in runs[name]):.0f}", f"{medians[name] / base:.2f}",
                     f"{self.keys / medians[name] / 1000:.0f} k/s" if per == "keys" else ""]
            self.rows.append(cells)
            print("   " + "  ".join(cells[2:]), file=sys.stderr)

    def bgsave(self, level):
        """From the server's "done" to the end of the command, by the times in our own log."""
        def once():
            command = (f"RDBKEEPER_LOG=rdbkeeper=debug {self.keeper} --log json --config {self.work}/rdbkeeper.toml "
                       "backup now --method bgsave")
            result, log = run(command)
            ended = datetime.now().astimezone()
            done = [line for line in log.splitlines() if "the server has saved" in line]
            begun = datetime.fromisoformat(json.loads(done[-1])["timestamp"])
            result.wall = (ended - begun).total_seconds()
            return result
        return once

    def restored(self, command):
        def once():
            self.target.cli("flushall", "sync")
            result = run(command)[0]
            assert int(self.target.cli("dbsize")) == self.keys, self.target.cli("dbsize")
            return result
        return once

    def latency(self, name):
        """p99 of another client's GET, in ms, as the wall column, while a command runs (or none); `None` when it was too short."""
        def once():
            busy = subprocess.Popen(["bash", "-c", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if name else None
            time.sleep(0.3)
            out = subprocess.run(["redis-benchmark", "-p", str(self.source.port), "-c", "1", "-n", "20000", "-t", "get", "--csv"],
                                 capture_output=True, text=True, check=True).stdout
            if busy:
                short = busy.poll() is not None
                busy.terminate()
                busy.wait()
                if short:
                    return None
            p99 = float(out.splitlines()[1].split(",")[6].strip('"'))
            return Run(p99, 0, 0)
        return once

    def all(self, data):
        d, s, t, w = self.dump, self.source.port, self.target.port, self.work
        label = data.upper()
        tool = os.environ.get("RDB_TOOL") or shutil.which("rdb")
        peers = ("zstd", "pigz", "gzip", "redis-check-rdb", "redis-benchmark")
        missing = [name for name in peers if not have(name)] + ([] if tool else ["rdb"])
        self.missing.update(missing)
        if missing:
            print(f"   not here, left out: {', '.join(missing)}", file=sys.stderr)
        check = {"redis-check-rdb": f"redis-check-rdb {d}"} if have("redis-check-rdb") else {}

        peers = dict(check)
        if tool:
            peers["rdb crate, nil"] = f"{tool} --format nil {d}"
        self.row("S1", f"{label}: read an RDB file", {"backup verify FILE": self.ours(f"backup verify {d}"), **peers})
        peers = {"rdb crate, json": f"{tool} --format json {d} > {w}/peer.json"} if tool else {}
        self.row("S2", f"{label}: export to JSON lines",
                 {"backup export": self.ours(f"backup export {d} --format jsonl > {w}/out.jsonl"), **peers}, "keys")
        for name in ("out.jsonl", "peer.json"):
            (w / name).unlink(missing_ok=True)

        rdb = f"redis-cli -p {s} --rdb"
        replication = self.ours("backup now --method replication")
        self.row("S3", f"{label}: dump by replication",
                 {"backup now, zstd": replication, "redis-cli --rdb": f"{rdb} {w}/peer.rdb"})
        for level, pipes in (("zstd:3", ("zstd -3 -T2",)), ("gzip:6", ("pigz -6", "gzip -6"))):
            self.config(compression=f'"{level}"')
            peers = {f"redis-cli --rdb - | {pipe}": f"{rdb} - | {pipe} > {w}/peer.out" for pipe in pipes if have(pipe.split()[0])}
            self.row("S4", f"{label}: dump and {level}", {f"backup now, {level}": replication, **peers})
        self.config()
        self.row("S5", f"{label}: from BGSAVE's end to committed", {
            "backup now, bgsave": self.bgsave("zstd:3"),
            **({"zstd -3 -T2": f"zstd -qf -3 -T2 {d} -o {w}/peer.out",
                "zstd -3 -T2, synced": f"zstd -qf -3 -T2 {d} -o {w}/peer.out && sync -d {w}/peer.out"} if have("zstd") else {}), "cp": f"cp {d} {w}/peer.out"})
        self.row("S6", f"{label}: dump by scan",
                 {"backup now, scan": self.ours("backup now --method scan"), "bare pipeline": f"{self.bare} dump {s} 0"}, "keys")

        if not self.only or self.only & {"S7", "S8"}:
            shutil.rmtree(w / "archive", ignore_errors=True)
            run(self.ours("backup now --method replication"))
        if not self.only or "S7" in self.only:
            run(f"{self.bare} restore {d} > {w}/restore.resp")
        self.row("S7", f"{label}: restore to a live server", {
            "restore": self.restored(self.ours(f"restore web --check none --to redis://127.0.0.1:{t}")),
            "redis-cli --pipe": self.restored(f"redis-cli -p {t} --pipe < {w}/restore.resp")}, "keys")
        (w / "restore.resp").unlink(missing_ok=True)
        stored = next(iter((w / "archive").glob("web/*/dump.rdb.zst")), None)
        if stored:
            self.row("S8", f"{label}: verify", {
                "backup verify": self.ours("backup verify"),
                **({"zstd -d": f"zstd -qdc {stored} > /dev/null"} if have("zstd") else {}),
                "sha256sum": f"sha256sum {d}", **check})
        if data == "sess":
            self.row("S9", f"{label}: look at all sessions",
                     {"sessions report": self.ours("sessions report"), "SCAN alone": f"{self.bare} scan {s} 0"}, "keys")
        if data == "sess" and have("redis-benchmark"):
            self.config(max_keys_per_second=20000)
            self.row("S10", f"{label}: another client's p99, ms", {
                "during a scan of 20 000 keys/s": self.latency(self.ours("backup now --method scan")), "alone": self.latency(None),
                "during sessions report": self.latency(self.ours("sessions report"))})
            self.config()


def main():
    parser = argparse.ArgumentParser(description="rdbkeeper beside its peers")
    parser.add_argument("--data", default="sess,mix")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    require("redis-server", "redis-cli")
    bench = Bench(args)
    try:
        for data in args.data.split(","):
            bench.load(data)
            bench.all(data)
            bench.unload()
    finally:
        for server in (bench.source, bench.target):
            if server:
                server.end()
        shutil.rmtree(bench.work, ignore_errors=True)
    head = ["", "work", "command", "median s", "least–greatest", "processor s", "peak MiB", "of the first peer", ""]
    text = f"{machine()}; {args.data} of {args.sessions} sessions and scale {args.scale}, {args.runs} rounds.\n\n"
    text += markdown([head, *bench.rows])
    if bench.missing:
        text += f"\nNot here, left out: {', '.join(sorted(bench.missing))}.\n"
    publish(text, args.markdown)


if __name__ == "__main__":
    main()
