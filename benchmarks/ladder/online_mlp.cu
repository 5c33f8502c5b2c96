// A ladder for online_mlp: the two products of an iteration, of which its time is made.
//
//   forward    Z [hidden, cells]    = W [hidden, channels] . X [channels, cells]
//   gradient   G [hidden, channels] = D [hidden, cells] . X^T [cells, channels]
//
// With 7,200 cells, 1,024 channels and 300 hidden units each takes 4.4 GFLOP on 39 MB or less: bound by
// arithmetic, if each number that is read takes part in enough products. The floor is the operations over the
// peak of the unit that does them (--peak: dense bfloat16 of the tensor cores, in TFLOP/s). All inputs are
// numbers that bfloat16 holds, so that all steps have one reference.
//
//   1 one thread a sum            The loop of the formula: two loads for each multiplication.
//   2 tiles in shared memory      32 x 32 sums a block: each number that is loaded is used by 32 threads. Still
//                                 two loads from shared memory for each multiplication.
//   3 8 x 8 sums a thread         Sixteen numbers from shared memory for 64 multiplications: the float units
//                                 are the limit now.
//   4 tensor cores                bfloat16 inputs, float sums: one instruction of a warp is 16 x 8 x 16
//                                 products. Numbers are rounded on their way to shared memory, and
//                                 everybody waits while a slab is loaded.
//   5 packed, copies ahead        Operands are rounded and packed before (features once for all iterations): half
//                                 the bytes, nothing to convert, and asynchronous copies, two slabs ahead
//                                 of the products.
//   6 shares of k                 The gradient has 80 tiles of 64 x 64 for a device with 132 processors or
//                                 so: its k is cut into shares, whose sums are added in a second launch.
//                                 (The forward product has tiles enough; the step is the same as 5 there.)
//   7 the shipped loop            Operands lie in memory as the lanes of a warp want them: one load of 16 bytes
//                                 from shared memory where step 5 has four. 320 x 64 sums a block, 80 a
//                                 thread: 18 loads for 40 products instead of 32 for 16.
//   shipped                       cuda::online_mlp_fit: an iteration is step 7 both ways, with bias, ReLU, dropout,
//                                 output layer, loss and its gradient in the registers between them, and
//                                 the step of all weights behind. TFLOP/s of the two products alone.
//
// In fp32 each float is three bfloat16: six products for one.
#include "ladder.h"
#include "online_mlp_reference.h"
#include "products.cuh"

#include "online_mlp/online_mlp.h"

namespace {

using fsseg::MlpSample;
using fsseg::OnlineMlpFitArgs;
using ladder::Device;
using ladder::Expected;
using ladder::Matrices;
using ladder::Numbers;
using ladder::product;
using ladder::Step;
using namespace fsseg::cuda;
using namespace fsseg::cuda::mlp;

int whole(int n, int unit) { return (n + unit - 1) / unit * unit; }

// What the packed steps need beside the matrices; lives as long as the climb.
struct Operands {
    Operands(const Matrices &m, int processors)
        : depth(whole(m.depth, ladder::mma_depth)), rows(whole(m.rows, ladder::tile)),
          columns(whole(m.columns, ladder::tile)), left(size_t(rows) * depth),
          right(size_t(columns) * depth), panels{whole(m.rows, panel_rows) / panel_rows,
                                                 whole(m.columns, panel_columns) / panel_columns},
          left_lanes(size_t(panels[0]) * depth / 16 * row_vectors),
          right_lanes(size_t(panels[1]) * depth / 16 * column_vectors),
          tiles(dim3(columns / ladder::tile, rows / ladder::tile)),
          shares(shares_for(processors * 2, int(tiles.x * tiles.y), depth / ladder::mma_depth)),
          blocks(dim3(divided_up(panels[1], 2), divided_up(panels[0], 4))),
          loop_shares(shares_for(processors, int(blocks.x * blocks.y), depth / ladder::mma_depth)),
          partial(size_t(std::max(shares, loop_shares)) * m.rows * m.columns) {}

    // As many as fill the device once; none if half of it has work already.
    static int shares_for(int wanted, int have, int most) {
        return std::max(1, std::min(wanted / have, most));
    }
    ladder::Packed packed() const { return {left.data(), right.data(), depth}; }
    Operand left_operand() const { return {left_lanes.data(), panels[0], depth / 16}; }
    Operand right_operand() const { return {right_lanes.data(), panels[1], depth / 16}; }

