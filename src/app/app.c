/* What several subcommands do alike: what the tokenizer knows about a model and its config.json
 * does not say. */
#include "app/app.h"

#include <assert.h>

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
