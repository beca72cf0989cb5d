/* attend and store_kv. The attention of head sizes 64 and 128 runs on tensor cores:
 *
 *     block   one item (heuristics.h): up to 128 query rows of a sequence, one query head
 *     warp    32 of its rows: two tiles of 16; warps without rows help to load
 *     loop    64 keys at a time: first the sequence's cached ones, then its fresh ones, each part
 *             ending in a tile of its own; loads run one tile ahead (cp.async, two buffers)
 *     slices  few rows with many keys are several items, each with some of the tiles; what they
 *             leave in f32 is joined by a second kernel, in the order of the tiles
 *
 * A row's result depends on its own keys in that order, on how its sequence is cut and on nothing
 * else. Scores and sums are f32, probabilities are rounded to bf16 for the product with the values,
 * outputs are rounded once. Other head sizes take a plain kernel, which walks all keys of a row.
 */
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define ATTEND_THREADS 128
#define TILE_KEYS      ATTEND_TILE
#define WARP_ROWS      32 /* query rows of a warp: M_TILES of 16 */
#define M_TILES        2
#define PART_KEYS      32 /* of a tile that are scored together: what registers hold */
#define N_TILES        (PART_KEYS / 8)

/* ---- shared memory and tensor cores ---- */

/* Where word `chunk` (eight numbers) of a row lies: neighbouring rows differ in banks. */
template <int head_dim> static __device__ __forceinline__ int swizzle(int row, int chunk)
{
    return row * head_dim + ((chunk ^ (row & 7)) * WIDE);
}

static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* A lane's address in the pair of chunks `pair` of its row, from that in the first pair: what
 * swizzle does is an exclusive or. */
static __device__ __forceinline__ uint32_t in_pair(uint32_t address, int pair)
{
    return address ^ (uint32_t)(pair * 2 * WIDE * (int)sizeof(bf16));
}

/* Starts the copy of 16 bytes; zeros instead when there is nothing to copy. */
static __device__ __forceinline__ void copy_async(bf16 *to, const bf16 *from, bool exists)
{
    int n_bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)),
                 "l"(from), "r"(n_bytes));
}

static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;\n");
}

template <int n_pending> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(n_pending));
}

/* `from`: shared address of this lane's row of eight numbers. */
static __device__ __forceinline__ void load_matrices(uint32_t out[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from));
}

static __device__ __forceinline__ void load_matrices_transposed(uint32_t out[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from));
}

