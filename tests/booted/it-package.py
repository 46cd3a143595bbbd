#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The packages: built from a release tarball, looked at, and a Debian package's whole life.

$FFLUSHD_SUITE: the release of Debian, bookworm unless it is set. The package is built in a system
that has what debian/control asks for and no more, and installed in a booted guest (guest.py) with a
real Postfix. On other releases than bookworm the tests that do not depend on it are left out.
"""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

import guest
import package_rpm
from basics import Skip, TOP, eq
from harness import main, test

SUITE = os.environ.get("FFLUSHD_SUITE", "bookworm")
SOCKET = "/var/spool/postfix/public/fflushd"
TOOLS = "python3 /opt/mailhost.py "
UNITS = "fflush.socket fflushd.service fflush-refresh.timer"
work = deb = g = None
log = ""
rpms = []


def run(command, check=True, **kwargs):
    r = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if check and r.returncode != 0:
        raise AssertionError("%s: %d\n%s%s" % (command, r.returncode, r.stdout[-40000:],
                                               r.stderr[-3000:]))
    return r


def read(path):
    with open(os.path.join(TOP, path)) as f:
        return f.read()


def version():
    return re.search(r"AC_INIT\(\[fflushd\], \[([^]]+)\]", read("configure.ac")).group(1)


def only_bookworm():
    if SUITE != "bookworm":
        raise Skip("done on bookworm")


# ------------------------------------------------------------------------------------- building


def make_source():
    """fflushd_VERSION.orig.tar.xz, which is a release, and what is in it, in the directory work."""
    copy = os.path.join(work, "copy")
    tar = subprocess.run(["tar", "-c", "-C", TOP, "--exclude=.git", "--exclude=./build*",
                          "--exclude=./fflushd-*", "."], capture_output=True, check=True).stdout
    os.mkdir(copy)
    subprocess.run(["tar", "-x", "-C", copy], input=tar, check=True)
    run(["sh", "-ec", "rm -f config.status config.h Makefile; autoreconf -fi; mkdir b; cd b;"
         "../configure -q; make -s dist; mv fflushd-*.tar.xz \"$1\"", "sh",
         os.path.join(work, "fflushd_%s.orig.tar.xz" % version())], cwd=copy)
    run(["tar", "-xf", "fflushd_%s.orig.tar.xz" % version()], cwd=work)


def build_root():
    """A system with essential packages and the build dependencies that are declared."""
    control = os.path.join(TOP, "debian/control")
    with open(control, "rb") as f:
        key = hashlib.sha256(f.read()).hexdigest()[:12]
    name = ["build", SUITE] + ([guest.ARCH] if guest.ARCH else []) + [key]
    root = os.path.join(guest.CACHE, "-".join(name))
    if os.path.isdir(root):
        return root
    os.makedirs(guest.CACHE, exist_ok=True)
    new = guest.new_root(root)
    try:
        run([*guest.mmdebstrap(), "--variant=buildd",
             "--customize-hook=mkdir \"$1/tmp/s\" && cp -r '%s/debian' \"$1/tmp/s\"" % TOP,
             "--customize-hook=chroot \"$1\" apt-get -y --no-install-recommends build-dep /tmp/s",
             "--customize-hook=rm -r \"$1/tmp/s\"", SUITE, new])
        os.rename(new, root)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return root


# As an ordinary user without a network, in a directory of a name of its own.
BUILD_SCRIPT = r"""
set -e
root=$1 dir=$2 source=$3 place=$4 options=$5 what=$6 arch=$7
mount -t tmpfs -o mode=0755,size=6g build "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" build "$dir/root"
mkdir -p "$dir/root/$place"
cp -r "$source"/fflushd_*.orig.tar.xz "$source"/fflushd-* "$dir/root/$place"
[ "$what" != -b ] || rm "$dir/root/$place"/*.orig.tar.xz
chown -R 65534:65534 "$dir/root/$place"
mount --rbind /dev "$dir/root/dev"
mount -t proc proc "$dir/root/proc"
mount -t sysfs -o ro sysfs "$dir/root/sys"
chroot "$dir/root" ${arch:+setarch "$arch"} setpriv --reuid=65534 --regid=65534 --clear-groups env -i \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent LC_ALL=C.UTF-8 FFLUSHD_MANY=100000 \
    FFLUSHD_SOAK=4000 FFLUSHD_SPRAY=2000 FFLUSHD_RACE=1 FFLUSHD_STRIDE=5 \
    DEB_BUILD_OPTIONS="${options:+$options }parallel=2" \
    sh -ec "cd $place/fflushd-*; dpkg-buildpackage -us -uc $what" 2>&1
mkdir "$source/out-$(basename $place)"
cp "$dir/root/$place"/fflushd*_* "$source/out-$(basename $place)"
"""


def build(place, options="", what="-F"):
    """The directory with what was built, and what was printed. what: -F, the source too; -b, not."""
    root = build_root()
    directory = tempfile.mkdtemp(prefix="fflushd-build.")
    try:
        r = run(["unshare", "--mount", "--propagation", "private", "--pid", "--fork",
                 "--kill-child=KILL", "--net", "--ipc", "--uts", "sh", "-c", BUILD_SCRIPT, "sh", root,
                 directory, work, place, options, what, guest.ARCH], timeout=1800)
    finally:
        os.rmdir(directory)
    return os.path.join(work, "out-" + os.path.basename(place)), r.stdout


def the_deb(directory):
    return glob.glob(os.path.join(directory, "fflushd_*.deb"))[0]


@test
def one_version_everywhere(t):
    only_bookworm()
    v = version()
    eq(re.match(r"fflushd \(([^)]+)-\d+\)", read("debian/changelog")).group(1), v)
    eq(re.search(r"^Version: +(\S+)$", read("rpm/fflushd.spec"), re.M).group(1), v)
    eq(re.search(r"^%changelog\n\*.* (\S+)-\d+$", read("rpm/fflushd.spec"), re.M).group(1), v)
    eq(re.search(r"^pkgver=(\S+)$", read("arch/PKGBUILD"), re.M).group(1), v)
    eq(re.match(r"fflushd (\S+)", read("NEWS")).group(1), v)
    eq(run(["dpkg-deb", "-f", deb, "Version"]).stdout.split("-")[0], v)


@test
def another_build_elsewhere_gives_the_same_packages(t):
    only_bookworm()
    again, _ = build("/tmp/another-place/of-another-length", "nocheck", "-b")
    for path in glob.glob(os.path.join(os.path.dirname(deb), "*.deb")):
        with open(path, "rb") as a, open(os.path.join(again, os.path.basename(path)), "rb") as b:
            assert a.read() == b.read(), os.path.basename(path) + " differs"


@test
def it_is_built_without_a_warning(t):
    eq([line for line in log.split("\n") if re.search(r" warning: .*\[-W", line)], [])


@test
def readme_names_all_that_a_build_needs(t):
    only_bookworm()
    needed = set(re.findall(r"^(?:Build-Depends:)? +([a-z0-9-]+)", read("debian/control").split("\n\n")[0],
                            re.M))
    named = set(re.search(r"apt-get install (build-essential autoconf[^&]*?)\n *autoreconf", read("README"))
                .group(1).replace("\\", " ").split())
    # python3 and systemd are for tests; the rest is pulled in, or packages only.
    others = {"debhelper-compat", "pkgconf", "systemd-dev", "python3", "systemd", "selinux-policy-dev"}
    eq(needed - named - others, set())


# In a system with the build dependencies alone, so without Postfix, below /root, where only root gets.
ROOT_SCRIPT = r"""
set -e
root=$1 dir=$2 tar=$3
shift 3
mount -t tmpfs -o mode=0755,size=6g build "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" build "$dir/root"
chmod 700 "$dir/root/root"
tar -x --no-same-owner -C "$dir/root/root" -f "$tar"
mount --rbind /dev "$dir/root/dev"
mount -t proc proc "$dir/root/proc"
mount -t sysfs -o ro sysfs "$dir/root/sys"
chroot "$dir/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 FFLUSHD_MANY=3000 \
    FFLUSHD_SOAK=2000 FFLUSHD_SPRAY=1000 FFLUSHD_RACE=1 FFLUSHD_STRIDE=60 MAKEFLAGS=-j4 \
    sh -c "cd /root/fflushd-* && $*" 2>&1 || { cat "$dir"/root/root/fflushd-*/tests/*/*.log; exit 1; }
"""


@test
def readme_s_build_without_a_package_is_for_root_as_well(t):
    if SUITE != "trixie":
        raise Skip("done on trixie; on bookworm the package is built by an ordinary user")
    text = re.search(r"\n    (autoreconf.*?make install\n)", read("README"), re.S).group(1)
    commands = [line.strip() for line in text.split("\n") if line]
    eq(len(commands), 3, commands)
    directory = tempfile.mkdtemp(prefix="fflushd-build.")
    try:
        r = run(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL",
                 "--net", "--ipc", "--uts", "sh", "-c", ROOT_SCRIPT, "sh", build_root(), directory,
                 os.path.join(work, "fflushd_%s.orig.tar.xz" % version()), " && ".join(commands)],
                timeout=1800)
    finally:
        os.rmdir(directory)
    print("# for root: %d suites passed, %d skipped" % tuple(
        len(re.findall(r"^%s: tests/" % word, r.stdout, re.M)) for word in ("PASS", "SKIP")))


@test
def what_a_packager_has_to_fill_in_is_listed(t):
    only_bookworm()
    r = run(["grep", "-rlI", r"fflushd\.invalid\|fflushd dot invalid", "arch", "configure.ac", "debian",
             "doc", "README", "rpm"], cwd=TOP)
    listed = set(re.findall(r"^- `([^`]+)`: ", read("doc/distributions.md"), re.M))
    eq(set(r.stdout.split()) - {"doc/distributions.md"}, listed)


# What the lintian of unstable has no more: an init script was wanted, and the policy is newer now.
LINTIAN_OF_OLD = "newer-standards-version,package-supports-alternative-init-but-no-init.d-script"


@test
def lintian_has_no_objection(t):
    only_bookworm()
    changes = glob.glob(os.path.join(os.path.dirname(deb), "*.changes"))[0]
    r = run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "lintian", "-EI",
             "--pedantic", "--suppress-tags", LINTIAN_OF_OLD, "--fail-on", "error,warning", changes],
            check=False,
            env=dict(os.environ, HOME="/nonexistent", LC_ALL="C.UTF-8"))
    eq((r.returncode, [line for line in r.stdout.split("\n") if line[:2] in ("E:", "W:")]), (0, []))


def the_rpms():
    """Of two releases, "one" and "two", made once."""
    top = os.path.join(work, "rpm")
    if not rpms:
        builds = package_rpm.Builds(top, os.path.join(work, "fflushd_%s.orig.tar.xz" % version()))
        builds.build("-ba", "--define", "dist .one")
        builds.build("-bb", "--define", "dist .two", "--define", "optflags -O0", "--define",
                     "debug_package %{nil}")
        rpms.append(builds)
    return rpms[0]


def files_of(listing):
    """Without compression, the names of directories, and what only one kind of package has."""
    own = re.compile(r"/(changelog(\.Debian)?|copyright|COPYING|NEWS)$|^usr/share/lintian/|\.build-id")
    names = {re.sub(r"^(?:\./|/)|\.gz$", "", line) for line in listing}
    names = {re.sub(r"^lib/systemd", "usr/lib/systemd", n) for n in names}
    names = {n.replace("usr/share/licenses/fflushd", "usr/share/doc/fflushd") for n in names}
    names = {n.replace("zsh/vendor-completions", "zsh/site-functions") for n in names}
    return sorted(n for n in names if n and not n.endswith("/") and not own.search(n))


@test
def the_rpm_has_what_the_deb_has(t):
    only_bookworm()
    builds = the_rpms()
    rpm = builds.find("RPMS/*/fflushd-0*one.*.rpm")
    builds.find("RPMS/*/fflushd-debuginfo-0*one.*.rpm")
    policy = run(["rpm", "-qpl", builds.find("RPMS/*/fflushd-selinux-0*one.*.rpm")]).stdout.split("\n")
    assert "/usr/share/selinux/packages/targeted/fflushd.pp.bz2" in policy, policy
    assert "(fflushd-selinux if selinux-policy-targeted)" in run(["rpm", "-qpR", rpm]).stdout
    listing = run(["rpm", "-qpl", rpm]).stdout.split("\n")
    contents = run(["dpkg-deb", "-c", deb]).stdout.split("\n")
    directories = {line.split()[-1] for line in contents if line.startswith("d")}
    inside = files_of(line.split()[-1] for line in contents if line.startswith("-"))
    own = ("etc/fflushd", "usr/share/fflushd", "usr/share/doc/fflushd", "usr/libexec/fflushd")
    got = [n for n in files_of(listing) if n not in own]
    eq(got, inside)
    assert "./etc/fflushd/" in directories
    eq(run(["rpm", "-qpc", rpm]).stdout.strip(), "/etc/fflushd/fflushd.conf")
    package_rpm.scriptlets_of_suse(builds)
    package_rpm.lint(builds)


