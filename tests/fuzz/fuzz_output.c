/* Arbitrary bytes as an existing output, in both forms, read as resume reads it: group by group,
 * and as a whole. Whatever comes, what is kept ends behind a whole group and never behind the file,
 * what is torn reaches to the file's end, and cut off there the same file is read without a tear
 * and with the same answers. The first byte picks the options. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/resume.h"
#include "base/frames.h"
#include "fuzz.h"

static json_t *header;

/* What the outputs in the corpus begin with. */
static void open_once(void)
{
    if (header != NULL) return;
    header = json_pack("{s:i, s:s, s:{s:s, s:s}, s:{}}", "format", 1, "program", "dllm-batch 0.1.0",
                       "model", "name", "tiny-llada", "hash", "235aaca930280f66", "settings");
    require(header != NULL);
}

static void walk(const char *path, bool is_zstd, int64_t n_bytes)
{
    struct frames *frames;
    struct frames_group group;
    struct error err = {0};
    enum frames_status status;
    int64_t end_bytes = 0, n_tail = 0;
    bool goes_on = false;
    require(frames_open(&frames, path, is_zstd, &err));
    while ((status = frames_next(frames, &group, &err)) == FRAMES_GROUP) {
        require(group.begin_bytes == end_bytes);
        require(group.end_bytes > group.begin_bytes && group.end_bytes <= n_bytes);
        end_bytes = group.end_bytes;
    }
    require((status == FRAMES_FAILED) == (err.code != ERROR_NONE));
    if (status == FRAMES_END) require(end_bytes == n_bytes);
    if (status == FRAMES_BROKEN) {
        require(group.begin_bytes == end_bytes && end_bytes < n_bytes);
        require(frames_tail(frames, group.begin_bytes, &n_tail, &goes_on, &err));
        require(n_tail == n_bytes - end_bytes);
    }
    frames_close(frames);
}

/* False: the file is refused. */
static bool scan(struct resume *resume, const struct output_place *place, bool is_forced,
                 int64_t n_bytes)
{
    struct error err = {0};
    bool is_ok = resume_scan(resume, place, header, is_forced, &err);
    require(is_ok == (err.code == ERROR_NONE) && is_ok == (err.message[0] == '\0'));
    require(resume->keep_bytes >= 0 && resume->keep_bytes <= n_bytes);
    require(resume->torn_bytes >= 0 && resume->torn_bytes <= n_bytes - resume->keep_bytes);
    require(resume->n_answered >= 0 && resume->n_failed >= 0);
    if (!is_ok) return false;
    require(resume->keep_bytes > 0 || resume->n_answered + resume->n_failed == 0);
    require(!resume->is_complete || resume->torn_bytes == 0);
    return true;
}

static void try_file(int fd, bool is_zstd, bool is_forced, int64_t n_bytes)
{
    struct output_place place = {.is_file = true, .exists = true, .compress = is_zstd};
    struct resume first, again;
    snprintf(place.path, sizeof place.path, "/proc/self/fd/%d", fd);
    walk(place.path, is_zstd, n_bytes);
    if (scan(&first, &place, is_forced, n_bytes)) {
        require(ftruncate(fd, first.keep_bytes) == 0);
        require(scan(&again, &place, is_forced, first.keep_bytes));
        require(again.keep_bytes == first.keep_bytes && again.torn_bytes == 0);
        require(again.n_answered == first.n_answered && again.n_failed == first.n_failed);
        resume_clear(&again);
    }
    resume_clear(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    open_once();
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0);
    require(write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    try_file(fd, (data[0] & 1) != 0, (data[0] & 2) != 0, (int64_t)size - 1);
    close(fd);
    return 0;
}