/* sum [16, 8] += a [16, 16] . b [16, 8] */
static __device__ __forceinline__ void multiply(float sum[4], const uint32_t a[4], uint32_t b0,
                                                uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 2^x to some 22 bits; what is below the least normal number is 0. */
static __device__ __forceinline__ float power_of_two(float x)
{
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
    return result;
}

static __device__ __forceinline__ uint32_t pack_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

/* ---- where keys lie ---- */

/* One tile of keys: row j of it is `keys + j * stride` for j < n_keys. */
struct key_tile {
    const bf16 *keys, *values;
    int64_t stride;
    int32_t n_keys, first; /* first key's place within its part, cached or fresh */
    bool is_cached;
};

static __device__ __forceinline__ int32_t tiles_of(int32_t n_keys)
{
    return (n_keys + TILE_KEYS - 1) / TILE_KEYS;
}

static __device__ __forceinline__ key_tile find_tile(const attend_launch &launch,
                                                     const attend_item &item, int32_t kv_head,
                                                     int32_t index)
{
    const fresh_kv &fresh = launch.fresh;
    int32_t n_cached_tiles = tiles_of(item.n_cached), head_dim = fresh.head_dim;
    key_tile tile;
    tile.is_cached = index < n_cached_tiles;
    tile.first = (tile.is_cached ? index : index - n_cached_tiles) * TILE_KEYS;
    tile.n_keys = (tile.is_cached ? item.n_cached : item.n_rows) - tile.first;
    if (tile.is_cached) {
        int64_t row = item.cache_begin * fresh.n_kv_heads + (int64_t)kv_head * item.n_cached;
        int64_t at = (row + tile.first) * head_dim;
        tile.keys = launch.cached_keys + at;
        tile.values = launch.cached_values + at;
        tile.stride = head_dim;
    } else {
        const bf16 *x =
            fresh.x + (int64_t)(item.row_begin + tile.first) * fresh.n_cols + kv_head * head_dim;
        tile.keys = x + fresh.key_col;
        tile.values = x + fresh.value_col;
        tile.stride = fresh.n_cols;
    }
    return tile;
}

/* Starts copying `n_rows` rows, of which `n_exist` exist, `stride` numbers apart. */
template <int head_dim, int n_rows>
static __device__ __forceinline__ void load_rows(bf16 *shared, const bf16 *from, int64_t stride,
                                                 int32_t n_exist)
{
    constexpr int n_chunks = head_dim / WIDE;
#pragma unroll
    for (int i = 0; i < n_rows * n_chunks / ATTEND_THREADS; i++) {
        int at = i * ATTEND_THREADS + (int)threadIdx.x, row = at / n_chunks, chunk = at % n_chunks;
        bool exists = row < n_exist;
        copy_async(shared + swizzle<head_dim>(row, chunk),
                   from + (exists ? row * stride : 0) + chunk * WIDE, exists);
    }
}

template <int head_dim>
static __device__ __forceinline__ void load_tile(bf16 *shared, const key_tile &tile)
{
    load_rows<head_dim, TILE_KEYS>(shared, tile.keys, tile.stride, tile.n_keys);
    load_rows<head_dim, TILE_KEYS>(shared + TILE_KEYS * head_dim, tile.values, tile.stride,
                                   tile.n_keys);
    copy_commit();
}

/* ---- a warp's rows ---- */

/* Element e of a fragment belongs to row (lane / 4) + 8 (e / 2), column 2 (lane % 4) + e % 2. */
template <int head_dim> struct row_state {
    float out[M_TILES][head_dim / 8][4];
    float max[M_TILES][2], sum[M_TILES][2]; /* by fragment row; sum is this lane's share */
    int32_t visible[M_TILES][2];            /* fresh keys that the row sees */
};

/* scores = q . k^T for the warp's 32 rows and a part of the tile's keys. */
template <int head_dim>
static __device__ __forceinline__ void score_keys(float scores[M_TILES][N_TILES][4],
                                                  uint32_t queries, uint32_t keys)
{
    constexpr uint32_t row_bytes = head_dim * sizeof(bf16);
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int n = 0; n < N_TILES; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                scores[m][n][e] = 0;
#pragma unroll
    for (int k = 0; k < head_dim / 16; k++) {
        uint32_t a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
            load_matrices(a[m], in_pair(queries, k) + m * 16 * row_bytes);
#pragma unroll
        for (int n = 0; n < N_TILES; n += 2) {
            uint32_t b[4];
            load_matrices(b, in_pair(keys, k) + n * 8 * row_bytes);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                multiply(scores[m][n], a[m], b[0], b[1]);
                multiply(scores[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Keys [first, end) of their part of the sequence, of which up to PART_KEYS are looked at. */
struct key_range {
    int32_t first, end;
    bool is_cached;
};

/* Scores of keys from n_seen on become -inf in one fragment row. */
static __device__ __forceinline__ void hide_from(float scores[N_TILES][4], int half, int32_t n_seen)
{
    int column = 2 * ((int)threadIdx.x % 4);
    if (n_seen >= PART_KEYS) return;
#pragma unroll
    for (int n = 0; n < N_TILES; n++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (n * 8 + column + e >= n_seen) scores[n][2 * half + e] = -INFINITY;
}

/* Scores of keys that a row does not see become -inf. */
template <int head_dim>
static __device__ __forceinline__ void hide(float scores[M_TILES][N_TILES][4],
                                            const row_state<head_dim> &rows, key_range range)
{
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int32_t end = range.is_cached ? range.end : rows.visible[m][half];
            hide_from(scores[m], half, end - range.first);
        }
}

/* The running softmax of one fragment row: scores become probabilities against the new maximum. */
template <int head_dim>
static __device__ __forceinline__ void renew(float scores[N_TILES][4], row_state<head_dim> &rows,
                                             int m, int half, float scale)
{
    float max = rows.max[m][half];
#pragma unroll
    for (int n = 0; n < N_TILES; n++)
        max = fmaxf(max, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 1));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 2));
    float shift = max == -INFINITY ? 0 : max * scale;
    float shrink = power_of_two(rows.max[m][half] * scale - shift),
          sum = rows.sum[m][half] * shrink;
#pragma unroll
    for (int n = 0; n < N_TILES; n++)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; e++) {
            scores[n][e] = power_of_two(scores[n][e] * scale - shift);
            sum += scores[n][e];
        }
    rows.max[m][half] = max;
    rows.sum[m][half] = sum;
    if (!__any_sync(WARP_ALL, shrink != 1)) return; /* times 1 changes nothing */
#pragma unroll
    for (int d = 0; d < head_dim / 8; d++) {
        rows.out[m][d][2 * half] *= shrink;
        rows.out[m][d][2 * half + 1] *= shrink;
    }
}

/* out += probabilities . values */
template <int head_dim>
static __device__ __forceinline__ void
add_values(row_state<head_dim> &rows, const float scores[M_TILES][N_TILES][4], uint32_t values)
{
    constexpr uint32_t row_bytes = head_dim * sizeof(bf16);
#pragma unroll
    for (int k = 0; k < PART_KEYS / 16; k++) {
        uint32_t a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = pack_pair(scores[m][2 * k + i / 2][2 * (i % 2)],
                                    scores[m][2 * k + i / 2][2 * (i % 2) + 1]);
#pragma unroll
        for (int d = 0; d < head_dim / 16; d++) {
            uint32_t b[4];
            load_matrices_transposed(b, in_pair(values, d) + k * 16 * row_bytes);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                multiply(rows.out[m][2 * d], a[m], b[0], b[1]);
                multiply(rows.out[m][2 * d + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int head_dim>
static __device__ __forceinline__ void start_rows(row_state<head_dim> &rows,
                                                  const attend_launch &launch,
                                                  const attend_item &item, int32_t warp_row)
{
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int32_t row = warp_row + m * 16 + half * 8 + lane / 4;
            rows.max[m][half] = -INFINITY;
            rows.sum[m][half] = 0;
            rows.visible[m][half] = item.n_rows;
            if (row >= item.n_q) continue;
            int32_t query = item.q_begin + row;
            int32_t batch_row = launch.row_of ? launch.row_of[query] : query;
            rows.visible[m][half] = launch.visible_end[batch_row] - item.row_begin;
        }
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int d = 0; d < head_dim / 8; d++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                rows.out[m][d][e] = 0;
}

/* The sum of a row from the shares of its four lanes. */
static __device__ __forceinline__ float sum_lanes(float share)
{
    share += __shfl_xor_sync(WARP_ALL, share, 1);
    return share + __shfl_xor_sync(WARP_ALL, share, 2);
}

/* Divides by the sums and writes the rows, by way of the warp's own query rows. */
template <int head_dim>
static __device__ __forceinline__ void finish_rows(row_state<head_dim> &rows, bf16 *staging,
                                                   bf16 *out, int64_t out_stride, int32_t n_rows)
{
    constexpr int n_chunks = head_dim / WIDE;
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float inverse = 1.0f / sum_lanes(rows.sum[m][half]);
            int row = m * 16 + half * 8 + lane / 4;
#pragma unroll
            for (int d = 0; d < n_chunks; d++)
                *reinterpret_cast<uint32_t *>(staging + swizzle<head_dim>(row, d) +
                                              2 * (lane % 4)) =
                    pack_pair(rows.out[m][d][2 * half] * inverse,
                              rows.out[m][d][2 * half + 1] * inverse);
        }
    __syncwarp();
    for (int at = lane; at < WARP_ROWS * n_chunks; at += WARP) {
        int row = at / n_chunks, chunk = at % n_chunks;
        if (row < n_rows)
            wide_store(out + row * out_stride + chunk * WIDE,
                       wide_load(staging + swizzle<head_dim>(row, chunk)));
    }
}

/* Leaves a slice's rows as partial rows `begin` and on. */
template <int head_dim>
static __device__ __forceinline__ void leave_rows(const row_state<head_dim> &rows,
                                                  const attend_partials &partials, int64_t begin,
                                                  int32_t n_rows, float scale)
{
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = sum_lanes(rows.sum[m][half]);
            int row = m * 16 + half * 8 + lane / 4;
            int64_t at = begin + row;
            if (row >= n_rows) continue;
            if (lane % 4 == 0) {
                partials.shift[at] = rows.max[m][half] * scale; /* as renew has it */
                partials.sum[at] = sum;
            }
            float2 *out = reinterpret_cast<float2 *>(partials.out + at * head_dim) + lane % 4;
#pragma unroll
            for (int d = 0; d < head_dim / 8; d++)
                out[d * 4] = {rows.out[m][d][2 * half], rows.out[m][d][2 * half + 1]};
        }
}

/* Fresh keys end where a row says. */
static __device__ __forceinline__ key_range range_of(const attend_item &item, int32_t index)
{
    int32_t n_cached_tiles = tiles_of(item.n_cached);
    bool is_cached = index < n_cached_tiles;
    return {(is_cached ? index : index - n_cached_tiles) * TILE_KEYS, item.n_cached, is_cached};
}

/* Shared addresses of the rows that this lane reads for fragments. */
struct lane_rows {
    uint32_t queries, keys, values; /* keys, values: of the first buffer */
};

template <int head_dim>
static __device__ __forceinline__ lane_rows find_lane_rows(const bf16 *queries, const bf16 *tiles)
{
    int lane = (int)threadIdx.x % WARP, low = lane & 7, high = lane >> 4, middle = lane >> 3 & 1;
    return {
        shared_address(queries + swizzle<head_dim>(lane & 15, high)),
        shared_address(tiles + swizzle<head_dim>(low + 8 * high, middle)),
        shared_address(tiles + TILE_KEYS * head_dim + swizzle<head_dim>(low + 8 * middle, high))};
}

/* A part of a tile at a time, so that scores and outputs fit the registers. `at`: of the tile's
 * buffer behind the first one, in bytes. */
template <int head_dim>
static __device__ __forceinline__ void see_tile(row_state<head_dim> &rows, lane_rows lane,
                                                uint32_t at, key_range range, float scale)
{
#pragma unroll 1
    for (int part = 0; part < TILE_KEYS / PART_KEYS; part++) {
        float scores[M_TILES][N_TILES][4];
        score_keys<head_dim>(scores, lane.queries, lane.keys + at);
        hide(scores, rows, range);
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            renew(scores[m], rows, m, 0, scale);
            renew(scores[m], rows, m, 1, scale);
        }
        add_values(rows, scores, lane.values + at);
        at += PART_KEYS * head_dim * (uint32_t)sizeof(bf16);
        range.first += PART_KEYS;
    }
}

/* A block makes the rows of one item and one query head of attend (backend.h), or leaves a slice's
 * partial rows. Full steps are bound by the tensor cores, window steps by reading keys and values
 * once. */
template <int head_dim>
static __global__ void __launch_bounds__(ATTEND_THREADS, 2) attend_tiles(attend_launch launch)
{
    extern __shared__ __align__(256) bf16 shared[];
    constexpr int tile_numbers = 2 * TILE_KEYS * head_dim;
    bf16 *queries = shared, *tiles = shared + ATTEND_ROWS * head_dim;
    const attend_item item = launch.items[blockIdx.x];
    int32_t head = launch.head_begin + (int32_t)blockIdx.y;
    int32_t kv_head = head / (launch.n_heads / launch.fresh.n_kv_heads);
    int32_t warp_row = (int32_t)threadIdx.x / WARP * WARP_ROWS;
    float scale = launch.scale * 1.44269504f; /* exp2 instead of exp */
    const bf16 *query = launch.query + (int64_t)item.q_begin * launch.query_cols +
                        launch.query_col + head * head_dim;
    load_rows<head_dim, ATTEND_ROWS>(queries, query, launch.query_cols, item.n_q);
    load_tile<head_dim>(tiles + (item.tile_begin & 1) * tile_numbers,
                        find_tile(launch, item, kv_head, item.tile_begin));
    row_state<head_dim> rows;
    start_rows(rows, launch, item, warp_row);
    lane_rows lane = find_lane_rows<head_dim>(queries + warp_row * head_dim, tiles);
    for (int32_t i = item.tile_begin; i < item.tile_end; i++) {
        if (i + 1 < item.tile_end) {
            load_tile<head_dim>(tiles + (i + 1 & 1) * tile_numbers,
                                find_tile(launch, item, kv_head, i + 1));
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        uint32_t at = (i & 1) * tile_numbers * (uint32_t)sizeof(bf16);
        if (warp_row < item.n_q) see_tile(rows, lane, at, range_of(item, i), scale);
        __syncthreads();
    }
    if (warp_row >= item.n_q) return;
    if (item.n_slices > 1) {
        int64_t begin = (int64_t)blockIdx.y * launch.partials.n + item.partial_begin;
        leave_rows(rows, launch.partials, begin + warp_row, item.n_q - warp_row, scale);
        return;
    }
    int64_t out_stride = (int64_t)launch.n_heads * head_dim;
    bf16 *out = launch.out + (item.q_begin + warp_row) * out_stride + head * head_dim;
    finish_rows(rows, queries + warp_row * head_dim, out, out_stride, item.n_q - warp_row);
}

/* A row of attend from its slices in ascending order: one warp, of which lane s weighs slice s.
 * `at`: the row of slice 0, n_q partial rows before that of slice 1. Slices that are not there
 * weigh 0, so that all loads can be under way together. */
template <int head_dim>
static __device__ __forceinline__ void join_row(bf16 *out, const attend_partials &partials,
                                                int64_t at, int32_t n_q, int32_t n_slices)
{
    constexpr int n_pairs = head_dim / 2 / WARP;
    int lane = (int)threadIdx.x % WARP;
    bool has_slice = lane < n_slices;
    int64_t own = at + (int64_t)lane * n_q;
    float shift = has_slice ? partials.shift[own] : -INFINITY, max = shift;
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2)
        max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, other));
    float weight = power_of_two(shift - max), share = has_slice ? weight * partials.sum[own] : 0;
    float sum = 0, sums[2 * n_pairs] = {};
#pragma unroll
    for (int32_t slice = 0; slice < ATTEND_SLICES_MAX; slice++) {
        float slice_weight = __shfl_sync(WARP_ALL, weight, slice);
        const float2 *row =
            reinterpret_cast<const float2 *>(partials.out + (at + (int64_t)slice * n_q) * head_dim);
        sum += __shfl_sync(WARP_ALL, share, slice);
#pragma unroll
        for (int i = 0; i < n_pairs; i++) {
            float2 pair = slice < n_slices ? row[i * WARP + lane] : float2{0, 0};
            sums[2 * i] += slice_weight * pair.x;
            sums[2 * i + 1] += slice_weight * pair.y;
        }
    }
    float inverse = 1.0f / sum;
#pragma unroll
    for (int i = 0; i < n_pairs; i++)
        *reinterpret_cast<uint32_t *>(out + 2 * (i * WARP + lane)) =
            pack_pair(sums[2 * i] * inverse, sums[2 * i + 1] * inverse);
}

/* Joins what slices of attend (backend.h) left: the block of a slice makes every n_slices-th row of
 * its item, for one head. Bound by reading partial rows, most of them from the L2 cache. */
template <int head_dim>
static __global__ void __launch_bounds__(ATTEND_THREADS) join_slices(attend_launch launch)
{
    const attend_item item = launch.items[launch.n_whole + (int)blockIdx.x];
    int32_t head = launch.head_begin + (int32_t)blockIdx.y, warp = (int32_t)threadIdx.x / WARP;
    int64_t first = (int64_t)blockIdx.y * launch.partials.n + item.partial_begin -
                    (int64_t)item.slice * item.n_q;
    for (int32_t r = item.slice + warp * item.n_slices; r < item.n_q;
         r += ATTEND_THREADS / WARP * item.n_slices) {
        bf16 *out = launch.out + ((int64_t)(item.q_begin + r) * launch.n_heads + head) * head_dim;
        join_row<head_dim>(out, launch.partials, first + r, item.n_q, item.n_slices);
    }
}

/* ---- any head size ---- */

#define HEAD_PARTS 8 /* numbers of a head per lane: head sizes up to 256 */

static __device__ float dot(const float *a, const bf16 *b, int32_t n)
{
    float sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += a[i] * __bfloat162float(b[i]);
    return sum;
}

/* What attend_any keeps of a row: lane l has numbers l, l + 32, .. of the head. */
struct any_row {
    float out[HEAD_PARTS], max, sum;
};

/* Sees n_keys (at most WARP) keys, one per lane. */
static __device__ void see_keys(any_row &row, const key_tile &tile, const float *query,
                                int32_t head_dim, float scale)
{
    int lane = (int)threadIdx.x % WARP;
    float score = -INFINITY;
    if (lane < tile.n_keys) score = dot(query, tile.keys + lane * tile.stride, head_dim) * scale;
    float max = fmaxf(score, row.max);
    for (int other = WARP / 2; other > 0; other /= 2)
        max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, other));
    float shrink = row.max == -INFINITY ? 0 : expf(row.max - max);
    float weight = lane < tile.n_keys ? expf(score - max) : 0;
    row.sum = row.sum * shrink + warp_sum(weight);
    row.max = max;
