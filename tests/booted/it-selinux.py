#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where SELinux enforces: a virtual machine (vm.py) with the packages that are built from these sources.

Its cases are one story: each goes on where the last one ended. Without the policy module, all that would
not work is refused; with it, all that is done in a day works, and nothing of it is denied.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

import vm
from basics import TOP, eq
from harness import main, test

SOCKET = "/var/spool/postfix/public/fflushd"
TOOLS = "python3 /opt/mailhost.py "
m = None
begun = 0.0  # when the module was installed: from then on, nothing is denied

SOCKETMAP = r"""
import os, socketserver
class Map(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            size = b""
            while not size.endswith(b":"):
                byte = self.rfile.read(1)
                if not byte:
                    return
                size += byte
            name, key = self.rfile.read(int(size[:-1])).split(b" ", 1)
            self.rfile.read(1)
            reply = b"OK yes" if key == b"socketmap.test" else b"NOTFOUND "
            self.wfile.write(b"%d:%s," % (len(reply), reply))
class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
os.umask(0)
Server("/var/spool/postfix/private/table", Map).serve_forever()
"""


# ------------------------------------------------------------------------------------- preparing


def build(work):
    """The Debian packages, by name."""
    source = os.path.join(work, "source")
    os.mkdir(source)
    tar = subprocess.run(["tar", "-c", "-C", TOP, "--exclude=.git", "--exclude=./build*",
                          "--exclude=./fflushd-*", "."], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", source, "--no-same-owner"], input=tar.stdout, check=True)
    r = subprocess.run("rm -f config.status config.h Makefile; dpkg-buildpackage -d -us -uc -b", shell=True,
                       cwd=source, capture_output=True, text=True,
                       env=dict(os.environ, DEB_BUILD_OPTIONS="nocheck noautodbgsym parallel=2"))
    if r.returncode != 0:
        raise RuntimeError("the packages cannot be built:\n" + r.stdout[-3000:] + r.stderr[-3000:])
    return {os.path.basename(path).split("_")[0]: path for path in glob.glob(work + "/*.deb")}


def prepare(packages):
    for name, path in packages.items():
        with open(path, "rb") as f:
            m.run("cat > /opt/%s.deb" % name, input=f.read())
    with open(os.path.join(TOP, "tests/lib/mailhost.py")) as f:
        m.write("/opt/mailhost.py", f.read())
    for unit in ("postfix.service", "postfix@.service"):
        m.write("/etc/systemd/system/%s.d/test.conf" % unit, "[Unit]\nStartLimitIntervalSec=0\n")
    m.run("systemctl is-system-running --wait; dpkg -i /opt/fflushd.deb 2>&1; systemctl daemon-reload;"
          "postconf -e queue_run_delay=1000s"
          " fast_flush_domains=static:all minimal_backoff_time=1000s maximal_backoff_time=1000s"
          " smtp_connect_timeout=5s 'transport_maps=inline:{down.test=smtp:[127.0.0.1]:2525,"
          "hash.test=smtp:[127.0.0.1]:2525,socketmap.test=smtp:[127.0.0.1]:2525,"
          "a-b.test=smtp:[127.0.0.1]:2525}' && systemctl restart postfix")


# --------------------------------------------------------------------------------------- looking


def denials():
    """All that was denied since the module is there: a line for each kind of denial."""
    out = m.out("cat /var/log/audit/audit.log*")
    found = []
    for line in out.split("\n"):
        at = re.search(r"msg=audit\((\d+\.\d+):", line)
        if not re.search(r"^type=(USER_)?AVC .*denied", line) or not at or float(at.group(1)) < begun:
            continue
        kind = re.sub(r"^.*?denied", "denied", line)
        kind = re.sub(r"\b(pid|ino)=\d+ ?|:\[\d+\]", "", kind)
        if kind not in found:
            found.append(kind)
    return found


def ours(lines):
    return [line for line in lines if re.search(r"ff?lush|postconf|postmap", line)]


def status():
    r = m.run("fflushctl status --json", check=False)
    return r.returncode, json.loads(r.stdout)


def findings(check):
    return [f for f in status()[1]["findings"] if f["check"] == check]


def records(name):
    return m.out("cat /var/spool/postfix/flush/%s 2>/dev/null || true" % name).split()


def context_of(process):
    return m.out("ps -C %s -o label=" % process).split(":")[2]


def journal(options=""):
    return m.journal("-o cat -t postfix/fflushd " + options)


def inject(recipient):
    m.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f sender@guest.test " + recipient)


def defer(recipient, name):
    """One message that waits and is recorded; its queue ID."""
    before = set(records(name))
    inject(recipient)
    m.wait("test \"$(sort -u /var/spool/postfix/flush/%s 2>/dev/null | wc -l)\" -gt %d"
           % (name, len(before)), "no record in " + name, timeout=60)
    return (set(records(name)) - before).pop()


def flushed(site):
    """How often the journal says that it was flushed."""
    return journal().count("send_site %s:" % site)


def flush_by(command, site, user=None):
    before = flushed(site)
    out = m.out(command, user=user)
    eq(flushed(site), before + 1, "%s: %s\n%s" % (command, out, journal("-n 20")))
    return out


# ------------------------------------------------------------------------------ without the module


@test
def it_enforces(t):
    eq(m.out("getenforce"), "Enforcing")
    eq(context_of("master"), "postfix_master_t")
    eq(m.out("id -Z").split(":")[2], "unconfined_t")


@test
def without_the_module_enable_postfix_refuses_and_says_why(t):
    r = m.run("fflushctl enable-postfix 2>&1", check=False)
    eq(r.returncode, 78, r.stdout)
    denied = "SELinux does not let smtp (postfix_smtp_t) connect to the service (initrc_t)"
    assert denied in r.stdout, r.stdout
    assert "install fflushd-selinux" in r.stdout and "rolling back:" in r.stdout, r.stdout
    eq(m.out("postconf -h flush_service_name"), "flush")
    eq(m.run("systemctl is-active fflush.socket fflush-refresh.timer", check=False).stdout.split(),
       ["inactive", "inactive"])


@test
def without_the_module_status_is_not_green(t):
    """Also after somebody has switched over by hand; and it is no false alarm."""
    m.run("systemctl start fflush.socket; postconf -e flush_service_name=fflushd; systemctl reload postfix")
    try:
        code, s = status()
        eq((code, s["healthy"]), (69, False), s)
        eq([f["result"] for f in findings("selinux")], ["failed"], s)
        r = m.run("fflushctl check", check=False)
        assert r.returncode == 2 and "SELinux does not let smtp" in r.stdout, r.stdout
        inject("u@down.test")
        m.wait("journalctl --sync; journalctl -t postfix/smtp -o cat | grep -q 'fflushd service failure'",
               "smtp has no trouble")
        eq(records("down_test"), [])
    finally:
        m.run("postconf -X flush_service_name; systemctl reload postfix")


@test
def where_it_does_not_enforce_nothing_is_refused(t):
    m.run("setenforce 0")
    try:
        eq(findings("selinux"), [])
    finally:
        m.run("setenforce 1")
    eq(len(findings("selinux")), 1)


# --------------------------------------------------------------------------------- with the module


@test
def the_package_installs_the_module(t):
    """The socket, which is there, gets its new label."""
    global begun
    start = time.monotonic()
    m.run("dpkg -i /opt/fflushd-selinux.deb 2>&1", timeout=600)
    print("# installing the module took %.0f s" % (time.monotonic() - start))
    begun = float(m.out("date +%s.%N"))
    assert "fflushd" in m.out("semodule -l").split(), m.out("semodule -l")
    eq(m.out("stat -c %C /usr/sbin/fflush[dc]* /var/lib/fflushd /var/cache/fflushd").split(),
       ["system_u:object_r:%s_t:s0" % name for name in ("fflushctl_exec", "fflushd_exec", "fflushd_var_lib",
                                                        "fflushd_cache")])
    eq(findings("selinux"), [])
    m.run("systemctl stop fflush.socket")


@test
def enable_postfix_succeeds(t):
    m.run("postsuper -d ALL; rm -rf /var/spool/postfix/flush/*", check=False)
    out = m.out("fflushctl enable-postfix 2>&1")
    assert "Postfix now uses fflushd" in out, out
    eq(context_of("fflushd"), "fflushd_t")
    code, s = status()
    eq((code, s["healthy"], s["findings"]), (0, True, []), s)


@test
def a_deferral_is_recorded(t):
    queue_id = defer("u@down.test", "down_test")
    assert queue_id in m.out("postqueue -p"), queue_id
    defer("u@a-b.test", "aDb_test")
    eq(m.out("fflushctl list --json | wc -l") != "0", True)


@test
def etrn_flushes(t):
    out = flush_by(TOOLS + "etrn down.test", "down.test")
    assert out.startswith("250"), out


@test
def a_user_flushes_with_postqueue(t):
    flush_by("postqueue -s down.test", "down.test", user="alice")
    queue_id = defer("v@down.test", "down_test")
    m.run("postqueue -i " + queue_id, user="alice")
    assert "send_file %s: moved (uid" % queue_id in journal(), journal("-n 10")


@test
def the_timer_refreshes(t):
    m.write("/etc/systemd/system/fflush-refresh.timer.d/test.conf",
            "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nAccuracySec=100ms\n")
    m.run("postconf -e fast_flush_refresh_time=1s; systemctl daemon-reload; systemctl reload fflushd")
    defer("w@down.test", "down_test")
    before = flushed("down.test")
    m.run("systemctl restart fflush-refresh.timer")
    m.wait("journalctl --sync; test \"$(systemctl show -P Result fflush-refresh.service)\" = success &&"
           " journalctl -t postfix/fflushd -o cat | grep -q '^refresh: [1-9]'", "no refresh")
    eq(flushed("down.test"), before)
    m.run("rm -r /etc/systemd/system/fflush-refresh.timer.d; postconf -X fast_flush_refresh_time;"
          "systemctl daemon-reload; systemctl restart fflush-refresh.timer")


@test
def the_other_units_run(t):
    m.run("mkdir -p /var/lib/prometheus/node-exporter; systemctl start fflush-purge fflush-metrics"
          " fflush-flush@down.test")
    assert "fflushd_healthy 1" in m.out("cat /var/lib/prometheus/node-exporter/fflushd.prom")
    eq(m.out("systemctl list-units --failed --plain --no-legend 'ff*'"), "")


def look_up(recipient, name):
    """A destination that is listed by a table, and one that is not."""
    site = recipient.split("@")[1]
    code, found = status()
    eq((code, found["findings"]), (0, []))
    defer(recipient, name)
    flush_by("postqueue -s " + site, site)
    eq(m.run("fflushctl flush nobody.test 2>&1", check=False).returncode, 77)


@test
def tables_in_files_are_read(t):
    # A copy of postmap, because Debian's policy does not let itself make tables of the type lmdb.
    m.run("cp /usr/sbin/postmap /root/make-table; cd /etc/postfix; echo 'hash.test yes' > sites;"
          "postmap hash:sites; /root/make-table lmdb:sites")
    m.run("postconf -e 'proxy_read_maps=$fast_flush_domains'")
    try:
        for kind in ("hash:/etc/postfix/sites", "lmdb:/etc/postfix/sites", "proxy:hash:/etc/postfix/sites"):
            m.run("postconf -e 'fast_flush_domains=%s'; postfix reload" % kind)
            look_up("u@hash.test", "hash_test")
    finally:
        m.run("postconf -X proxy_read_maps; postconf -e fast_flush_domains=static:all; postfix reload")


@test
def a_table_server_is_asked(t):
    """By socketmap. Debian's policy does not let Postfix's own daemons ask such a server, so that main.cf
    lists everything."""
    m.write("/opt/socketmap.py", SOCKETMAP)
    m.run("systemd-run -q --unit socketmap python3 /opt/socketmap.py")
    m.wait("test -S /var/spool/postfix/private/table", "no server")
    m.write("/etc/fflushd/conf.d/test.conf",
            "fast_flush_domains = \"socketmap:unix:/var/spool/postfix/private/table:x\"\n")
    m.run("systemctl restart fflushd")
    try:
        look_up("u@socketmap.test", "socketmap_test")
    finally:
        m.run("rm /etc/fflushd/conf.d/test.conf; systemctl restart fflushd")


@test
def it_ends_when_idle_and_is_started_again(t):
    m.write("/etc/fflushd/conf.d/test.conf", "max_idle = 5s\n")
    m.run("systemctl restart fflushd; postqueue -s down.test")
    m.wait("test \"$(systemctl is-active fflushd)\" = inactive", "it stays", timeout=60)
    flush_by("postqueue -s down.test", "down.test")
    m.run("rm /etc/fflushd/conf.d/test.conf; systemctl reload fflushd; kill -9 $(pidof fflushd)")
    flush_by("postqueue -s down.test", "down.test")


@test
def disable_postfix_succeeds(t):
    out = m.out("fflushctl disable-postfix 2>&1")
    assert "flush_service_name" in out, out
    eq(m.out("postconf -h flush_service_name"), "flush")
    eq(m.run("systemctl is-active fflush.socket", check=False).stdout.strip(), "inactive")
    m.run("fflushctl enable-postfix 2>&1")


@test
def after_a_reboot_all_is_back(t):
    m.reboot()
    print("# booted in %.0f s" % m.boot_seconds)
    m.run("systemctl is-system-running --wait", check=False)
    eq(m.out("systemctl is-active postfix@- fflush.socket fflush-refresh.timer").split(), ["active"] * 3)
    code, s = status()
    eq((code, s["healthy"]), (0, True), s)
    m.run("rm -rf /var/spool/postfix/flush/*; postsuper -d ALL", check=False)
    defer("after@down.test", "down_test")
    assert flush_by(TOOLS + "etrn down.test", "down.test").startswith("250")
    eq(m.journal("-b -o cat | grep -c 'ordering cycle' || true"), "0")


@test
def another_layout_of_the_queue_is_found(t):
    """Hash directories are made, and logs are moved. At the end, because Debian's policy does not let
    postsuper(1) remove them."""
    m.run("postconf -e hash_queue_names=deferred,defer,flush,incoming hash_queue_depth=2; postfix reload")
    try:
        m.run("fflushctl import")
        flush_by("postqueue -s down.test", "down.test")
        m.run("fflushctl verify --repair; fflushctl refresh")
    finally:
        m.run("postconf -X hash_queue_names hash_queue_depth; postfix reload; fflushctl refresh")


@test
def nothing_was_denied(t):
    found = denials()
    for line in found:
        print("# " + line)
    eq(ours(found), [])
    said = m.journal("-t postfix/smtp -o cat --since @%d" % begun)
    assert "fflushd service failure" not in said, said


@test
def without_the_module_again_status_says_so(t):
    m.run("dpkg -r fflushd-selinux 2>&1", timeout=600)
    assert "fflushd" not in m.out("semodule -l").split()
    eq(len(findings("selinux")), 1)


if __name__ == "__main__":
    reason = vm.missing()
    if not reason and not shutil.which("dh"):
        reason = "needs debhelper"
    if reason or not os.path.isdir(os.path.join(TOP, "debian")):
        print("skipped: " + (reason or "a release has no debian/"))
        sys.exit(77)
    base = tempfile.mkdtemp(prefix="fflushd-selinux.")
    try:
        start = time.monotonic()
        debs = build(base)
        print("# packages built after %.0f s" % (time.monotonic() - start), flush=True)
        m = vm.Machine()
        print("# machine booted after %.0f s, in %.0f s" % (time.monotonic() - start, m.boot_seconds),
              flush=True)
        prepare(debs)
        print("# prepared after %.0f s" % (time.monotonic() - start), flush=True)
        main()
    finally:
        if m:
            m.close()
        shutil.rmtree(base)
