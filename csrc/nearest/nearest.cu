// nearest is a matrix product of which only maxima are kept: 3,600 rows times 3,600 cells of 1,024 channels are
// 26.5 GFLOP over 15 MB (bfloat16) or 29 MB (float32) of operands, so the units that multiply are the limit, if
// nothing else is in their way. Rows and cells become unit vectors first, in the layout of packed.cuh: two small
// memory-bound launches for the rows, which packed rows save, and one for the cells. Then 128 x 256 tiles by the
// tensor cores, 435 blocks of them, or 128 x 128 in float32, 841; smaller ones where those would not fill the
// device.
#include "nearest/products.cuh"

namespace fsseg {
namespace cuda {

using namespace nearest_op;

namespace {

constexpr int64_t most_cell_bytes = 256 << 20; // packed at once; more pictures go in turns

template <bool BF16>
void enqueue_rows(const RowsView &rows, const int64_t *group, int64_t groups, const Rows &to) {
    Context &context = current();
    int *member = context.scratch_of<int>(static_cast<int64_t>(to.panels) * panel);
    int *next = context.scratch_of<int>(groups);
    launch(arrange, dim3(1), dim3(arranging), 0, group, rows.rows, static_cast<int>(groups),
           to.panels, to.group, member, next, context.report());
    launch(pack_rows<BF16>, dim3(static_cast<unsigned>(to.panels)), dim3(row_threads), 0, rows,
           static_cast<const int *>(member), to.chunks, to.data, context.report());
}

void enqueue_rows(const RowsView &rows, const int64_t *group, int64_t groups, bool bf16,
                  const Rows &to) {
    if (to.panels < 1) { return; }
    bf16 ? enqueue_rows<true>(rows, group, groups, to)
         : enqueue_rows<false>(rows, group, groups, to);
}

int64_t blocks_of(const Problem &problem, int rows, int cells) {
    return static_cast<int64_t>(divided_up(problem.rows.tiles, rows)) *
           divided_up(problem.cell_tiles, cells);
}

template <class S, class Kernel> void enqueue_tiles(Kernel kernel, const Problem &problem) {
    const int stages = current().capability >= 80 ? S::most_stages : 2; // sm_75: 64 KB, no copies
    const size_t shared = static_cast<size_t>(stages) * (S::rows + S::cells) * chunk_bytes;
    const int row_blocks = static_cast<int>(divided_up(problem.rows.tiles, S::rows));
    launch(kernel, dim3(static_cast<unsigned>(blocks_of(problem, S::rows, S::cells))),
           dim3(S::threads), shared, problem, row_blocks, stages);
}

void enqueue_products(const Problem &problem, bool bf16) {
    const int64_t enough = current().processors;
    if (bf16) {
        if (blocks_of(problem, Bf16Large::rows, Bf16Large::cells) >= enough) {
            enqueue_tiles<Bf16Large>(bf16_products<Bf16Large>, problem);
        } else {
            enqueue_tiles<Bf16Small>(bf16_products<Bf16Small>, problem);
        }
    } else if (blocks_of(problem, Fp32Large::rows, Fp32Large::cells) >= enough) {
        enqueue_tiles<Fp32Large>(fp32_products<Fp32Large>, problem);
    } else {
        enqueue_tiles<Fp32Small>(fp32_products<Fp32Small>, problem);
    }
}

template <class T> void enqueue(const NearestArgs &args, Planes<T> f, const Rows &rows) {
    Context &context = current();
    const int64_t tiles = divided_up(f.pixels, tile);
    const int64_t picture = tiles * rows.chunks * chunk_bytes;
    const int64_t turn = min(f.batch, max(most_cell_bytes / picture, static_cast<int64_t>(1)));
    char *cells = static_cast<char *>(context.scratch(static_cast<size_t>(turn * picture)));
    const unsigned strips = static_cast<unsigned>(tiles * (tile / cell_strip));
    for (int64_t b = 0; b < args.features.batch; b += turn) {
        const int64_t n = min(turn, args.features.batch - b);
        Planes<T> part = f;
        part.data += b * f.batch_stride;
        part.batch = n;
        float *out = args.out + b * args.groups * f.pixels;
        launch(args.bf16 ? pack_cells<T, true> : pack_cells<T, false>,
               dim3(static_cast<unsigned>(n * strips)), dim3(cell_threads), 0, part, strips,
               rows.chunks, cells, args.groups, out, context.report());
        if (rows.panels < 1) { continue; }
        const Problem problem{
            rows,        cells, static_cast<int>(n * tiles), static_cast<int>(tiles), f.pixels,
            args.groups, out};
        enqueue_products(problem, args.bf16);
    }
}

} // namespace

Status nearest(const NearestArgs &args) {
    const PlaneView &f = args.features;
    if (f.batch < 1 || f.height * f.width < 1) { return Status::ok; }
    void *packed = const_cast<void *>(args.packed); // only read
    if (packed == nullptr) {
        const Rows shape = rows_at(nullptr, args.rows, args.groups, args.bf16);
        packed = current().scratch(static_cast<size_t>(shape.bytes));
        enqueue_rows(args.rows, args.group, args.groups, args.bf16,
                     rows_at(packed, args.rows, args.groups, args.bf16));
    }
    const Rows rows = rows_at(packed, args.rows, args.groups, args.bf16);
    with_type(f.dtype, [&](auto zero) {
        enqueue(args, planes_of<decltype(zero)>(f), rows);
        return 0;
    });
    return Status::ok;
}

Status nearest_pack(const NearestPackArgs &args) {
    const Rows rows = rows_at(args.packed, args.rows, args.groups, args.bf16);
    *args.bytes = rows.bytes;
    if (args.packed != nullptr) {
        enqueue_rows(args.rows, args.group, args.groups, args.bf16, rows);
    }
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
