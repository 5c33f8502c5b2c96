// What the ladders have in common: random inputs, checks against double, times, a table and JSON.
//
// A ladder is a list of steps that compute the same. All of them are checked before one is timed: the result
// is filled with NaN, made, and compared. In the emulation (tests/cuda/ladder.sh) that is all.
#pragma once

#include "cuda/context.h"
#include "cuda/elements.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace ladder {

using fsseg::cuda::check;

#ifdef FSSEG_CUDA_EMULATED
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

// ---- values ----

inline float wide(float x) { return x; }
inline float wide(__half x) { return __half2float(x); }
inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline __half narrow<__half>(float x) { return __float2half_rn(x); }
template <> inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

template <class T> constexpr fsseg::DType dtype_of = fsseg::DType::f32;
template <> constexpr fsseg::DType dtype_of<__half> = fsseg::DType::f16;
template <> constexpr fsseg::DType dtype_of<__nv_bfloat16> = fsseg::DType::bf16;
template <class T> constexpr const char *name_of = "fp32";
template <> constexpr const char *name_of<__half> = "fp16";
template <> constexpr const char *name_of<__nv_bfloat16> = "bf16";

// Uniform in [low, high), rounded to T: what every step reads is then exactly what the reference reads.
template <class T> std::vector<T> random_values(size_t n, double low, double high, uint64_t seed) {
    std::vector<T> values(n);
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (T &value : values) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const double part = static_cast<double>(state >> 40) / double(1 << 24);
        value = narrow<T>(static_cast<float>(low + (high - low) * part));
    }
    return values;
}
template <class T> std::vector<double> doubles(const std::vector<T> &values) {
    std::vector<double> result(values.size());
    for (size_t i = 0; i < values.size(); ++i) { result[i] = static_cast<double>(wide(values[i])); }
    return result;
}

// work(i) for i in [0, n), on all cores of the host: references are the slowest part of a ladder.
inline void for_each(int64_t n, const std::function<void(int64_t)> &work) {
    const int64_t count = emulated ? 1 : std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (int64_t t = 0; t < count; ++t) {
        threads.emplace_back([=, &work] {
            for (int64_t i = t; i < n; i += count) { work(i); }
        });
    }
    for (std::thread &thread : threads) { thread.join(); }
}

// ---- memory of the device ----

template <class T> class Device {
  public:
    explicit Device(size_t n) : n_(n) {
        check(cudaMalloc(reinterpret_cast<void **>(&data_), std::max<size_t>(n, 1) * sizeof(T)),
              "cudaMalloc");
    }
    explicit Device(const std::vector<T> &values) : Device(values.size()) {
        check(cudaMemcpyAsync(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice),
              "copy");
        check(cudaDeviceSynchronize(), "copy");
    }
    ~Device() { cudaFree(data_); }
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;
    T *data() const { return data_; }
    size_t size() const { return n_; }

  private:
    T *data_ = nullptr;
    size_t n_;
};

// ---- a ladder ----

// What a step writes. scale: what errors are relative to.
struct Expected {
    const float *result; // of the device
    std::vector<double> values;
    double scale, tolerance;
    bool mean = false; // the root of the mean square counts, not the largest error
};

struct Step {
    std::string name;
    std::function<void()> enqueue;
    const Expected *expected; // null: only timed
    double flops;             // 0: those of the case
};

struct Case {
    std::string name, dtype;
    double bytes; // the fewest that must move: each input and each result once
    double flops;
};

class Ladder {
  public:
    Ladder(const char *op, int argc, char **argv) : op_(op) {
        for (int i = 1; i + 1 < argc; i += 2) {
            const std::string name = argv[i];
            if (name == "--json") {
                json_ = argv[i + 1];
            } else if (name == "--peak") {
                peak_ = atof(argv[i + 1]);
            } else if (name == "--runs") {
                runs_ = std::max(1, atoi(argv[i + 1]));
            } else {
                usage(argv[0]);
            }
        }
        if (argc % 2 == 0) { usage(argv[0]); }
        check(cudaSetDevice(0), "cudaSetDevice");
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
        context_ = new fsseg::cuda::Context(0, stream_);
        if (!emulated) { measure_copies(); }
    }
    ~Ladder() {
        delete context_;
        cudaStreamDestroy(stream_);
    }
    Ladder(const Ladder &) = delete;
    Ladder &operator=(const Ladder &) = delete;

    // Work that is not a part of any step.
    template <class Work> void prepare(Work &&work) {
        const fsseg::cuda::Scope scope(*context_);
        work();
        check(cudaStreamSynchronize(stream_), "prepare");
    }

