// "Same" convolutions with kernels of 3x3 and 5x5 by minimal filtering (Winograd), and of 1x1 as they are, in float32 and
// channels last.
//
// A tile of M x M = 4 x 4 outputs needs N x N inputs, N = M + R - 1: 8 x 8 for a kernel of R = 5, 6 x 6 for R = 3. With
// matrices A, B and G that follow from N - 1 points and infinity,
//
//     Y = A' [ (G g G') * (B' d B) ] A            d: N x N inputs, g: R x R kernel, Y: M x M outputs
//
// where * multiplies by element. Summed over input channels, each of the N x N places is a product of matrices,
//
//     product[place] (tiles x outputs) = inputs[place] (tiles x channels) . kernels[place] (channels x outputs)
//
// so a tile takes N^2 multiplications a channel where the sum as it is written takes (M R)^2: 64 instead of 400, and 36
// instead of 144. The gradient by the inputs is the same convolution with the kernel turned and transposed. The gradient
// by the kernel is gathered over tiles, and over calls, as transformed kernels are, and brought back once:
//
//     gathered[place] += inputs[place]' . gradients[place],    gradients = A dY A',    dg = G' gathered G
//
// Points: 0, +-1, +-2, +-1/2 for N = 8; 0, +-3/4, +-3/2 for N = 6, which err less than the usual 0, +-1, +-2.
// Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, doi:10.1109/CVPR.2016.435.
//
// Transforms take a vector of channels at a time; products take ROWS tiles x WIDE vectors of outputs, which fill the
// registers; a block of TILES or GATHERED tiles stays near the second cache. Threads share out tiles, halves of the
// places, or channels, and no sum depends on how many threads there are.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "vectors.h"

#if defined(__AVX512F__)
constexpr long ROWS = 6, WIDE = 4, TILES = 24;
#else
constexpr long ROWS = 6, WIDE = 2, TILES = 12;
#endif

constexpr long M = 4;
constexpr long PANEL = L * WIDE;  // outputs of one call of the micro-kernel
constexpr long BLOCK = 64;        // outputs whose products are kept until they are transformed back
constexpr long GATHERED = 24;     // tiles of a block in a gradient by the kernel
constexpr long LINE = 16;         // floats of a line of the cache
constexpr long GROUP = 16;        // channels of each gate that lie together, where outputs are gates

static long round_up(long value, long multiple) { return (value + multiple - 1) / multiple * multiple; }
static long panels(long outputs) { return (outputs + PANEL - 1) / PANEL; }

struct Buffer {
    std::unique_ptr<float, void (*)(void *)> memory;
    explicit Buffer(long count) : memory((float *)std::aligned_alloc(64, round_up(4 * count, 64)), std::free) {}
    operator float *() const { return memory.get(); }
};

// ---- Transforms of vectors side by side; those of gradients may lie `step` vectors apart.

template <long N> struct Points;

template <> struct Points<8> {
    static constexpr int R = 5;
    static constexpr double value[7] = {0, 1, -1, 2, -2, 0.5, -0.5};
    static constexpr double weight[7] = {1, -2.0 / 9, -2.0 / 9, 1.0 / 90, 1.0 / 90, 32.0 / 45, 32.0 / 45};

    // t = B' d
    static INLINE void inputs(const V *d, V *t) {
        V d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3], d4 = d[4], d5 = d[5], d6 = d[6], d7 = d[7];
        t[0] = d0 - d6 + 5.25f * (d4 - d2);
        t[7] = d7 - d1 + 5.25f * (d3 - d5);
        V even = d2 + d6 - 4.25f * d4, odd = d1 + d5 - 4.25f * d3;
        t[1] = even + odd, t[2] = even - odd;
        even = d6 + 0.25f * d2 - 1.25f * d4, odd = 0.5f * d1 - 2.5f * d3 + 2.0f * d5;
        t[3] = even + odd, t[4] = even - odd;
        even = d6 + 4.0f * d2 - 5.0f * d4, odd = 2.0f * d1 - 2.5f * d3 + 0.5f * d5;
        t[5] = even + odd, t[6] = even - odd;
    }

    // y = A' s
    static INLINE void outputs(const V *s, V *y) {
        V p1 = s[1] + s[2], q1 = s[1] - s[2], p2 = s[3] + s[4], q2 = s[3] - s[4], p3 = s[5] + s[6], q3 = s[5] - s[6];
        y[0] = s[0] + p1 + p2 + p3;
        y[1] = q1 + 2.0f * q2 + 0.5f * q3;
        y[2] = p1 + 4.0f * p2 + 0.25f * p3;
        y[3] = q1 + 8.0f * q2 + 0.125f * q3 + s[7];
    }

    // z = A y
    static INLINE void gradients(const V *y, long step, V *z) {
        V y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
        V even = y0 + y2, odd = y1 + y3;
        z[0] = y0, z[1] = even + odd, z[2] = even - odd;
        even = y0 + 4.0f * y2, odd = 2.0f * y1 + 8.0f * y3;
        z[3] = even + odd, z[4] = even - odd;
        even = y0 + 0.25f * y2, odd = 0.5f * y1 + 0.125f * y3;
        z[5] = even + odd, z[6] = even - odd, z[7] = y3;
    }
};

