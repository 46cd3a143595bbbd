# SPDX-License-Identifier: MIT
"""The figures: what is done for each of them, what is checked, and what it has to be."""

import contextlib
import math
import os
import re
import statistics
import time

from basics import HOUR
from servers import Wrong
from spool import queue_id

STALE = 10  # one log of so many


class Metric:
    """One line of the table."""

    def __init__(self, key, label, unit, more_is_better=False, ratio_bar=None, most=None):
        self.key, self.label, self.unit, self.more_is_better = key, label, unit, more_is_better
        self.ratio_bar, self.most = ratio_bar, most

    def ratio(self, original, ours):
        a, b = (ours, original) if self.more_is_better else (original, ours)
        return a / b if b else math.inf


class Figure:
    """What is measured together: run(server) and maybe limit(limit), each a dict by metric key."""

    def __init__(self, name, metrics, run, limit=None, before=None, after=None, group=None, x=None):
        self.name, self.metrics, self.run, self.limit = name, metrics, run, limit
        self.before, self.after, self.group, self.x = before, after, group, x
        self.values = {"original": [], "fflushd": [], "limit": []}
        self.foreign = {"original": [], "fflushd": [], "limit": []}
        self.errors = []

    def ratios(self, metric):
        return [metric.ratio(a[metric.key], b[metric.key])
                for a, b in zip(self.values["original"], self.values["fflushd"]) if a and b]

    def median(self, who, key):
        values = [v[key] for v in self.values[who] if v and key in v]
        return statistics.median(values) if values else None

    def verdict(self, metric):
        """None if there is no bar, else whether it is met."""
        ratios = self.ratios(metric)
        if metric.ratio_bar is None and metric.most is None:
            return None
        if not ratios or self.errors:
            return False
        if metric.most is not None:
            return self.median("fflushd", metric.key) <= metric.most
        return statistics.median(ratios) >= metric.ratio_bar


def picked(result, *keys):
    return {k: result[k] for k in keys}


def since_request(result, spool, letter):
    """When a trigger came, in ms."""
    first, n = spool.wake_ups()[letter]
    if n == 0:
        raise Wrong("qmgr was not woken with " + letter)
    return (first - result["begin_nsec"]) / 1e6


def add_run(clients, sites, seconds):
    def run(server):
        server.spool.empty_logs()
        first = server.ids(2_000_000)
        r = server.load("-c", clients, "-d", sites, "-t", seconds, "-b", first, "add")
        server.spool.check_added(sites, first, r["requests"])
        return picked(r, "rate", "p50_us", "p99_us", "max_us")

    def limit(server):
        with server.serving():
            return run(server)

    return run, limit


def one_cpu(function):
    """Client and server on the last CPU."""
    def run(server):
        all_cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(all_cpus)})
        try:
            if server.process:
                server.pin({max(all_cpus)})
            return function(server)
        finally:
            os.sched_setaffinity(0, all_cpus)
            if server.process:
                server.pin(all_cpus)
    return run


def prepare_send(spool, n, duplicates=1):
    spool.messages(n)
    data = "".join(queue_id(i) + "\n" for i in range(n)).encode()
    spool.log("d0_example_com", data * duplicates, 0)
    os.sync()
    spool.forget_wake_ups()


def check_sent(spool, n, since):
    spool.check_moved(n, since)
    if spool.read_log("d0_example_com") != b"":
        raise Wrong("the log is not empty")
    if spool.wake_ups()["F"][1] == 0:
        raise Wrong("qmgr was not woken with F")


def send_run(n, duplicates, watch=False):
    def run(server):
        prepare_send(server.spool, n, duplicates)
        since = time.time()
        options = ["-w", server.spool.join("incoming")] if watch else []
        r = server.load(*options, "send_site")
        check_sent(server.spool, n, since)
        woken = since_request(r, server.spool, "I")
        if watch:
            return {"moved_ms": r["moved_ms"], "begun_ms": max(r["moved_ms"], woken)}
        return {"ms": r["max_us"] / 1000}

    def limit(server):
        prepare_send(server.spool, n, duplicates)
        since = time.time()
        seconds = server.run("send", n)
        server.spool.check_moved(n, since)
        return {"ms": seconds * 1000}

    return run, limit


