/* Configurations of both families, and every way in which one can be wrong. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/config.h"

#define LLADA                                                                                      \
    "\"architectures\": [\"LLaDAModelLM\"], \"d_model\": 64, \"n_layers\": 2, \"n_heads\": 4, "    \
    "\"n_kv_heads\": 2, \"mlp_hidden_size\": 96, \"embedding_size\": 300, \"vocab_size\": 290, "   \
    "\"max_sequence_length\": 128, \"rope_theta\": 500000.0, \"rms_norm_eps\": 1e-05"
#define IDS ", \"mask_token_id\": 299, \"eos_token_id\": 290"

static char folder[] = "/tmp/test_config_XXXXXX";
static struct arena arena;

static void setup(void)
{
    cr_assert(mkdtemp(folder));
    cr_assert(arena_create(&arena, (size_t)16 << 20, NULL));
}

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fputs(text, file);
    fclose(file);
}

static void teardown(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    unlink(path);
    rmdir(folder);
    arena_destroy(&arena);
}

TestSuite(config, .init = setup, .fini = teardown);

static void expect_refused(const char *text, const char *words)
{
    struct model_config config;
    struct error err = {0};
    write_file("config.json", text);
    cr_assert_not(config_read(&config, folder, &arena, &err), "accepted: %s", text);
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
}

Test(config, llada_keys_are_read)
{
    struct model_config config;
    struct error err = {0};
    write_file("config.json", "{" LLADA IDS "}");
    cr_assert(config_read(&config, folder, &arena, &err), "%s", err.message);
    cr_assert_eq(config.family, FAMILY_LLADA);
    cr_assert_eq(config.hidden, 64);
    cr_assert_eq(config.head_dim, 16);
    cr_assert_eq(config.n_kv_heads, 2);
    cr_assert_eq(config.n_vocab, 300);
    cr_assert_eq(config.shift, 0);
    cr_assert_eq(config.mask_id, 299);
    cr_assert_eq(config.n_stop_ids, 1);
    cr_assert_eq(config.gen_length, 128);
    cr_assert_str_eq(config.remasking, "low_confidence");
    cr_assert_not(config.qkv_bias);
}

Test(config, dream_keys_are_read_and_logits_are_shifted)
{
    struct model_config config;
    struct error err = {0};
    write_file("config.json",
               "{\"architectures\": [\"DreamModel\"], \"hidden_size\": 56, \"num_hidden_layers\": "
               "3, \"num_attention_heads\": 7, \"num_key_value_heads\": 1, \"intermediate_size\": "
               "80, \"vocab_size\": 100, \"max_position_embeddings\": 64, \"rope_theta\": 1e6, "
               "\"rms_norm_eps\": 1e-6, \"mask_token_id\": 99, \"tie_word_embeddings\": false}");
    cr_assert(config_read(&config, folder, &arena, &err), "%s", err.message);
    cr_assert_eq(config.family, FAMILY_DREAM);
    cr_assert_eq(config.shift, 1);
    cr_assert(config.qkv_bias);
    cr_assert_eq(config.block_length, 0);
    cr_assert_str_eq(config.remasking, "entropy");
}

Test(config, generation_config_overlays_the_family_defaults)
{
    struct model_config config;
    struct error err = {0};
    write_file("config.json", "{" LLADA IDS "}");
    write_file("generation_config.json",
               "{\"gen_length\": 48, \"block_length\": 16, \"temperature\": 0.5, \"top_p\": null, "
               "\"eos_token_id\": [290, 291], \"remasking\": \"random\"}");
    cr_assert(config_read(&config, folder, &arena, &err), "%s", err.message);
    cr_assert_eq(config.gen_length, 48);
    cr_assert_eq(config.block_length, 16);
    cr_assert_eq(config.temperature, 0.5);
    cr_assert_eq(config.top_p, 1.0);
    cr_assert_eq(config.n_stop_ids, 2);
    cr_assert_str_eq(config.remasking, "random");
}

Test(config, a_generation_config_of_wrong_types_is_refused_and_not_passed_over)
{
    static const char *const cases[][2] = {{"{\"top_k\": 0.5}", "\"top_k\" must be a whole number"},
                                           {"{\"remasking\": 5}", "\"remasking\" must be a string"},
                                           {"[]", "is not a JSON object"}};
    struct model_config config;
    write_file("config.json", "{" LLADA IDS "}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        write_file("generation_config.json", cases[i][0]);
        cr_expect_not(config_read(&config, folder, &arena, &err));
        cr_expect(strstr(err.message, cases[i][1]), "%s", err.message);
    }
}

Test(config, a_generation_config_that_is_there_but_cannot_be_read_is_an_error)
{
    struct model_config config;
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    write_file("config.json", "{" LLADA IDS "}");
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_expect_not(config_read(&config, folder, &arena, &err));
    cr_expect_eq(err.code, ERROR_NO_INPUT);
    cr_expect(strstr(err.message, "generation_config.json"), "%s", err.message);
    rmdir(path);
}

Test(config, wrong_values_are_refused_with_their_key)
{
    expect_refused("{}", "\"architectures\" is missing");
    expect_refused("[1]", "is not a JSON object");
    expect_refused("{\"architectures\": [\"LlamaForCausalLM\"]}",
                   "\"LlamaForCausalLM\" is not supported; supported: LLaDAModelLM, DreamModel");
    expect_refused("{" LLADA "}", "\"mask_token_id\" is missing");
    expect_refused("{" LLADA ", \"mask_token_id\": 300}", "\"mask_token_id\" must be a token id");
    expect_refused("{" LLADA IDS ", \"include_bias\": true}", "\"include_bias\" must be false");
    expect_refused("{" LLADA IDS ", \"block_type\": \"sequential\"}", "must be \"llama\"");
    expect_refused("{" LLADA IDS ", \"num_experts\": 64}", "mixture of experts");
    expect_refused("{" LLADA IDS ", \"rope_scaling\": {\"type\": \"linear\"}}", "rope_scaling");
    expect_refused("{" LLADA IDS ", \"d_model\": 64}", "is not a JSON object");
}

Test(config, shapes_that_cannot_be_are_refused)
{
    expect_refused("{\"architectures\": [\"LLaDAModelLM\"], \"d_model\": 0}", "\"d_model\"");
    expect_refused("{\"architectures\": [\"LLaDAModelLM\"], \"d_model\": 99999999999}",
                   "must be an integer from 1 to 65536");
    expect_refused("{\"architectures\": [\"LLaDAModelLM\"], \"d_model\": 64}", "\"n_layers\"");
    expect_refused("{" LLADA IDS ", \"head_dim\": 15}", "\"head_dim\" must be even");
    expect_refused("{" LLADA IDS ", \"head_dim\": 258}", "integer from 1 to 256");
}

Test(config, a_missing_folder_is_no_input)
{
    struct model_config config;
    struct error err = {0};
    cr_assert_not(config_read(&config, "/nonexistent/model", &arena, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}

Test(config, parameters_of_llada_8b_add_up_to_the_published_count)
{
    struct model_config llada = {.n_layers = 32,
                                 .hidden = 4096,
                                 .n_heads = 32,
                                 .n_kv_heads = 32,
                                 .head_dim = 128,
                                 .ffn = 12288,
                                 .n_vocab = 126464};
    struct model_config dream = {.n_layers = 28,
                                 .hidden = 3584,
                                 .n_heads = 28,
                                 .n_kv_heads = 4,
                                 .head_dim = 128,
                                 .ffn = 18944,
                                 .n_vocab = 152064,
                                 .qkv_bias = true};
    cr_assert_eq(config_n_parameters(&llada), 8015581184);
    cr_assert_eq(config_n_parameters(&dream), 7615616512);
}

Test(config, stop_ids_are_kept_once_and_bounded)
{
    struct model_config config = {0};
    for (int32_t id = -1; id < 20; id++)
        config_add_stop_id(&config, id / 2);
    cr_assert_eq(config.n_stop_ids, MODEL_STOP_IDS_MAX);
    cr_assert_eq(config.stop_ids[1], 1);
}