// A kernel of 1x1 is its own transform.
template <> struct Points<1> {
    static constexpr int R = 1;
    static constexpr double value[1] = {}, weight[1] = {};
};

template <> struct Points<6> {
    static constexpr int R = 3;
    static constexpr double value[5] = {0, 0.75, -0.75, 1.5, -1.5};
    static constexpr double weight[5] = {64.0 / 81, -128.0 / 243, -128.0 / 243, 32.0 / 243, 32.0 / 243};

    static INLINE void inputs(const V *d, V *t) {
        V d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3], d4 = d[4], d5 = d[5];
        t[0] = 1.265625f * d0 - 2.8125f * d2 + d4;
        t[5] = 1.265625f * d1 - 2.8125f * d3 + d5;
        V even = d4 - 2.25f * d2, odd = 0.75f * d3 - 1.6875f * d1;
        t[1] = even + odd, t[2] = even - odd;
        even = d4 - 0.5625f * d2, odd = 1.5f * d3 - 0.84375f * d1;
        t[3] = even + odd, t[4] = even - odd;
    }

    static INLINE void outputs(const V *s, V *y) {
        V p1 = s[1] + s[2], q1 = s[1] - s[2], p2 = s[3] + s[4], q2 = s[3] - s[4];
        y[0] = s[0] + p1 + p2;
        y[1] = 0.75f * q1 + 1.5f * q2;
        y[2] = 0.5625f * p1 + 2.25f * p2;
        y[3] = 0.421875f * q1 + 3.375f * q2 + s[5];
    }

    static INLINE void gradients(const V *y, long step, V *z) {
        V y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
        V even = y0 + 0.5625f * y2, odd = 0.75f * y1 + 0.421875f * y3;
        z[0] = y0, z[1] = even + odd, z[2] = even - odd;
        even = y0 + 2.25f * y2, odd = 1.5f * y1 + 3.375f * y3;
        z[3] = even + odd, z[4] = even - odd, z[5] = y3;
    }
};

// Row `point` of G: powers of the point, weighted by the inverse product of its distances to the others.
template <long N> static void kernel_row(long point, double *row) {
    constexpr int R = Points<N>::R;
    double power = point < N - 1 ? Points<N>::weight[point] : 0;
    for (int i = 0; i < R; i++) {
        row[i] = point < N - 1 ? power : i == R - 1;
        power *= point < N - 1 ? Points<N>::value[point] : 0;
    }
}

// ---- Products: c (rows x W vectors) = a (rows x depth) . b (depth x W vectors), or added to what c holds. Where the next b
// is known, it comes into the cache meanwhile.

struct Matrix {
    const float *data;
    long row, column;  // floats from one row, and from one column, to the next
};

template <int R, int W, bool ADD>
static INLINE void multiply_tile(Matrix a, const float *b, long b_row, long depth, float *c, long c_row, const float *next) {
    V sum[R][W];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int w = 0; w < W; w++) sum[r][w] = ADD ? *(const V *)(c + r * c_row + w * L) : V{};
    for (long i = 0; i < depth; i++, b += b_row, a.data += a.column) {
        if (next) __builtin_prefetch(next + i * b_row, 0, 2);
        V wide[W];
#pragma GCC unroll 4
        for (int w = 0; w < W; w++) wide[w] = *(const V *)(b + w * L);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int w = 0; w < W; w++) sum[r][w] += a.data[r * a.row] * wide[w];
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int w = 0; w < W; w++) *(V *)(c + r * c_row + w * L) = sum[r][w];
}

