#!/usr/bin/env python3
"""Peak memory of every command as the data grows, and beside one large value: does it stay where it should?

    benches/memory.py [--sizes 1,4] [--values string,hash,list] [--value-mib 256] [--only scan,verify] [--markdown FILE]

A size is GB of RDB file, half of it SESS and half MIX (benches/data); a value stands among 20 000 small ones. Each command
runs once, with the default settings. The first table is peak resident memory in MiB, the second seconds and in brackets those of
processor time of the command itself, the third what the data and the server were: the figures for a forecast. What is over the
bound is named at the end: 96 MiB, and the size of the one value where a command moves a value as a whole, as DUMP and RESTORE do.

RDBKEEPER names the binary; otherwise the release build is made. Needs redis-server and redis-cli; twice the size of
memory and four times the size of TMPDIR.
"""
import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from support import Server, configuration, keeper, machine, markdown, publish, require, run

BOUND = 96
# What DUMP gives and RESTORE takes is one value in one piece.
WHOLE = ("backup now --method scan", "restore")
# Of a file of SESS and MIX in equal parts.
SESSIONS_PER_GB = 0.5e9 / 453
SCALE_PER_GB = 0.5e9 / 991e6


class Data:
    """A server's content, and what was measured with it."""

    def __init__(self, name, value_mib, *makers):
        self.name, self.value_mib, self.makers = name, value_mib, makers
        self.runs, self.facts = {}, {}

    def bound(self, command):
        return BOUND + (self.value_mib if command in WHOLE else 0)


class Bench:
    def __init__(self, args):
        self.keeper = keeper()
        self.only = [word for word in args.only.split(",") if word]
        self.work = Path(tempfile.mkdtemp(prefix="memory-"))
        self.source = self.target = None

    def end(self):
        for server in (self.source, self.target):
            if server:
                server.end()
        shutil.rmtree(self.work, ignore_errors=True)

    def measure(self, data):
        print(f"-- {data.name}: making the data", file=sys.stderr)
        self.source = Server(self.work / "source")
        for maker in data.makers:
            self.source.fill(*maker)
        config = configuration(self.work, self.source)
        backup = ("backup now --method replication", "backup now --method scan", "backup now --method bgsave")
        for command in backup:
            self.once(data, config, command, command)
        stored = next((self.work / "archive").glob("web/*/dump.rdb.zst"))
        server = self.source
        data.facts = {
            "keys": server.cli("dbsize"),
            "RDB file, bytes": (server.folder / "dump.rdb").stat().st_size,
            "stored, bytes": stored.stat().st_size,
            "used_memory": server.info("used_memory"),
            "rdb_last_bgsave_time_sec": server.info("rdb_last_bgsave_time_sec"),
            "rdb_last_cow_size": server.info("rdb_last_cow_size"),
        }
        self.once(data, config, "backup verify", "backup verify")
        self.once(data, config, "backup export --format jsonl", "backup export latest --format jsonl")
        self.once(data, config, "restore --to-file", f"restore web --to-file {self.work}/out.rdb")
        self.target = Server(self.work / "target")
        self.once(data, config, "restore", f"restore web --to redis://127.0.0.1:{self.target.port}")
        for server in (self.source, self.target):
            server.end()
        for name in ("source", "target", "archive", "spool", "state"):
            shutil.rmtree(self.work / name, ignore_errors=True)
        (self.work / "out.rdb").unlink(missing_ok=True)

    def once(self, data, config, name, words):
        # Others need a backup and the server's file.
        needed = name == "backup now --method bgsave"
        if self.only and not needed and not any(word in name for word in self.only):
            return
        taken, _ = run(f"exec {self.keeper} -q --config {config} {words}")
        print(f"   {name}: {taken.peak:.0f} MiB, {taken.wall:.1f} s", file=sys.stderr)
        data.runs[name] = taken


def report(measured):
    """The tables, and the rows that are over the bound."""
    names = [data.name for data in measured]
    commands = list(measured[0].runs)
    table = lambda what, cell: markdown([[what, *names], *([c, *(cell(d.runs[c]) for d in measured)] for c in commands)])
    facts = [["", *names], *([fact, *(d.facts[fact] for d in measured)] for fact in measured[0].facts)]
    over = [f"- {command}, {data.name}: {data.runs[command].peak:.0f} MiB, the bound is {data.bound(command)}\n"
            for command in commands for data in measured if data.runs[command].peak > data.bound(command)]
    return "\n".join([
        f"{machine()}.\n", table("peak MiB", lambda r: f"{r.peak:.0f}"), 
        table("seconds (of our processor time)", lambda r: f"{r.wall:.1f} ({r.cpu:.1f})"),
        markdown(facts), "".join(["Over the bound:\n\n", *over]) if over else "Nothing is over the bound.\n"])


def main():
    parser = argparse.ArgumentParser(description="peak memory of every command")
    parser.add_argument("--sizes", default="1,4", help="GB of RDB file; empty for none")
    parser.add_argument("--values", default="string,hash,list", help="kinds of a large value; empty for none")
    parser.add_argument("--value-mib", type=int, default=256)
    parser.add_argument("--only", default="", help="parts of the commands' names; bgsave is always run")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    require("redis-server", "redis-cli")
    measured = [
        Data(f"{size} GB", 0, ("sess.py", round(float(size) * SESSIONS_PER_GB)), ("mix.py", float(size) * SCALE_PER_GB))
        for size in filter(None, args.sizes.split(","))
    ] + [
        Data(f"{args.value_mib} MiB {kind}", args.value_mib, ("sess.py", 20_000), ("big.py", kind, args.value_mib))
        for kind in filter(None, args.values.split(","))
    ]
    bench = Bench(args)
    try:
        for data in measured:
            bench.measure(data)
    finally:
        bench.end()
    publish(report(measured), args.markdown)


if __name__ == "__main__":
    main()