    void pack(const Matrices &m) const {
        const auto blocks_of = [](size_t n) { return dim3(divided_up(int64_t(n), 128)); };
        launch(ladder::pack, blocks_of(left.size()), dim3(128), 0, m, 1, depth, left.data());
        launch(ladder::pack, blocks_of(right.size()), dim3(128), 0, m, 0, depth, right.data());
        launch(ladder::pack_for_lanes, blocks_of(left_lanes.size()), dim3(128), 0, m, 1,
               left_operand());
        launch(ladder::pack_for_lanes, blocks_of(right_lanes.size()), dim3(128), 0, m, 0,
               right_operand());
    }

    int depth, rows, columns;
    Device<__nv_bfloat16> left, right;
    int panels[2];
    Device<uint4> left_lanes, right_lanes;
    dim3 tiles;
    int shares;
    dim3 blocks;
    int loop_shares;
    Device<float> partial;
};

void add_up(const Matrices &m, const float *partial, int shares) {
    launch(ladder::add_shares, dim3(divided_up(int64_t(m.rows) * m.columns, 256)), dim3(256), 0, m,
           partial, shares);
}

void climb(ladder::Ladder &all, const char *name, const Matrices &m, Numbers values) {
    int processors = 0, limit = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), "device");
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "device");
    const Operands o(m, processors);
    all.prepare([&] { o.pack(m); });
    const double scale = ladder::largest(values);
    const Expected expected{m.out, std::move(values), scale, 1e-5};
    const unsigned columns = static_cast<unsigned>(m.columns), rows = static_cast<unsigned>(m.rows);
    const auto step = [&](const char *title, auto kernel, dim3 grid, int threads) -> Step {
        return {title, [=] { launch(kernel, grid, dim3(static_cast<unsigned>(threads)), 0, m); },
                &expected, 0.0};
    };
    const auto ahead = [&](int shares) {
        return [&o, m, shares] {
            float *out = shares == 1 ? m.out : o.partial.data();
            launch(ladder::copies_ahead, dim3(o.tiles.x, o.tiles.y, unsigned(shares)),
                   dim3(ladder::mma_threads), 0, o.packed(), m, out);
            if (shares > 1) { add_up(m, out, shares); }
        };
    };
    const auto loop = [&o, m, limit] {
        float *out = o.loop_shares == 1 ? m.out : o.partial.data();
        const int stages = ladder::Shipped::stages(limit - 1024);
        launch(ladder::shipped_loop, dim3(o.blocks.x, o.blocks.y, unsigned(o.loop_shares)),
               dim3(product_threads), ladder::Shipped::shared(stages), o.left_operand(),
               o.right_operand(), m, stages, out);
        if (o.loop_shares > 1) { add_up(m, out, o.loop_shares); }
    };
    const double left = double(m.rows) * m.depth, right = double(m.columns) * m.depth;
    const double out = double(m.rows) * m.columns;
    all.climb(
        {name, "bf16", 2.0 * (left + right) + 4.0 * out, 2.0 * out * m.depth},
        {step("one thread a sum", ladder::one_thread_a_sum,
              dim3(divided_up(columns, ladder::naive_threads), rows), ladder::naive_threads),
         step("tiles in shared memory", ladder::shared_tiles,
              dim3(divided_up(columns, ladder::small), divided_up(rows, ladder::small)),
              ladder::small * ladder::small),
         step("8 x 8 sums a thread", ladder::register_tiles, o.tiles, ladder::register_threads),
         step("tensor cores", ladder::tensor_cores, o.tiles, ladder::mma_threads),
         {"packed, copies ahead", ahead(1), &expected, 0.0},
         {"shares of k", ahead(o.shares), &expected, 0.0},
         {"the shipped loop", loop, &expected, 0.0}});
}