template <int R, int W, bool ADD>
static void multiply_rows(long rows, Matrix a, const float *b, long b_row, long depth, float *c, long c_row,
                          const float *next) {
    for (long part = 0; rows >= R; part++) {
        multiply_tile<R, W, ADD>(a, b, b_row, depth, c, c_row, next ? next + part % W * L : nullptr);
        rows -= R, a.data += R * a.row, c += R * c_row;
    }
    if constexpr (R > 1)
        if (rows) multiply_rows<R - 1, W, ADD>(rows, a, b, b_row, depth, c, c_row, nullptr);
}

template <bool ADD, int W = WIDE>
static void multiply(long rows, long vectors, Matrix a, const float *b, long b_row, long depth, float *c, long c_row,
                     const float *next) {
    if (vectors >= W)
        multiply_rows<ROWS, W, ADD>(rows, a, b, b_row, depth, c, c_row, next);
    else if constexpr (W > 1)
        multiply<ADD, W - 1>(rows, vectors, a, b, b_row, depth, c, c_row, next);
}

// ---- Tiles.

struct Shape {
    long batch, height, width, inputs, outputs;
    long across = (width + M - 1) / M, of_map = (height + M - 1) / M * across, tiles = batch * of_map;
    long channels = round_up(inputs, L), padded = round_up(outputs, L), block = std::min(BLOCK, padded);

    Shape(long batch, long height, long width, long inputs, long outputs)
        : batch(batch), height(height), width(width), inputs(inputs), outputs(outputs) {}
};

// What a convolution takes: arrays of `each` channels, whose channels follow one another.
struct Maps {
    const Array *arrays;
    long each;
};

struct Tile {
    long map, top, left, corner;  // corner: the number of its first pixel
    Tile(const Shape &s, long number)
        : map(number / s.of_map), top(number % s.of_map / s.across * M), left(number % s.of_map % s.across * M),
          corner((map * s.height + top) * s.width + left) {}
};

// Transformed tiles are laid out as [tile][place][channel], so that a tile lies on few pages of memory. Neither tiles nor
// kernels of a place lie a multiple of 4 KiB apart, or all would share a few lines of the cache.
template <long N> static long tile_size(long channels) { return N * N * channels + LINE; }
static long kernel_size(const Shape &s) { return panels(s.outputs) * s.inputs * PANEL + LINE; }

// B' d B of a tile to places[place][channel], of COUNT rows of places from START on, and of channels from `first` to `end`.
template <long N, long START, long COUNT>
static void transform_inputs(const Shape &s, Tile tile, Maps x, long first, long end, const float *zeros, float *to,
                             long stride) {
    const float *from[N * N];
    for (long c = first; c < end; c += L, to += L) {
        alignas(64) V patch[N], half[COUNT * N], row[N];
        long channel = c % x.each;
        if (!channel || c == first)
            for (long i = 0; i < N; i++)
                for (long j = 0; j < N; j++) {
                    long row = tile.top + i - (N - M) / 2, column = tile.left + j - (N - M) / 2;
                    bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
                    const Array &map = x.arrays[c / x.each];
                    from[i * N + j] = inside ? map.data + ((tile.map * s.height + row) * s.width + column) * map.step : zeros;
                }
        bool whole = s.inputs - c >= L;
        for (long j = 0; j < N; j++) {
            if (whole)
#pragma GCC unroll 8
                for (long i = 0; i < N; i++) patch[i] = *(const V *)(from[i * N + j] + channel);
            else
                for (long i = 0; i < N; i++) patch[i] = load(from[i * N + j] + channel, s.inputs - c);
            Points<N>::inputs(patch, row);
#pragma GCC unroll 8
            for (long i = 0; i < COUNT; i++) half[i * N + j] = row[START + i];
        }
        for (long i = 0; i < COUNT; i++) {
            Points<N>::inputs(half + i * N, row);
#pragma GCC unroll 8
            for (long j = 0; j < N; j++) *(V *)(to + (i * N + j) * stride) = row[j];
        }
    }
}

