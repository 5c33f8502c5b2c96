// The two large products on the tensor cores, in three launches an iteration: `forward` takes 64 cells a
// block through both layers and back, `weight_gradient` 160 units x 128 channels over a share of the cells,
// and `take_step` adds the shares in their order and takes all steps. A fit of 10 iterations is 35 launches,
// none of which depends on a result.
//
// For 7,200 cells, 1,024 channels, 300 units, bfloat16, an iteration: 8.8 GFLOP. forward: 113 blocks, each
// reads all weights (0.65 MB) and its cells (0.13 MB), 88 MB from the second-level cache; weight_gradient:
// 16 tiles x 8 shares = 128 blocks of 0.52 MB each, 66 MB, and 10 MB of partial sums. By output tiles alone
// 128 blocks would have 80 x 32 sums each and read 206 MB. Both copies of the cells, weights, gradients and
// partial sums are 48 MB, which is what the second-level cache of an H200 holds.
#include "online_mlp/forward.cuh"

#include <algorithm>

namespace fsseg {
namespace cuda {

using namespace mlp;

namespace {

constexpr int64_t most_sums = int64_t{1} << 26; // floats of all rows of Summed
constexpr int64_t round_cells = 16384;          // of scores, packed at once
constexpr int most_splits = 16;

int divided(int64_t n, int64_t by) { return static_cast<int>((n + by - 1) / by); }

Sizes sizes_of(const MlpWeights &mlp) {
    return {static_cast<int>(mlp.channels), static_cast<int>(mlp.hidden),
            static_cast<int>(mlp.classes), divided(mlp.hidden, panel_rows),
            divided(mlp.channels, panel_columns) * 2};
}

int shared_limit() { // bytes of dynamic shared memory that a block can have, less what is static
    int limit = 0;
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, current().device),
          "device");
    return limit - static_cast<int>(sizeof(TileMemory)) - 128;
}

int weight_blocks_of(const Sizes &s) { return divided(s.lanes() + s.small(), product_threads); }

CellSample sample_at(const PlaneView &f, const PlaneView *t, int64_t first) {
    const int64_t pixels = f.height * f.width;
    return {f.data,
            t != nullptr ? t->data : nullptr,
            pixels,
            f.batch_stride,
            f.channel_stride,
            t != nullptr ? t->batch_stride : 0,
            t != nullptr ? t->channel_stride : 0,
            first,
            first + f.batch * pixels,
            f.dtype};
}

// The table of all samples in the device's memory, and how many cells they have.
Cells write_table(const OnlineMlpFitArgs &args) {
    CellSample *table = current().scratch_of<CellSample>(args.sample_count);
    Cells cells{table, static_cast<int>(args.sample_count), static_cast<int>(args.mlp.classes), 0};
    for (int64_t s = 0; s < args.sample_count; s += samples_at_once) {
        CellSamples some;
        int n = 0;
        for (; n < samples_at_once && s + n < args.sample_count; ++n) {
            const MlpSample &sample = args.samples[s + n];
            some.at[n] = sample_at(sample.features, &sample.targets, cells.all);
            cells.all = some.at[n].end;
        }
        launch(write_samples, dim3(1), dim3(samples_at_once), 0, some, n, table + s);
    }
    return cells;
}

Listed list_cells(const Cells &cells, int tiles) {
    const int blocks = divided(cells.all, mark_cells);
    const Listed list{current().scratch_of<int>(blocks), current().scratch_of<int64_t>(cells.all),
                      current().scratch_of<float>(int64_t{tile_cells} * tiles * cells.classes),
                      current().scratch_of<int>(1)};
    const dim3 grid(static_cast<unsigned>(blocks));
    launch(mark, grid, dim3(mark_cells), 0, cells, list, current().report());
    launch(place, grid, dim3(mark_cells), 0, cells, list);
    return list;
}

template <int PARTS> uint4 *left_operand(const Sizes &s, int depth) {
    return current().scratch_of<uint4>(int64_t{s.panels} * depth * PARTS * row_vectors);
}
template <int PARTS> uint4 *right_operand(int panels, int depth) {
    return current().scratch_of<uint4>(int64_t{panels} * depth * PARTS * column_vectors);
}

float *logits_memory(const Sizes &s, int blocks) {
    if (s.classes <= classes_in_shared) { return nullptr; }
    return current().scratch_of<float>(int64_t{blocks} * s.classes * tile_cells);
}

template <int PARTS> Status fit(const OnlineMlpFitArgs &args) {
    Context &context = current();
    const Sizes s = sizes_of(args.mlp);
    const Cells cells = write_table(args);
    if (cells.all == 0) { return Status::ok; }
    const int tiles = divided(cells.all, tile_cells), cell_depth = tiles * (tile_cells / 16);
    const Listed list = list_cells(cells, tiles);

    const Operand weights{left_operand<PARTS>(s, s.channel_depth), s.panels, s.channel_depth};
    const Operand by_channels{right_operand<PARTS>(tiles * cell_panels, s.channel_depth),
                              tiles * cell_panels, s.channel_depth};
    const int channel_panels = s.channel_depth / 2;
    const Operand by_cells{right_operand<PARTS>(channel_panels, cell_depth), channel_panels,
                           cell_depth};
    const Operand deltas{left_operand<PARTS>(s, cell_depth), s.panels, cell_depth};
    const State state{
        context.scratch_of<float>(s.lanes() * 8), context.scratch_of<float>(s.lanes() * 8),
        const_cast<uint4 *>(weights.data),        context.scratch_of<float>(s.small()),
        context.scratch_of<float>(s.small()),     context.scratch_of<int>(1)};
    const Packing packing{cells.table,
                          {},
                          cells.samples,
                          list.number,
                          0,
                          list.count,
                          0,
                          s.channels,
                          args.length,
                          s.channel_depth,
                          cell_depth,
                          const_cast<uint4 *>(by_channels.data),
                          const_cast<uint4 *>(by_cells.data)};
    const int weight_blocks = weight_blocks_of(s);
    launch(prepare<PARTS>, dim3(static_cast<unsigned>(weight_blocks + tiles * cell_panels)),
           dim3(product_threads), 0, s, args.mlp, state, weight_blocks, packing, context.report());

    using Forward = Product<PARTS, chunk_panels, cell_panels>;
    using Gradient = Product<PARTS, 2, 4>;
    const int limit = shared_limit();
    const int64_t most_blocks = std::max<int64_t>(1, most_sums / (2 * s.small()));
    const int blocks =
        static_cast<int>(std::min<int64_t>({tiles, most_blocks, 4 * context.processors}));
    ForwardArgs forward_args{};
    forward_args.sizes = s;
    forward_args.weights = weights;
    forward_args.cells = by_channels;
    forward_args.small = state.small_weight;
    forward_args.count = list.count;
    forward_args.stages = Forward::stages(limit);
    forward_args.number = list.number;
    forward_args.targets = list.targets;
    forward_args.dropout = dropout_of(args.dropout);
    forward_args.deltas = const_cast<uint4 *>(deltas.data);
    forward_args.cell_depth = cell_depth;
    forward_args.summed = {context.scratch_of<float>(int64_t{blocks} * 2 * s.small()),
                           context.scratch_of<double>(blocks), blocks};
    forward_args.logits = logits_memory(s, blocks);
    const int chunks = divided(s.panels, chunk_panels);
    if (chunks > 1) {
        forward_args.hidden =
            context.scratch_of<float>(int64_t{blocks} * chunks * 80 * product_threads);
    }

    const int gradient_tiles = divided(s.panels, 2) * divided(channel_panels, 4);
    const int splits =
        std::max(1, std::min({context.processors / gradient_tiles, tiles, most_splits}));
    const int gradient_stages = Gradient::stages(limit);
    float *partial = context.scratch_of<float>(splits * s.lanes() * 8);
    const Step step{static_cast<float>(args.learning_rate), static_cast<float>(args.momentum)};
    const int step_blocks = divided(s.lanes(), product_threads);
    const unsigned all_blocks =
        static_cast<unsigned>(step_blocks + divided(s.small(), small_columns) + 1);
    for (int64_t iteration = 0; iteration < args.iterations; ++iteration) {
        forward_args.stream = stream_key(args.seed, static_cast<uint64_t>(iteration));
        launch(forward<PARTS, true>, dim3(static_cast<unsigned>(blocks)), dim3(product_threads),
               Forward::shared(forward_args.stages), forward_args, context.report());
        launch(weight_gradient<PARTS>, dim3(static_cast<unsigned>(gradient_tiles * splits)),
               dim3(product_threads), Gradient::shared(gradient_stages), s, deltas, by_cells,
               list.count, splits, gradient_stages, partial);
        launch(take_step<PARTS>, dim3(all_blocks), dim3(product_threads), 0, s, state, step,
               partial, splits, forward_args.summed, list.count, step_blocks,
               args.out.losses + iteration, context.report());
    }
    launch(write_weights, dim3(static_cast<unsigned>(weight_blocks)), dim3(product_threads), 0, s,
           state, args.out, context.report());
    return Status::ok;
}

template <int PARTS> Status scores(const OnlineMlpScoresArgs &args) {
    Context &context = current();
    const Sizes s = sizes_of(args.mlp);
    const PlaneView &f = args.features;
    const int64_t all = f.batch * f.height * f.width;
    if (all == 0) { return Status::ok; }
    const int most_tiles = divided(std::min(all, round_cells), tile_cells);
    const Operand weights{left_operand<PARTS>(s, s.channel_depth), s.panels, s.channel_depth};
    const Operand cells{right_operand<PARTS>(most_tiles * cell_panels, s.channel_depth),
                        most_tiles * cell_panels, s.channel_depth};
    const State state{
        nullptr, nullptr, const_cast<uint4 *>(weights.data), context.scratch_of<float>(s.small()),
        nullptr, nullptr};
    Packing packing{};
    packing.only = sample_at(f, nullptr, 0);
    packing.channels = s.channels;
    packing.length = args.length;
    packing.channel_depth = s.channel_depth;
    packing.by_channels = const_cast<uint4 *>(cells.data);

    using Forward = Product<PARTS, chunk_panels, cell_panels>;
    ForwardArgs forward_args{};
    forward_args.sizes = s;
    forward_args.weights = weights;
    forward_args.cells = cells;
    forward_args.small = state.small_weight;
    forward_args.stages = Forward::stages(shared_limit());
    forward_args.out = args.out;
    forward_args.pixels = f.height * f.width;
    forward_args.logits = logits_memory(s, most_tiles);
    for (int64_t first = 0; first < all; first += round_cells) {
        const int count = static_cast<int>(std::min(all - first, round_cells));
        const int tiles = divided(count, tile_cells);
        const int weight_blocks = first == 0 ? weight_blocks_of(s) : 0;
        packing.first = forward_args.first = first;
        packing.known_count = forward_args.known_count = count;
        launch(prepare<PARTS>, dim3(static_cast<unsigned>(weight_blocks + tiles * cell_panels)),
               dim3(product_threads), 0, s, args.mlp, state, weight_blocks, packing,
               context.report());
        launch(forward<PARTS, false>, dim3(static_cast<unsigned>(tiles)), dim3(product_threads),
               Forward::shared(forward_args.stages), forward_args, context.report());
    }
    return Status::ok;
}

} // namespace

Status online_mlp_fit(const OnlineMlpFitArgs &args) {
    *args.out.diverged = false;
    return args.bf16 ? fit<1>(args) : fit<3>(args);
}

Status online_mlp_scores(const OnlineMlpScoresArgs &args) {
    return args.bf16 ? scores<1>(args) : scores<3>(args);
}

} // namespace cuda
} // namespace fsseg
