/* What a run says on standard error while it works and when it ends: notices, progress, the
 * summary; as text or, with --log-format json, one JSON object a line. Memory does not grow with
 * the run: latencies are kept as a histogram. */
#ifndef APP_REPORT_H
#define APP_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "app/options.h"
#include "app/prompts.h"
#include "engine/executor.h"
#include "plan/memory.h"

/* Latencies in 128 buckets for each power of two: percentiles are exact to 0.8 %. */
#define REPORT_BUCKETS (58 * 128)

enum progress_kind {
    PROGRESS_NONE,
    PROGRESS_BAR,   /* one line, redrawn ten times a second at most */
    PROGRESS_LINES, /* a plain line every ten seconds */
};

struct report {
    FILE *stream; /* borrowed */
    bool is_quiet, is_verbose;
    bool is_json;    /* one object a line; has no bar */
    bool has_colour; /* in the bar */
    enum progress_kind progress;
    /* Atomic, here and below: a watching thread tells them. */
    _Atomic int64_t n_expected; /* lines of the input; 0: unknown */
    _Atomic uint64_t start_ns;  /* rates count from here */
    uint64_t shown_ns;          /* when progress was last shown */
    bool bar_is_shown;          /* the cursor stands behind it */
    size_t slot_bytes;          /* of the KV cache: one position, all layers */
    /* Counts of the run. */
    _Atomic int64_t n_answered, n_failed;
    _Atomic int64_t n_found;            /* lines that were answered before the run */
    int64_t n_safe;                     /* lines that no crash can take; below 0: nobody asked */
    _Atomic int64_t n_effective_tokens; /* generated, up to and including the stop token */
    int64_t n_canvas_tokens;            /* all that were to be generated */
    int64_t n_latencies, latencies[REPORT_BUCKETS]; /* end to end */
    /* With a profile: what the windows' plans expected, and what making them took. */
    uint64_t planned_ns, planning_ns;
    struct backend_graphs graphs; /* at the end */
};

/* `is_terminal`: whether the stream is one, which decides about bar and colour unless the options
 * or NO_COLOR say otherwise. Caller's struct; times count from `now_ns`. */
void report_init(struct report *report, const struct options *options, FILE *stream,
                 bool is_terminal, uint64_t now_ns);

/* A line of text that is no error; not with -q. Control bytes are made harmless. */
__attribute__((format(printf, 2, 3))) void report_note(struct report *report, const char *format,
                                                       ...);

/* A line of text about something wrong that is not the end of the story; also with -q. */
__attribute__((format(printf, 2, 3))) void report_error(struct report *report, const char *format,
                                                        ...);

/* Takes over the memory plan, and prints it with -v: what the run takes, by region, before it takes
 * it. */
void report_memory(struct report *report, const struct memory_plan *memory);

/* Counts one line of output: an answer with `n_effective` of `n_canvas` tokens, complete `e2e_ns`
 * after its line was read; or an error. */
void report_answered(struct report *report, int32_t n_effective, int32_t n_canvas, uint64_t e2e_ns);
static inline void report_failed(struct report *report)
{
    report->n_failed++;
}

/* Shows the progress if it is time to; cheap enough for every iteration. `is_asked`: as a line and
 * now, whatever the options say; from any thread. */
void report_tick(struct report *report, uint64_t now_ns, bool is_asked);

/* The latency below which a share `fraction` of the answers lies; 0 without answers. */
uint64_t report_percentile_ns(const struct report *report, double fraction);

/* Removes the bar, so that another message may follow. */
void report_clear(struct report *report);

/* The summary's figures as the record that ends an output, and those of the file with what was
 * found in it; heap. NULL: out of memory. */
struct report_manifest {
    const char *program, *backend;
    uint64_t start_unix_ns;
    int64_t n_found_failed;      /* of report.n_found */
    struct prompts_counts input; /* told by a complete one */
    bool is_complete;
};
char *report_manifest(const struct report *report, const struct report_manifest *manifest,
                      const struct executor_counts *counts, uint64_t now_ns);

/* The summary; not with -q. `is_stopped`: the run was interrupted. */
void report_summary(struct report *report, const struct executor_counts *counts, uint64_t now_ns,
                    bool is_stopped);

#endif
