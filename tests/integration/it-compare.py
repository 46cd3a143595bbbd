#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushd against the original: the same requests go to Postfix's flush(8) and to fflushd.

A private Postfix instance (its own configuration, queue and data directories, no network, master
with nothing but flush and postlog) serves one queue directory, fflushd a twin of it. After every
request the replies, the triggers and the two queue directories are compared. Where fflushd
differs on purpose, a function in compare/deviations.py says so; all other differences fail.

Needs root, as master(8) does, and an installed Postfix; else the tests are skipped.
"""

import collections
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + d for d in ("/../lib", "/compare")]

from basics import TIMEOUT, eq, wait_for
from client import ANNOUNCEMENT, OK, add, send_file, send_site, talk
from deviations import hanging_up_is_fail
from generator import make_stream
from harness import Case, SEED, main, test
from material import HASHES, LISTS, NAME_CHARACTERS, RIGHT_NAMES, SITES, WRONG_NAMES, allowed_replies
from postfix import command
from queuefiles import fold_log, moved, put, read_quietly
from twins import NAMES, Request, Twins

REQUESTS = int(os.environ.get("FFLUSHD_COMPARE_REQUESTS", "400"))  # in each stream


@test
def random_requests_have_the_same_replies_and_effects(t):
    total = collections.Counter()
    for i, (domains, strict) in enumerate(LISTS):
        hashed, depth, style = HASHES[(i + SEED) % len(HASHES)]
        case = Case()
        try:
            stream = make_stream(case, i, domains, strict, hashed, depth, style)
            try:
                # postmap(1) sleeps for a second before it fails.
                stream.run(40 if domains == "" or "fail:" in domains else REQUESTS)
            except AssertionError as e:
                raise AssertionError("stream %d: fast_flush_domains = %s, strict %s, "
                                     "hash_queue_names = %s, depth %d\n%s" %
                                     (i, domains, strict, hashed, depth, e)) from None
            total += stream.twins.count
            accident = re.search(r"/flush\[\d+\]: (fatal|panic): .*",
                                 stream.twins.original.journal())
            if accident:
                raise AssertionError("the original had an accident: " + accident.group())
        finally:
            case.close()
    print("# %d requests: %s" % (total.pop("requests"), ", ".join(
        "%s %d" % item for item in sorted(total.items()))))


@test
def a_site_has_one_answer_however_it_is_written(t):
    """That of flush(8), if it has one; where it has two, the site is in these lists."""
    two = 0
    for i, (domains, strict) in enumerate(LISTS):
        if "fail:" in domains:  # a second each
            continue
        case = Case()
        try:
            stream = make_stream(case, i, domains, strict, "deferred", 1, "short")
            for site in SITES:
                original, ours = (allowed_replies(server, site)
                                  for server in (stream.twins.original, stream.twins.ours))
                eq(ours, original if len(original) == 1 else {OK}, (domains, site))
                two += len(original) > 1
        finally:
            case.close()
    if two == 0:
        raise AssertionError("the original has always one answer: is this still a deviation?")


@test
def internationalised_names_are_the_same(t):
    """Random characters: eligible or not, and under which name they are recorded."""
    rng = random.Random("%d names" % SEED)
    twins = Twins(t, rng)

    def replies(site):
        return [NAMES.get(talk(server, add(site, "ABC123")).removeprefix(ANNOUNCEMENT))
                for server in (twins.original, twins.ours)]

    def labels(most):
        return ".".join("".join(rng.choice(NAME_CHARACTERS) for _ in range(rng.randint(1, 6)))
                        for _ in range(rng.randint(1, most)))

    for site in [labels(2) + rng.choice((".example", ".com")) for _ in range(300)] + RIGHT_NAMES:
        original, ours = replies(site)
        eq(ours, original, ascii(site))
        if site in RIGHT_NAMES:
            eq(ours, "OK", ascii(site))
    names = [[os.path.basename(path) for path in spool.files("flush")] for spool in twins.spools]
    eq({fold_log(name) for name in names[1]}, set(names[0]), "names of logs")
    for site in WRONG_NAMES:
        eq(replies(site), ["OK", "DENY"], ascii(site))


@test
def clients_that_hang_up_do_not_stop_the_work(t):
    twins = Twins(t, random.Random(SEED))
    wanted = b""
    for i in range(40):
        queue_id = "%05X1" % i
        for spool in twins.spools:
            put(spool, twins.path("deferred", queue_id))
        hang_up(twins, add("example.com", queue_id))
        wanted += queue_id.encode() + b"\n"
        wait_for_logs(twins, wanted)
        if i % 3 == 1:
            hang_up(twins, send_site("example.com"))
            wanted = b""
            wait_for_logs(twins, wanted)
        if i % 3 == 2:
            hang_up(twins, send_file(queue_id))
            for spool in twins.spools:
                wait_for(lambda: os.path.exists(spool.join("incoming", queue_id)), "not moved")
    eq(twins.spools[1].files("incoming"), twins.spools[0].files("incoming"))
    # Not even the announcement was read: flush(8) may give up then.
    with twins.ours.connect() as s:
        s.sendall(add("other.example", "ABC123"))
    wait_for(lambda: os.path.exists(twins.spools[1].join("flush/other_example")), "not added")


def hang_up(twins, data):
    for server in (twins.original, twins.ours):
        with server.connect() as s:
            s.recv(len(ANNOUNCEMENT))
            s.sendall(data)


def wait_for_logs(twins, wanted):
    for spool in twins.spools:
        log = spool.join("flush/example_com")
        wait_for(lambda: os.path.exists(log) and read_quietly(log) == wanted, "not as wanted")


@test
def what_kills_flush_is_answered_fail(t):
    """A log that cannot be used: flush(8) hangs up and dies, fflushd says FAIL."""
    twins = Twins(t, random.Random("%d fail" % SEED))
    for spool in twins.spools:
        put(spool, "flush/example_com", 0o600, b"ABC123\n")
        os.chown(spool.join("flush/example_com"), 0, 0)
        put(spool, "flush/dir_example/x", 0o600, b"")
    twins.pre = twins.look()
    for data in (add("example.com", "DEF456"), send_site("example.com"),
                 add("dir.example", "DEF456"), send_site("dir.example")):
        twins.step(Request(add("other.example", "ABC123"), "add", "add", "other_example",
                           "ABC123"))
        twins.step(Request(data, "unusable log", reply=hanging_up_is_fail))


@test
def records_survive_an_incoming_queue_that_cannot_be_written(t):
    """flush(8) empties the log and leaves the messages, due but unrecorded."""
    twins = Twins(t, random.Random("%d incoming" % SEED))
    for spool in twins.spools:
        for queue_id in ("ABC123", "BCD234"):
            put(spool, twins.path("deferred", queue_id))
        put(spool, "incoming/CDE345")
        put(spool, "flush/example_com", 0o600, b"ABC123\nCDE345\nBCD234\nABC123\nDEF456\n")
        os.chmod(spool.join("incoming"), 0o500)
    eq([talk(server, send_site("example.com")).removeprefix(ANNOUNCEMENT)
        for server in (twins.original, twins.ours)], [OK, OK])
    eq([spool.read("flush/example_com") for spool in twins.spools], [b"", b"ABC123\nBCD234\n"])
    eq([spool.triggers() for spool in twins.spools], [b"FI", b"FI"])
    for spool in twins.spools:
        os.chmod(spool.join("incoming"), 0o700)
    eq([talk(server, send_site("example.com")).removeprefix(ANNOUNCEMENT)
        for server in (twins.original, twins.ours)], [OK, OK])
    eq([spool.files("incoming") for spool in twins.spools],
       [["incoming/CDE345"], ["incoming/ABC123", "incoming/BCD234", "incoming/CDE345"]])


@test
def postqueue_and_sendmail_say_the_same(t):
    """They reach us by flush_service_name, and tell the user the same as with flush(8)."""
    twins = Twins(t, random.Random("%d clients" % SEED),
                  "example.com, fail:oops, other.example", strict=True)
    configs = [twins.original.conf, os.path.join(twins.ours.base, "conf")]
    os.mkdir(configs[1])
    twins.original.write_main_cf(
        configs[1], queue_directory=twins.spools[1].path, flush_service_name="fflushd",
        fast_flush_domains="example.com, fail:oops, other.example",
        parent_domain_matches_subdomains="relay_domains")
    shutil.copy(os.path.join(configs[0], "master.cf"), configs[1])

    def run(*args):
        """The same command with both configurations."""
        results = []
        for config in configs:
            r = subprocess.run([command(args[0]), "-C" if args[0] == "sendmail" else "-c", config,
                                *args[1:]], capture_output=True, text=True, timeout=TIMEOUT,
                               stdin=subprocess.DEVNULL)
            text = r.stderr.replace(config, "CONF").replace("public/fflushd", "public/flush")
            # Of a server that is going: how far it has got when the client comes is chance.
            text = re.sub("warning: (connect to|write) public/flush.*", "warning: it has gone", text)
            results.append((r.returncode, r.stdout, text))
        eq(results[1], results[0], args)
        return results[0]

    def deliver(argument):
        """Record and defer a message, then have a client send it."""
        for spool in twins.spools:
            put(spool, "deferred/A/ABC123")
        twins.pre = twins.look()
        twins.step(Request(add("example.com", "ABC123"), "add", "add", "example_com", "ABC123"))
        twins.since = time.time()
        eq(run(*argument), (0, "", ""), argument)
        kind = "send_file" if "-i" in argument or "-qIABC123" in argument else "send_site"
        twins.settle(kind, [Request(b"", "client", kind, "example_com", "ABC123")], [OK])
        eq([moved(spool) for spool in twins.spools], [{"ABC123"}] * 2)
        for spool in twins.spools:
            os.unlink(spool.join("incoming/ABC123"))

    deliver(("postqueue", "-s", "example.com"))
    deliver(("postqueue", "-s", "EXAMPLE.com"))
    deliver(("postqueue", "-i", "ABC123"))
    deliver(("sendmail", "-qRexample.com"))
    deliver(("sendmail", "-qIABC123"))
    eq(run("postqueue", "-i", "NOSUCH1"), (0, "", ""))
    for args in (("postqueue", "-s", "a b"), ("postqueue", "-i", "a-b"),
                 ("postqueue", "-s", "[192.0.2.1]"), ("postqueue", "-s", "other.example"),
                 ("postqueue", "-s", "example.com."), ("sendmail", "-qRother.example"),
                 ("sendmail", "-qIa-b")):
        code, _, text = run(*args)
        if code == 0 or text == "":
            raise AssertionError("%s has succeeded" % (args,))

    # What only the servers refuse: the clients believe everything to be eligible.
    for config, spool, service in zip(configs, twins.spools, ("flush", "fflushd")):
        twins.original.write_main_cf(config, queue_directory=spool.path,
                                     flush_service_name=service)
    for site in ("nosuch.example", "other.example", "sub.example.com"):
        code, _, text = run("postqueue", "-s", site)
        if code == 0 or text == "":
            raise AssertionError("%s was sent" % site)

    twins.original.close()
    twins.ours.stop()
    for args in (("postqueue", "-s", "example.com"), ("postqueue", "-i", "ABC123"),
                 ("sendmail", "-qRexample.com")):
        code, _, text = run(*args)
        if code == 0 or "mail system is down" not in text:
            raise AssertionError("%s with nobody there: %d %s" % (args, code, text))


if __name__ == "__main__":
    main()