def send_file_run(n, clients):
    def run(server):
        server.spool.messages(n)
        os.sync()
        server.spool.forget_wake_ups()
        since = time.time()
        r = server.load("-c", clients, "-n", n, "send_file")
        server.spool.check_moved(n, since, unthrottled=True)
        since_request(r, server.spool, "I")
        return picked(r, "rate", "p50_us", "p99_us", "max_us")

    def limit(server):
        server.spool.messages(n)
        os.sync()
        since = time.time()
        seconds = server.run("send_file", n)
        server.spool.check_moved(n, since, unthrottled=True)
        return {"rate": n / seconds}

    return run, limit


def refresh_log(i):
    return "s%06d_example_com" % i


def prepare_refresh(spool, n):
    """Fresh logs are written once and never touched; one in STALE has one message."""
    spool.messages(n // STALE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(spool.join("flush/warm0_example_com"))
    there = set(os.listdir(spool.join("flush")))
    for i in range(n):
        if i % STALE == 0:
            spool.log(refresh_log(i), b"%s\n" % queue_id(i // STALE).encode(), -13 * HOUR)
        elif refresh_log(i) not in there:
            spool.log(refresh_log(i), b"%s\n" % queue_id(10_000_000 + i).encode(), 0)
    os.sync()
    spool.forget_wake_ups()


def check_refreshed(spool, n, since):
    spool.check_moved(n // STALE, since)
    sizes = {e.name: e.stat().st_size for e in os.scandir(spool.join("flush"))}
    for i in range(n):
        size = sizes.pop(refresh_log(i), 0)
        if (size == 0) != (i % STALE == 0):
            raise Wrong("log %d has %d bytes after a refresh" % (i, size))
    if any(sizes.values()):
        raise Wrong("logs that were not there before: %s" % list(sizes)[:3])


def refresh_run(n):
    def run(server):
        server.warm_up()
        prepare_refresh(server.spool, n)
        since = time.time()
        r = server.load("-e", "refresh")
        check_refreshed(server.spool, n, since)
        since_request(r, server.spool, "I")
        return {"ms": r["max_us"] / 1000}

    def limit(server):
        prepare_refresh(server.spool, n)
        since = time.time()
        seconds = server.run("refresh", 12 * HOUR)
        check_refreshed(server.spool, n, since)
        return {"ms": seconds * 1000}

    return run, limit


def during_run(n, site, rate):
    """What is added meanwhile is either still in the log, or was sent with it."""
    def run(server):
        prepare_send(server.spool, n)
        first, since = server.ids(1_000_000), time.time()
        r = server.load("-c", 500, "-r", rate, "-s", site, "-b", first, "-S", "d0.example.com",
                        "add")
        server.spool.check_moved(n, since)
        added = [queue_id(first + i) for i in range(r["requests"])]
        log = server.spool.read_log(site + "0_example_com").decode().split()
        if not set(log) <= set(added) or (site != "d" and sorted(log) != sorted(added)):
            raise Wrong("the log is not what was added")
        if server.name != "flush(8)" and set(added[-5:]) - set(log):
            raise Wrong("adds were lost")
        server.spool.no_logs()
        return {"p50_us": r["p50_us"], "p99_ms": r["p99_us"] / 1000, "max_us": r["max_us"],
                "send_ms": r["send_ms"]}
    return run


def memory_run(clients, seconds):
    def run(server):
        server.spool.empty_logs()
        process = server.load_start("-c", clients, "-d", 1000, "-t", seconds, "-b",
                                    server.ids(2_000_000), "add")
        most = [0.0, 0]
        while process.poll() is None:
            most = [max(m) for m in zip(most, server.memory())]
            time.sleep(0.02)
        server.load_result(process)
        return {"pss_mib": most[0], "processes": most[1]}

    def limit(server):
        with server.serving():
            return run(server)

    return run, limit


def cold_run(n):
    def run(server):
        times = []
        for _ in range(n):
            server.sleep()
            time.sleep(0.1)
            times.append(server.load("-n", 1, "-b", server.ids(1), "add")["max_us"] / 1000)
        return {"ms": statistics.median(times)}
    return run


def figures(bench):
    """All of them, cheap ones first."""
    quick = bench.args.quick
    seconds = 0.5 if quick else 3
    ours = bench.fflushd
    found = []

    def add(name, metrics, run, limit=None, **kw):
        found.append(Figure(name, metrics, run, limit, **kw))

    def no_logs():
        for spool in bench.spools:
            spool.no_logs()

    rate_bars = {(8, 1): 3.0, (64, 1): 3.0, (8, 1000): 2.6, (64, 1000): 2.6, (1, 1): 1.0,
                 (1, 1000): 1.0}
    p99_bars = {8: 6.0, 64: 3.5}
    for sites in (1, 1000):
        for clients in (1, 8, 64, 512):
            add("add, %d client%s, %d site%s" % (clients, "s" * (clients > 1), sites,
                                                 "s" * (sites > 1)),
                [Metric("rate", "", "/s", True, rate_bars.get((clients, sites))),
                 Metric("p50_us", "p50", "us"),
                 Metric("p99_us", "p99", "us", ratio_bar=p99_bars.get(clients))],
                *add_run(clients, sites, seconds), before=no_logs,
                group="add, %d site%s" % (sites, "s" * (sites > 1)), x=clients)
    run, limit = add_run(1, 1, seconds)

    def limit_on_one_cpu(server):
        with server.serving():
            return one_cpu(run)(server)

    add("add, 1 client, 1 site, one CPU",
        [Metric("rate", "", "/s", True, 3.5), Metric("p50_us", "p50", "us"),
         Metric("p99_us", "p99", "us")], one_cpu(run), limit_on_one_cpu, before=no_logs)

    for clients in (64, 512):
        small = clients == 64
        add("memory, %d clients" % clients,
            [Metric("pss_mib", "PSS", "MiB", ratio_bar=4.0 if small else None),
             Metric("processes", "processes", "", most=1 if small else None)],
            *memory_run(clients, 1 if quick else 4), before=no_logs)

    for configuration, name, bar in (
            ("self-contained", "self-contained", 2.0),
            ("postconf kept", "values from postconf", 1 / 1.5),
            ("postconf", "values from postconf, none kept", None)):
        add("cold start, " + name, [Metric("ms", "", "ms", ratio_bar=bar)],
            cold_run(3 if quick else 10),
            before=lambda c=configuration: (no_logs(), ours.use(c)),
            after=lambda: ours.use("self-contained"))

    for clients, bar in ((1, 1.2), (8, 1.8)):
        add("send_file, %d client%s" % (clients, "s" * (clients > 1)),
            [Metric("rate", "", "/s", True, bar), Metric("p99_us", "p99", "us")],
            *send_file_run(2000 if quick else 10_000, clients), before=no_logs)

    for n in (1000, 5000) if quick else (1000, 10_000, 100_000, 300_000):
        for duplicates, bar in ((1, 1.15), (5, 2.3)):
            how = "5-fold duplicates" if duplicates > 1 else "no duplicates"
            add("send_site of %d, %s" % (n, how),
                [Metric("ms", "", "ms", ratio_bar=bar if n <= 100_000 else None)],
                *send_run(n, duplicates), before=no_logs, group="send_site, " + how, x=n)
    long = 20_000 if quick else 100_000
    add("send_site of %d" % long,
        [Metric("moved_ms", "first message moved", "ms"),
         Metric("begun_ms", "moved, qmgr woken", "ms", most=20)],
        send_run(long, 1, watch=True)[0], before=no_logs)
    for site, who, rate, bars in (("d", "same site", 200, {"most": 5}),
                                  ("other", "other site", 1000, {"ratio_bar": 1.0})):
        add("add to %s during it" % who,
            [Metric("p50_us", "p50", "us"), Metric("p99_ms", "p99", "ms", **bars),
             Metric("send_ms", "the send", "ms")], during_run(long, site, rate), before=no_logs)

    for n in (1000, 2000) if quick else (1000, 10_000, 100_000):
        bar = Metric("ms", "", "ms", ratio_bar=1.8 if n == 100_000 else 1.3)
        # The logs of a smaller one are the first of a larger one, and removing them is slow.
        add("refresh, %d logs" % n, [bar], *refresh_run(n),
            before=no_logs if n == 1000 else None, group="refresh", x=n)
        add("refresh, %d logs, 1024 descriptors" % n, [bar], *refresh_run(n),
            before=lambda: ours.use("self-contained", 1024),
            after=lambda: ours.use("self-contained"))
    words = bench.args.only or [""]
    return [f for f in found if any(re.search(w, f.name) for w in words)]
