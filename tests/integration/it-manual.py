#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the manual pages, doc/ and CONTRIBUTING say of the source is so: limits, defaults, names.

Each limit that a page states is here with the constant it comes from, and with its sentence, so that
a change of either is noticed.
"""

import glob
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TOP, eq
from harness import main, test

WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
UNITS = {"h": "hours", "d": "days", "s": "seconds"}

# How a page writes a value.
PLAIN = "{}".format
COMMA = "{:,}".format


def KIB(n):
    return "%g" % (n / 1024)


def MIB(n):
    return "%g" % (n / 1024 / 1024)


def SECONDS(usec):
    return "%g" % (usec / 1e6)


def MILLISECONDS(usec):
    return "%g" % (usec / 1e3)


def IN_WORDS(usec):
    return WORDS[int(usec / 1e6)]


# Constant, how it is written, and the sentences, with whitespace as one blank and macros as they are.
FFLUSHD = [
    ("ATTR_LIST_MAX", PLAIN, ".It {} bytes Longest request."),
    ("SITE_MAX", PLAIN, ".It {} characters Longest destination"),
    ("LABEL_MAX", PLAIN, "the longest label is {}."),
    ("QUEUEID_MAX", PLAIN, ".It {} characters Longest queue ID."),
    ("CONNECTIONS_MAX", PLAIN, ".It {} Open connections"),
    ("CHILD_FDS", PLAIN, "plus {} for each lookup table"),
    ("REQUESTS_MAX_MIB", PLAIN, ".It {} MiB Memory for incomplete requests"),
    ("ATTR_INLINE_SIZE", PLAIN, "incomplete requests longer than {} bytes"),
    ("SENDS_MAX", PLAIN, ".It {} Flushes that run at the same time"),
    ("SEND_IDS_MAX", PLAIN, ".It {} Queue IDs of"),
    ("SEEN_ID_SIZE", lambda n: "%d" % (n - 1), "Queue IDs of {} characters on average"),
    ("SEND_IDS_MIN", PLAIN, "Each flush remembers at least {},"),
    ("SITES_KNOWN_MAX", PLAIN, ".It {} Queue IDs, the newest"),
    ("SITES_MAX", PLAIN, ".It {} Idle destinations"),
    ("ANSWERS_MAX", PLAIN, ".It {} Idle destinations"),
    ("POSTMAP_USEC", SECONDS, ".It {} seconds For one run of .Xr postmap 1"),
    ("TIMEOUT_USEC", SECONDS, "For .Xr postconf 1 it is {} seconds."),
    ("CHILD_OUTPUT_MAX", MIB, ".It {} MiB What one run of these commands"),
    ("KEYS_MAX", MIB, ".It {} MiB Keys for one run"),
    ("FILE_SIZE_MAX", MIB, ".It {} MiB Largest file"),
    ("FILE_DEPTH_MAX", PLAIN, "Files may name others, {} deep."),
    ("JOURNAL_SOCKET_WAITING_MAX", MIB, ".It {} MiB Messages that wait while the journal"),
    ("JOURNAL_SOCKET_CLOSE_MSEC", lambda n: WORDS[n // 1000], "exits, they wait for {} second."),
    ("LISTEN_FDS_MAX", PLAIN, ".It {} Listening sockets"),
    ("QUEUEID_FOREST_MAX", PLAIN, ".It {} Listening sockets, and the largest .Va hash_queue_depth"),
    ("ANSWER_USEC", SECONDS, "A result is kept for {} seconds"),
    ("ERROR_USEC", SECONDS, "an error for {} second."),
    ("SELFTEST_LOGS_MAX", COMMA, "opens up to {} logs"),
    ("SELFTEST_TABLE_USEC", IN_WORDS, "does not answer within {} seconds"),
    ("SELFTEST_RECENT_SEC", {3600: "hour"}.get, "requests have failed within the last {}"),
    ("JOB_SLICE_USEC", {100: "a tenth of a millisecond"}.get, "works in slices of {}."),
    ("SITELOG_RETRY_USEC", MILLISECONDS, "tries again every {} milliseconds"),
    ("SITELOG_SLICE", KIB, "In a log of more than {} KiB"),
    ("JOURNAL_TEXT_MAX", PLAIN, "cut to {} bytes"),
    ("REQUEST_REASON_MAX", PLAIN, "the first {} bytes, with unprintable bytes escaped"),
    ("REQUEST_REASON_MAX", PLAIN, "for the journal, which shows {} bytes"),
    ("HALF_LINES_MAX", WORDS.__getitem__, "{} in ten seconds are logged"),
    ("HALF_LINES_USEC", IN_WORDS, "ten in {} seconds are logged"),
    ("COMPACT_SIZE_MIN", PLAIN, "rewrites a log of at least {} bytes"),
    ("IDLE_USEC_MIN", SECONDS, "a shorter time than {0} seconds counts as {0} seconds"),
    ("LIFE_USEC_MIN", SECONDS, "Under systemd it lives for at least {} seconds"),
    ("LIFE_USEC_MIN", SECONDS, "not before it has lived for {} seconds"),
    ("DRAIN_USEC", SECONDS, "stops accepting for {} seconds"),
    ("DRAIN_AGAIN_USEC", IN_WORDS, "for 0.2 seconds every {} seconds"),
    ("LEAVE_USEC", IN_WORDS, "a client has {} seconds to send its request"),
    ("STOP_USEC", IN_WORDS, "gives open connections {} seconds to finish"),
    ("RELOAD_RETRY_USEC", IN_WORDS, "tries again every {} seconds. The journal"),
    ("RELOAD_RETRY_USEC", IN_WORDS, "again every {} seconds, and serves as soon as it succeeds"),
]
FFLUSHCTL = [
    ("AGENTS_USEC", SECONDS, "Then wait up to {} seconds, or .Fl -timeout ,"),
    ("CHECK_USEC", SECONDS, "except for .Cm check .Pq {} s"),
    ("CTL_SELF_TEST_USEC", SECONDS, "the self-test of .Cm status .Pq {} s"),
    ("REQUEST_REASON_MAX", PLAIN, "of at most {} bytes"),
    ("BACKLOG_FEW", PLAIN, "file, if at most {} messages are recorded,"),
    ("BACKLOG_MANY", PLAIN, "at most {} if a message is in the incoming or active queue,"),
    ("LOG_USEC", SECONDS, "waits for it up to {} seconds."),
]
FFLUSHD_CONF = [
    ("ANSWER_USEC", SECONDS, "Changes to lookup tables take effect within {} seconds."),
    ("QUEUEID_FOREST_MAX", PLAIN, "Number of levels of hash directories, 1 to {}."),
    ("IDLE_USEC_MIN", SECONDS, "under systemd after at least {} seconds."),
    ("LIFE_USEC_MIN", SECONDS, "Under systemd it lives for at least {} seconds"),
]
ARCHITECTURE = [
    ("JOB_SLICE_USEC", MILLISECONDS, "runs in *slices* of {} ms"),
    ("LIFE_USEC_MIN", IN_WORDS, "lives for at least {} seconds"),
]
PERFORMANCE = [
    ("SITES_KNOWN_MAX", COMMA, "the {} queue IDs added last"),
    ("SITES_MAX", COMMA, "{} idle sites"),
    ("ANSWERS_MAX", COMMA, "{} answers for each lookup table"),
    ("CONNECTIONS_MAX", COMMA, "{} connections of 1 KiB"),
    ("ATTR_LIST_MAX", KIB, "({} KiB for one that sends a long request)"),
    ("SENDS_MAX", PLAIN, "{} sends at a time"),
    ("SEND_IDS_MAX", COMMA, "remember {} distinct IDs"),
    ("SEND_IDS_MIN", COMMA, "each of them at least {};"),
    ("JOB_SLICE_USEC", MILLISECONDS, "waits for one slice of it ({} ms)"),
]
RELIABILITY = [
    ("SITELOG_RETRY_USEC", MILLISECONDS, "tried every {} ms"),
    ("POSTMAP_USEC", SECONDS, "killed after {} s"),
    ("CHILD_OUTPUT_MAX", MIB, "at {} MiB, FAIL"),
    ("JOURNAL_SOCKET_WAITING_MAX", MIB, "{} MiB of entries waits"),
    ("CONNECTIONS_MAX", COMMA, "(descriptors, at most {})"),
    ("SITELOG_SLICE", KIB, "there are {} KiB of it"),
]


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as f:
        return f.read()


def flat(path):
    return " ".join(read(path).split())


def constants():
    """Every numeric #define of src, by name; those of the same name in a list."""
    found = {}
    for path in glob.glob(os.path.join(TOP, "src/*/*.[ch]")):
        text = re.sub(r"\\\n", " ", read(path))
        for name, value in re.findall(r"^#define +([A-Z]\w+) +(.+)$", text, re.M):
            value = re.sub(r"/\*.*|\((u?int\w*|size_t)\)", "", value)
            value = re.sub(r"\b(\d+)[uUlL]+\b", r"\1", value).strip()
            found.setdefault(name, []).append(value)
    found["USEC_PER_SEC"], found["USEC_PER_MSEC"] = ["1000000"], ["1000"]
    return found