@test
def the_rpm_is_installed_upgraded_under_load_and_removed(t):
    only_bookworm()
    installed()
    package_rpm.live(sys.modules[__name__], the_rpms())


# ---------------------------------------------------------------------------------- in the guest


def install(path="/opt/fflushd.deb", check=True):
    return g.run("DEBIAN_FRONTEND=noninteractive apt-get -q -y install %s 2>&1" % path,
                 check=check, timeout=300)


def prepare_guest():
    with open(deb, "rb") as f:
        g.run("cat > /opt/fflushd.deb", input=f.read())
    g.write("/opt/mailhost.py", read("tests/lib/mailhost.py"))
    for unit in ("postfix.service", "postfix@.service"):  # we restart it all the time
        g.write("/etc/systemd/system/%s.d/test.conf" % unit, "[Unit]\nStartLimitIntervalSec=0\n")
    g.run("systemctl daemon-reload; postconf -e fast_flush_domains=static:all disable_dns_lookups=yes"
          " 'transport_maps=inline:{down.test=smtp:[127.0.0.1]:2525,a-b.test=smtp:[127.0.0.1]:2525}'"
          "; systemctl restart postfix")


FOOTPRINT = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o -path /dev \
    -o -path /var/lib/dpkg -o -path /var/cache/[a-eg-z]\* -o -path /var/spool/postfix/[a-eg-o]\* \
    -o -path /opt -o -path /var/spool/postfix/pid -o -path /var/lib/apt -o -path /var/spool/postfix/flush \
    -o -path /var/lib/systemd/catalog -o -path /var/tmp/systemd-private-\* \) -prune \
    -o -printf '%p %l\n' | sort