// A' product A of a tile, for a vector of outputs: each of its M rows of M pixels goes to take(row number, pixels).
template <long N, class Take> static INLINE void transform_outputs(const float *from, long stride, Take take) {
    alignas(64) V places[N], half[M * N], row[M];
    for (long j = 0; j < N; j++) {
#pragma GCC unroll 8
        for (long i = 0; i < N; i++) places[i] = *(const V *)(from + (i * N + j) * stride);
        Points<N>::outputs(places, row);
        for (long i = 0; i < M; i++) half[i * N + j] = row[i];
    }
    for (long i = 0; i < M; i++) {
        Points<N>::outputs(half + i * N, row);
        take(i, row);
    }
}

// A dY A' of a tile to places[place][output], of the same rows, for the outputs from `first` on.
template <long N, long START, long COUNT>
static void transform_gradients(const Shape &s, Tile tile, Maps dy, long first, float *to, long stride) {
    long rows = std::min(M, s.height - tile.top), columns = std::min(M, s.width - tile.left);
    for (long o = first; o < std::min(first + s.block, s.outputs); o += L, to += L) {
        alignas(64) V patch[M * M]{}, half[COUNT * M], row[N];
        const Array &map = dy.arrays[o / dy.each];
        for (long i = 0; i < rows; i++)
            for (long j = 0; j < columns; j++) {
                patch[i * M + j] = at(map, tile.corner + i * s.width + j, o % dy.each, s.outputs - o);
            }
        for (long j = 0; j < M; j++) {
            Points<N>::gradients(patch + j, M, row);
#pragma GCC unroll 8
            for (long i = 0; i < COUNT; i++) half[i * M + j] = row[START + i];
        }
        for (long i = 0; i < COUNT; i++) {
            Points<N>::gradients(half + i * M, 1, row);
#pragma GCC unroll 8
            for (long j = 0; j < N; j++) *(V *)(to + (i * N + j) * stride) = row[j];
        }
    }
}

// ---- The four functions, for each N. Kernels are laid out as [place][panel][input][output of the panel].

static float *kernel_at(float *kernels, const Shape &s, long place, long output) {
    return kernels + place * kernel_size(s) + output / PANEL * s.inputs * PANEL;
}

// Have one part in `parts` of what tiles have of an array, from a channel on, come into the cache while products run, or
// the transforms back would wait for it.
static void fetch(const Shape &s, const long *corners, long tiles, const Array &a, long channel, long channels, long part,
                  long parts) {
    long lines = (channels + LINE - 1) / LINE;
    for (long line = part; line < M * M * lines; line += parts) {
        long pixel = line / lines / M * s.width + line / lines % M;
        for (long t = 0; t < tiles; t++)
            __builtin_prefetch(a.data + (corners[t] + pixel) * a.step + channel + line % lines * LINE, 1);
    }
}

// What becomes of a convolution's sums: a bias and a map are added, and by a gate o they become s(o) tanh(sum). All three
// may be null.
struct Sums {
    const float *bias;
    Array plus, gate, y;

    long block(const Shape &s) const { return std::min(BLOCK, s.padded); }

    void fetch_tiles(const Shape &s, const long *corners, long tiles, long first, long part, long parts) const {
        fetch(s, corners, tiles, y, first, std::min(block(s), s.outputs - first), part, parts);
    }

    INLINE void write(V sum, long pixel, long channel, long count) const {
        if (bias) sum += load(bias + channel, count);
        if (plus.data) sum += at(plus, pixel, channel, count);
        if (gate.data) sum = sigmoid_times_tanh(at(gate, pixel, channel, count), sum);
        put(y, pixel, channel, count, sum);
    }

    template <long N> void write_tile(const Shape &s, const Tile &tile, const float *products, long stride, long first) const {
        long rows = std::min(M, s.height - tile.top), columns = std::min(M, s.width - tile.left);
        for (long o = first; o < std::min(first + stride, s.outputs); o += L)
            transform_outputs<N>(products + o - first, stride, [&](long i, const V *row) ALWAYS_INLINE {
                long pixel = tile.corner + i * s.width;
                if (i < rows && columns == M && s.outputs - o >= L)
#pragma GCC unroll 4
                    for (long j = 0; j < M; j++) write(row[j], pixel + j, o, L);
                else if (i < rows)
                    for (long j = 0; j < columns; j++) write(row[j], pixel + j, o, s.outputs - o);
            });
    }
};

// The same where they are gates: GROUP channels of i, as many of f, of g and of any others, then the next of each. The first
// three update a memory c, the others are written as they are.
struct Gates {
    long count;
    const float *bias;
    Array c, c_new, others;

