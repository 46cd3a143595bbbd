# SPDX-License-Identifier: MIT
"""The RPM, for it-package.py: built, compared with the Debian package, and its life by rpm(8).

In a Debian, so without rpm's dependencies; what Fedora's rpm brings along stands here.
"""

import glob
import os
import shutil
import subprocess

from basics import TOP, eq

# What the macros of systemd 252 do when it runs; the daemon-reload is that of its file triggers.
MACROS = r"""
%_unitdir /usr/lib/systemd/system
%_presetdir /usr/lib/systemd/system-preset
%_journalcatalogdir /usr/lib/systemd/catalog
%systemd_requires Requires: systemd
%systemd_post() systemctl daemon-reload; if [ $1 -eq 1 ]; then systemctl --no-reload preset %{*} || : ; fi
%systemd_preun() if [ $1 -eq 0 ]; then systemctl --no-reload disable --now --no-warn %{*} || : ; fi
%systemd_postun_with_restart() systemctl daemon-reload; \
if [ $1 -ge 1 ]; then systemctl try-restart %{*} || : ; fi
%journal_catalog_update journalctl --update-catalog >/dev/null 2>&1 || :
%_sysconfdir /etc
%_libexecdir /usr/libexec
%_docdir /usr/share/doc
%_mandir /usr/share/man
%_datadir /usr/share
%_sbindir /usr/sbin
%_docdir_fmt %{NAME}
%_sharedstatedir /var/lib
%selinux_requires Requires: selinux-policy
%selinux_relabel_pre(s:) : selinux_relabel_pre %{-s*}
%selinux_relabel_post(s:) : selinux_relabel_post %{-s*}
%selinux_modules_install(s:) : selinux_modules_install %{-s*} %{*}
%selinux_modules_uninstall(s:) : selinux_modules_uninstall %{-s*} %{*}
%install %{?buildsubdir:%{debug_package}}\
%%install\
%{nil}
"""
# Of openSUSE's rpm, to see that the scriptlets are whole.
SUSE_MACROS = MACROS + r"""
%suse_version 1600
%service_add_pre() : add_pre %{*}
%service_add_post() : add_post %{*}
%service_del_preun() : del_preun %{*}
%service_del_postun() : del_postun %{*}
%service_del_postun_without_restart() : without_restart %{*}
"""


def run(command, check=True, **kwargs):
    r = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if check and r.returncode != 0:
        raise AssertionError("%s: %d\n%s%s" % (command, r.returncode, r.stdout[-4000:], r.stderr[-4000:]))
    return r


class Builds:
    """A directory of rpmbuild's, with the release in it."""

    def __init__(self, top, tarball):
        self.top = top
        for name in ("SOURCES", "SPECS", "BUILD", "RPMS", "SRPMS"):
            os.makedirs(os.path.join(top, name))
        shutil.copy(tarball, os.path.join(top, "SOURCES", os.path.basename(tarball)
                                          .replace("_", "-").replace(".orig", "")))
        self.spec = shutil.copy(os.path.join(TOP, "rpm/fflushd.spec"), os.path.join(top, "SPECS"))
        self.macros = self.write("macros", MACROS)

    def write(self, name, text):
        path = os.path.join(self.top, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def build(self, *options):
        """--nodeps: nothing here is installed by rpm. --nocheck: the tests have run."""
        run(["rpmbuild", "--nodeps", "--nocheck", "--load", self.macros, "--define", "_topdir " + self.top,
             *options, self.spec])

    def find(self, pattern):
        found = glob.glob(os.path.join(self.top, pattern))
        eq(len(found), 1, "%s: %s" % (pattern, found))
        return found[0]


def scriptlets_of_suse(builds):
    """Expanded, as one script each."""
    macros = builds.write("macros.suse", SUSE_MACROS)
    text = run(["rpmspec", "-P", "--load", macros, builds.spec]).stdout
    for words in ("add_pre", "add_post", "del_preun", "del_postun", "without_restart"):
        assert ": %s fflush" % words in text, (words, text)
    assert "%service" not in text and "%systemd" not in text and ": systemd_" not in text, text


def lint(builds):
    r = run(["rpmlint", "-r", os.path.join(TOP, "rpm/fflushd.rpmlintrc"), builds.spec,
             *glob.glob(os.path.join(builds.top, "RPMS/*/fflushd-0*one.*.rpm")),
             *glob.glob(os.path.join(builds.top, "RPMS/*/fflushd-selinux-0*one.*.rpm")),
             *glob.glob(os.path.join(builds.top, "SRPMS/*.rpm"))], check=False)
    eq(([line for line in r.stdout.split("\n") if " E: " in line or " W: " in line], " 0 errors" in r.stdout),
       ([], True))


RPM = "rpm --force-debian --nodeps "


def live(p, builds):
    """Install, use, upgrade under load, refuse to go, go. @p: it-package.py."""
    p.g.run("apt-get -q -y purge fflushd 2>&1; systemctl daemon-reload; rm -rf /var/spool/postfix/flush/*",
            check=False)
    before = p.postfix_state()
    for name in ("one", "two"):
        with open(builds.find("RPMS/*/fflushd-0*%s.*.rpm" % name), "rb") as f:
            p.g.run("cat > /opt/%s.rpm" % name, input=f.read())
    p.g.run(RPM + "-i /opt/one.rpm 2>&1")
    try:
        eq(p.postfix_state(), before)
        eq(p.active(*p.UNITS.split()), ["inactive"] * 3)
        eq(p.enabled(*p.UNITS.split()), ["disabled", "static", "disabled"])
        p.ctl("enable-postfix")
        p.g.run("systemctl enable --now fflush-flush@a-b.test.timer")
        upgrade(p)
        refuse_to_go(p)
    finally:
        out = p.g.out(RPM + "-e fflushd 2>&1", check=False)
    assert "uses flush(8) again" in out, out
    eq((p.asks(), p.active("fflush.socket")), ("flush", ["inactive"]))
    eq(p.g.out("ls -A /etc/systemd/system/*.wants | grep fflush || true"), "")
    p.g.run("postqueue -s one.test")


def upgrade(p):
    p.ctl("add first.test A1")
    pid = p.g.out("systemctl show -p MainPID --value fflushd")
    p.load()
    p.g.wait("test -e /var/spool/postfix/flush/site0_test", "no record")
    p.g.run(RPM + "-U /opt/two.rpm 2>&1")
    eq(p.load_result(12000), {"ok"})
    assert p.g.out("systemctl show -p MainPID --value fflushd") != pid
    assert "two" in p.g.out("rpm -q fflushd"), "not upgraded"
    eq((p.asks(), p.active("fflush.socket", "fflush-refresh.timer")), ("fflushd", ["active"] * 2))


def refuse_to_go(p):
    """As where a scriptlet of rpm's has no network."""
    p.g.run("postconf -e inet_interfaces=192.0.2.77")
    r = p.g.run(RPM + "-e fflushd 2>&1", check=False)
    p.g.run("postconf -e inet_interfaces=loopback-only")
    assert r.returncode != 0 and "fflushd is not removed" in r.stdout, r.stdout
    eq(p.active("fflush.socket"), ["active"])
    p.g.run("fflushctl add one.test A1; rpm -q fflushd")