    void climb(const Case &c, const std::vector<Step> &steps) {
        printf("%s %s %s\n", op_.c_str(), c.name.c_str(), c.dtype.c_str());
        std::vector<double> errors;
        for (const Step &step : steps) { errors.push_back(error_of(step)); }
        if (failed_) { return; } // wrong results have no times
        double first = 0.0;
        for (size_t i = 0; i < steps.size(); ++i) {
            Times times{0.0, 0.0};
            if (!emulated) { times = times_of(steps[i]); }
            if (i == 0) { first = times.cold; }
            report(c, steps[i], static_cast<int>(i) + 1, errors[i], times, first);
        }
    }

    // The program's exit status.
    int finish() {
        if (!json_.empty() && !failed_) { write_json(); }
        printf(failed_ ? "FAILED\n" : "every step agrees with the reference\n");
        return failed_ ? 1 : 0;
    }

  private:
    struct Times {
        double cold, warm; // microseconds
    };

    static void usage(const char *program) {
        fprintf(stderr, "usage: %s [--json FILE] [--peak TFLOPS] [--runs N]\n", program);
        exit(2);
    }

    void enqueue(const Step &step) {
        const fsseg::cuda::Scope scope(*context_);
        step.enqueue();
    }

    // The largest error relative to the tolerance.
    double error_of(const Step &step) {
        if (step.expected == nullptr) { return 0.0; }
        const Expected &expected = *step.expected;
        const size_t n = expected.values.size(), bytes = n * sizeof(float);
        std::vector<float> result(n);
        check(cudaMemsetAsync(const_cast<float *>(expected.result), 0xff, bytes, stream_),
              "memset");
        enqueue(step);
        check(
            cudaMemcpyAsync(result.data(), expected.result, bytes, cudaMemcpyDeviceToHost, stream_),
            "copy");
        check(cudaStreamSynchronize(stream_), step.name.c_str());
        double worst = 0.0, squares = 0.0;
        size_t where = 0;
        for (size_t i = 0; i < n; ++i) {
            const double d = fabs(static_cast<double>(result[i]) - expected.values[i]);
            squares += d * d;
            if (!(d <= worst)) { // NaN, too
                worst = d;
                where = i;
                if (std::isnan(d)) { break; }
            }
        }
        const double error = expected.mean ? std::sqrt(squares / static_cast<double>(n)) : worst;
        if (!(error <= expected.tolerance * expected.scale)) {
            printf("  WRONG %s: %g at %zu, expected %g; error %g of %g\n", step.name.c_str(),
                   static_cast<double>(result[where]), where, expected.values[where], error,
                   expected.scale);
            failed_ = true;
        }
        if (context_->take_report() != 0) {
            printf("  WRONG %s: reports an input that is not finite\n", step.name.c_str());
            failed_ = true;
        }
        return error / (expected.tolerance * expected.scale);
    }

    void report(const Case &c, const Step &step, int number, double error, const Times &t,
                double first) {
        printf("  %d %-58s %8.1e", number, step.name.c_str(), error);
        if (emulated) {
            printf(" of the tolerance\n");
            return;
        }
        const double flops = step.flops > 0.0 ? step.flops : c.flops;
        const double gigabytes = c.bytes / t.cold / 1e3, teraflops = flops / t.warm / 1e6;
        printf("  cold %9.2f us %6.2fx %8.1f GB/s", t.cold, first / t.cold, gigabytes);
        printf(" %5.1f %% of copy  warm %9.2f us %7.2f TFLOP/s", 100.0 * gigabytes / copy_, t.warm,
               teraflops);
        if (peak_ > 0.0) { printf(" %5.1f %% of peak", 100.0 * teraflops / peak_); }
        printf("\n");
        char row[1024];
        snprintf(row, sizeof row,
                 "{\"case\": \"%s\", \"dtype\": \"%s\", \"step\": %d, \"name\": \"%s\", "
                 "\"error_of_tolerance\": %.3g, \"cold_us\": %.3f, \"warm_us\": %.3f, "
                 "\"bytes\": %.0f, \"flops\": %.0f, \"share_of_copy\": %.4f, "
                 "\"share_of_peak\": %.4f}",
                 c.name.c_str(), c.dtype.c_str(), number, step.name.c_str(), error, t.cold, t.warm,
                 c.bytes, flops, gigabytes / copy_, peak_ > 0.0 ? teraflops / peak_ : 0.0);
        rows_.push_back(row);
    }

