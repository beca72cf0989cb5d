/* Copies prompts from the reader, which keeps one at a time, into the window's arena. */
#include "app/window.h"

#include <assert.h>
#include <string.h>

/* Every push may be padded to a cache line. */
enum { PUSH_BYTES = 64, ENTRY_PUSHES = 4 + PROMPTS_STOPS_MAX };

static size_t arena_bytes(const struct window_limits *limits)
{
    size_t texts = PROMPTS_ID_BYTES_MAX + PROMPTS_STOPS_MAX * (PROMPTS_STOP_BYTES_MAX + 1) + 1 +
                   sizeof(struct error);
    size_t entry = sizeof(struct prompt) + sizeof(struct request) + texts;
    size_t n = (size_t)limits->n_prompts_max;
    return n * (entry + ENTRY_PUSHES * PUSH_BYTES) + (size_t)limits->n_cells_max * sizeof(int32_t) +
           2 * PUSH_BYTES;
}

bool window_create(struct window *window, const struct window_limits *limits, struct error *err)
{
    assert(limits->n_prompts_max > 0);
    assert(limits->n_cells_max > 0);
    *window = (struct window){.limits = *limits};
    return arena_create(&window->arena, arena_bytes(limits), err);
}

void window_destroy(struct window *window)
{
    assert(window != NULL);
    arena_destroy(&window->arena);
    *window = (struct window){0};
}

static const char *copy_text(struct arena *arena, const char *text, size_t n)
{
    return memcpy(arena_push(arena, n + 1, 1), text, n); /* pushed bytes are zero */
}

/* The prompt with all that it points to. */
static void keep(struct window *window, const struct prompt *prompt)
{
    assert(window->n_prompts < window->limits.n_prompts_max);
    struct arena *arena = &window->arena;
    struct prompt *kept = &window->prompts[window->n_prompts++];
    *kept = *prompt;
    kept->message = copy_text(arena, prompt->message, strlen(prompt->message));
    if (prompt->has_id) kept->id.data = copy_text(arena, prompt->id.data, prompt->id.n);
    for (int32_t i = 0; i < prompt->n_stops; i++)
        kept->stops[i].data = copy_text(arena, prompt->stops[i].data, prompt->stops[i].n);
    if (prompt->code != PROMPT_GOOD) return;

    struct request *request = &kept->request;
    if (request->prompt_ids != NULL) {
        size_t n_ids = (size_t)request->n_prompt;
        int32_t *ids = arena_push(arena, n_ids, sizeof *ids);
        request->prompt_ids = memcpy(ids, request->prompt_ids, n_ids * sizeof *ids);
    }
    request->id = kept->id.data;
    request->line_state = kept;
    window->requests[window->n_requests++] = *request;
}

static void reset(struct window *window)
{
    size_t n = (size_t)window->limits.n_prompts_max;
    assert(n > 0);
    arena_rewind(&window->arena, 0);
    window->prompts = arena_push(&window->arena, n, sizeof *window->prompts);
    window->requests = arena_push(&window->arena, n, sizeof *window->requests);
    window->n_prompts = window->n_requests = 0;
    window->is_last = false;
    window->failure = (struct error){0};
}

void window_fill(struct window *window, struct intake *intake)
{
    reset(window);
    int64_t n_cells = 0;
    while (window->n_prompts < window->limits.n_prompts_max) {
        struct prompt *next = &intake->held;
        enum prompts_status status = PROMPTS_READ;
        bool is_hurried = intake->hurry_fd >= 0 && window->n_prompts > 0 && !intake->is_held;
        if (is_hurried && !prompts_wait(intake->prompts, intake->hurry_fd)) return;
        if (!intake->is_held) status = prompts_next(intake->prompts, next, &window->failure);
        window->is_last = status != PROMPTS_READ;
        if (window->is_last) return;
        if (next->is_foreign) continue;
        int64_t n_next = next->code == PROMPT_GOOD ? next->n_cells : 0;
        assert(n_next <= window->limits.n_cells_max);
        intake->is_held = n_cells + n_next > window->limits.n_cells_max;
        if (intake->is_held) return;
        n_cells += n_next;
        keep(window, next);
    }
}