CONSTANTS = constants()


def value_of(name):
    eq(len(CONSTANTS.get(name, [])), 1, "definitions of %s in src" % name)
    text = re.sub(r"[A-Z]\w+", lambda m: str(value_of(m.group())), CONSTANTS[name][0])
    assert re.fullmatch(r"[\d+*/<() -]+", text), (name, text)
    return eval(text)


def compare(path, table):
    text = flat(path)
    wrong = []
    for name, write, sentence in table:
        wanted = sentence.format(write(value_of(name)))
        if wanted not in text:
            wrong.append("%s = %d: %s does not say %r" % (name, value_of(name), path, wanted))
    assert not wrong, "\n" + "\n".join(wrong)


@test
def fflushd_8_states_the_limits_of_the_source(t):
    compare("man/fflushd.8", FFLUSHD)


@test
def every_limit_of_fflushd_8_is_compared(t):
    """A new item of LIMITS has to be added to the table above."""
    limits = read("man/fflushd.8").split(".Sh LIMITS\n")[1].split(".Sh ")[0]
    items = re.findall(r"^\.It (\d.*)$", limits, re.M)
    compared = {s.format(w(value_of(n)))[4:] for n, w, s in FFLUSHD if s.startswith(".It ")}
    compared.add(unit_setting("units/fflushd.service.in", "WatchdogSec").replace("min", " minutes"))
    missing = [i for i in items if not any(c.startswith(i) for c in compared)]
    assert items and not missing, missing


