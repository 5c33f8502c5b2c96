// online_mlp and logistic_fit on CUDA (emulated, or real where nvcc compiled all of it) against the same ops of
// the CPU: what the op cases leave out. Compiled and run by run.sh.
#include "cuda/context.h"
#include "logistic_fit/logistic_fit.h"
#include "online_mlp/online_mlp.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

using namespace fsseg;

namespace {

int failed = 0;

void expect(bool right, const char *what) {
    std::printf("%s %s\n", right ? "passed" : "FAILED", what);
    failed += right ? 0 : 1;
}

using Floats = std::vector<float>;

uint32_t counter = 1;
float random_number() { // -1 to 1
    counter = counter * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(counter >> 8) - (1 << 23)) / (1 << 23);
}
Floats random_numbers(size_t n) {
    Floats numbers(n);
    for (float &x : numbers) { x = random_number(); }
    return numbers;
}

// Copies on the device, of one test.
struct DeviceMemory {
    std::vector<void *> all;
    ~DeviceMemory() {
        for (void *p : all) { cudaFree(p); }
    }
    float *take(const void *from, size_t bytes) {
        void *p = nullptr;
        cuda::check(cudaMalloc(&p, bytes), "cudaMalloc");
        all.push_back(p);
        cuda::check(cudaMemcpyAsync(p, from, bytes, cudaMemcpyHostToDevice), "copy");
        return static_cast<float *>(p);
    }
    float *take(const Floats &from) { return take(from.data(), from.size() * sizeof(float)); }
};
void bring(Floats &to, const float *from) {
    cuda::check(cudaMemcpyAsync(to.data(), from, to.size() * sizeof(float), cudaMemcpyDeviceToHost),
                "copy");
}

uint16_t bits_of(float x, DType dtype) {
    uint16_t bits;
    if (dtype == DType::f16) {
        const __half h = __float2half_rn(x);
        std::memcpy(&bits, &h, 2);
    } else {
        const __nv_bfloat16 h = __float2bfloat16_rn(x);
        std::memcpy(&bits, &h, 2);
    }
    return bits;
}
float rounded(float x, DType dtype) {
    if (dtype == DType::f32) { return x; }
    const uint16_t bits = bits_of(x, dtype);
    if (dtype == DType::f16) {
        __half h;
        std::memcpy(&h, &bits, 2);
        return __half2float(h);
    }
    __nv_bfloat16 h;
    std::memcpy(&h, &bits, 2);
    return __bfloat162float(h);
}

struct Fit {
    Fit(int64_t channels_, int64_t hidden_, int64_t classes_, int64_t height_, int64_t width_)
        : channels(channels_), hidden(hidden_), classes(classes_), height(height_), width(width_) {}
    int64_t channels, hidden, classes, height, width, maps = 1;
    DType dtype = DType::f32;
    bool bf16 = false;
    double rate = 0.1, length = 2.0, dropout = 0.4;
    int64_t iterations = 2;
    std::vector<Floats> features, targets;
    Floats mlp[4];

    void fill() {
        const int64_t pixels = height * width;
        for (int64_t m = 0; m < maps; ++m) {
            features.push_back(random_numbers(static_cast<size_t>(channels * pixels)));
            for (float &x : features.back()) { x = rounded(x, dtype); }
            targets.emplace_back(static_cast<size_t>(classes * pixels), 0.0f);
            for (int64_t x = 0; x < pixels; ++x) {
                const int64_t chosen = static_cast<int64_t>(counter >> 4) % (classes + 1);
                if (chosen < classes) { // the others are no samples
                    targets.back()[static_cast<size_t>(chosen * pixels + x)] =
                        1.0f / static_cast<float>(pixels * maps);
                }
                random_number();
            }
        }
        const int64_t sizes[] = {hidden * channels, hidden, classes * hidden, classes};
        for (int i = 0; i < 4; ++i) {
            mlp[i] = random_numbers(static_cast<size_t>(sizes[i]));
            for (float &x : mlp[i]) { x *= 0.2f; }
        }
    }
    PlaneView view(const float *data, int64_t planes, DType type) const {
        return {data, 1, planes, height, width, planes * height * width, height * width, type};
    }

