/* SPDX-License-Identifier: MIT */

/* fflushctl metrics: what the service has counted, and what the logs have, for Prometheus. */

#include <stdio.h>

#include "ctl/client.h"
#include "ctl/commands.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-health.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "ctl/deferred.h"
#include "util/atomicfile.h"
#include "util/escape.h"
#include "util/textfile.h"
#include "util/util.h"

#define LABEL_SIZE  1024u /* of the value of a label, escaped */
#define MODE_OUTPUT 0644  /* for the user of node_exporter */

/* Neighbours with the same family have one header. The key is for JSON. */
static const struct {
        const char *family, *type, *label, *help, *key;
        size_t offset;
} values[] = {
#define COUNTED(family, label, key, json, help)                                                    \
        { "fflushd_" family "_total", "counter", label, help, json, offsetof(Metrics, key) }
#define COUNTER(family, label, key, help) COUNTED(family, label, key, #key, help)
#define GAUGE(family, label, key, help)                                                            \
        { "fflushd_" family, "gauge", label, help, #key, offsetof(Metrics, key) }
#define TIME(family, key, json, help)                                                              \
        {                                                                                          \
                "fflushd_" family "_timestamp_seconds", "gauge", NULL, help, json,                 \
                        offsetof(Metrics, key)                                                     \
        }
        COUNTER("starts", NULL, starts, "Starts of the service."),
        COUNTER("bad_requests", NULL, bad_requests,
                "Requests that were malformed, too long, or not sent in time."),
        COUNTER("records_appended", NULL, appended, "Records written to logs."),
        COUNTER("adds_coalesced", NULL, coalesced,
                "Adds that needed no record, as there was one already."),
        COUNTER("messages", "result=\"moved\"", moved,
                "Messages by what became of them in a flush or delivery."),
        COUNTER("messages", "result=\"gone\"", gone, NULL),
        COUNTER("messages", "result=\"busy\"", busy, NULL),
        COUNTER("messages", "result=\"failed\"", failed, NULL),
        COUNTER("duplicate_records", NULL, duplicate, "Further records of a message, dropped."),
        COUNTER("invalid_records", NULL, invalid, "Lines of logs that are no queue ID, dropped."),
        COUNTER("refreshes", NULL, refreshes, "Refreshes and purges that have ended."),
        COUNTER("refreshes_failed", NULL, refreshes_failed, "Of them, those that ended early."),
        COUNTED("refresh_logs", "result=\"flushed\"", flushed, "logs_flushed",
                "Logs by what a refresh or purge did with them."),
        COUNTED("refresh_logs", "result=\"compacted\"", compacted, "logs_compacted", NULL),
        COUNTED("refresh_logs", "result=\"removed\"", removed, "logs_removed", NULL),
        TIME("last_refresh", last_refresh_sec, "last_refresh", "End of the last refresh, or 0."),
        TIME("last_purge", last_purge_sec, "last_purge", "End of the last purge, or 0."),
        COUNTER("self_tests", NULL, self_tests, "Self-tests of the service that have ended."),
        TIME("last_self_test", last_self_test_sec, "last_self_test",
             "End of the last self-test, or 0."),
        GAUGE("self_test_findings", "result=\"failed\"", self_test_failed,
              "Findings of the last self-test."),
        GAUGE("self_test_findings", "result=\"warning\"", self_test_warnings, NULL),
};

static const char *const statuses[_METRICS_STATUS_MAX] = {"ok", "failed", "denied"};

typedef struct Row {
        const char *site;
        unsigned long records, messages, deferred;
        time_t changed, flushed; /* 0: there is no log */
        time_t oldest;           /* arrival of its oldest deferred message; 0: unknown, or none */
} Row;

typedef struct Report {
        Ctl *ctl;
        Metrics counters;
        bool has_counters;
        int listening, served; /* 1, 0, or negative: unknown */
        Deferred messages;
        bool has_messages;
        unsigned long logs, sites, records, unreadable, deferred, unrecorded;
        time_t oldest; /* arrival of the oldest deferred message; 0: unknown, or there is none */
        time_t oldest_change, oldest_flush; /* of logs with records; 0: there are none */
        CtlSites all, named;
        Row *rows; /* of all logs, and then of those sites that were named */
        size_t n_all, n_rows;
} Report;

/* ----------------------------------------------------------------------------------- gathering */

static int read_counters(Report *report) {
        _cleanup_free_ char *path = NULL;
        int r = ctl_read_counters(report->ctl, &report->counters, &path);

        if (!path)
                return ctl_no_memory();
        report->has_counters = r == 0;
        if (r == 0)
                return EX_OK;
        ctl_error("%s/" METRICS_FILE ": %s; no counters", path,
                  r == -EBADMSG ? "not of this version" : strerror(-r));
        /* Before the first start it is not there, and that is in order. */
        return r == -ENOENT ? EX_OK : r == -EACCES ? EX_NOPERM : EX_IOERR;
}

static void note_oldest(time_t *oldest, time_t t) {
        if (*oldest == 0 || t < *oldest)
                *oldest = t;
}

static void count_deferred(const Report *report, const SurveyLog *log, Row *row) {
        const StrSetEntry *e = NULL;

        while ((e = strset_next(&log->ids, e))) {
                DeferredMessage *m = deferred_find(&report->messages, strset_entry_id(e));

                if (!m)
                        continue;
                m->recorded = true;
                row->deferred++;
                if (queue_arrived_before(m->arrival, row->oldest))
                        row->oldest = m->arrival;
        }
}

static int look(Report *report, const CtlSite *site, Row *ret) {
        SurveyLog log;
        int status = ctl_read_site(report->ctl, site, &log);

        *ret = (Row){.site = site->site,
                     .records = log.records,
                     .messages = strset_size(&log.ids),
                     .changed = site->st.st_mtim.tv_sec,
                     .flushed = site->st.st_atim.tv_sec};
        count_deferred(report, &log, ret);
        survey_done(&log);
        report->unreadable += status != EX_OK;
        return status;
}

static void sum(Report *report, const Row *row) {
        report->logs++;
        if (row->records == 0)
                return;
        report->sites++;
        report->records += row->records;
        note_oldest(&report->oldest_change, row->changed);
        note_oldest(&report->oldest_flush, row->flushed);
}

static int by_records(const void *a, const void *b) { /* most first */
        const Row *x = a, *y = b;

        return x->records != y->records ? (x->records < y->records ? 1 : -1)
                                        : strcmp(x->site, y->site);
}

static bool is_among(const Row *rows, size_t n, const char *site) {
        for (size_t i = 0; i < n; i++)
                if (streq(rows[i].site, site))
                        return true;
        return false;
}

/* Leaves the rows that are to be shown: the first of them, and those that were named. */
static int choose_rows(Report *report) {
        int status = EX_OK;

        if (report->n_all > 1)
                qsort(report->rows, report->n_all, sizeof *report->rows, by_records);
        report->n_rows = report->ctl->top < report->n_all ? report->ctl->top : report->n_all;
        for (size_t i = 0; i < report->named.n; i++)
                if (!is_among(report->rows, report->n_rows, report->named.items[i].site))
                        status = ctl_worse(status, look(report, &report->named.items[i],
                                                        &report->rows[report->n_rows++]));
        return status;
}

/* Before the logs: a message is recorded before it is deferred, so what is new in the queue is in
 * the log that is read later. */
static int read_messages(Report *report) {
        int r = deferred_read(&report->ctl->queue, &report->messages);

        report->has_messages = r == 0;
        if (r == 0)
                return EX_OK;
        ctl_error("%s/%s: %s", report->ctl->settings.queue_directory, queue_name(QUEUE_DEFERRED),
                  strerror(-r));
        return r == -EACCES ? EX_NOPERM : EX_IOERR;
}

static void count_messages(Report *report) {
        for (const DeferredMessage *m = report->messages.messages; m; m = m->hh.next) {
                report->deferred++;
                report->unrecorded += !m->recorded;
                if (queue_arrived_before(m->arrival, report->oldest))
                        report->oldest = m->arrival;
        }
}

/* Nothing is started by this: neither systemd nor the kernel is told to connect. */
static void look_at_service(Report *report) {
        _cleanup_free_ char *asked = NULL;
        const char *slash;

        if (ctl_socket(report->ctl) != EX_OK)
                return;
        report->listening = client_is_bound(report->ctl->socket_path);
        if (!health_socket_is_up(report->ctl))
                report->listening = 0;
        asked = ctl_postconf(report->ctl, "flush_service_name");
        slash = strrchr(report->ctl->socket_path, '/');
        if (asked)
                report->served = streq(asked, slash ? slash + 1 : report->ctl->socket_path);
}

static int gather(Report *report, char *args[]) {
        int status = ctl_find_sites(report->ctl, (char *[]){NULL}, false, &report->all), unread;

        if (status != EX_OK)
                return status;
        unread = read_messages(report);
        if (*args)
                status = ctl_find_sites(report->ctl, args, true, &report->named);
        if (status != EX_OK && status != EX_NOINPUT)
                return status;
        report->rows = calloc(report->all.n + report->named.n + 1, sizeof *report->rows);
        if (!report->rows)
                return ctl_no_memory();
        report->n_all = report->all.n;
        for (size_t i = 0; i < report->n_all; i++) {
                status = ctl_worse(status, look(report, &report->all.items[i], &report->rows[i]));
                sum(report, &report->rows[i]);
        }
        status = ctl_worse(status, choose_rows(report));
        count_messages(report);
        look_at_service(report);
        return ctl_worse(ctl_worse(status, unread), read_counters(report));
}

static void report_done(Report *report) {
        free(report->rows);
        deferred_done(&report->messages);
        ctl_sites_done(&report->all);
        ctl_sites_done(&report->named);
}

/* -------------------------------------------------------------------------------- Prometheus */

static void head(FILE *f, const char *family, const char *type, const char *help) {
        (void) fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", family, help, family, type);
}

/* What is not printable is shown as text: the format knows no way to write it. */
static void quoted(FILE *f, const char *label, const char *value) {
        char shown[LABEL_SIZE];

        (void) fprintf(f, "%s=\"", label);
        for (const char *p = escape_line(value, shown, sizeof shown); *p; p++) {
                if (*p == '"' || *p == '\\')
                        (void) fputc('\\', f);
                (void) fputc(*p, f);
        }
        (void) fputc('"', f);
}

/* @label, NULL: none, stands as it is; @site is a value. Several instances may share a collector,
 * which wants all samples to differ. */
static void sample(const Report *report, FILE *f, const char *family, const char *label,
                   const char *site, uint64_t value) {
        const char *separator = "{";

        (void) fputs(family, f);
        if (report->ctl->instance) {
                (void) fputs(separator, f);
                quoted(f, "postfix_instance", report->ctl->instance);
                separator = ",";
        }
        if (label) {
                (void) fprintf(f, "%s%s", separator, label);
                separator = ",";
        }
        if (site) {
                (void) fputs(separator, f);
                quoted(f, "site", site);
                separator = ",";
        }
        (void) fprintf(f, "%s %llu\n", *separator == ',' ? "}" : "", (unsigned long long) value);
}

static void gauge(const Report *report, FILE *f, const char *family, const char *help,
                  uint64_t value) {
        head(f, family, "gauge", help);
        sample(report, f, family, NULL, NULL, value);
}

static uint64_t value_of(const Report *report, size_t i) {
        const void *at = (const char *) &report->counters + values[i].offset;

        return *(const uint64_t *) at;
}

/* By kind of failure: a family each. */
static const struct {
        const char *family, *type, *help, *key;
        size_t offset;
} by_class[] = {
        {"fflushd_failures_total", "counter",
         "Requests, messages and refreshes that failed, by what has to be looked at.",
         "failures_by_class", offsetof(Metrics, failures)},
        {"fflushd_last_failure_timestamp_seconds", "gauge", "Last of these failures, or 0.",
         "last_failure_by_class", offsetof(Metrics, last_failure_sec)},
        {"fflushd_last_success_timestamp_seconds", "gauge",
         "Last time that what could have failed so was in order, or 0.", "last_success_by_class",
         offsetof(Metrics, last_success_sec)},
};

static uint64_t value_by_class(const Report *report, size_t i, MetricsClass c) {
        const void *at = (const char *) &report->counters + by_class[i].offset;

        return ((const uint64_t *) at)[c];
}

static void print_failures(const Report *report, FILE *f) {
        char label[64];

        for (size_t i = 0; i < ARRAY_SIZE(by_class); i++) {
                head(f, by_class[i].family, by_class[i].type, by_class[i].help);
                for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++) {
                        (void) snprintf(label, sizeof label, "class=\"%s\"", metrics_class_name(c));
                        sample(report, f, by_class[i].family, label, NULL,
                               value_by_class(report, i, c));
                }
        }
}

