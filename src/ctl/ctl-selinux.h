/* SPDX-License-Identifier: MIT */
#pragma once

/* Does SELinux let Postfix's daemons reach the service? */

#include "core/finding.h"
#include "ctl/ctl.h"

/**
 * ctl_judge_selinux() - add a finding if the loaded policy enforces that they do not
 *
 * Connects to the socket, so that systemd starts the service. Nothing is added where SELinux does
 * not enforce, or does not tell.
 */
void ctl_judge_selinux(Ctl *ctl, TestFindings *findings);
