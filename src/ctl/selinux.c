/* SPDX-License-Identifier: MIT */

#include "ctl/selinux.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "util/util.h"

#define AVD_PERMISSIVE   1u /* of the flags in a reply: the source is a permissive domain */
#define LABEL_OF_A_FILE  "security.selinux"
#define CONTEXT_OF_INIT  "/proc/1/attr/current"
#define BITS_OF_A_VECTOR 32u

/* ------------------------------------------------------------------------------- selinuxfs */

static int read_number(const char *fs, const char *name, unsigned *ret) {
        char path[PATH_MAX];
        FILE *f;
        int n;

        (void) snprintf(path, sizeof path, "%s/%s", fs, name);
        f = fopen(path, "re");
        if (!f)
                return -errno;
        /* NOLINTNEXTLINE(cert-err34-c): what the kernel writes there does fit */
        n = fscanf(f, "%u", ret);
        (void) fclose(f);
        return n == 1 ? 0 : -EBADMSG;
}

/* The files of selinuxfs answer, in one read, what has been written to them, in one write. */
static int ask(const char *fs, const char *file, const char *question,
               char ret[static SELINUX_CONTEXT_SIZE]) {
        char path[PATH_MAX];
        _cleanup_close_ int fd = -EBADF;
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/%s", fs, file);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = write(fd, question, strlen(question));
        if (n < 0)
                return -errno;
        n = read(fd, ret, SELINUX_CONTEXT_SIZE - 1);
        if (n < 0)
                return -errno;
        ret[n] = '\0';
        return n > 0 ? 0 : -EBADMSG;
}

/* "source target class", the last as a number. */
static int ask_about(const char *fs, const char *file, const char *source, const char *target,
                     const char *class, char ret[static SELINUX_CONTEXT_SIZE]) {
        char name[PATH_MAX], question[3 * SELINUX_CONTEXT_SIZE];
        unsigned number = 0;
        int r;

        (void) snprintf(name, sizeof name, "class/%s/index", class);
        r = read_number(fs, name, &number);
        if (r < 0)
                return r;
        (void) snprintf(question, sizeof question, "%s %s %u", source, target, number);
        return ask(fs, file, question, ret);
}

bool selinux_enforces(const char *fs) {
        unsigned enforces = 0;

        return read_number(fs, "enforce", &enforces) == 0 && enforces == 1;
}

int selinux_context_after_exec(const char *fs, const char *source, const char *program,
                               char ret[static SELINUX_CONTEXT_SIZE]) {
        return ask_about(fs, "create", source, program, "process", ret);
}

/* -------------------------------------------------------------------------------- contexts */

int selinux_label_of(const char *path, char ret[static SELINUX_CONTEXT_SIZE]) {
        ssize_t n = getxattr(path, LABEL_OF_A_FILE, ret, SELINUX_CONTEXT_SIZE - 1);

        if (n < 0)
                return -errno;
        ret[n] = '\0';
        return 0;
}

int selinux_context_of_init(char ret[static SELINUX_CONTEXT_SIZE]) {
        _cleanup_close_ int fd = open(CONTEXT_OF_INIT, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, ret, SELINUX_CONTEXT_SIZE - 1);

        if (n < 0)
                return -errno;
        ret[n] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
        return ret[0] ? 0 : -EBADMSG;
}

/* Where the part after the Nth colon begins; at the end of the string, if there is none. */
static const char *skip_parts(const char *context, unsigned n) {
        while (n > 0 && *context)
                n -= *context++ == ':';
        return context;
}

const char *selinux_type(const char *context, char ret[static SELINUX_TYPE_SIZE]) {
        const char *type = skip_parts(context, 2);

        (void) snprintf(ret, SELINUX_TYPE_SIZE, "%.*s", (int) strcspn(type, ":"), type);
        return ret;
}

/* ------------------------------------------------------------------------------------ rules */

static int find_bit(const char *fs, const char *class, const char *permission, unsigned *ret) {
        char name[PATH_MAX];
        unsigned number = 0;
        int r;

        (void) snprintf(name, sizeof name, "class/%s/perms/%s", class, permission);
        r = read_number(fs, name, &number);
        if (r < 0)
                return r;
        if (number < 1 || number > BITS_OF_A_VECTOR)
                return -EBADMSG;
        *ret = 1u << (number - 1);
        return 0;
}

int selinux_allows(const char *fs, const char *source, const char *target, const char *class,
                   const char *permission) {
        const char *level = skip_parts(target, 3);
        char same_level[2 * SELINUX_CONTEXT_SIZE], reply[SELINUX_CONTEXT_SIZE];
        unsigned bit = 0, allowed, flags = 0;
        int r;

        (void) snprintf(same_level, sizeof same_level, "%.*s%s", (int) (level - target), target,
                        *level ? skip_parts(source, 3) : "");
        r = find_bit(fs, class, permission, &bit);
        if (r < 0)
                return r;
        r = ask_about(fs, "access", source, same_level, class, reply);
        if (r < 0)
                return r;
        /* Of allowed, decided, to be logged when allowed, when denied, a number, and flags.
         * NOLINTNEXTLINE(cert-err34-c): what the kernel writes there does fit */
        if (sscanf(reply, "%x %*x %*x %*x %*u %x", &allowed, &flags) < 1)
                return -EBADMSG;
        return (allowed & bit) != 0 || (flags & AVD_PERMISSIVE) != 0;
}
