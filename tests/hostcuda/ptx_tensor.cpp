/* ptx_tensor.cpp - tensor-core instructions: ldmatrix, stmatrix, movmatrix, mma.sync, wgmma. */
#include "ptx_address.h"

namespace hostcuda {

namespace {

/* mode: transposed */
void run_ldmatrix(Frame &f, const Inst &i)
{
    uint32_t r[4];
    ldmatrix(r, i.lanes, i.mode, address_of(f, i, i.a, IN_SHARED), f.at(i));
    for (int k = 0; k < i.lanes; k++) f.set<uint32_t>(f.list(i)[k], r[k]);
}
void run_stmatrix(Frame &f, const Inst &i)
{
    uint32_t r[4];
    for (int k = 0; k < i.lanes; k++) r[k] = f.get<uint32_t>(f.list(i)[k]);
    stmatrix(r, i.lanes, i.mode, address_of(f, i, i.a, IN_SHARED), f.at(i));
}
void decode_matrix(const Words &w, Inst &i, bool load)
{
    size_t memory = load ? 1 : 0;
    if (!w.has("m8n8") || w.type.bits != 16 || w.arg.size() != 2 || state_of(w) != IN_SHARED)
        return;
    w.list_begin(i);
    i.lanes = (uint8_t)w.append(1 - memory);
    i.a = w.slot(memory);
    i.offset = w.arg[memory].offset;
    i.mode = w.has("trans");
    i.run = load ? run_ldmatrix : run_stmatrix;
}
void decode_ldmatrix(const Words &w, Inst &i) { decode_matrix(w, i, true); }
void decode_stmatrix(const Words &w, Inst &i) { decode_matrix(w, i, false); }

void run_movmatrix(Frame &f, const Inst &i)
{
    uint32_t d;
    movmatrix(&d, f.get<uint32_t>(i.a), f.at(i));
    f.set<uint32_t>(i.d, d);
}
void decode_movmatrix(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = w.has("trans") ? run_movmatrix : nullptr;
}

/* bytes: MmaType; mode: depth; lists: d (4), a, b, c (4); lanes: registers of a, twice b's */
void run_mma(Frame &f, const Inst &i)
{
    const int *slot = f.list(i);
    uint32_t a[4], b[2];
    float c[4], d[4];
    int n_b = i.lanes / 2;
    for (int k = 0; k < i.lanes; k++) a[k] = f.get<uint32_t>(slot[4 + k]);
    for (int k = 0; k < n_b; k++) b[k] = f.get<uint32_t>(slot[4 + i.lanes + k]);
    for (int k = 0; k < 4; k++) c[k] = f.get<float>(slot[4 + i.lanes + n_b + k]);
    mma((MmaType)i.bytes, i.mode, d, a, b, c, f.at(i));
    for (int k = 0; k < 4; k++) f.set<float>(slot[k], d[k]);
}

int mma_type(const Words &w)
{
    return w.has("bf16") ? (int)MmaType::BF16 : w.has("tf32") ? (int)MmaType::TF32
                                              : w.has("f16") ? (int)MmaType::F16 : -1;
}

/* mma.sync.aligned.m16n8k<depth>.row.col.f32.<type>.<type>.f32 */
void decode_mma(const Words &w, Inst &i)
{
    int shape = w.choice({"m16n8k4", "m16n8k8", "m16n8k16"}), type = mma_type(w);
    size_t n = w.op.size();
    if (shape < 0 || type < 0 || n != 10 || w.op[6] != "f32" || w.op[9] != "f32") return;
    if (w.op[7] != w.op[8] || !w.has("row") || !w.has("col") || w.arg.size() != 4) return;
    i.mode = (uint16_t)(4 << shape);
    i.bytes = (uint8_t)type;
    w.list_begin(i);
    if (w.append(0) != 4) return;
    i.lanes = (uint8_t)w.append(1);
    int n_b = w.append(2);
    bool tf32 = type == (int)MmaType::TF32;
    if (i.lanes != i.mode / (tf32 ? 2 : 4) || n_b != i.lanes / 2 || w.append(3) != 4) return;
    i.run = run_mma;
}

/* ---- wgmma --------------------------------------------------------------------------------- */
void run_wgmma_fence(Frame &f, const Inst &i) { wgmma_fence(f.at(i)); }
void run_wgmma_commit(Frame &f, const Inst &i) { wgmma_commit(f.at(i)); }
void run_wgmma_wait(Frame &f, const Inst &i) { wgmma_wait(f.get<int>(i.a), f.at(i)); }

enum { A_IN_REGISTERS = 1 };
/* lists: d (lanes), then a (4) or its descriptor; b, scale-d; scale-a, scale-b; transposes of a, b.
 * bytes: MmaType. */
void run_wgmma(Frame &f, const Inst &i)
{
    float d[128];
    uint32_t a[4];
    const int *slot = f.list(i), *rest = slot + i.lanes;
    Wgmma op{};
    op.type = (MmaType)i.bytes;
    op.n = 2 * i.lanes;
    op.d = d;
    for (int k = 0; k < i.lanes; k++) d[k] = f.get<float>(slot[k]);
    if (i.mode & A_IN_REGISTERS) {
        for (int k = 0; k < 4; k++) a[k] = f.get<uint32_t>(rest[k]);
        op.a = a;
        rest += 4;
    } else {
        op.desc_a = f.get<uint64_t>(*rest++);
    }
    op.desc_b = f.get<uint64_t>(rest[0]);
    op.scale_d = f.slot[rest[1]] & 1;
    op.scale_a = f.get<int>(rest[2]);
    op.scale_b = f.get<int>(rest[3]);
    op.transpose_a = f.get<int>(rest[4]);
    op.transpose_b = f.get<int>(rest[5]);
    wgmma(op, f.at(i));
    for (int k = 0; k < i.lanes; k++) f.set<float>(slot[k], d[k]);
}

/* wgmma.mma_async.sync.aligned.m64n<N>k<8|16>.f32.<type>.<type>
 *   {d}, a (descriptor or {a}), b (descriptor), scale-d, scale-a, scale-b [, transpose-a],
 *   transpose-b */
void decode_wgmma_mma(const Words &w, Inst &i)
{
    int type = mma_type(w);
    if (w.op.size() != 8 || w.arg.size() < 6 || type < 0 || w.op[5] != "f32") return;
    w.list_begin(i);
    i.lanes = (uint8_t)w.append(0);
    i.bytes = (uint8_t)type;
    bool registers = w.arg[1].vector, tf32 = type == (int)MmaType::TF32;
    i.mode = registers ? A_IN_REGISTERS : 0;
    std::string shape = "m64n" + std::to_string(2 * i.lanes) + (tf32 ? "k8" : "k16");
    if (w.op[4] != shape || w.append(1) != (registers ? 4 : 1)) return;
    for (size_t k = 2; k < 6; k++) w.append(k);
    if (tf32) { /* has no transposes */
        w.function.lists.insert(w.function.lists.end(), 2, SLOT_ZERO);
    } else if (registers) {
        w.function.lists.push_back(SLOT_ZERO);
        w.append(6);
    } else {
        w.append(6);
        w.append(7);
    }
    i.run = run_wgmma;
}

void decode_wgmma(const Words &w, Inst &i)
{
    if (w.has("fence")) {
        i.run = run_wgmma_fence;
    } else if (w.has("commit_group")) {
        i.run = run_wgmma_commit;
    } else if (w.has("wait_group")) {
        i.a = w.slot(0);
        i.run = run_wgmma_wait;
    } else if (w.has("mma_async")) {
        decode_wgmma_mma(w, i);
    }
}

const OpRow rows[] = {
    {"ldmatrix", ANY, decode_ldmatrix},   {"stmatrix", ANY, decode_stmatrix},
    {"movmatrix", ANY, decode_movmatrix}, {"mma", ANY, decode_mma},
    {"wgmma", ANY, decode_wgmma},
};

} // namespace

OpTable tensor_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
