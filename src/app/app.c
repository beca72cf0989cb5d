/* What several subcommands do alike: finding what ships with the program, and what the tokenizer
 * knows about a model and its config.json does not say. */
#include "app/app.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "text/tokenizer.h"

/* How a turn ends in each family's chat template. */
static const char *const turn_ends[] = {
    [FAMILY_LLADA] = "<|eot_id|>",
    [FAMILY_DREAM] = "<|im_end|>",
};

void app_learn_turn_end(struct model_config *config, const struct tokenizer *tokenizer)
{
    assert((size_t)config->family < sizeof turn_ends / sizeof turn_ends[0]);
    if (tokenizer == NULL) return;
    int32_t id = tokenizer_find(tokenizer, turn_ends[config->family]);
    if (id < 0 || id >= config->n_vocab) return;
    config->eot_id = id;
    config_add_stop_id(config, id);
}

bool app_open_tokenizer(struct tokenizer **tokenizer, const char *folder,
                        struct model_config *config, struct error *err)
{
    struct error problem = {0};
    assert(folder != NULL);
    *tokenizer = NULL;
    if (!tokenizer_open(tokenizer, folder, &problem) && problem.code != ERROR_NO_INPUT) {
        *err = problem;
        return false;
    }
    app_learn_turn_end(config, *tokenizer);
    return true;
}

/* ---- what ships with the program ---- */

/* Cuts the last component of `path`, keeping the root. */
static void cut_component(char *path)
{
    char *slash = strrchr(path, '/');
    assert(slash != NULL);
    if (slash == path) slash++;
    *slash = '\0';
}

bool app_find_data(const char *relative, char *path, size_t path_bytes_max)
{
    static const char *const places[] = {"share/dllm-batch", "data"};
    char parent[4096];
    ssize_t n_parent = readlink("/proc/self/exe", parent, sizeof parent - 1);
    assert(relative[0] != '/');
    if (n_parent <= 0) return false;
    parent[n_parent] = '\0';
    for (int level = 0; level < 3; level++) {
        cut_component(parent);
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            int n = snprintf(path, path_bytes_max, "%s/%s/%s", parent, places[i], relative);
            if (n > 0 && (size_t)n < path_bytes_max && access(path, R_OK) == 0) return true;
        }
    }
    return false;
}