#pragma unroll
    for (int part = 0; part < HEAD_PARTS; part++)
        row.out[part] *= shrink;
    for (int32_t j = 0; j < tile.n_keys; j++) {
        float key_weight = __shfl_sync(WARP_ALL, weight, j);
#pragma unroll
        for (int part = 0; part < HEAD_PARTS; part++)
            if (part * WARP + lane < head_dim)
                row.out[part] +=
                    key_weight *
                    __bfloat162float(tile.values[j * tile.stride + part * WARP + lane]);
    }
}

/* A warp makes rows of attend (backend.h) one by one, for head sizes and alignments that
 * attend_tiles does not take: with all their keys, so that of slices only the first has work. */
static __global__ void __launch_bounds__(ATTEND_THREADS) attend_any(attend_launch launch)
{
    __shared__ float queries[ATTEND_THREADS / WARP][HEAD_PARTS * WARP];
    const attend_item item = launch.items[blockIdx.x];
    int32_t head = launch.head_begin + (int32_t)blockIdx.y, head_dim = launch.fresh.head_dim;
    int32_t kv_head = head / (launch.n_heads / launch.fresh.n_kv_heads);
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    if (item.slice > 0) return;
    for (int32_t r = warp; r < item.n_q; r += ATTEND_THREADS / WARP) {
        int64_t q = item.q_begin + r;
        int32_t batch_row = launch.row_of ? launch.row_of[q] : (int32_t)q;
        int32_t n_fresh = launch.visible_end[batch_row] - item.row_begin;
        const bf16 *query =
            launch.query + q * launch.query_cols + launch.query_col + head * head_dim;
        __syncwarp();
        for (int32_t i = lane; i < head_dim; i += WARP)
            queries[warp][i] = __bfloat162float(query[i]);
        __syncwarp();
        any_row row = {{0}, -INFINITY, 0};
        int32_t n_tiles = tiles_of(item.n_cached) + tiles_of(n_fresh);
        for (int32_t i = 0; i < n_tiles; i++) {
            key_tile tile = find_tile(launch, item, kv_head, i);
            int32_t n_seen = tile.is_cached ? tile.n_keys : n_fresh - tile.first;
            for (int32_t j = 0; j < TILE_KEYS && j < n_seen; j += WARP) {
                tile.n_keys = n_seen - j < WARP ? n_seen - j : WARP;
                see_keys(row, tile, queries[warp], head_dim, launch.scale);
                tile.keys += WARP * tile.stride;
                tile.values += WARP * tile.stride;
            }
        }
        bf16 *out = launch.out + q * launch.n_heads * head_dim + head * head_dim;
        for (int part = 0; part < HEAD_PARTS; part++)
            if (part * WARP + lane < head_dim)
                out[part * WARP + lane] = __float2bfloat16_rn(row.out[part] / row.sum);
    }
}

