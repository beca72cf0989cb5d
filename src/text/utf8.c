/* One step function knows the shape of a character; everything else walks with it. A step over
 * damaged bytes ends where a new character could start, which makes the repair the standard's
 * "maximal subpart" practice. */
#include "text/utf8.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
enum { REPLACEMENT_BYTES = sizeof replacement - 1 };
static_assert(REPLACEMENT_BYTES == 3, "U+FFFD takes three bytes of UTF-8");

/* One character, or the damaged bytes that stand for one. */
struct step {
    size_t n_bytes;
    bool valid;
};

/* Bytes that follow the lead byte; -1: no lead byte. 0xC0 and 0xC1 could only start overlong forms,
 * and from 0xF5 on every character would lie past U+10FFFF. */
static int n_followers(uint8_t lead)
{
    if (lead < 0x80) return 0;
    if (lead < 0xC2 || lead > 0xF4) return -1;
    return lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
}

/* The second byte's range is narrower after four lead bytes: that alone keeps overlong forms,
 * surrogates and code points past the last one out. */
static bool follows(uint8_t lead, int place, uint8_t byte)
{
    uint8_t low = 0x80, high = 0xBF;
    if (place == 1) {
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    }
    return byte >= low && byte <= high;
}

/* The step that starts at `at`. Damaged bytes end before the first that cannot follow, which is
 * where the next step looks again: the whole walk stays linear. */
static struct step step_at(struct bytes text, size_t at)
{
    assert(at < text.n);
    const uint8_t *bytes = (const uint8_t *)text.data + at;
    size_t n_left = text.n - at;
    int n = n_followers(bytes[0]);
    for (int i = 1; i <= n; i++) {
        if ((size_t)i == n_left || !follows(bytes[0], i, bytes[i])) {
            return (struct step){.n_bytes = (size_t)i};
        }
    }
    return (struct step){.n_bytes = n < 0 ? 1 : (size_t)n + 1, .valid = n >= 0};
}

size_t utf8_valid_prefix(struct bytes text)
{
    assert(text.data != NULL || text.n == 0);
    size_t at = 0;
    while (at < text.n) {
        struct step step = step_at(text, at);
        if (!step.valid) break;
        at += step.n_bytes;
    }
    assert(at <= text.n);
    return at;
}

size_t utf8_char_bytes(struct bytes text)
{
    struct step step = step_at(text, 0);
    assert(step.valid);
    return step.n_bytes;
}

size_t utf8_repaired_bytes(struct bytes text)
{
    assert(text.data != NULL || text.n == 0);
    size_t n_bytes = 0;
    for (size_t at = 0; at < text.n;) {
        struct step step = step_at(text, at);
        n_bytes += step.valid ? step.n_bytes : REPLACEMENT_BYTES;
        at += step.n_bytes;
    }
    return n_bytes;
}

void utf8_repair(struct bytes text, char *target)
{
    assert(target != NULL || text.n == 0);
    for (size_t at = 0; at < text.n;) {
        struct step step = step_at(text, at);
        size_t n_bytes = step.valid ? step.n_bytes : REPLACEMENT_BYTES;
        memcpy(target, step.valid ? text.data + at : replacement, n_bytes);
        target += n_bytes;
        at += step.n_bytes;
    }
}
