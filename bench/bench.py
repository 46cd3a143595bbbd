#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast is fflushd, beside Postfix's flush(8) and beside the bare system calls?

Both servers run at the same time, each on a spool of its own, and are measured in turns: A, B, then
B, A. What each has done is checked every time: logs that hold exactly what was added, messages that
have moved. A ratio is that of one pair and says how many times better fflushd is: above 1 it is
faster (or smaller). Of these, median, least and greatest are printed.

Needs root (as Postfix's master does) and an installed Postfix; touches neither its configuration
nor its queue. Everything is below a temporary directory in $TMPDIR, which should be on the disk
that matters.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../tests/lib")

from basics import BUILD, Skip
from figures import figures
from machine import Patience, describe
from postfix import postfix_default
from report import as_json, as_svg, table
from servers import Fflushd, Flush8, Limit, Mailqueue, Problem, Wrong


class Bench:
    def __init__(self, args):
        self.args = args
        self.running, self.open = [], []  # processes; what else is to be closed
        postfix_default("mail_owner")  # is there a Postfix, and may we?
        for program in (args.fflushd, *map(self.tool, ("load", "limit", "hold"))):
            if not os.access(program, os.X_OK):
                raise Problem("there is no %s; make bench builds it" % program)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.base = os.path.realpath(tempfile.mkdtemp(prefix="fflushd-bench."))
        os.chmod(self.base, 0o755)
        self.log = open(os.path.join(self.base, "errors"), "w+b")
        self.measured = []

    def tool(self, name):
        return os.path.join(BUILD, "bench", name)

    def start(self, command, **kw):
        """In a session of its own: Ctrl-C is ours, and we end them."""
        kw = {"stdout": self.log, "stderr": self.log} | kw
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **kw)
        self.running.append(process)
        return process

    def stop(self, process):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.remove(process)

    def set_up(self):
        self.spools = [Mailqueue(self, name) for name in ("original", "fflushd", "limit")]
        self.open += self.spools
        self.original = Flush8(self, self.spools[0])
        self.fflushd = Fflushd(self, self.spools[1])
        self.bare = Limit(self, self.spools[2])

    def close(self):
        """Leaves nothing behind, and is not to be hurried."""
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        for process in self.running[::-1]:
            if process.poll() is None:
                self.stop(process)
        for o in self.open[::-1]:
            o.close()
        self.log.close()
        shutil.rmtree(self.base)

    def measure_all(self):
        """Adds to self.measured, so that an interrupted run has something to show."""
        chosen = figures(self)
        if not chosen:
            raise Problem("no figure has such a name")
        if any(re.match("send|refresh|add to", f.name) for f in chosen):
            progress("making the spools alike")
            for spool in self.spools:
                spool.age(20_000 if self.args.quick else 100_000)
        self.patience = Patience(self.args.patience)
        for k, figure in enumerate(chosen):
            progress("%d/%d %s" % (k + 1, len(chosen), figure.name))
            self.measured.append(figure)
            if figure.before:
                figure.before()
            for pair in range(self.args.pairs):
                self.measure_pair(figure, pair)
            if figure.after:
                figure.after()
        progress(None)

    def measure_pair(self, figure, pair):
        turns = [("original", self.original, figure.run), ("fflushd", self.fflushd, figure.run)]
        if pair % 2 == 1:
            turns.reverse()
        if figure.limit:
            turns.append(("limit", self.bare, figure.limit))
        for who, server, run in turns:
            if who != "limit":
                server.warm_up()
            try:
                value, share = self.patience.measure(lambda s=server, r=run: r(s))
            except Wrong as e:
                figure.errors.append("%s: %s" % (server.name, e))
                value, share = None, 0.0
            figure.values[who].append(value)
            figure.foreign[who].append(round(share, 3))


def progress(text):
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + (text or ""))
    elif text:
        sys.stderr.write("# %s\n" % text)
    sys.stderr.flush()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0],
                                     epilog="Needs root and Postfix.")
    parser.add_argument("--quick", action="store_true", help="small sizes, 3 pairs: 2 minutes")
    parser.add_argument("--pairs", type=int, metavar="N", help="5; 3 with --quick")
    parser.add_argument("--only", action="append", metavar="PATTERN",
                        help="figures whose names match this; may be repeated")
    parser.add_argument("--fflushd", metavar="PATH", default=os.path.join(BUILD, "fflushd"))
    parser.add_argument("--output", metavar="DIRECTORY", default=".",
                        help="where bench.json and bench.svg go")
    parser.add_argument("--patience", type=float, metavar="SECONDS",
                        help="how long in all to wait for a quiet machine and repeat what was "
                        "disturbed (600; 20 with --quick)")
    args = parser.parse_args()
    args.fflushd = os.path.abspath(args.fflushd)
    args.pairs = args.pairs or (3 if args.quick else 5)
    if args.patience is None:
        args.patience = 20 if args.quick else 600
    return args


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    bench = None
    try:
        bench = Bench(args)
        facts = describe(bench.base, args.fflushd)
        for name, value in facts.items():
            print("%-13s %s" % (name + ":", value), flush=True)
        bench.set_up()
        bench.measure_all()
    except (Problem, Skip, AssertionError) as e:
        sys.exit("bench: %s" % e)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        if not bench or not bench.measured:
            sys.exit(1)
    finally:
        if bench:
            progress("cleaning up")
            bench.close()
            progress(None)
    chosen = bench.measured
    print("\n" + table(chosen))
    os.makedirs(args.output, exist_ok=True)
    with open(os.path.join(args.output, "bench.json"), "w") as f:
        json.dump(as_json(facts, chosen, args.pairs), f, indent=1)
        f.write("\n")
    picture = as_svg(facts, chosen)
    if picture:
        with open(os.path.join(args.output, "bench.svg"), "w") as f:
            f.write(picture)
    sys.exit(1 if any(f.errors for f in chosen) else 0)


if __name__ == "__main__":
    main()