"""


def footprint():
    return g.out(FOOTPRINT).split("\n")


def postfix_state():
    return g.out("cd /etc/postfix && md5sum $(find . -type f | sort);"
                 "cat /var/spool/postfix/pid/master.pid")


def active(*units):
    return g.run("systemctl is-active " + " ".join(units), check=False).stdout.split()


def enabled(*units):
    return g.run("systemctl is-enabled " + " ".join(units), check=False).stdout.split()


def asks():
    return g.out("postconf -h flush_service_name")


def records(name):
    return g.out("cat /var/spool/postfix/flush/%s 2>/dev/null || true" % name).split()


def ctl(arguments, status=0):
    r = g.run("fflushctl %s 2>&1" % arguments, check=False)
    eq((arguments, r.returncode, r.stdout if r.returncode != status else ""), (arguments, status, ""))
    return r.stdout


def installed():
    """Switched off, whatever the last test did."""
    if g.run("test -x /usr/sbin/fflushctl", check=False).returncode != 0:
        install()
    g.run("postsuper -d ALL; postconf -X flush_service_name; systemctl start postfix; postfix reload;"
          "systemctl disable --now fflush-refresh.timer fflush.socket 2>/dev/null;"
          "rm -rf /etc/systemd/system/ff*.d /var/spool/postfix/flush/*; systemctl daemon-reload;"
          "systemctl reset-failed", check=False)


def load():
    """Four clients in rounds of 6000 requests, until they are told to end."""
    g.run("rm -f /tmp/load /tmp/load.*; (until test -e /tmp/load.stop; do"
          " %sload %s 6000 4 >> /tmp/load 2>&1; done; touch /tmp/load.done) >/dev/null 2>&1 &"
          % (TOOLS, SOCKET))


def load_result(least=0):
    """What replies there were, but for how many of them."""
    g.wait("test $(wc -l < /tmp/load) -ge %d" % (least / 6000), "the load does not go on",
           timeout=300)
    g.run("touch /tmp/load.stop")
    g.wait("test -e /tmp/load.done", "the load does not end", timeout=300)
    return {word for line in g.out("cat /tmp/load").split("\n") for word in json.loads(line)}


@test
def installing_touches_nothing_and_starts_nothing(t):
    before = postfix_state()
    install()
    eq(postfix_state(), before)
    eq(active(*UNITS.split()), ["inactive"] * 3)
    eq(enabled(*UNITS.split()), ["disabled", "static", "disabled"])
    eq(asks(), "flush")
    eq(g.out("fflushd --version").split("\n")[0], "fflushd " + version())
    eq(g.out("dpkg-query -W -f '${Conffiles}' fflushd").split()[0], "/etc/fflushd/fflushd.conf")


@test
def one_command_switches_over_and_one_back(t):
    installed()
    before = g.out("md5sum < /etc/postfix/main.cf")
    out = ctl("--dry-run enable-postfix")
    assert "postconf -e flush_service_name=fflushd" in out and "Nothing was changed" in out, out
    eq((asks(), active("fflush.socket"), g.out("md5sum < /etc/postfix/main.cf")),
       ("flush", ["inactive"], before))
    out = ctl("enable-postfix")
    for words in ("systemctl enable --now fflush.socket fflush-refresh.timer",
                  "postfix -c /etc/postfix reload", "Postfix now uses fflushd"):
        assert words in out, out
    eq(active("fflush.socket", "fflush-refresh.timer"), ["active"] * 2)
    eq(enabled("fflush.socket", "fflush-refresh.timer"), ["enabled"] * 2)
    g.wait("journalctl --sync; journalctl -t postfix/fflushd -o cat | grep -q 'send_file PROBE'", "no probe")
    assert "already uses" in ctl("enable-postfix")
    eq(json.loads(ctl("--json enable-postfix")),
       {"type": "enable-postfix", "flush_service_name": "fflushd", "changed": False, "dry_run": False})
    out = ctl("-n disable-postfix")
    assert "postconf -X flush_service_name" in out and asks() == "fflushd", out
    assert "Postfix uses flush(8) again" in ctl("disable-postfix")
    eq((asks(), active("fflush.socket"), enabled("fflush.socket")),
       ("flush", ["inactive"], ["disabled"]))
    eq(g.out("md5sum < /etc/postfix/main.cf"), before)
    assert "already uses" in ctl("disable-postfix")
    eq(g.run("test -e " + SOCKET, check=False).returncode, 1)
    g.run("postqueue -s one.test")


@test
def switching_under_load_loses_no_request_and_no_record(t):
    """And what fflushd has under names of its own, flush(8) finds."""
    only_bookworm()
    installed()
    ctl("enable-postfix")
    load()
    g.wait("test -e /var/spool/postfix/flush/site0_test", "no record")
    ctl("enable-postfix")
    eq(load_result(), {"ok"})
    eq(len(set(records("site0_test"))), 6000)
    g.run("printf 'A1\\nA2\\n' > /var/spool/postfix/flush/a_b_test;"
          "chown postfix:postfix /var/spool/postfix/flush/*")
    g.run("fflushctl add a-b.test A2; fflushctl add a-b.test A3; fflushctl add x A4")
    out = ctl("disable-postfix")
    assert "a-b.test: 2 records: flush/aDb_test -> flush/a_b_test" in out, out
    assert "one-letter" in out, out
    eq(sorted(set(records("a_b_test"))), ["A1", "A2", "A3"])
    eq((records("aDb_test"), records("xZ")), ([], ["A4"]))
    eq(g.out("stat -c '%U %a' /var/spool/postfix/flush/a_b_test"), "postfix 644")
    eq(len(set(records("site0_test"))), 6000)


TARPIT = ("import socket, time; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
          " s.bind(('127.0.0.1', 2525)); s.listen(); c = s.accept(); time.sleep(1000)")


@test
def agents_of_before_are_waited_for(t):
    """One that is busy with a delivery knows only the socket that it began with."""
    only_bookworm()
    installed()
    ctl("enable-postfix")
    g.run('systemd-run --quiet --unit=tarpit /usr/bin/python3 -c "%s"' % TARPIT)
    g.wait("ss -ltn | grep -q 127.0.0.1:2525", "no tarpit")
    g.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f s@guest.test u@down.test")
    try:
        g.wait("ss -tn | grep -q 127.0.0.1:2525", "no delivery")
        out = ctl("-t 10s disable-postfix", 75)
        assert "1 delivery agents are still busy" in out, out
        eq((asks(), active("fflush.socket")), ("flush", ["active"]))
        ids = g.out("postqueue -j | sed -n 's/.*\"queue_id\": \"\\([^\"]*\\).*/\\1/p'").split()
    finally:
        g.run("systemctl stop tarpit")
    g.wait("test -s /var/spool/postfix/flush/down_test", "not recorded")
    eq((len(ids), set(records("down_test"))), (1, set(ids)))
    eq(g.journal("-o cat -t postfix/smtp").count("flush service failure"), 0)
    ctl("disable-postfix")
    eq(active("fflush.socket"), ["inactive"])


@test
def export_is_for_when_postfix_asks_flush(t):
    only_bookworm()
    installed()
    ctl("enable-postfix")
    ctl("add a-b.test A1")
    assert "disable-postfix" in ctl("export", 78)
    eq(records("aDb_test"), ["A1"])
    g.run("postconf -X flush_service_name; postfix reload")
    assert "a_b_test" in ctl("-n export")
    eq(records("aDb_test"), ["A1"])
    g.run("touch -a -d '5 hours ago' /var/spool/postfix/flush/aDb_test")
    eq(json.loads(ctl("-j export")),
       {"type": "export", "site": "a-b.test", "from": "aDb_test", "to": "a_b_test", "records": 1,
        "dry_run": False})
    age = time.time() - int(g.out("stat -c %X /var/spool/postfix/flush/a_b_test"))
    assert 4 * 3600 < age < 6 * 3600, age  # the next refresh is when it was
    eq(records("a_b_test"), ["A1"])
    eq(ctl("export"), "")


@test
def export_waits_for_who_has_a_log_locked(t):
    only_bookworm()
    installed()
    g.run("cd /var/spool/postfix/flush; echo A1 > aDb_test; echo A2 > a_b_test; chown postfix: *;"
          "systemd-run --quiet --unit=holder flock $PWD/a_b_test sleep 1000")
    g.wait("! flock -n /var/spool/postfix/flush/a_b_test true", "nobody has the lock")
    g.run("systemd-run --quiet --unit=exporter fflushctl -t 60s export; sleep 1")
    eq((active("exporter"), records("aDb_test")), (["active"], ["A1"]))
    g.run("systemctl stop holder")
    g.wait("! systemctl is-active -q exporter", "it waits for ever")
    eq(active("exporter"), ["inactive"])  # not failed
    eq(records("a_b_test"), ["A2", "A1"])


REFUSALS = (
    ("what is not understood", "postconf -e flush_service_name=other", "postconf -X flush_service_name",
     'flush_service_name is "other"'),
    ("a drop-in that takes over public/flush",
     "mkdir -p /etc/systemd/system/fflush.socket.d; printf '[Socket]\\nListenStream=\\nListenStream="
     "/var/spool/postfix/public/flush\\n' > /etc/systemd/system/fflush.socket.d/x.conf;"
     "systemctl daemon-reload",
     "rm -r /etc/systemd/system/fflush.socket.d; systemctl daemon-reload", "in the place of Postfix's own"),
    ("another queue directory", "printf 'queue_directory = /var/spool\\n' > /etc/fflushd/x.conf;"
     "mkdir -p /etc/fflushd/conf.d; mv /etc/fflushd/x.conf /etc/fflushd/conf.d/",
     "rm -r /etc/fflushd/conf.d", "the queue directory is /var/spool in fflushd.conf, but"),
    ("units that serve another queue directory",
     "mkdir -p /etc/systemd/system/fflush.socket.d; printf '[Socket]\\nListenStream=\\nListenStream="
     "/srv/queue/public/fflushd\\n' > /etc/systemd/system/fflush.socket.d/x.conf; systemctl daemon-reload",
     "rm -r /etc/systemd/system/fflush.socket.d; systemctl daemon-reload", "does not listen on"),
    ("a sandbox without the queue",
     "mkdir -p /etc/systemd/system/fflushd.service.d; printf '[Service]\\nReadWritePaths=\\n'"
     " > /etc/systemd/system/fflushd.service.d/x.conf; systemctl daemon-reload",
     "rm -r /etc/systemd/system/fflushd.service.d; systemctl daemon-reload", "may not write"),
    ("a foreign listener",
     "rm -f %s; systemd-run --quiet --unit=foreign python3 -c"
     " \"import socket; s=socket.socket(socket.AF_UNIX); s.bind('%s'); s.listen();"
     " [s.accept() for _ in iter(int, 1)]\";"
     " until ss -lx | grep -q %s; do sleep 0.1; done" % (SOCKET, SOCKET, SOCKET),
     "systemctl stop foreign; rm " + SOCKET, "and it is not systemd"),
    ("master.cf with our name", "postconf -Me 'fflushd/unix=fflushd unix n - y - 0 flush'",
     "postconf -MX fflushd/unix", "has a service named fflushd"),
    ("a service with its own", "postconf -P smtp/inet/flush_service_name=flush",
     "postconf -PX smtp/inet/flush_service_name", "a flush_service_name of its own"),
    ("a masked socket", "systemctl mask fflush.socket", "systemctl unmask fflush.socket", "masked"),
)


@test
def what_it_does_not_understand_it_refuses_and_leaves(t):
    only_bookworm()
    installed()
    for what, prepare, mend, words in REFUSALS:
        g.run(prepare)
        before = postfix_state()
        try:
            r = g.run("fflushctl enable-postfix 2>&1", check=False)
            eq((what, r.returncode, r.stdout if r.returncode != 78 else ""), (what, 78, ""))
            out = r.stdout
            assert words in out, (what, out)
            eq((what, postfix_state()), (what, before))
            eq((what, active("fflush-refresh.timer")), (what, ["inactive"]))
        finally:
            g.run(mend)
    ctl("enable-postfix")  # nothing was left behind
    r = g.run("fflushctl disable-postfix", check=False, user="nobody")
    eq((r.returncode, asks()), (77, "fflushd"))
    g.run("postconf -MX flush/unix")
    try:
        assert "no service \"flush\"" in ctl("disable-postfix", 78)
        eq(asks(), "fflushd")
    finally:
        g.run("postconf -Me 'flush/unix=flush unix n - y 1000? 0 flush'; postfix reload")


@test
def a_service_that_does_not_answer_is_not_switched_to(t):
    only_bookworm()
    installed()
    g.run("mkdir -p /etc/systemd/system/fflushd.service.d; printf '[Unit]\\nStartLimitBurst=2\\n[Service]\\n"
          "ExecStart=\\nExecStart=/bin/false\\nRestartSec=100ms\\n'"
          " > /etc/systemd/system/fflushd.service.d/x.conf; systemctl daemon-reload")
    r = g.run("fflushctl enable-postfix 2>&1", check=False)
    assert r.returncode != 0 and asks() == "flush", r.stdout


@test
def instances_of_postfix_are_switched_one_by_one(t):
    only_bookworm()
    installed()
    g.run("postmulti -e init; postmulti -I postfix-b -G mta -e create;"
          "postconf -c /etc/postfix-b -MX smtp/inet;"
          "postconf -c /etc/postfix-b -e fast_flush_domains=static:all"
          " master_service_disable= authorized_submit_users=root; postmulti -i postfix-b -e enable;"
          "postmulti -i postfix-b -p start")
    try:
        out = ctl("--instance postfix-b enable-postfix")
        assert "postconf -c /etc/postfix-b -e flush_service_name=fflushd" in out, out
        eq((asks(), g.out("postconf -c /etc/postfix-b -h flush_service_name")), ("flush", "fflushd"))
        eq(active("fflush@postfix-b.socket", "fflush.socket"), ["active", "inactive"])
        ctl("enable-postfix")
        ctl("-i postfix-b add one.test A1")
        eq(g.out("cat /var/spool/postfix-b/flush/one_test"), "A1")
        before = g.out("systemctl show -p MainPID --value fflushd@postfix-b")
        install("--reinstall /opt/fflushd.deb")
        assert g.out("systemctl show -p MainPID --value fflushd@postfix-b") != before
        g.run("apt-get -q -y remove fflushd 2>&1")
        eq((asks(), g.out("postconf -c /etc/postfix-b -h flush_service_name")), ("flush", "flush"))
        g.run("postqueue -c /etc/postfix-b -s one.test; postqueue -s one.test")
    finally:
        g.run("postmulti -i postfix-b -p stop; postmulti -i postfix-b -e disable;"
              "postmulti -i postfix-b -e destroy; postmulti -e deinit; rm -rf /var/spool/postfix-b",
              check=False)


@test
def an_upgrade_under_load_loses_no_request(t):
    installed()
    g.run("rm -rf /opt/x; dpkg-deb -R /opt/fflushd.deb /opt/x && sed -i 's/^Version: .*/&+new/'"
          " /opt/x/DEBIAN/control && dpkg-deb -b --root-owner-group /opt/x /opt/new.deb")
    ctl("enable-postfix")
    ctl("add first.test A1")
    pid = g.out("systemctl show -p MainPID --value fflushd")
    load()
    g.wait("test -e /var/spool/postfix/flush/site0_test", "no record")
    out = install("/opt/new.deb").stdout
    eq(load_result(12000), {"ok"})
    eq(len(set(records("site0_test"))), 6000)
    assert g.out("systemctl show -p MainPID --value fflushd") != pid, out
    eq(g.out("dpkg-query -W -f '${Version}' fflushd")[-4:], "+new")
    eq((asks(), active("fflush.socket", "fflush-refresh.timer")), ("fflushd", ["active"] * 2))


def deferred():
    entries = [json.loads(line) for line in g.out("postqueue -j").split("\n") if line]
    return sorted(e["queue_id"] for e in entries if e["queue_name"] == "deferred")


@test
def removing_it_switches_back_and_keeps_the_records(t):
    installed()
    ctl("enable-postfix")
    g.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f s@guest.test u@a-b.test")
    g.wait("postqueue -j | grep -q '\"deferred\"'", "not deferred")
    ids = deferred()
    eq(sorted(set(records("aDb_test"))), ids)
    g.run("apt-get -q -y remove fflushd 2>&1")
    eq(asks(), "flush")
    eq(sorted(set(records("a_b_test"))), ids)
    g.run("rm -f /tmp/sink; systemd-run --quiet --unit=sink /usr/bin/%ssink 2525 /tmp/sink" % TOOLS)
    g.wait("test -e /tmp/sink", "no sink")
    try:
        g.run("postqueue -s a-b.test")  # flush(8) reads what fflushd has recorded
        g.wait("grep -q u@a-b.test /tmp/sink", "not delivered")
    finally:
        g.run("systemctl stop sink")
    eq(g.run("systemctl is-active fflush.socket", check=False).stdout.strip(), "inactive")


@test
def removing_it_is_refused_while_postfix_cannot_do_without(t):
    only_bookworm()
    installed()
    ctl("enable-postfix")
    g.run("postconf -MX flush/unix")
    try:
        r = g.run("apt-get -q -y remove fflushd 2>&1", check=False)
        assert r.returncode != 0 and "fflushctl disable-postfix" in r.stdout, r.stdout
        eq((asks(), active("fflush.socket")), ("fflushd", ["active"]))
        g.run("fflushctl add one.test A1")
        # Somebody has given it the place of flush(8) in another way.
        g.run("postconf -X flush_service_name; mkdir -p /etc/systemd/system/fflush.socket.d; printf"
              " '[Socket]\\nListenStream=/var/spool/postfix/public/flush\\n'"
              " > /etc/systemd/system/fflush.socket.d/x.conf; postfix reload; systemctl daemon-reload;"
              " systemctl restart fflush.socket; postqueue -s one.test")
        r = g.run("apt-get -q -y remove fflushd 2>&1", check=False)
        assert r.returncode != 0 and "in the place of Postfix's own" in r.stdout, r.stdout
        g.run("postqueue -s one.test")
    finally:
        g.run("rm -rf /etc/systemd/system/fflush.socket.d; systemctl daemon-reload;"
              "postconf -Me 'flush/unix=flush unix n - y 1000? 0 flush'; systemctl restart postfix")
    g.run("apt-get -q -y remove fflushd 2>&1")
    eq(asks(), "flush")


@test
def removing_it_is_refused_where_postfix_cannot_be_told(t):
    """An address of inet_interfaces is gone: postmulti(1) and "postfix reload" fail. So does each try."""
    installed()
    ctl("enable-postfix")
    g.run("postconf -e inet_interfaces=192.0.2.77")
    try:
        assert g.run("postmulti -l", check=False).returncode != 0
        for _ in range(2):
            r = g.run("apt-get -q -y remove fflushd 2>&1", check=False)
            assert r.returncode != 0 and "fflushd is not removed" in r.stdout, r.stdout
            eq(active("fflush.socket"), ["active"])
            g.run("fflushctl add one.test A1")  # whom the delivery agents ask
    finally:
        g.run("postconf -e inet_interfaces=loopback-only")
    out = g.out("apt-get -q -y remove fflushd 2>&1")
    assert "Postfix (/etc/postfix) uses flush(8) again" in out, out
    eq((asks(), active("fflush.socket")), ("flush", ["inactive"]))


@test
def presets_enable_nothing_and_the_shells_and_the_journal_know_it(t):
    installed()
    g.run("systemctl preset fflush.socket fflush-refresh.timer fflush-metrics.timer 2>&1")
    eq(enabled("fflush.socket", "fflush-refresh.timer", "fflush-metrics.timer"), ["disabled"] * 3)
    g.run("test -e /usr/share/zsh/vendor-completions/_fflushctl &&"
          " test -e /usr/share/bash-completion/completions/fflushctl")
    for identifier in re.findall(r'"([0-9a-f]{32})"', read("src/daemon/journal.h")):
        g.run("journalctl --dump-catalog " + identifier)
    eq(g.journal("-b _PID=1 | grep 'fflush.*Unknown' || true"), "")


@test
def purging_it_leaves_nothing(t):
    g.run("apt-get -q -y purge fflushd 2>&1", check=False)
    g.run("mkdir -p /var/lib/systemd/timers")
    before, postfix = footprint(), g.out("md5sum /etc/postfix/*.cf")
    install()
    ctl("enable-postfix")
    ctl("add one.test A1")
    g.run("systemctl restart fflushd;"
          " systemctl enable --now fflush-flush@a-b.test.timer fflush-metrics.timer")
    during = footprint()
    assert len(during) > len(before) + 20, len(during)
    g.run("apt-get -q -y purge fflushd 2>&1")
    eq(sorted(set(footprint()) ^ set(before)), [])
    eq(g.out("md5sum /etc/postfix/*.cf"), postfix)
    eq(g.out("systemctl list-units --all --no-legend 'ff*'"), "")


@test
def its_autopkgtest_passes(t):
    g.run("apt-get -q -y purge fflushd 2>&1; postsuper -d ALL; rm -rf /var/spool/postfix/flush/*;"
          "systemctl restart postfix", check=False)
    g.copy_in(os.path.join(work, "fflushd-" + version()), "/opt/source")
    tests = ["smoke", "switch-over", "suites"]
    if SUITE != "bookworm":
        g.run("sed -i '/^Tests: suites/,$d' /opt/source/debian/tests/control")
        tests.remove("suites")
    # It cannot know that this is a system of its own.
    r = g.run("cd /opt && autopkgtest --ignore-restrictions=isolation-container --no-built-binaries"
              " /opt/fflushd.deb /opt/source/ -- null 2>&1", check=False, timeout=900)
    results = dict(re.findall(r"^(\S+) +(PASS|FAIL|SKIP)", r.stdout, re.M))
    if r.returncode:
        print(r.stdout)
    eq((r.returncode, results), (0, dict.fromkeys(tests, "PASS")),
       "\n".join(re.findall(r"^(?:FAILED: |\S+ +FAIL).*", r.stdout, re.M)))


if __name__ == "__main__":
    if guest.missing():
        print("skipped: " + guest.missing())
        sys.exit(77)
    work = tempfile.mkdtemp(prefix="fflushd-package.")
    os.chmod(work, 0o755)
    try:
        make_source()
        tested = (SUITE == "bookworm" or guest.ARCH) and len(sys.argv) == 1  # not for some cases alone
        out, log = build("/build/place", "" if tested else "nocheck")
        deb = the_deb(out)
        print("# tests in the build: %d passed, %d skipped" % tuple(
            len(re.findall(r"^%s: tests/" % word, log, re.M)) for word in ("PASS", "SKIP")))
        g = guest.Guest(SUITE)
        prepare_guest()
        main()
    finally:
        if g:
            g.close()
        shutil.rmtree(work)