    long block(const Shape &s) const {
        long block = count * GROUP;
        while (block % PANEL && block < s.padded) block += count * GROUP;
        return block;
    }

    void fetch_tiles(const Shape &s, const long *corners, long tiles, long first, long part, long parts) const {
        long channel = first / count, channels = std::min(block(s), s.outputs - first) / count;
        fetch(s, corners, tiles, c, channel, channels, part, parts);
        fetch(s, corners, tiles, c_new, channel, channels, part, parts);
        for (long gate = 3; gate < count; gate++)
            fetch(s, corners, tiles, others, (gate - 3) * s.outputs / count + channel, channels, part, parts);
    }

    template <long N> void write_tile(const Shape &s, const Tile &tile, const float *products, long stride, long first) const {
        long rows = std::min(M, s.height - tile.top), columns = std::min(M, s.width - tile.left);
        for (long o = first; o < std::min(first + stride, s.outputs); o += count * GROUP)
            for (long k = 0; k < GROUP; k += L) {
                long channel = o / count + k;
                alignas(64) V gates[3][M * M];
                for (long gate = 0; gate < count; gate++) {
                    long output = o + gate * GROUP + k;
                    V added = bias ? *(const V *)(bias + output) : V{};
                    transform_outputs<N>(products + output - first, stride, [&](long i, const V *row) ALWAYS_INLINE {
                        long pixel = tile.corner + i * s.width;
                        if (gate < 3)
#pragma GCC unroll 4
                            for (long j = 0; j < M; j++) gates[gate][i * M + j] = row[j] + added;
                        else if (i < rows)
                            for (long j = 0; j < columns; j++)
                                put(others, pixel + j, (gate - 3) * s.outputs / count + channel, L, row[j] + added);
                    });
                }
                for (long i = 0; i < rows; i++)
                    for (long j = 0; j < columns; j++) {
                        long pixel = tile.corner + i * s.width + j, p = i * M + j;
                        put(c_new, pixel, channel, L, update_memory(at(c, pixel, channel, L), gates[0][p], gates[1][p], gates[2][p]));
                    }
            }
    }
};

template <long N, class End>
static void convolve(const Shape &s, Maps x, float *kernels, const End &end, int threads) {
    long block = end.block(s), in_tile = tile_size<N>(s.channels), out_tile = tile_size<N>(block);
    std::vector<float> zeros(s.channels);
#pragma omp parallel num_threads(threads)
    {
        Buffer inputs(TILES * in_tile), products(TILES * out_tile);
#pragma omp for schedule(dynamic)
        for (long start = 0; start < s.tiles; start += TILES) {
            long count = std::min(TILES, s.tiles - start), corners[TILES];
            for (long t = 0; t < count; t++) {
                Tile tile(s, start + t);
                corners[t] = tile.corner;
                transform_inputs<N, 0, N>(s, tile, x, 0, s.inputs, zeros.data(), inputs + t * in_tile, s.channels);
            }
            for (long first = 0; first < s.outputs; first += block) {
                for (long place = 0; place < N * N; place++) {
                    end.fetch_tiles(s, corners, count, first, place, N * N);
                    for (long o = first; o < std::min(first + block, s.padded); o += PANEL)
                        multiply<false>(count, (s.padded - o) / L, {inputs + place * s.channels, in_tile, 1},
                                        kernel_at(kernels, s, place, o), PANEL, s.inputs,
                                        products + place * block + o - first, out_tile, kernel_at(kernels, s, place + 1, o));
                }
                for (long t = 0; t < count; t++)
                    end.template write_tile<N>(s, Tile(s, start + t), products + t * out_tile, block, first);
            }
        }
    }
}

// The same with kernels of 1x1: one product, of which tiles are pixels as they lie.
static void convolve_pixels(const Shape &s, Maps x, float *kernels, const Sums &end, int threads) {
    long pixels = s.batch * s.height * s.width;
#pragma omp parallel num_threads(threads)
    {
        Buffer sums(TILES * s.padded);
#pragma omp for
        for (long start = 0; start < pixels; start += TILES) {
            long count = std::min(TILES, pixels - start);
            for (long o = 0; o < s.padded; o += PANEL)
                for (long c = 0; c < s.inputs; c += x.each) {
                    const Array &map = x.arrays[c / x.each];
                    (c ? multiply<true> : multiply<false>)(count, (s.padded - o) / L, {map.data + start * map.step, map.step, 1},
                                                           kernel_at(kernels, s, 0, o) + c * PANEL, PANEL, x.each, sums + o,
                                                           s.padded, nullptr);
                }
            for (long p = 0; p < count; p++)
                for (long o = 0; o < s.outputs; o += L)
                    end.write(*(const V *)(sums + p * s.padded + o), start + p, o, s.outputs - o);
        }
    }
}

