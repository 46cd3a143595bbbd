#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Nothing that comes from outside reaches a terminal, or begins a line, as it came: every argument
and option of every command, and every file, program and server that they read from, say what a
terminal would obey. The commands and options are those of src/ctl/fflushctl.c, so new ones take part."""

import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import unicodedata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, TOP, as_user, eq, wait_for
from client import ANNOUNCEMENT, add, attrs, bind, send_file, send_site
from harness import main, test
from spool import Spool

CTL = os.path.join(TOP, "src/ctl")

# Titles and other commands to a terminal, in ESC, C1 as UTF-8 and C1 as a byte; what overwrites a
# line, rearranges it or ends it. What begins with a file name or an option must do so here too.
PARTS = ("\033]0;x\007", "\r", "\u009b2J", "\udc9b2J", "\u202e", "\u2028", "\x7f", "\b", "\nforged")
EVIL = "ev" + "".join(PARTS) + "il"
LINE = EVIL.replace("\n", "")  # for where a line is read
SHOWN = r"ev\x1b]0;x\x07\x0d"  # how it begins in text
# Where the configuration may be none of the test's, no command reaches the service of this host.
NOBODY = ("-s", "/nonexistent/socket")
IN_JSON = r"ev\u001B]0;x\u0007\r"


def tables():
    """([(verb, min, max, options)], [(option, kind)]) of fflushctl."""
    with open(os.path.join(CTL, "fflushctl.c")) as f:
        source = f.read()
    verbs = re.findall(r'^        \{"([a-z-]+)",\s*"[^"]*",\s*(\w+),\s*(\w+),', source, re.M)
    options = re.findall(r'^        \{"([a-z-]+)",[^,]*, (OPT_\w+),', source, re.M)
    if len(verbs) < 14 or len(options) < 19:
        raise AssertionError("the tables of fflushctl.c look different: %r %r" % (verbs, options))
    return [(name, int(low)) for name, low, _ in verbs], options


VERBS, OPTIONS = tables()
VALUED = [name for name, kind in OPTIONS if kind in ("OPT_TEXT", "OPT_NUMBER", "OPT_TIME")]


def why_dirty(c):
    return c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def check_output(r, what, json_lines=False):
    """All that a program has printed, as text: printable, and no line of somebody else's."""
    for name, data in (("stdout", r.stdout), ("stderr", r.stderr)):
        try:
            text = data.decode()
        except UnicodeDecodeError as e:
            raise AssertionError("%s: %s: %s\n%r" % (what, name, e, data)) from None
        dirty = [c for c in text if why_dirty(c)]
        if dirty:
            raise AssertionError("%s: %s has %r\n%r" % (what, name, dirty, data))
        if re.search("^forged", text, re.M):
            raise AssertionError("%s: %s has a line of somebody else's\n%r" % (what, name, data))
        if name == "stdout" and json_lines:
            for line in text.splitlines():
                json.loads(line)
    return r.stdout.decode() + r.stderr.decode()


def run(program, *words, stdin=b"", env=None, wrapper=(), cwd=None, user=True):
    return subprocess.run([os.fsencode(word) for word in (*wrapper, program, *words)],
                          input=stdin, capture_output=True, timeout=TIMEOUT, cwd=cwd,
                          env={os.fsencode(k): os.fsencode(v)
                               for k, v in (dict(os.environ) | (env or {})).items()},
                          **(as_user() if user else {}))


class Host:
    """A daemon with a backlog, and fflushctl in a directory where it may make files."""

    def __init__(self, case, **settings):
        self.spool, self.daemon = case.make(**settings)
        self.ctl_path = os.path.join(self.daemon.bin, "fflushctl")
        self.spool.put("deferred/A/A1")
        self.spool.log("example_com", b"A1\nA1\n")
        self.cwd = os.path.join(case.base, "cwd%d" % case.n)
        os.mkdir(self.cwd)
        os.chmod(self.cwd, 0o777)

    def ctl(self, *words, config=None, json_lines=None, **how):
        """Run it and look at all of its output, which is returned."""
        words = ("-c", config or self.daemon.config) + words
        env = {"STATE_DIRECTORY": self.daemon.state} | how.pop("env", {})
        if not how.get("user", True):  # LeakSanitizer cannot look at who changes his user
            env["ASAN_OPTIONS"] = "detect_leaks=0"
        r = run(self.ctl_path, *words, cwd=self.cwd, env=env, **how)
        if b"Sanitizer" in r.stderr or r.returncode < 0:
            raise AssertionError("%r: %d\n%s" % (words, r.returncode, r.stderr.decode()))
        is_json = bool({"-j", "--json"} & set(words)) if json_lines is None else json_lines
        return check_output(r, words, is_json)