    // Weights and losses one after another. report: what the kernels said.
    Floats run(Device device, int &report) {
        DeviceMemory memory;
        cuda::Context context(0, nullptr);
        const cuda::Scope scope(context);
        const bool there = device == Device::cuda;
        std::vector<MlpSample> samples;
        for (int64_t m = 0; m < maps; ++m) {
            const Floats &f = features[static_cast<size_t>(m)],
                         &t = targets[static_cast<size_t>(m)];
            const float *at = f.data();
            if (there && dtype != DType::f32) {
                std::vector<uint16_t> halves(f.size());
                for (size_t i = 0; i < f.size(); ++i) { halves[i] = bits_of(f[i], dtype); }
                at = memory.take(halves.data(), halves.size() * 2);
            } else if (there) {
                at = memory.take(f);
            }
            samples.push_back({view(at, channels, there ? dtype : DType::f32),
                               view(there ? memory.take(t) : t.data(), classes, DType::f32)});
        }
        Floats out[5];
        float *to[5];
        const float *from[4];
        for (int i = 0; i < 5; ++i) {
            out[i].assign(i < 4 ? mlp[i].size() : static_cast<size_t>(iterations), NAN);
            to[i] = there ? memory.take(out[i]) : out[i].data();
            if (i < 4) { from[i] = there ? memory.take(mlp[i]) : mlp[i].data(); }
        }
        bool diverged = true;
        const Status status = run_online_mlp_fit(
            device, {samples.data(),
                     maps,
                     {from[0], from[1], from[2], from[3], channels, hidden, classes},
                     {to[0], to[1], to[2], to[3], to[4], &diverged},
                     iterations,
                     rate,
                     0.9,
                     dropout,
                     length,
                     11,
                     bf16,
                     1});
        report = there ? context.take_report() : (diverged ? cuda::diverged : 0);
        if (status != Status::ok) { report |= cuda::not_finite; }
        Floats all;
        for (int i = 0; i < 5; ++i) {
            if (there) { bring(out[i], to[i]); }
            all.insert(all.end(), out[i].begin(), out[i].end());
        }
        return all;
    }
};

double distance(const Floats &a, const Floats &b) {
    double error = a.size() == b.size() ? 0.0 : NAN;
    for (size_t i = 0; i < a.size(); ++i) {
        const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        if (!(d <= error)) { error = d; }
    }
    return error;
}

void same_as_cpu(const char *what, Fit fit) {
    fit.fill();
    int report = 0, cpu_report = 0;
    const Floats expected = fit.run(Device::cpu, cpu_report), found = fit.run(Device::cuda, report);
    Floats start;
    for (const Floats &part : fit.mlp) { start.insert(start.end(), part.begin(), part.end()); }
    start.insert(start.end(), static_cast<size_t>(fit.iterations), 0.0f);
    const double moved = distance(expected, start), limit = fit.bf16 ? 5e-3 : 1e-5;
    const double off = distance(found, expected);
    expect(report == 0 && cpu_report == 0 && off <= limit * moved + 3e-7, what);
    expect(fit.run(Device::cuda, report) == found, "... and the same bits again");
}

void inputs_are_checked() {
    Fit fit{20, 30, 3, 9, 11};
    fit.fill();
    int report = 0;
    const Floats expected = fit.run(Device::cuda, report);
    size_t skipped = 0, taken = 0; // pixels
    for (size_t x = 0; x < 99; ++x) {
        const Floats &t = fit.targets[0];
        (t[x] + t[99 + x] + t[198 + x] > 0.0f ? taken : skipped) = x;
    }
    Fit spoiled = fit;
    for (size_t c = 0; c < 20; ++c) { spoiled.features[0][c * 99 + skipped] = NAN; }
    expect(spoiled.run(Device::cuda, report) == expected && report == 0,
           "skipped cells are not read");
    for (double length : {0.0, 2.0}) {
        for (float value : {NAN, INFINITY, -INFINITY}) {
            spoiled = fit;
            spoiled.length = length;
            spoiled.features[0][7 * 99 + taken] = value;
            spoiled.run(Device::cuda, report);
            expect((report & cuda::not_finite) != 0, "a feature that is not finite");
        }
    }
    for (float value : {NAN, INFINITY, -1e-9f}) {
        spoiled = fit;
        spoiled.targets[0][skipped] = value;
        spoiled.run(Device::cuda, report);
        expect((report & cuda::not_finite) != 0, "a target that may not be");
    }
    for (int i = 0; i < 4; ++i) {
        spoiled = fit;
        spoiled.mlp[i].back() = NAN;
        spoiled.run(Device::cuda, report);
        expect((report & cuda::not_finite) != 0, "a weight that is not finite");
    }
    spoiled = fit;
    for (float &t : spoiled.targets[0]) { t = 0.0f; }
    const Floats none = spoiled.run(Device::cuda, report);
    expect(report == 0 && none.back() == 0.0f &&
               std::memcmp(none.data(), fit.mlp[0].data(), fit.mlp[0].size() * sizeof(float)) == 0,
           "nothing to learn from: nothing moves");
}

void divergence() {
    for (bool bf16 : {false, true}) {
        for (double rate : {1e6, 1e20, 1e38}) {
            Fit fit{35, 37, 3, 9, 11};
            fit.bf16 = bf16;
            fit.rate = rate;
            fit.iterations = 30;
            fit.fill();
            int report = 0, expected = 0;
            const Floats found = fit.run(Device::cuda, report),
                         cpu = fit.run(Device::cpu, expected);
            const size_t first = found.size() - 30;
            bool right = report == expected && report != 0 && std::isfinite(found[first]);
            bool gone = false;
            for (size_t i = first; i < found.size(); ++i) {
                gone = gone || std::isinf(found[i]);
                right = right && !std::isnan(found[i]) && gone == std::isinf(found[i]);
            }
            expect(right && std::isinf(found.back()) == std::isinf(cpu.back()), "divergence");
        }
    }
}