/* Without starting the service: what it has seen itself, and whether it would be started. */
static bool is_healthy(const Report *report) {
        return metrics_healthy(&report->counters) && report->listening != 0;
}

static void print_counters(const Report *report, FILE *f) {
        char label[64];

        gauge(report, f, "fflushd_healthy",
              "1 if the last self-test and the requests since have found nothing broken, and the "
              "socket is up.",
              is_healthy(report));

        head(f, "fflushd_requests_total", "counter", "Requests by kind and answer.");
        for (int kind = 0; kind < REQUEST_COUNTED_MAX; kind++)
                for (int status = 0; status < _METRICS_STATUS_MAX; status++) {
                        (void) snprintf(label, sizeof label, "request=\"%s\",status=\"%s\"",
                                        request_name((RequestKind) kind), statuses[status]);
                        sample(report, f, "fflushd_requests_total", label, NULL,
                               report->counters.requests[kind][status]);
                }
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
                if (values[i].help)
                        head(f, values[i].family, values[i].type, values[i].help);
                sample(report, f, values[i].family, values[i].label, NULL, value_of(report, i));
        }
        print_failures(report, f);
}

static void print_rows(const Report *report, FILE *f) {
        static const struct {
                const char *family, *help;
                bool of_queue, or_none; /* the latter: 0 is no value */
        } series[] = {
                {.family = "fflushd_site_records", .help = "Records of a site."},
                {.family = "fflushd_site_messages",
                 .help = "Distinct messages recorded for a site."},
                {.family = "fflushd_site_flushed_timestamp_seconds",
                 .help = "Last flush of a site, or 0."},
                {.family = "fflushd_site_changed_timestamp_seconds",
                 .help = "Last change of the log of a site, or 0."},
                {.family = "fflushd_site_deferred_messages",
                 .help = "Of the messages recorded for a site, those that are deferred.",
                 .of_queue = true},
                {.family = "fflushd_site_oldest_message_timestamp_seconds",
                 .help = "Arrival of the oldest of them.",
                 .of_queue = true,
                 .or_none = true},
        };

        for (size_t kind = 0; report->n_rows > 0 && kind < ARRAY_SIZE(series); kind++) {
                if (series[kind].of_queue && !report->has_messages)
                        continue;
                head(f, series[kind].family, "gauge", series[kind].help);
                for (size_t i = 0; i < report->n_rows; i++) {
                        const Row *row = &report->rows[i];
                        const uint64_t v[] = {row->records,
                                              row->messages,
                                              (uint64_t) row->flushed,
                                              (uint64_t) row->changed,
                                              row->deferred,
                                              (uint64_t) row->oldest};

                        if (v[kind] > 0 || !series[kind].or_none)
                                sample(report, f, series[kind].family, NULL, row->site, v[kind]);
                }
        }
}