def expect(text, wanted, what):
    if wanted not in text:
        raise AssertionError("%s: %r is not shown in %r" % (what, wanted, text))


def every_command(host, *more, only=None, **how):
    """Each, with arguments that are in order, as text and as JSON; all of it, by command."""
    shown = {}
    for verb, low in VERBS:
        if only and verb not in only:
            continue
        args = {"deliver": ["A1"], "add": ["example.com", "A2"],
                "flush": ["example.com"]}.get(verb, ["example.com"] * low)
        for form in ((), ("--json",)):
            shown[verb, form] = host.ctl(*more, *form, verb, *args, **how)
    return shown


# ------------------------------------------------------------------------- the command line

@test
def arguments_of_every_command(case):
    host = Host(case)
    for verb, low in VERBS:
        for form in ((), ("--json",), ("-n",), ("-S",), ("-w", "-t", "1s")):
            for evil in (EVIL, "*" + EVIL, "(" + EVIL + ")", EVIL + "@example.com"):
                text = host.ctl(*form, verb, *[evil] * max(low, 1))
                if form == ():
                    expect(text, "fflushctl: ", verb)
        for part in PARTS:
            host.ctl(verb, *["a" + part + "b"] * max(low, 1))
    for words, before in ((("flush", EVIL), ""), (("list", "*" + EVIL), "*"),
                          (("deliver", EVIL), ""), (("add", "example.com", EVIL), ""),
                          (("add", EVIL, "A1"), ""), ((EVIL,), ""), (("import", EVIL), "")):
        expect(host.ctl(*words), before + SHOWN, words)
    expect(host.ctl("-j", "deliver", EVIL), IN_JSON, "deliver")
    host.ctl("deliver", "-", stdin=os.fsencode(LINE))


@test
def words_that_are_no_options(case):
    host = Host(case)
    for word in ("--" + EVIL, "--\033", "--json=" + EVIL, "--lim" + EVIL, "-\033", "-\u009b",
                 "-n\udc9b", "--re" + EVIL + "=" + EVIL):
        for words in ((word,), (word, "list"), ("list", word)):
            text = host.ctl(*words)
            expect(text, "fflushctl: ", words)
            expect(text, "\nTry ", words)
    expect(host.ctl("--" + EVIL), "unknown option: --" + SHOWN, "unknown")
    expect(host.ctl("--json=" + EVIL), "option has no value: --json\n", "a value")
    expect(host.ctl("-z"), "unknown option: -z\n", "unknown")
    expect(host.ctl("--re"), "unknown option: --re\n", "ambiguous")
    for last in ("--limit", "-l", "-nl"):
        expect(host.ctl("flush", "x.test", last), "option needs a value: %s\n" % last, "no value")
    daemon = os.path.join(host.daemon.bin, "fflushd")
    for words in (("--" + EVIL,), ("-\033",), (EVIL,), ("--check-config=" + EVIL,), ("--config",)):
        r = run(daemon, *words)
        eq((r.returncode, r.stdout), (64, b""), words)
        expect(check_output(r, words), "fflushd: ", words)


@test
def values_of_every_option_of_every_command(case):
    ssh = stand_in(case, "ssh", "#!/bin/sh\nexit 99\n")
    host = Host(case)
    path = {"PATH": ssh + ":" + os.environ["PATH"]}
    for verb, low in VERBS:
        for option in VALUED:
            for form in ((), ("-j",)):
                host.ctl(*NOBODY, "--%s=%s" % (option, EVIL), *form, verb,
                         *["example.com"] * low, env=path)
    for option in ("timeout", "top", "limit", "every", "socket"):
        expect(host.ctl(*NOBODY, "--%s=%s" % (option, EVIL), "flush", "example.com"), SHOWN,
               option)
    expect(host.ctl(*NOBODY, "--config", EVIL, "list"), SHOWN, "--config")
    expect(host.ctl("--by", EVIL, "list"), SHOWN, "--by")
    expect(host.ctl("--output", "/nonexistent/" + EVIL, "metrics"), SHOWN, "--output")
    expect(host.ctl(*NOBODY, "--instance", EVIL, "status"), SHOWN, "--instance")
    expect(host.ctl("--instance", EVIL, "metrics"), SHOWN.replace("\\", "\\\\"), "a label")