@test
def fflushctl_8_states_the_limits_of_the_source(t):
    compare("man/fflushctl.8", FFLUSHCTL)


@test
def fflushd_conf_5_states_the_limits_of_the_source(t):
    compare("man/fflushd.conf.5", FFLUSHD_CONF)


@test
def doc_states_the_limits_of_the_source(t):
    compare("doc/architecture.md", ARCHITECTURE)
    compare("doc/performance.md", PERFORMANCE)
    compare("doc/reliability.md", RELIABILITY)


def settings():
    """Name, default, unit of a time or "", taken from Postfix or not: the table of settings.c."""
    text = read("src/core/settings.c")
    rows = re.findall(r'^ +\[[A-Z_]+\] = \{"(\w+)",((?:\s*"[^"]*")+)([^}]*)\}', text, re.M)
    for name, value, rest in rows:
        if ".read_only" in rest:
            continue
        value = "".join(re.findall(r'"([^"]*)"', value))
        time = re.search(r"KIND_TIME, '(\w)'(, true)?", rest)
        yield name, value, time.group(1) if time else "", ".postfix = true" in rest or bool(
            time and time.group(2))


@test
def the_defaults_are_those_of_settings_c(t):
    page, example = read("man/fflushd.conf.5"), read("conf/fflushd.conf")
    names = []
    for name, value, unit, postfix in settings():
        names.append(name)
        item = re.search(r"^\.It Va %s Pq (.*)$" % name, page, re.M)
        assert item, "%s is not in fflushd.conf(5)" % name
        default = item.group(1)
        eq("default: Postfix" in default, postfix, name)
        if name == "parent_domain_matches_subdomains":
            assert "fast_flush_domains" in value and "fast_flush_domains in it" in default
        elif value:
            eq(re.search(r"(?:Li|Pa) (.*?)(?: ;|$)", default).group(1), value, name)
        eq(UNITS[unit] if unit else None,
           next(iter(re.findall(r"unit: (\w+)", default)), None), name)

        line = re.search(r'^#%s = "?(.*?)"?$' % name, example, re.M)
        assert line, "%s is not in conf/fflushd.conf" % name
        eq(line.group(1), value, name)
        comment = example[:line.start()].rsplit("\n\n", 1)[1].replace("\n# ", " ")
        if unit:
            assert re.search(r"[Uu]nit(?: without a letter)?: %s" % UNITS[unit], comment), comment
    assert len(names) > 10, names
    eq(sorted(re.findall(r"^\.It Va (\w+) ", page, re.M)), sorted(names))
    eq(sorted(re.findall(r"^#(\w+) = ", example, re.M)), sorted(names))


