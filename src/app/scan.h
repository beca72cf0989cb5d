/* An output file of run from the front, record by record, up to its end or to where it is broken.
 * The one reader of our own files: what run goes on with, what verify proves and what merge joins
 * is the same. Nothing in the file is changed. */
#ifndef APP_SCAN_H
#define APP_SCAN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

enum scan_kind { SCAN_HEADER, SCAN_ANSWER, SCAN_MANIFEST };

/* A line of the file; all pointers are borrowed until the visitor returns. */
struct scan_record {
    enum scan_kind kind;
    const json_t *value;   /* of a header or manifest its object, of an answer the whole line */
    struct bytes line;     /* without the newline */
    int64_t group_bytes;   /* where its group begins in the file, */
    int64_t content_bytes; /* and the line in what the group holds */
    /* Of answers and error lines: */
    const json_t *id;   /* string, integer or null */
    int64_t index;      /* of the input's line */
    uint64_t key;       /* what the input's line is looked up by (app/ledger.h) */
    uint64_t line_hash; /* of its text */
    bool is_failed;     /* an error line */
};

/* What a manifest tells of the input, whoever answers its lines; n 0: nothing. */
struct scan_input {
    int64_t n, start_unix_ns; /* lines; when the run began that read them */
    uint64_t keys;            /* sum of their keys */
};

/* What the file is besides its records. */
struct scan {
    bool has_header;                /* false: it is empty, torn inside its header, or foreign: */
    bool is_foreign;                /* no output of run */
    bool has_manifest, is_complete; /* the last record is one; and says so */
    int64_t n_records;              /* answers and error lines */
    int64_t n_manifest;             /* how many the manifest counts; -1: none does */
    struct scan_input input;        /* of its last manifest */
    int64_t keep_bytes;             /* whole groups, without a manifest at the end */
    int64_t torn_at_bytes;          /* the first group that is broken, */
    int64_t torn_bytes;             /* and how much there is from it on; 0: all groups are whole */
    bool is_long;  /* that is more than a broken write leaves, or whole groups follow in it: */
    bool goes_on;  /* the file was damaged, not torn */
    bool is_mixed; /* the broken group is whole, but holds another's lines behind visited ones */
};

/* Of several files the newest tells: *newest becomes `found` if that is newer. */
void scan_learn_input(struct scan_input *newest, const struct scan_input *found);

/* Called for each record in turn, header first. False: err; the scan ends with it. */
typedef bool scan_visit(void *context, const struct scan_record *record, struct error *err);

/* Caller's struct. What is broken is no failure. False: the visitor's, ERROR_NO_INPUT (also for a
 * pipe: it must be a regular file), ERROR_IO or ERROR_UNAVAILABLE, or ERROR_FORMAT for a group
 * larger than any of ours. */
bool scan_file(struct scan *scan, const char *path, bool is_zstd, scan_visit *visit, void *context,
               struct error *err);

#endif
