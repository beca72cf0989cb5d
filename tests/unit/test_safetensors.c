/* Files that are right, files that are damaged, files that lie. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/safetensors.h"

#define TWO                                                                                        \
    "{\"__metadata__\":{\"a\":\"b\"},\"x\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":"  \
    "[0,12]},\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}"

static char folder[] = "/tmp/test_safetensors_XXXXXX";
static struct arena arena;

static void setup(void)
{
    cr_assert(mkdtemp(folder));
    cr_assert(arena_create(&arena, (size_t)64 << 20, NULL));
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
    arena_destroy(&arena);
}

TestSuite(safetensors, .init = setup, .fini = teardown);

/* A file with this header; says it is `header_bytes` long (0: the truth) and has data_bytes zeros.
 */
static void write_model(const char *name, const char *header, uint64_t header_bytes,
                        size_t data_bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    cr_assert(file);
    if (header_bytes == 0) header_bytes = strlen(header);
    fwrite(&header_bytes, 8, 1, file);
    fputs(header, file);
    for (size_t i = 0; i < data_bytes; i++)
        fputc(0, file);
    fclose(file);
}

static void write_index(const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fputs(text, file);
    fclose(file);
}

static void expect_refused(const char *words)
{
    struct safetensors files;
    struct error err = {0};
    cr_assert_not(safetensors_open(&files, folder, &arena, &err));
    cr_assert_eq(err.code, ERROR_FORMAT, "%s", err.message);
    cr_assert(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
    cr_assert_eq(files.n_files, 0, "nothing stays open");
}

static void expect_header_refused(const char *header, const char *words)
{
    write_model("model.safetensors", header, 0, 16);
    expect_refused(words);
}

Test(safetensors, tensors_are_found_with_type_shape_and_data)
{
    struct safetensors files;
    struct error err = {0};
    write_model("model.safetensors", TWO, 0, 16);
    cr_assert(safetensors_open(&files, folder, &arena, &err), "%s", err.message);
    cr_assert_eq(files.n_tensors, 2);
    const struct tensor *x = safetensors_find(&files, "x");
    cr_assert(x);
    cr_assert_eq(x->dtype, DTYPE_BF16);
    cr_assert_eq(x->n_dims, 2);
    cr_assert_eq(x->shape[1], 3);
    cr_assert_eq(x->n_bytes, 12);
    cr_assert_null(safetensors_find(&files, "z"));
    safetensors_close(&files);
}

Test(safetensors, shards_are_found_through_the_index)
{
    struct safetensors files;
    struct error err = {0};
    write_model("a.safetensors", TWO, 0, 16);
    write_model("b.safetensors", "{\"z\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]}}",
                0, 2);
    write_index("{\"weight_map\": {\"x\": \"a.safetensors\", \"y\": \"a.safetensors\", \"z\": "
                "\"b.safetensors\"}}");
    cr_assert(safetensors_open(&files, folder, &arena, &err), "%s", err.message);
    cr_assert_eq(files.n_files, 2);
    cr_assert_eq(safetensors_find(&files, "z")->n_dims, 0);
    safetensors_close(&files);
    write_model("b.safetensors", TWO, 0, 16);
    expect_refused("has one of this name too");
}

Test(safetensors, a_shard_name_cannot_leave_the_folder)
{
    write_index("{\"weight_map\": {\"x\": \"../a.safetensors\"}}");
    expect_refused("no plain file name");
}

Test(safetensors, an_index_without_shards_is_refused)
{
    write_index("{\"weight_map\": {}}");
    expect_refused("names no shard");
    write_index("{\"weight_map\": []}");
    expect_refused("\"weight_map\" is no object");
    write_index("{\n\"weight_map\": ");
    expect_refused("index.json:2: ");
}

Test(safetensors, an_index_of_too_many_shards_is_refused)
{
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    fputs("{\"weight_map\": {\"x\": \"0\"", out);
    for (int i = 1; i <= 1024; i++)
        fprintf(out, ", \"%d\": \"%d\"", i, i);
    fputs("}}", out);
    fclose(out);
    write_index(text);
    expect_refused("names more than 1024 shards");
    free(text);
}

Test(safetensors, lengths_that_lie_are_refused)
{
    write_model("model.safetensors", TWO, 1000000, 16);
    expect_refused("header says 1000000 bytes");
    write_model("model.safetensors", TWO, UINT64_MAX, 16);
    expect_refused("header says");
    write_model("model.safetensors", TWO, 0, 15);
    expect_refused("reach outside the file's 15 data bytes");
}

Test(safetensors, damaged_headers_are_refused)
{
    expect_header_refused("{\"x\":", "not a JSON object");
    expect_header_refused("[]", "not a JSON object");
    expect_header_refused("{\"x\":{}}", "unknown dtype (none)");
    expect_header_refused("{\"x\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,1]}}", "Q4");
    expect_header_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
                          "impossible shape");
    expect_header_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],"
                          "\"data_offsets\":[0,0]}}",
                          "impossible shape");
    expect_header_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
                          "needs 8 bytes");
    expect_header_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}",
                          "needs 4 bytes");
    expect_header_refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}",
                          "reach outside");
}

#define F32_AT(name, begin, end)                                                                   \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" begin "," end "]}"

/* As the format wants it: every byte of the data is one tensor's. */
Test(safetensors, tensors_that_overlap_or_leave_holes_are_refused)
{
    struct safetensors files;
    expect_header_refused("{" F32_AT("x", "0", "8") "," F32_AT("y", "4", "12") "}",
                          "tensor y: its data begin at byte 4 of the data, must be 8");
    expect_header_refused("{" F32_AT("x", "0", "8") "," F32_AT("y", "0", "8") "}", "must be 8");
    expect_header_refused("{" F32_AT("x", "8", "16") "}", "must be 0");
    expect_header_refused("{" F32_AT("x", "0", "8") "}", "8 bytes lie behind its last tensor");
    expect_header_refused("{}", "16 bytes lie behind its last tensor");
    /* One too few: the blank that ends the header would be the first byte of the data. */
    write_model("model.safetensors", "{" F32_AT("x", "0", "8") "} ",
                strlen("{" F32_AT("x", "0", "8") "}"), 8);
    expect_refused("1 bytes lie behind");
    /* In any order, and empty ones anywhere. */
    write_model(
        "model.safetensors",
        "{" F32_AT("x", "8", "16") "," F32_AT(
            "y", "0", "8") ",\"z\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}",
        0, 16);
    cr_assert(safetensors_open(&files, folder, &arena, NULL));
    cr_assert_eq(files.n_tensors, 3);
    safetensors_close(&files);
}

Test(safetensors, a_file_too_short_for_a_header_is_refused)
{
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    FILE *file = fopen(path, "w");
    fputs("abc", file);
    fclose(file);
    expect_refused("no header");
}

Test(safetensors, a_missing_file_is_no_input)
{
    struct safetensors files;
    struct error err = {0};
    cr_assert_not(safetensors_open(&files, folder, &arena, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}
