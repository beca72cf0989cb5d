/* Weights in panels, and the product of a matrix with them: rows in blocks, panels in groups, every
 * pair an item for the threads. A sum never leaves its item, so it is the same whoever computes it.
 *
 *     weight [n_out, n_in]  ->  [panel][k][width]      panel p holds outputs [p * width, (p+1) *
 * width)
 *
 * bf16 stays bf16; f16 becomes f32, which is exact. */
#include <assert.h>
#include <string.h>

#include "backend/cpu.h"

/* Items per thread, so that a thread that starts late or is slowed leaves its share to others. */
#define ITEMS_PER_THREAD 8
/* Fewer panels in an item would not pay for the copy of its rows. */
#define GROUP_PANELS_MIN 4
/* Outputs of an item: they are read and written once for each block of K, and should stay in the
 * second-level cache meanwhile. */
#define GROUP_OUT_BYTES_MAX (384 * 1024)

static int32_t divide_up(int32_t n, int32_t step)
{
    return (n + step - 1) / step;
}

static size_t element_bytes(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* ---- packing ---- */

size_t cpu_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                        enum dtype dtype)
{
    int32_t width = cpu_of(backend)->kernels->panel_width;
    assert(width > 0);
    return (size_t)divide_up(n_out, width) * (size_t)width * (size_t)n_in * element_bytes(dtype);
}

struct packing {
    struct weight target;
    const void *source; /* [n_out, n_in] of target.dtype */
    int32_t width, out_begin, n_out, panel_begin;
};

/* Column `lane` of a panel <- row `row` of the source. */
static void pack_row(const struct packing *packing, int32_t panel, int32_t lane, int32_t row)
{
    const struct weight *target = &packing->target;
    const size_t n_in = (size_t)target->n_in, width = (size_t)packing->width;
    size_t from = (size_t)row * n_in, to = (size_t)panel * n_in * width + (size_t)lane;
    assert(lane < packing->width);
    if (target->dtype == DTYPE_BF16) {
        const char *in = (const char *)packing->source + 2 * from; /* maybe not aligned */
        uint16_t *out = (uint16_t *)target->data + to;
        for (size_t k = 0; k < n_in; k++)
            memcpy(&out[k * width], in + 2 * k, sizeof *out);
    } else {
        float *out = (float *)target->data + to;
        for (size_t k = 0; k < n_in; k++)
            out[k * width] = host_element(packing->source, target->dtype, from + k);
    }
}

static void pack_panel(void *context, int32_t item, int32_t worker)
{
    (void)worker;
    const struct packing *packing = context;
    int32_t panel = packing->panel_begin + item;
    assert(packing->width > 0);
    for (int32_t lane = 0; lane < packing->width; lane++) {
        int32_t row = panel * packing->width + lane - packing->out_begin;
        if (row >= 0 && row < packing->n_out) pack_row(packing, panel, lane, row);
    }
}

/* What pads the last panel stays as it is: its outputs are never read. */
void cpu_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                       int32_t n_out, const void *source)
{
    struct cpu *cpu = cpu_of(backend);
    assert(target.data != NULL);
    struct packing packing = {.target = target,
                              .source = source,
                              .width = cpu->kernels->panel_width,
                              .out_begin = out_begin,
                              .n_out = n_out};
    packing.panel_begin = out_begin / packing.width;
    int32_t panel_end = divide_up(out_begin + n_out, packing.width);
    if (n_out > 0) workers_for(cpu->workers, panel_end - packing.panel_begin, pack_panel, &packing);
}

/* ---- the product, split ---- */

struct split {
    const struct cpu *cpu;
    const struct cpu_matmul *matmul;
    int32_t panel_begin, panel_end; /* panels with wanted outputs */
    int32_t block_rows, n_blocks;
    int32_t group_panels, n_groups;
};

static struct split make_split(const struct cpu *cpu, const struct cpu_matmul *matmul)
{
    const int32_t width = cpu->kernels->panel_width, tile = cpu->kernels->tile_rows;
    struct split split = {.cpu = cpu, .matmul = matmul};
    split.panel_begin = matmul->out_begin / width;
    split.panel_end = divide_up(matmul->out_begin + matmul->n_out, width);
    int32_t n_panels = split.panel_end - split.panel_begin;

    /* Equal blocks of whole tiles; CPU_ROW_BLOCK is a multiple of every tile. */
    split.n_blocks = divide_up(matmul->n_rows, CPU_ROW_BLOCK);
    split.block_rows = divide_up(divide_up(matmul->n_rows, split.n_blocks), tile) * tile;
    split.n_blocks = divide_up(matmul->n_rows, split.block_rows);
    assert(split.block_rows <= CPU_ROW_BLOCK);

    int32_t n_items = ITEMS_PER_THREAD * workers_count(cpu->workers);
    split.group_panels = divide_up(n_panels, divide_up(n_items, split.n_blocks));
    int32_t most = GROUP_OUT_BYTES_MAX / (split.block_rows * width * (int32_t)sizeof(float));
    if (split.group_panels > most) split.group_panels = most;
    if (split.group_panels < GROUP_PANELS_MIN) split.group_panels = GROUP_PANELS_MIN;
    split.n_groups = divide_up(n_panels, split.group_panels);
    return split;
}

