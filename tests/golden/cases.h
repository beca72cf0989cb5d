/* Golden cases of a folder as requests of the engine (data/golden/README.md). */
#ifndef TESTS_GOLDEN_CASES_H
#define TESTS_GOLDEN_CASES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "plan/request.h"

struct golden_case {
    struct request request;
    const json_t *json;    /* borrowed from the loaded file */
    const int32_t *expect; /* [n_expect] */
    int32_t n_expect;
};

/* Reads the cases. False: the file is missing or damaged. */
bool cases_read(const char *path, struct arena *arena, json_t **root, struct golden_case **cases,
                int32_t *n_cases, struct error *err);

#endif
