// online_mlp_fit. Two rounds of tasks an iteration: chunks of cells forward and back to the gradients of
// the hidden layer, with the sums of each chunk on the side; then strips of channels, each with the
// gradients of its weights over all cells and their step. Neither depends on the number of threads.
#pragma once

#include "online_mlp/head.h"
#include "online_mlp/samples.h"
#include "online_mlp/step.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t most_chunks = 64;
constexpr int64_t most_sums = 1 << 21; // floats of all chunks

template <class Engine> class Fit {
  public:
    Fit(const OnlineMlpFitArgs &args, const Plan &plan, const Samples &list)
        : args_(args), plan_(plan), list_(list), small_{plan.width, plan.classes},
          cells_(round_up(list.cells, Engine::panel)), blocks_(block_count(list.cells)),
          per_chunk_(
              divide_up(blocks_, smaller(most_chunks, larger(1, most_sums / small_.size())))),
          chunks_(divide_up(blocks_, per_chunk_)), weights_(plan.width * plan.padded_channels),
          features_(Engine::feature_bytes(plan, cells_)),
          deltas_(Engine::delta_bytes(plan, cells_)), copy_(Engine::weight_bytes(plan)),
          large_(2 * weights_ * float_bytes), layers_(2 * small_.size() * float_bytes),
          sums_(chunks_ * small_.size() * float_bytes),
          losses_(chunks_ * static_cast<int64_t>(sizeof(double))) {}

    Status run() {
        const double products = 4e-5 * static_cast<double>(cells_ * plan_.width) *
                                static_cast<double>(plan_.channels); // microseconds an iteration
        const int threads = worthwhile(args_.threads, products / 2.0);
        const int64_t rows = larger(plan_.padded_channels * block_cells,
                                    plan_.width * larger(2 * block_cells, Engine::strip_channels));
        per_worker_ = rows + plan_.classes * block_cells;
        Scratch scratch(threads * per_worker_ * float_bytes);
        const void *all[] = {features_.data, deltas_.data, copy_.data,   large_.data,
                             layers_.data,   sums_.data,   losses_.data, scratch.data};
        for (const void *memory : all) {
            if (memory == nullptr) { return Status::no_memory; }
        }
        memset(scratch.data, 0, static_cast<size_t>(threads * per_worker_ * float_bytes));
        scratch_ = static_cast<float *>(scratch.data);
        if (!pack(threads)) { return Status::not_finite; }
        start();
        *args_.out.diverged = !iterate(threads);
        if (!*args_.out.diverged) { finish(); }
        return Status::ok;
    }

  private:
    static constexpr int64_t float_bytes = static_cast<int64_t>(sizeof(float));

    float *weights() { return static_cast<float *>(large_.data); }
    float *layers() { return static_cast<float *>(layers_.data); }
    float *sums(int64_t chunk) { return static_cast<float *>(sums_.data) + chunk * small_.size(); }

    bool pack(int threads) {
        int bad = 0; // only ever set to 1
        for_each(blocks_, threads, [&](int64_t block, int worker) {
            const int64_t first = block * block_cells;
            const int64_t real = smaller(block_cells, list_.cells - first);
            const int64_t run = list_.begins[block];
            float *rows = scratch_ + worker * per_worker_;
            if (!gather_block(list_.runs + run, list_.begins[block + 1] - run, real, plan_.channels,
                              args_.length, rows)) {
                __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
                return;
            }
            Engine::pack(plan_, rows, first, smaller(block_cells, cells_ - first), features_.data);
        });
        return bad == 0;
    }

    void start() {
        const MlpWeights &mlp = args_.mlp;
        weights_in(plan_, mlp.hidden_weight, weights());
        memset(weights() + weights_, 0, static_cast<size_t>(weights_ * float_bytes));
        memset(layers(), 0, static_cast<size_t>(2 * small_.size() * float_bytes));
        rows_in(mlp.output_weight, plan_.classes, plan_.hidden, plan_.width, layers());
        rows_in(mlp.hidden_bias, 1, plan_.hidden, plan_.width, layers() + small_.hidden_bias());
        memcpy(layers() + small_.output_bias(), mlp.output_bias,
               static_cast<size_t>(plan_.classes * float_bytes));
        Engine::take_weights(plan_, weights(), 0, plan_.padded_channels, copy_.data);
    }

    void finish() {
        const MlpOut &out = args_.out;
        weights_out(plan_, weights(), out.hidden_weight);
        rows_out(layers(), plan_.classes, plan_.hidden, plan_.width, out.output_weight);
        rows_out(layers() + small_.hidden_bias(), 1, plan_.hidden, plan_.width, out.hidden_bias);
        memcpy(out.output_bias, layers() + small_.output_bias(),
               static_cast<size_t>(plan_.classes * float_bytes));
    }

    // False: something became infinite or NaN; the losses that are left are infinite.
    bool iterate(int threads) {
        const Step step{static_cast<float>(args_.learning_rate),
                        static_cast<float>(args_.momentum)};
        const int64_t strips = divide_up(plan_.padded_channels, Engine::strip_channels);
        for (int64_t iteration = 0; iteration < args_.iterations; ++iteration) {
            const uint64_t stream = stream_key(args_.seed, static_cast<uint64_t>(iteration));
            for_each(chunks_, threads, [&](int64_t chunk, int worker) {
                cells_there_and_back(chunk, stream, scratch_ + worker * per_worker_);
            });
            double loss = 0.0;
            for (int64_t c = 0; c < chunks_; ++c) {
                loss += static_cast<double *>(losses_.data)[c];
            }
            args_.out.losses[iteration] = static_cast<float>(loss);
            if (!finite(static_cast<double>(args_.out.losses[iteration]))) {
                for (; iteration < args_.iterations; ++iteration) {
                    args_.out.losses[iteration] = HUGE_VALF;
                }
                return false;
            }
            for_each(strips, threads, [&](int64_t strip, int worker) {
                strip_step(strip * Engine::strip_channels, step, scratch_ + worker * per_worker_);
            });
            for (int64_t c = 1; c < chunks_; ++c) {
                for (int64_t i = 0; i < small_.size(); i += lanes) {
                    store(sums(0) + i, add(load(sums(0) + i), load(sums(c) + i)));
                }
            }
            take_step(step, sums(0), layers() + small_.size(), layers(), small_.size());
        }
        return all_finite(weights(), weights_) && all_finite(layers(), small_.size());
    }

    void cells_there_and_back(int64_t chunk, uint64_t stream, float *scratch) {
        const Dropout dropout = dropout_of(args_.dropout);
        const int64_t end = smaller((chunk + 1) * per_chunk_, blocks_);
        float *z = scratch, *dz = z + plan_.width * block_cells, *own = sums(chunk);
        float *logits = scratch + per_worker_ - plan_.classes * block_cells;
        memset(own, 0, static_cast<size_t>(small_.size() * float_bytes));
        double loss = 0.0;
        for (int64_t block = chunk * per_chunk_; block < end; ++block) {
            const int64_t first = block * block_cells, cells = smaller(block_cells, cells_ - first);
            const int64_t real = smaller(block_cells, list_.cells - first);
            Engine::forward(plan_, features_.data, weights(), copy_.data, first, cells, z);
            activate(plan_, layers() + small_.hidden_bias(), dropout, stream, list_.numbers + first,
                     real, cells, z);
            memset(logits, 0, static_cast<size_t>(plan_.classes * block_cells * float_bytes));
            output_layer(plan_, z, layers(), layers() + small_.output_bias(), cells, logits);
            loss +=
                softmax_loss(plan_, list_.targets + block * plan_.classes * block_cells, logits);
            head_backward(plan_, z, logits, layers(), dropout, cells, dz,
                          {own, own + small_.output_bias(), own + small_.hidden_bias()});
            Engine::take_deltas(plan_, dz, first, cells, cells_, deltas_.data);
        }
        static_cast<double *>(losses_.data)[chunk] = loss;
    }

    // The gradients of the hidden weights of a few channels, and their step.
    void strip_step(int64_t first, const Step &step, float *gradient) {
        const int64_t count = smaller(Engine::strip_channels, plan_.padded_channels - first);
        const int64_t panel_floats = Engine::strip_channels * panel_units, last = plan_.panels - 1;
        if (!whole_panel(plan_, last)) { // its second vector has no gradient
            memset(gradient + last * panel_floats, 0,
                   static_cast<size_t>(panel_floats * float_bytes));
        }
        Engine::backward(plan_, features_.data, deltas_.data, cells_, first, count, gradient);
        for (int64_t p = 0; p < plan_.panels; ++p) {
            float *at = weights() + (p * plan_.padded_channels + first) * panel_units;
            take_step(step, gradient + p * panel_floats, at + weights_, at, count * panel_units);
        }
        Engine::take_weights(plan_, weights(), first, count, copy_.data);
    }

    const OnlineMlpFitArgs &args_;
    const Plan plan_;
    const Samples &list_;
    const SmallLayers small_;
    const int64_t cells_, blocks_, per_chunk_, chunks_, weights_; // cells: with padding
    Scratch features_, deltas_, copy_, large_, layers_, sums_, losses_;
    float *scratch_ = nullptr;
    int64_t per_worker_ = 0;
};

template <class Engine> static Status fit_with(const OnlineMlpFitArgs &args, const Samples &list) {
    Fit<Engine> fit(args, plan_of(args.mlp, Engine::channel_multiple), list);
    return fit.run();
}

} // namespace FSSEG_NS
} // namespace fsseg