/* ---- launchers ---- */

template <int head_dim>
static cudaError_t launch_tiles(const attend_launch *launch, dim3 grid, cudaStream_t stream)
{
    const int n_bytes = (ATTEND_ROWS + 4 * TILE_KEYS) * head_dim * (int)sizeof(bf16);
    cudaError_t status = cudaFuncSetAttribute(attend_tiles<head_dim>,
                                              cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes);
    if (status != cudaSuccess) return status;
    attend_tiles<head_dim><<<grid, ATTEND_THREADS, n_bytes, stream>>>(*launch);
    status = cudaGetLastError();
    dim3 slices((unsigned)(launch->n_items - launch->n_whole), grid.y);
    if (status != cudaSuccess || slices.x == 0) return status;
    join_slices<head_dim><<<slices, ATTEND_THREADS, 0, stream>>>(*launch);
    return cudaGetLastError();
}

cudaError_t launch_attend(const struct attend_launch *launch, cudaStream_t stream)
{
    const fresh_kv *fresh = &launch->fresh;
    dim3 grid((unsigned)launch->n_items, (unsigned)launch->n_heads_now);
    bool is_aligned = fresh->n_cols % WIDE == 0 && fresh->key_col % WIDE == 0 &&
                      fresh->value_col % WIDE == 0 && launch->query_cols % WIDE == 0 &&
                      launch->query_col % WIDE == 0;
    if (launch->n_items == 0) return cudaSuccess;
    if (is_aligned && fresh->head_dim == 128) return launch_tiles<128>(launch, grid, stream);
    if (is_aligned && fresh->head_dim == 64) return launch_tiles<64>(launch, grid, stream);
    attend_any<<<grid, ATTEND_THREADS, 0, stream>>>(*launch);
    return cudaGetLastError();
}

