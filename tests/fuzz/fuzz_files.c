/* Arbitrary bytes as a profile, as the records of a run and as an output to go on with, plain or
 * compressed, chosen by the first byte. What is accepted keeps the promises of its header; what is
 * refused has a message. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/collate.h"
#include "app/header.h"
#include "app/profile.h"
#include "app/records.h"
#include "app/scan.h"
#include "base/frames.h"
#include "fuzz.h"

static void try_profile(const char *path)
{
    struct cost_profile profile;
    struct error err = {0};
    if (!profile_read(&profile, path, &err)) {
        require(err.code != ERROR_NONE && err.message[0] != 0);
        return;
    }
    require(profile.name[0] != 0);
    require(profile.base_ns >= 0 && profile.bytes_per_s >= 1);
    require(profile.attention_flops_per_s >= 1 && profile.kv_element_bytes > 0);
    require(profile.n_rates >= 1 && profile.n_rates <= COST_RATES_MAX);
    for (int32_t i = 0; i < profile.n_rates; i++) {
        require(profile.rates[i].flops_per_s >= 1);
        require(i == 0 || profile.rates[i].n_rows > profile.rates[i - 1].n_rows);
    }
    /* It must do for the cost model, whose asserts are kept. */
    const struct cost_shape shape = FUZZ_SHAPE;
    const struct iteration_load load = {.n_rows = 100, .n_picks = 9, .row_keys = 5000};
    struct cost_model model;
    cost_init(&model, &profile, &shape);
    require(cost_iteration_ns(&model, &load) > 0);
}

static void try_records(const char *path)
{
    struct records records;
    struct error err = {0};
    if (records_read(&records, path, &err)) {
        require(records.n > 0);
        require(records.end_s >= 0 && isfinite(records.end_s));
        require(records.begin_s >= 0 && records.begin_s <= records.end_s);
        require(records.latency_s.p50 >= 0 && records.latency_s.p50 <= records.latency_s.most);
        for (int64_t i = 0; i < records.n; i++)
            require(records.items[i].n_tokens >= 0 && records.items[i].latency_s >= 0);
    } else {
        require(err.code != ERROR_NONE && err.message[0] != 0);
    }
    records_free(&records);
}

static bool take_record(void *context, const struct scan_record *record, struct error *err)
{
    struct error why = {0};
    if (record->kind == SCAN_HEADER && !header_agree(record->value, NULL, "now", "x", &why))
        require(why.message[0] != 0);
    if (record->kind == SCAN_ANSWER) return collate_add(context, 0, record, err);
    require(json_is_object(record->value));
    return true;
}

/* Every answer is found again. */
static void try_output(const char *path, bool is_zstd)
{
    struct collate *collate;
    struct scan scan;
    struct error err = {0};
    require(collate_open(&collate, &path, 1, &err));
    bool is_ok = scan_file(&scan, path, is_zstd, take_record, collate, &err);
    require(is_ok || err.message[0] != 0);
    require(!scan.is_foreign || !scan.has_header);
    require(scan.keep_bytes <= scan.torn_at_bytes || scan.torn_bytes == 0);
    size_t n = is_ok && is_zstd == frames_is_zstd(path) ? collate_sort(collate).n : 0;
    require(n == 0 || (int64_t)n == scan.n_records);
    for (size_t i = 0; i < n; i++) {
        struct bytes line;
        require(collate_line(collate, i, &line, &err));
        require(line.n > 2);
    }
    collate_close(collate);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0);
    require(write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    switch (data[0] % 4) {
    case 0: try_profile(path); break;
    case 1: try_records(path); break;
    case 2: try_output(path, false); break;
    default: try_output(path, true); break;
    }
    close(fd);
    return 0;
}
