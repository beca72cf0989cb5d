/* What is known of ids: which lines of the input had them, and which the output has answered, for
 * at most 24 bytes an id, whatever the ids' lengths. Ids are kept as 64-bit hashes: two different
 * ids of one run share one with a probability of n^2 / 2^65, 3e-8 for a million lines. Of the
 * answered line itself 30 bits are kept: a line that was changed is taken for the old one with
 * 1e-9. */
#ifndef APP_LEDGER_H
#define APP_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

enum { LEDGER_TABLES = 16 };

struct ledger_table {
    uint64_t *ids;  /* [n_slots] on the heap, open addressing; 0: free */
    uint32_t *tags; /* [n_slots] what is known of the id; behind the ids */
    size_t n_slots;
    size_t n_used; /* ids in it: at most four fifths of n_slots */
};

/* Caller's struct; zeroed it is empty. */
struct ledger {
    struct ledger_table tables[LEDGER_TABLES];
    bool any_line; /* an answer counts whatever its line was (--resume=force) */
};

/* Hash of an id, never 0: FNV-1a, 64 bits, over the byte 'i' (integers, in decimal), 's' (strings)
 * or another for what is no id, and the bytes. Part of the format: sampled answers depend on it. */
uint64_t ledger_hash(char kind, struct bytes id);

/* Keys of lines that answer to no id: unreadable ones, and those whose id another line had. */
uint64_t ledger_line_key(char kind, int64_t index);

enum ledger_verdict {
    LEDGER_NEW,      /* nobody knows it */
    LEDGER_REPEATED, /* an earlier line of the input has it */
    LEDGER_ANSWERED, /* the output has the answer to this line */
    LEDGER_CHANGED,  /* the output has the answer to another line of this id */
};

/* A line of the input: its key and the hash of its text. False: out of memory. */
bool ledger_read(struct ledger *ledger, uint64_t key, uint64_t line_hash,
                 enum ledger_verdict *verdict, struct error *err);

/* A line of the output. `is_new`: no other had its key. False: out of memory. */
bool ledger_answer(struct ledger *ledger, uint64_t key, uint64_t line_hash, bool *is_new,
                   struct error *err);

/* Whether a line of the input had the key. */
bool ledger_was_read(const struct ledger *ledger, uint64_t key);

/* The input may be read again from its start. */
void ledger_forget_reads(struct ledger *ledger);

/* Frees the memory. The ledger is empty then and may be used again; a zeroed one is fine, too. */
void ledger_clear(struct ledger *ledger);

#endif
