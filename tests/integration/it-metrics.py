#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl metrics: the queue and the service in numbers, and the alerts that are shipped for them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TOP, eq
from client import OK, send_file
from ctl import objects, write
from harness import main, test

RULES = os.path.join(TOP, "conf/fflushd.rules.yml")
ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def promtool(*args, stdin=None):
    if shutil.which("promtool") is None:
        raise Skip("needs promtool")
    return subprocess.run(["promtool", *args], input=stdin, capture_output=True, text=True)


def samples(text):
    """A dictionary of the samples."""
    eq(text.endswith("# EOF\n"), True, text)
    found = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    eq(len(dict(found)), len(found), "a sample twice")
    return {k: int(v) for k, v in found}


def long_id(seconds, tail):
    digits = ""
    while seconds:
        seconds, digit = divmod(seconds, 52)
        digits = ALPHABET[digit] + digits
    return digits + "4xyz" + "z" + tail


@test
def deferred_messages_are_counted_once_and_have_an_age(t):
    spool, d = t.make()
    now = int(time.time())
    old, older = long_id(now - 5000, "Bc1"), long_id(now - 90000, "Bc2")
    for name in (old, older):
        spool.put("deferred/4/" + name)
    spool.put("deferred/A/A1")
    spool.put("deferred/A/A2")
    spool.put("active/A3")
    spool.put("hold/A4")
    spool.put("deferred/A/not-an-id")
    spool.log("a_test", ("%s\nA1\nA3\nA4\nGONE\n" % old).encode())
    spool.log("b_test", ("%s\nA1\n" % old).encode())
    spool.log("c_test", b"A3\n")
    text = d.ctl("metrics", "a.test", "b.test", "c.test", "d.test").stdout
    got = samples(text)
    eq((got["fflushd_deferred_messages"], got["fflushd_unrecorded_messages"]), (4, 2))
    eq(got["fflushd_oldest_message_timestamp_seconds"], now - 90000)
    for site, deferred, oldest in (("a", 2, now - 5000), ("b", 2, now - 5000), ("c", 0, None),
                                   ("d", 0, None)):
        label = '{site="%s.test"}' % site
        eq(got["fflushd_site_deferred_messages" + label], deferred, site)
        eq(got.get("fflushd_site_oldest_message_timestamp_seconds" + label), oldest, site)
    eq(got['fflushd_build_info{version="%s"}'
           % d.ctl("--version").stdout.split()[1]], 1)
    r = promtool("check", "metrics", stdin=text)
    eq((r.returncode, r.stdout + r.stderr), (0, ""), text)
    o = objects(d.ctl("-j", "metrics", "a.test", "c.test"))[0]
    eq((o["deferred"], o["unrecorded"], o["oldest"]), (4, 2, now - 90000))
    eq([(row["deferred"], row["oldest"]) for row in o["by_site"]], [(2, now - 5000), (0, None)])
    for name in (old, older):
        os.remove(spool.join("deferred/4/" + name))
    got = samples(d.ctl("metrics").stdout)
    if "fflushd_oldest_message_timestamp_seconds" in got:  # the file system knows when they were made
        eq(abs(got["fflushd_oldest_message_timestamp_seconds"] - now) < 60, True)
    for name in ("deferred/A/A1", "deferred/A/A2"):
        os.remove(spool.join(name))
    got = samples(d.ctl("metrics").stdout)
    eq((got["fflushd_deferred_messages"], got["fflushd_unrecorded_messages"],
        "fflushd_oldest_message_timestamp_seconds" in got), (0, 0, False))


@test
def the_probe_of_enable_postfix_is_not_counted(t):
    _, d = t.make()
    before = samples(d.ctl("metrics").stdout)
    eq(d.exchange(send_file("PROBE")), OK)
    after = samples(d.ctl("metrics").stdout)
    for name in after:
        if "requests" in name or "messages" in name:
            eq((name, after[name]), (name, before.get(name, 0)))
    eq(d.exchange(send_file("A1")), OK)
    eq(samples(d.ctl("metrics").stdout)['fflushd_messages_total{result="gone"}'], 1)


@test
def a_dead_socket_is_told_and_not_woken(t):
    spool, d = t.make()
    spool.log("a_test", b"A1\n")
    got = samples(d.ctl("metrics").stdout)
    eq((got["fflushd_up"], got["fflushd_listening"], "fflushd_served" in got), (1, 1, False))
    eq(d.is_waiting(), True, "it was started")
    out = os.path.join(d.state, "fflushd.prom")
    d.ctl("metrics", "-o", out)
    d.stop()
    d.ctl("metrics", "-o", out)
    with open(out) as f:
        text = f.read()
    got = samples(text)
    eq((got["fflushd_up"], got["fflushd_listening"], got["fflushd_records"]), (0, 0, 1))
    os.remove(d.socket_path)
    eq(samples(d.ctl("metrics").stdout)["fflushd_listening"], 0)
    eq(objects(d.ctl("-j", "metrics"))[0]["listening"], False)


@test
def a_file_that_would_be_old_says_so(t):
    """What cannot be read leaves no number of before, and none that looks as if all mail had gone."""
    spool, d = t.make()
    spool.log("a_test", b"A1\n")
    out = os.path.join(d.state, "fflushd.prom")
    d.ctl("metrics", "-o", out)
    os.rename(spool.join("flush"), spool.join("flush.away"))
    write(spool.path, "flush", "no directory")
    r = d.ctl("metrics", "-o", out, check=False)
    eq(r.returncode > 0, True)
    with open(out) as f:
        text = f.read()
    got = samples(text)
    eq((got["fflushd_up"], [k for k in got if "records" in k]), (0, []))
    eq(promtool("check", "metrics", stdin=text).returncode, 0)
    eq(d.ctl("metrics", check=False).stdout, "")