void scores(const char *what, int64_t batch, int64_t height, int64_t width, int64_t hidden,
            int64_t classes, bool bf16) {
    Fit fit{19, hidden, classes, height, width};
    fit.fill();
    const int64_t pixels = height * width;
    const Floats f = random_numbers(static_cast<size_t>(batch * 19 * pixels));
    Floats out[2];
    for (int there = 0; there < 2; ++there) {
        DeviceMemory memory;
        cuda::Context context(0, nullptr);
        const cuda::Scope scope(context);
        out[there].assign(static_cast<size_t>(batch * classes * pixels), NAN);
        const auto at = [&](const Floats &x) {
            return there ? memory.take(x) : const_cast<float *>(x.data());
        };
        float *to = at(out[there]);
        const PlaneView view{at(f), batch, 19, height, width, 19 * pixels, pixels};
        const Status status = run_online_mlp_scores(
            there ? Device::cuda : Device::cpu,
            {view,
             {at(fit.mlp[0]), at(fit.mlp[1]), at(fit.mlp[2]), at(fit.mlp[3]), 19, hidden, classes},
             to,
             1.5,
             bf16,
             1});
        if (there) { bring(out[there], to); }
        if (status != Status::ok || context.take_report() != 0) { out[there].clear(); }
    }
    expect(distance(out[1], out[0]) <= (bf16 ? 2e-3 : 1e-5), what);
}

void logistic(const char *what, int64_t count, int64_t channels, int64_t classes, bool spoil) {
    Floats cells = random_numbers(static_cast<size_t>(count * channels));
    Floats targets(static_cast<size_t>(count * classes)), weights = targets;
    for (float &x : cells) { x *= 0.1f; }
    for (float &t : targets) { t = random_number() > 0.0f ? 1.0f : 0.0f; }
    for (float &w : weights) { w = std::fabs(random_number()) / static_cast<float>(count); }
    if (spoil) { cells.back() = NAN; }
    Floats out[2];
    const int64_t steps = 6, size = classes * (channels + 1 + steps);
    for (int there = 0; there < 2; ++there) {
        DeviceMemory memory;
        cuda::Context context(0, nullptr);
        const cuda::Scope scope(context);
        out[there].assign(static_cast<size_t>(size), NAN);
        const auto at = [&](const Floats &x) {
            return there ? memory.take(x) : const_cast<float *>(x.data());
        };
        float *to = at(out[there]);
        const Status status = run_logistic_fit(there ? Device::cuda : Device::cpu,
                                               {{at(cells), 1, count, channels, 0, channels},
                                                at(targets),
                                                at(weights),
                                                classes,
                                                steps,
                                                1.0,
                                                0.9,
                                                1e-3,
                                                to,
                                                to + classes * channels,
                                                to + classes * (channels + 1),
                                                1});
        if (there) { bring(out[there], to); }
        const bool wrong = status != Status::ok || context.take_report() == cuda::not_finite;
        if (wrong != spoil) { out[there].clear(); }
    }
    const double off = distance(out[1], out[0]);
    expect(spoil ? !out[0].empty() && !out[1].empty() : off <= 2e-6, what);
}

} // namespace

int main() {
    same_as_cpu("three chunks of hidden units", {40, 700, 3, 9, 11});
    Fit chunks{33, 330, 9, 14, 15};
    chunks.bf16 = true;
    same_as_cpu("two chunks, nine classes, bf16", chunks);
    same_as_cpu("more tiles than blocks", {17, 20, 2, 40, 50});
    Fit many{12, 10, 2, 3, 5};
    many.maps = 37;
    same_as_cpu("many samples", many);
    for (DType dtype : {DType::f16, DType::bf16}) {
        for (bool bf16 : {false, true}) {
            Fit halves{45, 30, 2, 9, 11};
            halves.maps = 2;
            halves.dtype = dtype;
            halves.bf16 = bf16;
            same_as_cpu("features of 16 bits", halves);
        }
    }
    inputs_are_checked();
    divergence();
    scores("scores: three chunks of hidden units", 2, 5, 7, 700, 3, false);
    scores("scores: more cells than are packed at once", 3, 70, 80, 5, 9, true);
    logistic("logistic_fit: many aligned channels", 70, 1100, 3, false);
    logistic("logistic_fit: many channels", 50, 301, 5, false);
    logistic("logistic_fit: a cell that is not finite", 50, 20, 2, true);
    std::printf("%d failed\n", failed);
    return failed == 0 ? 0 : 1;
}
