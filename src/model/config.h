/* A model's hyperparameters, read from its folder's config.json and generation_config.json: OLMo
 * style keys (LLaDA) and Hugging Face ones (Dream), one table row per family. Nothing is assumed
 * that the files say; what is missing or impossible is an error that names the key. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

#define MODEL_STOP_IDS_MAX 8

/* A row of the table of families in config.c; dispatch is on the file's "architectures". */
enum model_family { FAMILY_LLADA, FAMILY_DREAM };

/* Checked: counts are positive, n_kv_heads divides n_heads, head_dim is even, ids are below
 * n_vocab. */
struct model_config {
    enum model_family family;
    const char *family_name;  /* "LLaDA", "Dream" */
    const char *architecture; /* "LLaDAModelLM", "DreamModel" */
    const char *chat_name;    /* row of text/chat.h */
    /* Shapes. q has n_heads x head_dim columns, k and v n_kv_heads x head_dim. */
    int32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn;
    int32_t n_vocab;     /* rows of the embedding and the head, unused ones counted */
    int32_t n_positions; /* longest prompt + generation */
    float rope_theta, rms_epsilon;
    bool qkv_bias;  /* q, k and v have biases (Dream) */
    bool tied_head; /* the head is the embedding */
    int32_t shift;  /* 1: logits row i predicts position i + 1 (Dream); 0: position i */
    /* Special ids; -1: the files do not say. */
    int32_t mask_id; /* always said */
    int32_t eos_id, pad_id, bos_id;
    int32_t eot_id; /* end of turn (LLaDA <|eot_id|>, Dream <|im_end|>), known to the tokenizer */
    int32_t n_stop_ids, stop_ids[MODEL_STOP_IDS_MAX]; /* any of them ends an answer */
    /* Decode defaults: the family's, overlaid by generation_config.json. */
    int32_t gen_length;
    int32_t block_length; /* 0: gen_length, one block */
    int32_t steps;        /* 0: one token a step */
    double temperature, top_p, alg_temp;
    int32_t top_k;
    const char *remasking;
};

/* Reads `model_dir`/config.json (and generation_config.json if there). Strings point into `arena`.
 * False: ERROR_NO_INPUT, or ERROR_FORMAT naming file, key, value and wish; an unsupported
 * architecture is named, with the supported ones. */
bool config_read(struct model_config *config, const char *model_dir, struct arena *arena,
                 struct error *err);

/* Parameters of a model of this shape (norms and biases counted). */
int64_t config_n_parameters(const struct model_config *config);

/* Adds `id` to the stop ids unless it is negative, known, or there is no room. */
void config_add_stop_id(struct model_config *config, int32_t id);

#endif