/* Panel `panel` of the weight; its first output is the product's first column. */
static struct cpu_product product_at(const struct split *split, int32_t panel, int32_t row_begin,
                                     float *scratch)
{
    const struct cpu_matmul *matmul = split->matmul;
    const struct weight *weight = &matmul->weight;
    const int32_t width = split->cpu->kernels->panel_width;
    size_t panel_bytes = (size_t)width * (size_t)weight->n_in * element_bytes(weight->dtype);
    int32_t n_left = matmul->n_rows - row_begin;
    assert(n_left > 0);
    struct cpu_product product = {.out_stride = matmul->out_stride,
                                  .x = matmul->x,
                                  .x_stride = (size_t)weight->n_in,
                                  .n_rows = n_left < split->block_rows ? n_left : split->block_rows,
                                  .n_in = weight->n_in,
                                  .panels =
                                      (const uint8_t *)weight->data + (size_t)panel * panel_bytes,
                                  .is_bf16 = weight->dtype == DTYPE_BF16,
                                  .scratch = scratch};
    if (matmul->row_index) product.row_index = matmul->row_index + row_begin;
    else product.x += (size_t)row_begin * product.x_stride;
    return product;
}

/* A panel of which only some outputs are wanted: computed whole, beside, and copied. */
static void multiply_edge(const struct split *split, int32_t panel, int32_t row_begin,
                          float *scratch)
{
    const struct cpu_matmul *matmul = split->matmul;
    const int32_t width = split->cpu->kernels->panel_width;
    const int32_t end = matmul->out_begin + matmul->n_out;
    int32_t first = panel * width > matmul->out_begin ? panel * width : matmul->out_begin;
    int32_t last = (panel + 1) * width < end ? (panel + 1) * width : end;
    float *edge = scratch + CPU_PRODUCT_FLOATS, bias[CPU_PANEL_MAX] = {0};
    assert(first < last);
    struct cpu_product product = product_at(split, panel, row_begin, scratch);
    product.out = edge;
    product.out_stride = (size_t)width;
    product.n_panels = 1;
    if (matmul->bias) {
        size_t n_bytes = (size_t)(last - first) * sizeof *bias;
        memcpy(bias + (first - panel * width), matmul->bias + first, n_bytes);
        product.bias = bias;
    }
    split->cpu->kernels->multiply(&product);
    for (int32_t i = 0; i < product.n_rows; i++) {
        float *out = matmul->out + (size_t)(row_begin + i) * matmul->out_stride;
        memcpy(out + (first - matmul->out_begin),
               edge + (size_t)i * (size_t)width + (first - panel * width),
               (size_t)(last - first) * sizeof *out);
    }
}

/* Panels of which all outputs are wanted. */
static void multiply_whole(const struct split *split, int32_t panel_begin, int32_t panel_end,
                           int32_t row_begin, float *scratch)
{
    const struct cpu_matmul *matmul = split->matmul;
    const int32_t first = panel_begin * split->cpu->kernels->panel_width;
    assert(first >= matmul->out_begin);
    struct cpu_product product = product_at(split, panel_begin, row_begin, scratch);
    product.out =
        matmul->out + (size_t)row_begin * matmul->out_stride + (first - matmul->out_begin);
    product.n_panels = panel_end - panel_begin;
    if (matmul->bias) product.bias = matmul->bias + first;
    split->cpu->kernels->multiply(&product);
}

static void multiply_item(void *context, int32_t item, int32_t worker)
{
    const struct split *split = context;
    const struct cpu_matmul *matmul = split->matmul;
    const int32_t width = split->cpu->kernels->panel_width;
    float *scratch = cpu_tiles(split->cpu, worker);
    /* Row blocks change fastest: a group's weights come from memory once. */
    int32_t row_begin = item % split->n_blocks * split->block_rows;
    int32_t begin = split->panel_begin + item / split->n_blocks * split->group_panels;
    int32_t end = begin + split->group_panels;
    if (end > split->panel_end) end = split->panel_end;
    assert(begin < end);

    if (begin * width < matmul->out_begin) multiply_edge(split, begin++, row_begin, scratch);
    bool is_cut = end * width > matmul->out_begin + matmul->n_out;
    if (begin < end && is_cut) multiply_edge(split, --end, row_begin, scratch);
    if (begin < end) multiply_whole(split, begin, end, row_begin, scratch);
}

void cpu_multiply(struct cpu *cpu, const struct cpu_matmul *matmul)
{
    assert(matmul->weight.data != NULL);
    if (matmul->n_rows == 0 || matmul->n_out == 0) return;
    struct split split = make_split(cpu, matmul);
    workers_for(cpu->workers, split.n_blocks * split.n_groups, multiply_item, &split);
}

void cpu_linear(struct backend *backend, const struct linear_args *args)
{
    assert(args->x.n_cols == args->weight.n_in);
    struct cpu_matmul matmul = {.out = args->out.data,
                                .out_stride = (size_t)args->out.n_cols,
                                .x = args->x.data,
                                .n_rows = args->out.n_rows,
                                .weight = args->weight,
                                .out_begin = args->out_begin,
                                .n_out = args->out.n_cols,
                                .bias = args->bias.data};
    cpu_multiply(cpu_of(backend), &matmul);
}
