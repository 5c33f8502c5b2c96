// The two large products in float32, from features that are packed once per call:
//
//   forward   z[cell, unit] = sum_c x[cell, c] w[c, unit]
//   backward  g[c, unit]    = sum_cells x[cell, c] dz[cell, unit]
//
// Both are the same loop: `tile_rows` numbers of x that lie side by side, each times two vectors of
// units, into tile_rows x 2 vectors of sums in registers. For that x lies in panels of tile_rows
// cells, [padded_channels][tile_rows]: forward takes the cells of one channel, backward the channels of
// one cell. With ROUND the inputs are rounded to bfloat16: what a processor without instructions for
// it does.
#pragma once

#include "online_mlp/plan.h"

namespace fsseg {
namespace FSSEG_NS {

#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_NEON)
constexpr int tile_rows = 12; // 24 of 32 registers are sums
#elif defined(FSSEG_SIMD_AVX2)
constexpr int tile_rows = 6; // 12 of 16
#else
constexpr int tile_rows = 4;
#endif

// z [tile_rows][panel_units] (+)= x [n][tile_rows] times w [n][panel_units].
template <int VECTORS>
static void tile_forward(const float *x, const float *w, int64_t n, bool more, float *z) {
    vf sums[tile_rows][VECTORS];
    for (int r = 0; r < tile_rows; ++r) {
        for (int v = 0; v < VECTORS; ++v) {
            sums[r][v] = more ? load(z + r * panel_units + v * lanes) : zero();
        }
    }
    for (int64_t c = 0; c < n; ++c, x += tile_rows, w += panel_units) {
        vf weight[VECTORS];
        for (int v = 0; v < VECTORS; ++v) {
            weight[v] = load(w + v * lanes);
            keep(weight[v]);
        }
        for (int r = 0; r < tile_rows; ++r) {
            vf value = set1(x[r]);
            keep(value);
            for (int v = 0; v < VECTORS; ++v) { sums[r][v] = fma(value, weight[v], sums[r][v]); }
        }
    }
    for (int r = 0; r < tile_rows; ++r) {
        for (int v = 0; v < VECTORS; ++v) { store(z + r * panel_units + v * lanes, sums[r][v]); }
    }
}

// g [tile_rows][panel_units] (+)= x [panels of cells][tile_rows channels][tile_rows cells] times
// dz [cells][panel_units].
template <int VECTORS> static void tile_backward(const float *x, int64_t panel_stride,
                                                 const float *dz, int64_t panels, bool more,
                                                 float *g) {
    vf sums[tile_rows][VECTORS];
    for (int r = 0; r < tile_rows; ++r) {
        for (int v = 0; v < VECTORS; ++v) {
            sums[r][v] = more ? load(g + r * panel_units + v * lanes) : zero();
        }
    }
    for (int64_t p = 0; p < panels; ++p, x += panel_stride) {
        for (int64_t i = 0; i < tile_rows; ++i, dz += panel_units) {
            vf delta[VECTORS];
            for (int v = 0; v < VECTORS; ++v) {
                delta[v] = load(dz + v * lanes);
                keep(delta[v]);
            }
            for (int r = 0; r < tile_rows; ++r) {
                vf value = set1(x[r * tile_rows + i]);
                keep(value);
                for (int v = 0; v < VECTORS; ++v) { sums[r][v] = fma(value, delta[v], sums[r][v]); }
            }
        }
    }
    for (int r = 0; r < tile_rows; ++r) {
        for (int v = 0; v < VECTORS; ++v) { store(g + r * panel_units + v * lanes, sums[r][v]); }
    }
}

template <bool ROUND> struct Fp32 {
    static constexpr int64_t panel = tile_rows, channel_multiple = tile_rows;
    static constexpr int64_t strip_channels = 48; // whose gradients stay in the second-level cache
    static constexpr int64_t forward_channels = 256; // of a panel of weights: first-level cache
    static constexpr int64_t backward_panels = 252 / tile_rows; // of cells, likewise

    // One cache line more than the panel: or else panels share a few sets of the caches.
    static int64_t panel_stride(const Plan &plan) {
        return round_up(plan.padded_channels * panel, 16) + 16;
    }
    static int64_t feature_bytes(const Plan &plan, int64_t cells) {
        return divide_up(cells, panel) * panel_stride(plan) * static_cast<int64_t>(sizeof(float));
    }
    static int64_t weight_bytes(const Plan &plan) {
        return ROUND ? plan.width * plan.padded_channels * static_cast<int64_t>(sizeof(float)) : 0;
    }
    static int64_t delta_bytes(const Plan &plan, int64_t cells) {
        return plan.width * cells * static_cast<int64_t>(sizeof(float));
    }
    static vf rounded(vf x) { return ROUND ? to_bf16(x) : x; }

    // rows [channels][block_cells] of the cells [first, first + cells), whole panels.
    static void pack(const Plan &plan, const float *rows, int64_t first, int64_t cells,
                     void *features) {
        float *to = static_cast<float *>(features) + first / panel * panel_stride(plan);
        for (int64_t i = 0; i < cells; i += panel, to += panel_stride(plan)) {
            for (int64_t c = 0; c < plan.padded_channels; ++c) {
                for (int j = 0; j < tile_rows; j += lanes) {
                    const int n = tile_rows - j < lanes ? tile_rows - j : lanes;
                    const vf x =
                        c < plan.channels ? load_n(rows + c * block_cells + i + j, n) : zero();
                    store_n(to + c * panel + j, rounded(x), n);
                }
            }
        }
    }

    // Of the channels [first, first + count), after they changed.
    static void take_weights(const Plan &plan, const float *weights, int64_t first, int64_t count,
                             void *copy) {
        if (!ROUND) { return; }
        for (int64_t p = 0; p < plan.panels; ++p) {
            const int64_t at = (p * plan.padded_channels + first) * panel_units;
            for (int64_t i = at; i < at + count * panel_units; i += lanes) {
                store(static_cast<float *>(copy) + i, to_bf16(load(weights + i)));
            }
        }
    }

    // z [panels][block_cells][panel_units] of the cells [first, first + cells).
    static void forward(const Plan &plan, const void *features, const float *weights,
                        const void *copy, int64_t first, int64_t cells, float *z) {
        const float *from =
            static_cast<const float *>(features) + first / panel * panel_stride(plan);
        const float *w = ROUND ? static_cast<const float *>(copy) : weights;
        for (int64_t c = 0; c < plan.channels; c += forward_channels) {
            const int64_t n = smaller(forward_channels, plan.channels - c);
            for (int64_t p = 0; p < plan.panels; ++p) {
                const float *at = w + (p * plan.padded_channels + c) * panel_units;
                for (int64_t i = 0; i < cells; i += panel) {
                    const float *x = from + i / panel * panel_stride(plan) + c * panel;
                    float *to = z + (p * block_cells + i) * panel_units;
                    if (whole_panel(plan, p)) {
                        tile_forward<2>(x, at, n, c > 0, to);
                    } else {
                        tile_forward<1>(x, at, n, c > 0, to);
                    }
                }
            }
        }
    }

    // dz, laid out as z, into deltas [panels][all_cells][panel_units].
    static void take_deltas(const Plan &plan, const float *dz, int64_t first, int64_t cells,
                            int64_t all_cells, void *deltas) {
        for (int64_t p = 0; p < plan.panels; ++p) {
            const float *from = dz + p * block_cells * panel_units;
            float *to = static_cast<float *>(deltas) + (p * all_cells + first) * panel_units;
            for (int64_t i = 0; i < cells * panel_units; i += lanes) {
                store(to + i, rounded(load(from + i)));
            }
        }
    }

    // g [panels][strip_channels][panel_units] of the channels [first, first + count).
    static void backward(const Plan &plan, const void *features, const void *deltas,
                         int64_t all_cells, int64_t first, int64_t count, float *g) {
        const int64_t all_panels = all_cells / panel, stride = panel_stride(plan);
        for (int64_t q = 0; q < all_panels; q += backward_panels) {
            const int64_t n = smaller(backward_panels, all_panels - q);
            const float *from = static_cast<const float *>(features) + q * stride + first * panel;
            for (int64_t p = 0; p < plan.panels; ++p) {
                const float *dz =
                    static_cast<const float *>(deltas) + (p * all_cells + q * panel) * panel_units;
                for (int64_t c = 0; c < count; c += tile_rows) {
                    float *to = g + (p * strip_channels + c) * panel_units;
                    if (whole_panel(plan, p)) {
                        tile_backward<2>(from + c * panel, stride, dz, n, q > 0, to);
                    } else {
                        tile_backward<1>(from + c * panel, stride, dz, n, q > 0, to);
                    }
                }
            }
        }
    }
};

} // namespace FSSEG_NS
} // namespace fsseg