static void print_messages(const Report *report, FILE *f) {
        if (!report->has_messages)
                return;
        gauge(report, f, "fflushd_deferred_messages", "Deferred messages, recorded or not.",
              report->deferred);
        gauge(report, f, "fflushd_unrecorded_messages",
              "Of the deferred messages, those that no log has.", report->unrecorded);
        if (report->oldest > 0)
                gauge(report, f, "fflushd_oldest_message_timestamp_seconds",
                      "Arrival of the oldest deferred message.", (uint64_t) report->oldest);
}

/* All that there is if the logs cannot be read: a file that is old looks as if all were well. */
static void print_service(const Report *report, FILE *f) {
        head(f, "fflushd_build_info", "gauge", "Version of fflushctl, which writes this.");
        sample(report, f, "fflushd_build_info", "version=\"" PACKAGE_VERSION "\"", NULL, 1);
        gauge(report, f, "fflushd_up",
              "1 if the logs could be read, and nothing tells that nobody listens on the socket.",
              report->rows && report->listening != 0);
        if (report->listening >= 0)
                gauge(report, f, "fflushd_listening", "1 if somebody listens on the socket.",
                      (uint64_t) report->listening);
        if (report->served >= 0)
                gauge(report, f, "fflushd_served", "1 if Postfix is configured to ask fflushd.",
                      (uint64_t) report->served);
}