def unit_setting(path, name):
    return re.search(r"^%s=(.*)$" % name, read(path), re.M).group(1)


@test
def times_of_the_units_are_those_of_the_pages(t):
    page = flat("man/fflushd.8")
    watchdog = unit_setting("units/fflushd.service.in", "WatchdogSec")
    eq(watchdog, "3min")
    for sentence in (".It 3 minutes After this time without a sign of life",
                     "replaces a service that hangs after three minutes"):
        assert sentence in page, sentence
    period = unit_setting("units/fflush-refresh.timer.in", "OnUnitActiveSec")
    assert "asks for this every %s seconds" % period.rstrip("s") in page, period
    assert "three minutes of WatchdogSec=" in flat("doc/reliability.md")


@test
def events_are_the_same_in_source_catalog_and_page(t):
    source = set(re.findall(r'define JOURNAL_ID_\w+ +"([0-9a-f]{32})"', read("src/daemon/journal.h")))
    assert source
    source |= set(re.findall(r'define AUDIT_MESSAGE_ID "([0-9a-f]{32})"', read("src/ctl/audit.h")))
    eq(set(re.findall(r"^-- ([0-9a-f]{32})$", read("units/fflushd.catalog"), re.M)), source)
    eq(set(re.findall(r"^\.It Li ([0-9a-f]{32}) ", read("man/fflushd.8"), re.M)), source)


@test
def tests_that_reliability_md_names_exist(t):
    cited = re.findall(r"`((?:it|check|booted)[-_][\w-]+)(?:\.py)?: ([^`]+)`", flat("doc/reliability.md"))
    missing = []
    for suite, names in cited:
        source = "".join(read(path) for path in glob.glob(os.path.join(TOP, "tests/*/%s.*" % suite))
                         if path.endswith((".py", ".c")))
        missing += ["%s: %s" % (suite, name) for name in re.split(", *", names)
                    if name.rstrip("._") not in source or not source]
    assert len(cited) > 20 and not missing, missing


@test
def files_that_contributing_names_exist(t):
    path = r"(?:(?<=\s)|^)(?:src|tests|conf|man|units|tools|doc|completions)/[\w./*\[\]-]*[\w*\]/]"
    named = [n for n in re.findall(path, read("CONTRIBUTING"), re.M) if "NAME" not in n]
    missing = [n for n in named if not glob.glob(os.path.join(TOP, n))]
    assert len(named) > 20 and not missing, missing


@test
def the_code_map_has_every_module(t):
    for folder in ("util", "core", "daemon", "ctl"):
        row = re.search(r"^\| `%s`.*$" % folder, read("doc/architecture.md"), re.M).group()
        words = set(re.findall(r"[\w.-]+\*?", row))
        for path in glob.glob(os.path.join(TOP, "src", folder, "*.[ch]")):
            module, ending = os.path.splitext(os.path.basename(path))
            assert words & {module, module + ending} or (
                "ctl-*" in words and module.startswith("ctl-")), path


if __name__ == "__main__":
    main()
