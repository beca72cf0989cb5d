/* What an output that exists has already: read before anything is loaded, so that a run answers the
 * other lines only. The file itself is all the state there is; it is verified from the front, and
 * nothing in it is changed here. */
#ifndef APP_RESUME_H
#define APP_RESUME_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/ledger.h"
#include "app/output.h"
#include "base/error.h"

enum { RESUME_NAME_BYTES = 160 };

/* Caller's struct; zeroed it is that of an output that does not exist. */
struct resume {
    struct ledger ledger;                      /* knows the lines that are answered */
    int64_t n_answered, n_failed, n_elsewhere; /* the last: in other files of the output */
    int64_t keep_bytes; /* whole groups of answers; what lies behind is to be cut off, */
    int64_t torn_bytes; /* and so much of that is broken: 0 after a run that ended */
    bool has_header;    /* false: the file is empty, or torn inside its header */
    bool is_complete;   /* it ends with a manifest that says so */
    bool is_otherwise;  /* forced: its model or settings are others, so a header must tell */
    char backend[RESUME_NAME_BYTES], program[RESUME_NAME_BYTES]; /* of the header */
};

/* Reads the file of `place`, which must have been begun with `header` unless `is_forced`. False:
 * ERROR_CREATE for a file that is no output of a run, ERROR_USAGE for one that was begun otherwise,
 * ERROR_FORMAT for one whose damage is no broken write's (it names the byte), unless forced;
 * ERROR_IO, ERROR_UNAVAILABLE. Clear it in any case. */
bool resume_scan(struct resume *resume, const struct output_place *place, const json_t *header,
                 bool is_forced, struct error *err);
/* Reads what other files of the same output answered, whatever the number of shards then was: the
 * shards' files beside place->whole, and that one. Their answers become known to the ledger and are
 * not counted; a broken tail, which somebody may be writing, is left alone. False: as above. */
bool resume_scan_others(struct resume *resume, const struct output_place *place,
                        const json_t *header, bool is_forced, struct error *err);
void resume_clear(struct resume *resume);

#endif