static void print_logs(const Report *report, FILE *f) {
        gauge(report, f, "fflushd_logs", "Logs of sites, with records or without.", report->logs);
        gauge(report, f, "fflushd_sites", "Sites with records.", report->sites);
        gauge(report, f, "fflushd_records", "Records of all sites.", report->records);
        gauge(report, f, "fflushd_unreadable_logs", "Logs that are not counted.",
              report->unreadable);
        if (report->sites > 0) {
                gauge(report, f, "fflushd_oldest_change_timestamp_seconds",
                      "Least recent change of a log that has records.",
                      (uint64_t) report->oldest_change);
                gauge(report, f, "fflushd_oldest_flush_timestamp_seconds",
                      "Least recent flush of a log that has records.",
                      (uint64_t) report->oldest_flush);
        }
        print_messages(report, f);
        print_rows(report, f);
}

static void print_text(const Report *report, FILE *f) {
        print_service(report, f);
        if (report->rows)
                print_logs(report, f);
        if (report->has_counters)
                print_counters(report, f);
        (void) fputs("# EOF\n", f);
}

/* -------------------------------------------------------------------------------------- JSON */

/* Times of what has never been are 0. */
static json_t *json_value(bool time, uint64_t value) {
        return time && value == 0 ? json_null() : json_integer((json_int_t) value);
}