// One half of the rows of places, and the channels of inputs from `from` to `to`.
template <long N, long START> static void gather_part(const Shape &s, Maps x, Maps dy, long from, long to, float *gathered) {
    constexpr long COUNT = N / 2;
    long channels = round_up(to - from, L), in_tile = COUNT * N * channels + LINE, out_tile = COUNT * N * s.block + LINE;
    Buffer inputs(GATHERED * in_tile), gradients(GATHERED * out_tile);
    std::vector<float> zeros(s.channels);
    for (long start = 0; start < s.tiles; start += GATHERED) {
        long count = std::min(GATHERED, s.tiles - start);
        for (long t = 0; t < count; t++)
            transform_inputs<N, START, COUNT>(s, Tile(s, start + t), x, from, to, zeros.data(), inputs + t * in_tile, channels);
        for (long first = 0; first < s.outputs; first += s.block) {
            for (long t = 0; t < count; t++)
                transform_gradients<N, START, COUNT>(s, Tile(s, start + t), dy, first, gradients + t * out_tile, s.block);
            for (long place = 0; place < COUNT * N; place++)
                for (long o = first; o < std::min(first + s.block, s.padded); o += PANEL)
                    multiply<true>(to - from, (s.padded - o) / L, {inputs + place * channels, 1, in_tile},
                                   gradients + place * s.block + o - first, out_tile, count,
                                   kernel_at(gathered, s, START * N + place, o) + from * PANEL, PANEL, nullptr);
        }
    }
}

// Threads transform what they need themselves, part of it more than once: that takes less time than to hand it over.
template <long N> static void gather(const Shape &s, Maps x, Maps dy, float *gathered, int threads) {
    long parts = std::max(1L, std::min(threads / 2L, s.channels / L)), each = round_up((s.channels + parts - 1) / parts, L);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (long from = 0; from < s.inputs; from += each)
        for (int half = 0; half < 2; half++)
            (half ? gather_part<N, N / 2> : gather_part<N, 0>)(s, x, dy, from, std::min(from + each, s.inputs), gathered);
}

struct Strides {
    long output, input, row, column;
};

// Numbers of L outputs in double, as their errors would enter all sums alike.
struct Doubles {
    double of[L];
    void add(double factor, const Doubles &other) {
        for (long k = 0; k < L; k++) of[k] += factor * other.of[k];
    }
};

template <long N>
static void transform_kernel(const Shape &s, const float *g, Strides at, bool turned, float *kernels, int threads) {
    constexpr long R = Points<N>::R;
    double rows[N][R];
    for (long p = 0; p < N; p++) kernel_row<N>(p, rows[p]);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < s.inputs; i++)
        for (long o = 0; o < panels(s.outputs) * PANEL; o += L) {
            Doubles value[R][R]{}, half[N][R]{};
            for (long k = 0; k < std::min(L, s.outputs - o); k++)
                for (long y = 0; y < R; y++)
                    for (long x = 0; x < R; x++) {
                        long row = turned ? R - 1 - y : y, column = turned ? R - 1 - x : x;
                        value[y][x].of[k] = g[(o + k) * at.output + i * at.input + row * at.row + column * at.column];
                    }
            for (long p = 0; p < N; p++)
                for (long x = 0; x < R; x++)
                    for (long y = 0; y < R; y++) half[p][x].add(rows[p][y], value[y][x]);
            for (long p = 0; p < N; p++)
                for (long q = 0; q < N; q++) {
                    Doubles sum{};
                    for (long x = 0; x < R; x++) sum.add(rows[q][x], half[p][x]);
                    float *to = kernel_at(kernels, s, p * N + q, o) + i * PANEL + o % PANEL;
                    for (long k = 0; k < L; k++) to[k] = sum.of[k];
                }
        }
}