@test
def another_host(case):
    """It may be anybody's by now."""
    text = os.path.join(case.base, "evil")
    with open(text, "wb") as f:
        f.write(os.fsencode(EVIL) + b"\0\n" + b"x" * 200000 + b"\n\nlast" + os.fsencode(LINE))
    ssh = stand_in(case, "ssh", "#!/bin/sh\ncat %s; cat %s >&2; exit 66\n" % (text, text))
    host = Host(case)
    r = run(host.ctl_path, "-H", "mx", "list", env={"PATH": ssh + ":" + os.environ["PATH"]})
    eq(r.returncode, 66)
    shown = SHOWN + r"\xc2\x9b2J\x9b2J\xe2\x80\xae\xe2\x80\xa8\x7f\x08"
    for data in (r.stdout, r.stderr):
        eq(data.decode(), shown + "\nforgedil?\n" + "x" * 200000 + "\n\nlast" + shown + "forgedil")


# -------------------------------------------------------------------------------------- files

@test
def names_of_files_and_what_is_in_them(case):
    host = Host(case)
    for queue in ("flush", "deferred/A"):
        for part in PARTS + (EVIL,):
            host.spool.put("%s/x%sy" % (queue, part), 0o644, os.fsencode(EVIL))
    host.spool.log("odd_test", os.fsencode("\n".join(PARTS) + "\n" + EVIL))
    shown = every_command(host)
    expect(shown["verify", ()], "flush/x" + SHOWN, "verify")
    expect(shown["verify", ("--json",)], "flush/x" + IN_JSON, "verify")
    host.ctl("verify", "--repair")


@test
def directories_with_names_of_their_own(case):
    """They are in paths, of the socket as well."""
    host = Host(case)
    missing = write_config(case, "missing", queue_directory="/nonexistent/" + EVIL)
    shown = every_command(host, config=missing)
    expect(shown["list", ()], SHOWN, "list")
    expect(shown["flush", ("--json",)], SHOWN, "flush")
    base = os.path.join(case.base, EVIL)
    os.mkdir(base, 0o755)
    os.chmod(base, 0o777)
    queue = Spool(base)
    case.open.append(queue)
    there = write_config(case, "there", queue_directory=queue.path)
    shown = every_command(host, config=there)
    expect(shown["flush", ()], SHOWN, "flush")
    expect(shown["status", ()], SHOWN, "status")
    expect(shown["status", ("--json",)], IN_JSON, "status")
    host.ctl("metrics", env={"STATE_DIRECTORY": "/nonexistent/" + EVIL})


@test
def mistakes_in_fflushd_conf(case):
    """They quote what is wrong: to whoever runs a command, and in the journal."""
    host = Host(case)
    daemon = os.path.join(host.daemon.bin, "fflushd")
    text = "\"" + EVIL.replace("\"", "") + "\""
    for name, content in (("value", "max_idle = %s\n" % text), ("unknown", LINE + " = 1\n"),
                          ("list", "fast_flush_domains = \"/nonexistent/%s\"\n" % LINE),
                          ("word", "sync = yes\n%s\n" % text)):
        config = write_config(case, name, content, queue_directory=host.spool.path)
        shown = every_command(host, *NOBODY, config=config,
                              only=None if name == "value" else ("list", "flush", "status"))
        expect(shown["list", ()], "ev\\x1b]0;x\\x07", name)
        r = run(daemon, "--check-config", "-c", config)
        eq(r.returncode, 78, name)
        expect(check_output(r, name), "ev\\x1b]0;x\\x07", name)
        r = run(daemon, "-c", config)  # without a socket it ends, after it has said what is wrong
        text_ = check_output(r, name)
        eq([line for line in text_.splitlines() if not re.match("<[0-7]>", line)], [], name)


@test
def values_are_printed_as_they_can_be_read_back(case):
    host = Host(case)
    daemon = os.path.join(host.daemon.bin, "fflushd")
    config = write_config(case, "odd", queue_directory="/" + EVIL + "$HOME'\"\\")
    r = run(daemon, "--check-config", "-c", config)
    first = check_output(r, "--check-config")
    eq(r.returncode, 0, first)
    again = os.path.join(case.base, "again.conf")
    with open(again, "w") as f:
        f.write(first)
    r = run(daemon, "--check-config", "-c", again)
    line = next(x for x in first.splitlines() if x.startswith("queue_directory"))
    expect(r.stdout.decode(), line.partition(" # ")[0], "read again")


# ------------------------------------------------------------------------ programs and servers