static bool is_time(size_t i) {
        return streq(values[i].type, "gauge") && values[i].label == NULL;
}

static json_t *json_counters(const Report *report) {
        json_t *counters = json_object(), *requests = json_object();

        if (!report->has_counters) {
                json_decref(counters);
                json_decref(requests);
                return json_null();
        }
        for (int kind = 0; kind < REQUEST_COUNTED_MAX; kind++) {
                json_t *of = json_object();

                for (int status = 0; status < _METRICS_STATUS_MAX; status++)
                        (void) json_object_set_new(
                                of, statuses[status],
                                json_integer((json_int_t) report->counters.requests[kind][status]));
                (void) json_object_set_new(requests, request_name((RequestKind) kind), of);
        }
        (void) json_object_set_new(counters, "requests", requests);
        (void) json_object_set_new(counters, "healthy", json_boolean(is_healthy(report)));
        for (size_t i = 0; i < ARRAY_SIZE(by_class); i++) {
                json_t *of = json_object();

                for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++)
                        (void) json_object_set_new(of, metrics_class_name(c),
                                                   json_value(streq(by_class[i].type, "gauge"),
                                                              value_by_class(report, i, c)));
                (void) json_object_set_new(counters, by_class[i].key, of);
        }
        for (size_t i = 0; i < ARRAY_SIZE(values); i++)
                (void) json_object_set_new(counters, values[i].key,
                                           json_value(is_time(i), value_of(report, i)));
        return counters;
}