void climb_all(ladder::Ladder &all, int hidden, int channels, int side_h, int side_w) {
    const int cells = side_h * side_w, classes = 2;
    const auto rounded = [](size_t n, double low, double high, uint64_t seed) {
        std::vector<float> values;
        for (const auto value : ladder::random_values<__nv_bfloat16>(n, low, high, seed)) {
            values.push_back(ladder::wide(value));
        }
        return values;
    };
    const std::vector<float> x = rounded(size_t(channels) * cells, -1.0, 1.0, 1);
    const std::vector<float> w = rounded(size_t(hidden) * channels, -0.05, 0.05, 2);
    const std::vector<float> d = rounded(size_t(hidden) * cells, -1.0, 1.0, 3);
    const auto of_x = ladder::doubles(x), of_w = ladder::doubles(w);
    const Device<float> features(x), weights(w), deltas(d);
    const Device<float> forward(size_t(hidden) * cells), gradient(size_t(hidden) * channels);
    const Numbers by_cells = ladder::transposed(of_x, channels, cells);
    const std::string sizes =
        std::to_string(hidden) + "x" + std::to_string(channels) + "x" + std::to_string(cells);
    climb(all, ("forward " + sizes).c_str(),
          {weights.data(), features.data(), hidden, cells, channels, cells, 1, forward.data()},
          product(of_w, by_cells, hidden, cells, channels));
    climb(all, ("gradient " + sizes).c_str(),
          {deltas.data(), features.data(), hidden, channels, cells, 1, cells, gradient.data()},
          product(ladder::doubles(d), of_x, hidden, channels, cells));

    // The shipped fit.
    const double rate = 0.1 / cells, momentum = 0.9;
    const std::vector<float> v =
        ladder::random_values<float>(size_t(classes) * hidden, -0.5, 0.5, 4);
    std::vector<float> t(size_t(classes) * cells);
    for (int i = 0; i < cells; ++i) { t[size_t(i % 3 == 0 ? 1 : 0) * cells + i] = 1.0f; }
    const std::vector<float> zeros(size_t(std::max(hidden, classes)), 0.0f);
    const Device<float> output(v), targets(t), none(zeros);
    const Device<float> new_weights(w.size()), new_bias(hidden), new_output(v.size()),
        new_output_bias(classes), losses(16);
    const ladder::Network start{hidden,
                                channels,
                                cells,
                                classes,
                                of_x,
                                by_cells,
                                ladder::doubles(t),
                                of_w,
                                Numbers(size_t(hidden)),
                                ladder::doubles(v),
                                Numbers(size_t(classes))};
    const auto planes = [&](const float *data, int count) -> fsseg::PlaneView {
        return {data, 1, count, side_h, side_w, int64_t(count) * cells, cells};
    };
    const MlpSample sample{planes(features.data(), channels), planes(targets.data(), classes)};
    bool diverged = false;
    OnlineMlpFitArgs args{
        &sample,
        1,
        {weights.data(), none.data(), output.data(), none.data(), channels, hidden, classes},
        {new_weights.data(), new_bias.data(), new_output.data(), new_output_bias.data(),
         losses.data(), &diverged},
        1,
        rate,
        momentum,
        0.0,
        0.0,
        1,
        true,
        1};
    for (const int iterations : {1, 10}) {
        ladder::Network network = start;
        network.train(iterations, rate, momentum);
        double most = 0.0, squares = 0.0;
        for (size_t i = 0; i < w.size(); ++i) {
            const double change = network.weight[i] - of_w[i];
            most = std::max(most, std::fabs(change));
            squares += change * change;
        }
        // Relative to the changes of the weights. A hidden unit near zero may be on for one and off for
        // the other after a few steps, so ten iterations are compared as a whole. With `bf16` weights
        // and gradients are rounded to bfloat16 in every iteration.
        const bool mean = iterations > 1;
        const double scale = mean ? std::sqrt(squares / double(w.size())) : most;
        args.iterations = iterations;
        for (const bool bf16 : {true, false}) {
            args.bf16 = bf16;
            const double tolerance = bf16 ? (mean ? 1e-1 : 1e-2) : (mean ? 5e-3 : 1e-4);
            const Expected expected{new_weights.data(), network.weight, scale, tolerance, mean};
            const std::string name = "fit " + sizes + ", iterations: " + std::to_string(iterations);
            all.climb({name, bf16 ? "bf16" : "fp32", 4.0 * channels * double(cells),
                       4.0 * hidden * double(channels) * cells * iterations},
                      {{"shipped: cuda::online_mlp_fit", [=] { fsseg::cuda::online_mlp_fit(args); },
                        &expected, 0.0}});
        }
    }
}

} // namespace

int main(int argc, char **argv) {
    return ladder::run("online_mlp", argc, argv, [](ladder::Ladder &all) {
        if (ladder::emulated) {
            climb_all(all, 97, 76, 9, 17);
        } else {
            climb_all(all, 300, 1024, 60, 120);
        }
    });
}