template <long N> static void kernel_gradient(const Shape &s, float *gathered, float *dg, int threads) {
    constexpr long R = Points<N>::R;
    double rows[N][R];
    for (long p = 0; p < N; p++) kernel_row<N>(p, rows[p]);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < s.inputs; i++)
        for (long o = 0; o < s.outputs; o += L) {
            Doubles half[R][N]{}, sum[R][R]{};
            for (long p = 0; p < N; p++)
                for (long q = 0; q < N; q++) {
                    const float *from = kernel_at(gathered, s, p * N + q, o) + i * PANEL + o % PANEL;
                    Doubles value;
                    for (long k = 0; k < L; k++) value.of[k] = from[k];
                    for (long y = 0; y < R; y++) half[y][q].add(rows[p][y], value);
                }
            for (long y = 0; y < R; y++)
                for (long x = 0; x < R; x++)
                    for (long q = 0; q < N; q++) sum[y][x].add(rows[q][x], half[y][q]);
            for (long k = 0; k < std::min(L, s.outputs - o); k++)
                for (long y = 0; y < R; y++)
                    for (long x = 0; x < R; x++) dg[(((o + k) * R + y) * R + x) * s.inputs + i] = sum[y][x].of[k];
        }
}

// ---- What is called from outside. Maps are (batch, height, width, channels), channels that follow one another in as
// many arrays as are said. Kernels are 3, 5 or 1; where they are not 1, each of several arrays has a multiple of L channels.

#define FOR_KERNEL(function, ...) (kernel == 5 ? function<8>(__VA_ARGS__) : function<6>(__VA_ARGS__))
#define FOR_ANY_KERNEL(function, ...) (kernel == 1 ? function<1>(__VA_ARGS__) : FOR_KERNEL(function, __VA_ARGS__))

extern "C" {

// Floats of the transformed kernels.
long framecast_kernel_size(long inputs, long outputs, long kernel) {
    long n = kernel == 1 ? 1 : M + kernel - 1;
    return n * n * kernel_size(Shape(0, 0, 0, inputs, outputs));
}

// G g G' of kernels g[output][input][y][x] of any strides; turned: as the gradient by the inputs needs them.
void framecast_transform_kernel(const float *g, const long *strides, int turned, long inputs, long outputs, long kernel,
                                float *kernels, int threads) {
    Strides at{strides[0], strides[1], strides[2], strides[3]};
    FOR_ANY_KERNEL(transform_kernel, Shape(0, 0, 0, inputs, outputs), g, at, turned, kernels, threads);
}

// arrays: what is added, a gate (both may be null), and y to write.
void framecast_convolve(const Array *x, long maps, float *kernels, const float *bias, const Array *arrays, long batch,
                        long height, long width, long inputs, long outputs, long kernel, int threads) {
    Shape shape(batch, height, width, inputs, outputs);
    Maps sources{x, inputs / maps};
    Sums end{bias, arrays[0], arrays[1], arrays[2]};
    if (kernel == 1)
        convolve_pixels(shape, sources, kernels, end, threads);
    else
        FOR_KERNEL(convolve, shape, sources, kernels, end, threads);
}

// Kernels of 3x3 or 5x5 whose outputs are gates, in the order of Gates; arrays: c, and c' and the other gates to write.
void framecast_convolve_gates(const Array *x, long maps, float *kernels, const float *bias, long gates, const Array *arrays,
                              long batch, long height, long width, long inputs, long outputs, long kernel, int threads) {
    Maps sources{x, inputs / maps};
    Gates end{gates, bias, arrays[0], arrays[1], arrays[2]};
    FOR_KERNEL(convolve, Shape(batch, height, width, inputs, outputs), sources, kernels, end, threads);
}

// Add to gathered, which is laid out as kernels of 3x3 or 5x5 are.
void framecast_gather(const Array *x, long x_arrays, const Array *dy, long dy_arrays, float *gathered, long batch, long height,
                      long width, long inputs, long outputs, long kernel, int threads) {
    Maps maps{x, inputs / x_arrays}, gradients{dy, outputs / dy_arrays};
    FOR_KERNEL(gather, Shape(batch, height, width, inputs, outputs), maps, gradients, gathered, threads);
}

// dg[output][y][x][input] of the same.
void framecast_kernel_gradient(float *gathered, float *dg, long inputs, long outputs, long kernel, int threads) {
    FOR_KERNEL(kernel_gradient, Shape(0, 0, 0, inputs, outputs), gathered, dg, threads);
}
}