static json_t *json_time(time_t t) {
        return t ? json_integer(t) : json_null();
}

/* Of messages in the queue, which may not be readable. */
static json_t *json_count(const Report *report, unsigned long n) {
        return report->has_messages ? json_integer((json_int_t) n) : json_null();
}

static json_t *json_known(int state) {
        return state < 0 ? json_null() : json_boolean(state);
}

static json_t *json_row(const Report *report, const Row *row) {
        return json_pack("{so sI sI so so so so}", "site", ctl_json_text(row->site), "records",
                         (json_int_t) row->records, "messages", (json_int_t) row->messages,
                         "flushed", json_time(row->flushed), "changed_time",
                         json_time(row->changed), "deferred", json_count(report, row->deferred),
                         "oldest", json_time(row->oldest));
}

static json_t *json_report(const Report *report) {
        json_t *rows = json_array();

        for (size_t i = 0; report->rows && i < report->n_rows; i++)
                (void) json_array_append_new(rows, json_row(report, &report->rows[i]));
        return json_pack(
                "{ss so so sI sI sI sI so so so so so so so}", "version", PACKAGE_VERSION,
                "listening", json_known(report->listening), "served", json_known(report->served),
                "logs", (json_int_t) report->logs, "sites", (json_int_t) report->sites, "records",
                (json_int_t) report->records, "unreadable", (json_int_t) report->unreadable,
                "oldest_change", json_time(report->oldest_change), "oldest_flush",
                json_time(report->oldest_flush), "deferred", json_count(report, report->deferred),
                "unrecorded", json_count(report, report->unrecorded), "oldest",
                json_time(report->oldest), "by_site", rows, "counters", json_counters(report));
}

/* ------------------------------------------------------------------------------------- output */

static int print(const Report *report, FILE *f) {
        if (!report->ctl->json) {
                print_text(report, f);
                return EX_OK;
        }
        return ctl_write_json(json_report(report), f);
}

/* In one piece, under a name that no collector looks at before it is whole. */
static int write_file(const Report *report, const char *path) {
        char *temporary;
        FILE *f;
        int r, status;

        r = atomicfile_begin(path, MODE_OUTPUT, &f, &temporary);
        if (r < 0) {
                ctl_error("%s: %s", path, textfile_strerror(r));
                return EX_CANTCREAT;
        }
        status = print(report, f);
        if (status == EX_OK && (r = atomicfile_sync(f)) < 0) {
                ctl_error("%s: %s", path, strerror(-r));
                status = EX_IOERR;
        }
        r = atomicfile_end(f, temporary, status == EX_OK ? path : NULL);
        if (status != EX_OK || r == 0)
                return status;
        ctl_error("%s: %s", path, strerror(-r));
        return EX_CANTCREAT;
}

int ctl_metrics(Ctl *ctl, char *args[]) {
        _cleanup_(report_done)
                Report report = {.ctl = ctl, .listening = -ENODATA, .served = -ENODATA};
        int status = gather(&report, args);

        /* Without the logs, zeros would look as if all mail had gone. */
        if (!report.rows && (ctl->json || !ctl->output))
                return status;
        return ctl_worse(status,
                         ctl->output ? write_file(&report, ctl->output) : print(&report, stdout));
}