@test
def the_queue_may_be_unreadable(t):
    spool, d = t.make()
    spool.log("a_test", b"A1\n")
    shutil.rmtree(spool.join("deferred"))
    write(spool.path, "deferred", "no directory")
    r = d.ctl("metrics", "a.test", check=False)
    got = samples(r.stdout)
    eq((r.returncode, got["fflushd_records"], [k for k in got if "deferred" in k or "unrec" in k]),
       (os.EX_IOERR, 1, []))
    eq("/deferred: " in r.stderr, True, r.stderr)
    eq(objects(d.ctl("-j", "metrics", check=False))[0]["deferred"], None)


# For each alert: what is seen, every minute, and when it fires and when not.
HOUR, DAY = 60, 1440
CASES = (
    ("FflushdNotListening", {"fflushd_up": "1x10 0x10"}, 10, 16, {"severity": "critical"}),
    ("FflushdUnhealthy", {"fflushd_healthy": "1x10 0x10"}, 12, 18, {"severity": "critical"}),
    ("FflushdNotAsked", {"fflushd_served": "1x10 0x30"}, 20, 30, {}),
    ("FflushdRefreshLate", {"fflushd_last_refresh_timestamp_seconds": "0x400"}, 110, 125, {}),
    ("FflushdRefreshLate", {"fflushd_last_refresh_timestamp_seconds": "6000+60x400"}, 300, None, {}),
    ("FflushdOldestMessageTooOld", {"fflushd_oldest_message_timestamp_seconds": "60x6000"},
     4 * DAY, 4 * DAY + 40, {}),
    ("FflushdRecordsMissing", {"fflushd_unrecorded_messages": "11x100",
                               "fflushd_deferred_messages": "100x100"}, 50, 65, {}),
    ("FflushdRecordsMissing", {"fflushd_unrecorded_messages": "9x100",
                               "fflushd_deferred_messages": "9x100"}, 90, None, {}),
    ("FflushdRecordsMissing", {"fflushd_unrecorded_messages": "90x100",
                               "fflushd_deferred_messages": "1000x100"}, 90, None, {}),
    ("FflushdFailuresGrowing", {'fflushd_failures_total{class="lock"}': "0x20 1x3 2x30"}, 20, 36,
     {"class": "lock"}),
    ("FflushdFailuresGrowing", {'fflushd_failures_total{class="log"}': "7x60"}, 50, None, {}),
    ("FflushdMetricsOld", {'node_textfile_mtime_seconds{file="/x/fflushd-b.prom"}': "60x30"}, 10, 20,
     {"file": "/x/fflushd-b.prom"}),
    ("FflushdMetricsOld", {'node_textfile_mtime_seconds{file="/x/other.prom"}': "60x30"}, 25, None,
     {}),
)


def spell(values):
    """ "1x10 0x10": promtool's way to say this needs the step as well."""
    return " ".join(v if "+" in v else v.replace("x", "+0x") for v in values.split())


def firing(alert, minute, labels):
    one = {"alertname": alert, "eval_time": "%dm" % minute, "exp_alerts": []}
    if labels is not None:
        one["exp_alerts"].append({"exp_labels": labels})
    return one


@test
def alerts_fire_when_they_should(t):
    r = promtool("check", "rules", RULES)
    eq(r.returncode, 0, r.stdout + r.stderr)
    with open(RULES) as f:
        text = f.read()
    named = set(re.findall(r"alert: (\w+)", text))
    eq(named, {case[0] for case in CASES}, "alerts without a case")
    severity = dict(re.findall(r"alert: (\w+).*?severity: (\w+)", text, re.S))
    summary = {name: part for name, part in re.findall(r"alert: (\w+)(.*?)(?=- alert|\Z)", text, re.S)}
    for alert in named:
        eq("summary: " in summary[alert] and "description: " in summary[alert], True, alert)
    for alert, series, before, after, labels in CASES:
        # promtool compares annotations too, so without them
        rules = write(t.base, "rules.yml", re.sub(r" +annotations:\n +summary: .*\n +description: .*\n",
                                                  "", text))
        labels = {"severity": severity[alert]} | labels
        tests = [firing(alert, before, None)]
        if after is not None:
            tests.append(firing(alert, after, labels))
        path = write(t.base, "test.yml", json.dumps({
            "rule_files": [rules], "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "alert_rule_test": tests,
                       "input_series": [{"series": k, "values": spell(v)}
                                        for k, v in series.items()]}]}))
        r = promtool("test", "rules", path)
        eq(r.returncode, 0, "%s %r\n%s" % (alert, series, r.stdout + r.stderr))


@test
def alerts_and_manual_name_metrics_that_exist(t):
    spool, d = t.make()
    spool.put("deferred/4/" + long_id(1700000000, "Bc1"))
    spool.log("a_test", b"A1\n")
    d.ctl("flush", "a.test")
    families = set(re.findall(r"^# TYPE (\w+)", d.ctl("metrics", "a.test").stdout, re.M))
    families |= {"fflushd_served"}  # needs Postfix
    with open(RULES) as f:
        used = set(re.findall(r"\bfflushd_\w+", f.read()))
    eq(used - families, set())
    with open(os.path.join(TOP, "man/fflushctl.8")) as f:
        described = set(re.findall(r"\bfflushd_\w+", f.read()))
    eq(families - described, set(), "not in the manual")


if __name__ == "__main__":
    main()