/* A block copies one row of store_kv (backend.h), every KV head of it. Memory-bound. */
template <typename word>
static __global__ void __launch_bounds__(ATTEND_THREADS)
    store_rows(word *keys, word *values, fresh_kv fresh, const store_row *rows)
{
    constexpr int per_word = sizeof(word) / sizeof(bf16);
    const store_row store = rows[blockIdx.x];
    const bf16 *x = fresh.x + (int64_t)store.row * fresh.n_cols;
    int32_t n_words = fresh.head_dim / per_word;
    for (int32_t i = (int32_t)threadIdx.x; i < fresh.n_kv_heads * n_words; i += ATTEND_THREADS) {
        int64_t head = i / n_words;
        int64_t row = store.cache_begin * fresh.n_kv_heads + head * store.n + store.index;
        int64_t to = row * n_words + i % n_words;
        keys[to] = reinterpret_cast<const word *>(x + fresh.key_col)[i];
        values[to] = reinterpret_cast<const word *>(x + fresh.value_col)[i];
    }
}

cudaError_t launch_store_kv(bf16 *keys, bf16 *values, const struct fresh_kv *fresh,
                            const struct store_row *rows, int32_t n, cudaStream_t stream)
{
    bool is_wide = fresh->head_dim % WIDE == 0 && fresh->n_cols % WIDE == 0 &&
                   fresh->key_col % WIDE == 0 && fresh->value_col % WIDE == 0;
    if (n == 0) return cudaSuccess;
    if (is_wide)
        store_rows<<<(unsigned)n, ATTEND_THREADS, 0, stream>>>((wide *)keys, (wide *)values, *fresh,
                                                               rows);
    else store_rows<<<(unsigned)n, ATTEND_THREADS, 0, stream>>>(keys, values, *fresh, rows);
    return cudaGetLastError();
}