@test
def the_name_of_who_listens(case):
    host = Host(case)
    host.daemon.stop()
    os.unlink(host.daemon.socket_path)
    name = os.fsencode("\033]0;x\007\u009b\udc9b\n")
    libc = ctypes.CDLL(None)
    old = ctypes.create_string_buffer(16)
    libc.prctl(16, old)  # PR_GET_NAME
    libc.prctl(15, name)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            bind(s, host.daemon.socket_path)
            os.chmod(host.daemon.socket_path, 0o666)
            s.listen()
            shown = host.ctl("--timeout=1s", "status")
            host.ctl("--timeout=1s", "-j", "status")
    finally:
        libc.prctl(15, old)
    expect(shown, r"\x1b]0;x\x07\xc2\x9b\x9b", "status")


@test
def replies_of_a_server(case):
    host = Host(case)
    path = os.path.join(case.base, "socket")
    evil = os.fsencode(EVIL)
    replies = (evil, b"status\0" + evil + b"\0\0", b"status\0" + b"0\0" + evil + b"\0" + evil + b"\0\0",
               b"status\0" + b"7\0\0", evil + b"\0" + evil + b"\0\0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        bind(listener, path)
        os.chmod(path, 0o666)
        listener.listen()

        def serve():
            n = 0
            while True:
                try:
                    s, _ = listener.accept()
                except OSError:
                    return
                with s:
                    try:
                        s.settimeout(TIMEOUT)
                        s.sendall(ANNOUNCEMENT)
                        if s.recv(65536):
                            s.sendall(replies[n % len(replies)])
                            n += 1
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            for _ in replies:
                for verb, args in (("flush", ["a.test"]), ("deliver", ["A1"]), ("refresh", []),
                                   ("purge", []), ("add", ["a.test", "A1"])):
                    for form in ((), ("-j",)):
                        host.ctl("-s", path, "-t", "5s", *form, verb, *args)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def message(queue_id, queue="deferred"):
    return json.dumps({"queue_name": queue, "queue_id": queue_id, "sender": EVIL,
                       "recipients": [{"address": "x@" + LINE, "delay_reason": LINE},
                                      {"address": EVIL, "delay_reason": EVIL},
                                      {"address": "x@example.com", "delay_reason": EVIL},
                                      {"address": "x@b.test", "delay_reason": EVIL}]}) + "\n"


@test
def mail_to_be_imported(case):
    host = Host(case)
    text = (message("A1") + message(EVIL) + message("A2", EVIL)).replace("\\udc9b", "\\u009b")
    for form in ((), ("-j",), ("-n",)):
        host.ctl(*form, "import", "-", stdin=text.encode() + os.fsencode(EVIL))


@test
def what_postfix_and_systemd_say(case):
    """In the place of their programs, ones that say the worst, for good and for ill."""
    if os.getuid() != 0 or not os.path.exists("/usr/sbin/postconf"):
        raise Skip("needs root and Postfix")
    host = Host(case)
    conf = os.path.join(case.base, "postfix")
    os.mkdir(conf, 0o755)
    for name in ("main.cf", "master.cf"):
        with open(os.path.join(conf, name), "w"):
            pass
    config = write_config(case, "postfix", postfix_config_directory=conf,
                          protocol_announcement="on")
    text = os.path.join(case.base, "evil")
    with open(text, "wb") as f:
        f.write(os.fsencode(EVIL) + b"\n")
    with open(os.path.join(case.base, "queue"), "wb") as f:
        f.write((message("A1") + message("B1")).replace("\\udc9b", "\\u009b").encode())
    for status in (0, 1):
        scripts = {
            "/usr/sbin/postconf": 'case "$*" in *-xh*) cat {evil};; *-x*) echo "queue_directory = '
            '{queue}"; echo "hash_queue_names = deferred, defer"; echo "hash_queue_depth = 1"; '
            'echo "fast_flush_domains = static:all"; echo "parent_domain_matches_subdomains ="; '
            'printf "fast_flush_refresh_time = "; head -1 {evil}; printf "mail_version = ";'
            'head -1 {evil};; *) cat {evil};; esac; cat {evil} >&2',
            "/usr/sbin/postqueue": 'cat {base}/queue {evil}; cat {evil} >&2',
            "/usr/sbin/postmap": 'cat {evil}; cat {evil} >&2',
            "/usr/sbin/postfix": 'cat {evil}; cat {evil} >&2',
            "/bin/systemctl": 'cat {evil}; cat {evil} >&2',
        }
        mounts = ""
        for place, script in scripts.items():
            if not os.path.exists(place):
                continue
            path = os.path.join(case.base, os.path.basename(place) + str(status))
            script = script.replace("{evil}", text).replace("{base}", case.base)
            script = script.replace("{queue}", host.spool.path)
            with open(path, "w") as f:
                f.write("#!/bin/sh\n%s\nexit %d\n" % (script, status))
            os.chmod(path, 0o755)
            mounts += "mount --bind %s $(realpath %s) && " % (path, place)
        inside = ("unshare", "-m", "sh", "-c", mounts + 'exec "$@"', "sh")
        if run("true", wrapper=inside, user=False).returncode != 0:
            raise Skip("needs mounts of its own")
        shown = every_command(host, config=config, wrapper=inside, user=False)
        if status == 0:
            expect(shown["status", ()], "flush_service_name = " + SHOWN[:10], "status")
            expect(shown["list", ()], "fast_flush_refresh_time = " + SHOWN[:10], "list")
        for form in ((), ("-j",)):
            host.spool.put("deferred/B/B1")
            host.spool.log("b_test", b"B1\n")
            text_ = again_deferred(host, config, inside, *form)
            if status == 0:
                shown = SHOWN if form == () else IN_JSON  # numbers in reasons are masked
                expect(text_, shown.replace("]0;", "]N;"), "--wait")


def again_deferred(host, config, inside, *form):
    """flush --wait, with the test in the place of the queue manager: the message comes back."""
    result = []
    thread = threading.Thread(target=lambda: result.append(
        host.ctl("-t", "20s", *form, "flush", "-w", "b.test", config=config, wrapper=inside,
                 user=False)))
    thread.start()
    try:
        wait_for(lambda: os.path.exists(host.spool.join("incoming/B1")) or not thread.is_alive())
        if os.path.exists(host.spool.join("incoming/B1")):
            os.rename(host.spool.join("incoming/B1"), host.spool.join("active/B1"))
            os.rename(host.spool.join("active/B1"), host.spool.join("deferred/B/B1"))
    finally:
        thread.join()
    return "".join(result)


# --------------------------------------------------------------------------------- the journal

@test
def what_clients_send_to_the_journal(case):
    host = Host(case, fast_flush_domains="/nonexistent/list, example.com")
    daemon = host.daemon
    for evil in PARTS + (EVIL,):
        data = os.fsencode(evil)
        for request in (add(data, "A1"), add("example.com", data),
                        send_site(data), send_file(data), data,
                        attrs(data, ("site", data)),
                        send_site("example.com", (data, data)),
                        send_site("example.com", ("reason", data)),
                        send_file("A1", ("reason", data))):
            daemon.exchange(request, eof=True)
    with open(daemon.stderr_path, "rb") as f:
        data = f.read()
    check_output(subprocess.CompletedProcess((), 0, b"", data), "journal")
    lines = data.decode().splitlines()
    eq([line for line in lines if not re.match("<[0-7]>|Listening|Communication|Exec", line)], [])
    expect(data.decode(), SHOWN.replace("\\x0d", ""), "journal")


# --------------------------------------------------------------------------------- the source

@test
def commands_print_only_through_what_escapes(case):
    """ctl-print.c has the functions; the help and the version, which are constant, go by themselves."""
    wrong = []
    for name in sorted(os.listdir(CTL)):
        if not re.match(r"(fflushctl|ctl|ctl-(?!print\.c).*|messages)\.c$", name):
            continue
        with open(os.path.join(CTL, name)) as f:
            for number, line in enumerate(f, 1):
                if (re.search(r"(?<![a-z_])(v?printf|v?dprintf|puts|putchar|perror|p?error)\(", line)
                        and not re.search(r'puts\((PACKAGE_STRING|"Usage)', line)
                        or re.search(r"(fprintf|fputs|fputc|fwrite|putc)\(.*std(out|err)|"
                                     r"fprintf\(std", line)):
                    wrong.append("%s:%d: %s" % (name, number, line.strip()))
    eq(wrong, [])


# -------------------------------------------------------------------------------------- tools

def stand_in(case, name, script):
    directory = os.path.join(case.base, "stand-in")
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(script)
    os.chmod(path, 0o755)
    return directory


def write_config(case, name, text="", **settings):
    """In double quotes libconfuse knows escapes, in single ones all but these two is as it is."""
    path = os.path.join(case.base, name + ".conf")
    settings = {"postfix_config_directory": ""} | settings
    with open(path, "w", errors="surrogateescape", newline="") as f:
        for key, value in settings.items():
            f.write("%s = '%s'\n" % (key, value.replace("\\", "\\\\").replace("'", "\\'")))
        f.write(text)
    os.chmod(path, 0o644)
    return path


if __name__ == "__main__":
    if not shutil.which("unshare"):
        sys.exit(77)
    main()