    void write_json() const {
        FILE *file = fopen(json_.c_str(), "w");
        if (file == nullptr) {
            perror(json_.c_str());
            exit(2);
        }
        cudaDeviceProp device;
        check(cudaGetDeviceProperties(&device, 0), "device");
        int driver = 0, runtime = 0;
        check(cudaDriverGetVersion(&driver), "version");
        check(cudaRuntimeGetVersion(&runtime), "version");
        fprintf(file, "{\"op\": \"%s\", \"device\": \"%s\", \"driver\": %d, \"runtime\": %d, ",
                op_.c_str(), device.name, driver, runtime);
        fprintf(file, "\"copy_gb_s\": %.1f, \"peak_tflop_s\": %.1f, \"runs\": %d,\n\"rows\": [",
                copy_, peak_, runs_);
        for (size_t i = 0; i < rows_.size(); ++i) {
            fprintf(file, "%s\n%s", i == 0 ? "" : ",", rows_[i].c_str());
        }
        fprintf(file, "\n]}\n");
        fclose(file);
    }

#ifdef FSSEG_CUDA_EMULATED
    void measure_copies() {}
    Times times_of(const Step &) { return {0.0, 0.0}; }
#else
    // The median of `runs_` times between two events, in microseconds; before(), then what is timed.
    template <class Before, class Timed> double median_of(Before &&before, Timed &&timed) {
        cudaEvent_t start, stop;
        check(cudaEventCreate(&start), "event");
        check(cudaEventCreate(&stop), "event");
        std::vector<float> times;
        for (int i = 0; i < runs_; ++i) {
            before();
            check(cudaEventRecord(start, stream_), "event");
            timed();
            check(cudaEventRecord(stop, stream_), "event");
            check(cudaEventSynchronize(stop), "event");
            float milliseconds = 0.0f;
            check(cudaEventElapsedTime(&milliseconds, start, stop), "event");
            times.push_back(milliseconds);
        }
        cudaEventDestroy(start);
        cudaEventDestroy(stop);
        std::nth_element(times.begin(), times.begin() + runs_ / 2, times.end());
        return 1e3 * static_cast<double>(times[static_cast<size_t>(runs_) / 2]);
    }

    // Bytes read and bytes written by a copy from device to device, per second.
    void measure_copies() {
        constexpr size_t bytes = size_t{1} << 29;
        const Device<char> from(bytes), to(bytes);
        const auto copy = [&] {
            check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream_),
                  "copy");
        };
        copy();
        copy_ = 2.0 * static_cast<double>(bytes) / median_of([] {}, copy) / 1e3;
        int cache = 0;
        check(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0), "device");
        flush_bytes_ = std::max<size_t>(2 * static_cast<size_t>(cache), size_t{64} << 20);
        cudaDeviceProp device;
        check(cudaGetDeviceProperties(&device, 0), "device");
        printf("%s, copies at %.0f GB/s, %d MB of L2\n", device.name, copy_, cache >> 20);
    }

    // Cold: once, after a buffer larger than the second-level cache was written. Warm: each of 20 in one
    // graph, one after another.
    Times times_of(const Step &step) {
        constexpr int at_once = 20;
        Times times;
        {
            const Device<char> flush(flush_bytes_);
            times.cold = median_of(
                [&] { check(cudaMemsetAsync(flush.data(), 1, flush.size(), stream_), "memset"); },
                [&] { enqueue(step); });
        }
        cudaGraph_t graph;
        cudaGraphExec_t ready;
        check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
        for (int i = 0; i < at_once; ++i) { enqueue(step); }
        check(cudaStreamEndCapture(stream_, &graph), "capture");
        check(cudaGraphInstantiateWithFlags(&ready, graph, 0), "graph");
        const auto replay = [&] { check(cudaGraphLaunch(ready, stream_), "graph"); };
        replay();
        times.warm = median_of([] {}, replay) / at_once;
        cudaGraphExecDestroy(ready);
        cudaGraphDestroy(graph);
        return times;
    }
#endif

    std::string op_, json_;
    double peak_ = 0.0, copy_ = 0.0;
    int runs_ = 30;
    bool failed_ = false;
    size_t flush_bytes_ = 0;
    cudaStream_t stream_ = nullptr;
    fsseg::cuda::Context *context_ = nullptr;
    std::vector<std::string> rows_;
};

// main: work(ladder) makes the climbs.
template <class Work> int run(const char *op, int argc, char **argv, Work &&work) {
    try {
        Ladder all(op, argc, argv);
        work(all);
        return all.finish();
    } catch (const std::exception &error) {
        fprintf(stderr, "%s: %s\n", op, error.what());
        return 2;
    }
}

} // namespace ladder
