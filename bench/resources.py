#!/usr/bin/env python3
"""Registers, shared memory and occupancy of the CUDA kernels, as LOG.md's table of kernels has them.

    resources.py BUILD            checks that each kernel of a build has a row, and each row a kernel; where the build
                                  is for sm_90a (not EQ_CUDA_FAST) and --values is given, that the numbers are the build's
    resources.py BUILD --write    puts the numbers of the build into the table
    resources.py BUILD --list     every kernel: architecture, registers, static shared memory, name

Registers and static shared memory are read from the cubins in the objects. Occupancy is the share of 64 warps that a
multiprocessor of sm_90 holds: 16384 registers for each quarter, 8 at a time a thread; 227 KiB of shared memory, 1 KiB
of it a block's own; 32 blocks. Rows of several kernels list them in order, or one number for all.
"""
import re
import struct
import subprocess
import sys
from pathlib import Path

KIB = 1024
NORM = 4 * 2 * 8 * (320 + 4)  # room_bytes() of 320 threads, packs of 8


def tile(m, n):
    """Shared memory of a gemm tile: a ring of 4 stages, or the result."""
    return max(4 * (m + n) * 32 * 2, m * (n + 8) * 2)


def gemm(passes, m, n, thin=False, last=()):
    """The kernels of a tile for passes of "fwd dx dw", and what follows."""
    names = [f"gemm_kernel<(GemmPass){['fwd', 'dx', 'dw'].index(p)}, Tile<{m}, {n}, *>, {str(thin).lower()}>"
             for p in passes.split()]
    return [(name, None, tile(m, n)) for name in names] + list(last)


def sweep(*names):
    return [f"sweep_kernel<{name}>" for name in names]


def norm(*kernels):
    """Of the norms' tiles, bf16 in packs of 8."""
    dynamic = {"moments": NORM, "slopes": NORM}
    return [(f"{k.split('/')[0]}_kernel<bf16, 8{', (Act)' + k.split('/')[1] if '/' in k else ''}>", 320,
             dynamic.get(k.split("/")[0], 0)) for k in kernels]


SILU, RELU = "1", "2"
FINISH = "finish_kernel<bf16>"
FINISH32 = "finish_kernel<float>"
MERGE = ("merge_kernel", None, 0)
TOTALS = "column_totals_kernel"
UNARY = ("Silu", "Gelu", "Relu", "QuickGelu", "Mish", "SoftClamp")

# A row of the table: its kernels, each by name or (name, threads where the kernel has no launch bounds and the launch
# has not 256, dynamic shared memory). A kernel stands for the others of its family: of other types, packs and sizes.
ROWS = {
    "add, add_scaled": sweep("8, Add, bf16, *", "8, AddScaled, bf16, *"),
    "scale_shift": sweep("8, ScaleShift, bf16, *"),
    "channel_affine, fp32": sweep("4, ChannelAffine<3>, float, *"),
    "fill, fp32": sweep("4, Fill, float, *"),
    "silu, gelu, relu, quick_gelu, mish, soft_clamp": [f"value_kernel<{f}, bf16>" for f in UNARY],
    "their gradients": [f"slope_kernel<{f}, bf16>" for f in UNARY],
    "add_channel": ["add_channel_kernel<bf16, 8>"],
    "add_channel_dv": ["add_channel_dv_kernel<bf16, float, 8>", "add_channel_dv_kernel<float, bf16, 4>"],
    "add_rows, add_rows_dp": sweep("8, Add, bf16, *") + ["add_rows_dp_kernel<bf16, 4>"],
    "geglu": ["geglu_kernel<bf16, 8>"],
    "geglu_dx": ["geglu_dx_kernel<bf16, 8>"],
    "dropout": ["dropout_kernel<bf16, 8, false>"],
    "weighted_mse, l1, fp32": ["error_part_kernel<Squared, float, 4>", "error_part_kernel<Absolute, float, 4>",
                               "error_sum_kernel"],
    "weighted_mse_dx, l1_dx, fp32": sweep("4, SquaredDx, float, *", "4, AbsoluteDx, float, *"),
    "cross_entropy, dx, fp32": ["row_loss_kernel<float>", "mean_loss_kernel", "cross_entropy_dx_kernel<float>"],
    "clamp, sample_gaussian, their gradients, fp32": sweep(
        "4, Clamp, float, *", "4, ClampDx, float, *", "4, SampleGaussian, float, *", "4, SampleGaussianDlogvar, float, *"),
    "gaussian_kl, gaussian_kl_dx, fp32": ["error_part_kernel<Divergence, float, 4>", "error_sum_kernel"] +
    sweep("4, DivergenceDx, float, *"),
    "mix_samples, mix_samples_dx, fp32": sweep("4, Mix, float, *", "4, MixDx, float, *"),
    "ddim_step, fp32, guided, noise": sweep("4, DdimStep<true, (Noise)1>, float, *"),
    "ddim_step_drawn, fp32, guided": sweep("4, DdimStep<true, (Noise)2>, float, *"),
    "noise_samples, fp32": sweep("4, NoiseSamples, float, *"),
    "timestep_embedding": ["timestep_embedding_kernel<bf16>"],
    "embedding": ["embedding_kernel<bf16, 8>"],
    "embedding_dw": ["embedding_dw_kernel<bf16, 4>"],
    "groupnorm silu, whole groups": [("whole_kernel<bf16, 8, (Act)1>", 384, 14 * 384 * 16)],
    "groupnorm silu": norm("moments") + [MERGE] + norm("apply/" + SILU),
    "groupnorm_dx silu, whole groups": [("whole_dx_kernel<bf16, 8, (Act)1>", 256, 2 * 6 * 256 * 16 + 4 * 2 * 8 * 260),
                                        TOTALS],
    "groupnorm_dx silu": norm("slopes/" + SILU) + [("join_slopes_kernel", None, 3 * 10 * 2 * 4)] +
    norm("combine/" + SILU) + [TOTALS],
    "groupnorm silu, dx, groups of up to 8 values": [("few_kernel<bf16>", 64, 0), ("few_dx_kernel<bf16>", 64, 0), TOTALS],
    "layernorm": [("rows_kernel<bf16, 8, 1, 4>", 256, 0)],
    "layernorm_dx": [("rows_dx_kernel<bf16, 8, 1, 4>", 256, 3 * 2 * 320 * 4), TOTALS],
    "batchnorm_train relu": norm("moments") + [MERGE] + norm("apply/" + RELU),
    "batchnorm relu": [("running_stats_kernel", 128, 0)] + norm("apply/" + RELU),
    "batchnorm_dx relu": norm("slopes/" + RELU) + [("join_slopes_kernel", None, 32 * 2 * 4)] + norm("combine/" + RELU),
    "batchnorm over ranks: moments, gradients": [("join_moments_kernel", 128, 0), ("join_sums_kernel", 128, 0)],
    "concat": ["join_kernel<bf16, 8>"],
    "slice, pad": ["join_kernel<bf16, 8>"],
    "upsample2, upsample2_dx": ["upsample_kernel<bf16, 8>", "upsample_dx_kernel<bf16, 8>"],
    "maxpool, maxpool_dx 3/2": ["maxpool_kernel<bf16, 8>", "maxpool_dx_kernel<bf16, 8>"],
    "avgpool, avgpool_dx 3/1": ["avgpool_kernel<bf16, 8>", "avgpool_dx_kernel<bf16, 8>"],
    "global_avgpool, global_avgpool_dx": ["plane_mean_kernel<bf16, 8>", "plane_mean_dx_kernel<bf16, 8>"],
    "conv2d, linear: 128x160": gemm("fwd", 128, 160),
    "conv2d_dx, linear_dx: 128x160": gemm("dx", 128, 160),
    "conv2d_dw, linear_dw: 160x128, 14 splits": gemm("dw", 160, 128, last=[FINISH32]),
    "conv2d, dx, dw: 128x128": gemm("fwd dx dw", 128, 128),
    "conv2d, dx: 64x160": gemm("fwd dx", 64, 160),
    "conv2d, dx: 64x160, 8 splits": gemm("fwd dx", 64, 160, last=[FINISH]),
    "linear_dw: 160x64, 13 splits": gemm("dw", 160, 64, last=[FINISH32]),
    "conv2d, dx, dw: 64x64": gemm("fwd dx dw", 64, 64),
    "conv2d, dx, dw, thin channels: 64x64": gemm("fwd dx dw", 64, 64, True),
    "conv2d, dx: 128x32": gemm("fwd dx", 128, 32),
    "conv2d, dx: 128x16": gemm("fwd dx", 128, 16),
    "conv2d, dx: 128x8": gemm("fwd dx", 128, 8),
    "conv2d, dx, thin channels: 128x8": gemm("fwd dx", 128, 8, True),
    "conv2d, linear, dx, dw, fp32: 64x64": [f"ffma_kernel<(GemmPass){i}, 64, 64>" for i in range(3)],
    "the same, 16 columns or fewer (dw: rows), fp32: 256x16": [
        f"ffma_kernel<(GemmPass){i}, {size}>" for i, size in enumerate(("256, 16", "256, 16", "16, 256"))],
    "upsample2_fold": ["fold_kernel<bf16>"],
    "upsample2_conv2d: 128x160": gemm("fwd", 128, 160),
    "conv2d_after, vector or residual: 128x160": gemm("fwd", 128, 160),
    "linear_after, residual: 128x160": gemm("fwd", 128, 160),
    "linear_geglu: 128x160": gemm("fwd", 128, 160),
    "differ (is a library's result ours?)": ["differ_kernel<bf16>"],
    "column_sum": ["column_sum_kernel<bf16, 8>"],
    "adamw, average and bf16 copy": ["adamw_kernel"],
    "sgd, bf16 copy": ["sgd_kernel"],
    "sq_norm, fp64 sums": ["squares_kernel", "total_kernel"],
    "grad_norm_finish": [("norm_kernel", 32, 0)],
    "cast to bf16": ["cast_kernel<bf16, float>"],
    "axpy": ["axpy_kernel"],
    "restore": ["restore_kernel"],
    "attention (mma)": [("attention_mma_fwd_kernel<40>", None, 30 * KIB)],
    "attention (mma), 77 keys": [("attention_mma_fwd_kernel<40>", None, 30 * KIB)],
    "attention (mma), heads of 80": [("attention_mma_fwd_kernel<80>", None, 44 * KIB)],
    "attention (mma), heads of 160": [("attention_mma_fwd_kernel<160>", None, 42 * KIB)],
    "attention (wide)": [("attention_wide_kernel", None, 99 * KIB)],
    "attention_bwd (mma, 2 passes and sums)": [("attention_mma_bwd_kernel<40, (Side)0>", None, 21 * KIB),
                                               ("attention_mma_bwd_kernel<40, (Side)1>", None, 21 * KIB),
                                               "attention_sums<bf16, 8>"],
    "attention_bwd (mma), 77 keys": [("attention_mma_bwd_kernel<40, (Side)0>", None, 21 * KIB),
                                     ("attention_mma_bwd_kernel<40, (Side)1>", None, 21 * KIB),
                                     "attention_sums<bf16, 8>"],
    "attention, attention_bwd, fp32": ["attention_fp32_fwd<float, 2>"] +
    [f"attention_fp32_bwd<float, 2, (Grad){i}>" for i in range(3)] + ["attention_sums<float, 1>"],
}


class Kernel:
    def __init__(self, sm, name, registers, shared, threads):
        self.sm, self.name, self.registers, self.shared, self.threads = sm, name, registers, shared, threads


def cubins(path):
    """The ELF files for GPUs in an object."""
    data = path.read_bytes()
    at = data.find(b"\x7fELF", 1)
    while at > 0:
        if struct.unpack_from("<H", data, at + 18)[0] == 190:
            yield data[at:]
        at = data.find(b"\x7fELF", at + 4)


def entries(cubin, section):
    """(attribute, its bytes) of an .nv.info section."""
    at, end = (section[4], section[4] + section[5]) if section else (0, 0)
    while at < end:
        form, what, count = struct.unpack_from("<BBH", cubin, at)
        length = count if form == 4 else 0
        yield what, cubin[at + 4:at + 4 + length]
        at += 4 + length


MAX_THREADS, REGCOUNT = 0x05, 0x2f


def text(cubin, at):
    return cubin[at:cubin.index(b"\0", at)].decode()


def kernels_of(cubin):
    flags, = struct.unpack_from("<I", cubin, 48)
    sm = flags >> 8 & 0xff
    start, = struct.unpack_from("<Q", cubin, 40)
    count, names_at = struct.unpack_from("<HH", cubin, 60)
    sections = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + 64 * i) for i in range(count)]
    by_name = {text(cubin, sections[names_at][4] + s[0]): s for s in sections}
    symbols, strings = by_name[".symtab"][4], by_name[".strtab"][4]
    registers = {}
    for what, value in entries(cubin, by_name[".nv.info"]):
        if what == REGCOUNT:
            symbol, number = struct.unpack("<II", value)
            registers[text(cubin, strings + struct.unpack_from("<I", cubin, symbols + 24 * symbol)[0])] = number
    for name in (n[6:] for n in by_name if n.startswith(".text.")):
        shared = by_name.get(".nv.shared." + name)
        own = KIB if sm >= 90 else 0  # the section has the block's own first
        threads = [struct.unpack_from("<I", v)[0] for w, v in entries(cubin, by_name.get(".nv.info." + name))
                   if w == MAX_THREADS]
        yield Kernel(sm, name, registers[name], shared[5] - own if shared else 0, threads[0] if threads else None)


def read(build):
    objects = sorted(Path(build).glob("CMakeFiles/kernels_cuda.dir/kernels/cuda/*.o"))
    found = [k for o in objects for c in cubins(o) for k in kernels_of(c)]
    if not found:
        sys.exit(f"{build}: no kernels in CMakeFiles/kernels_cuda.dir, expected a build with CUDA")
    plain = subprocess.run(["c++filt"], input="\n".join(k.name for k in found), text=True, capture_output=True,
                           check=True).stdout.split("\n")
    for k, name in zip(found, plain):
        k.name = re.sub(r"^void |\(\w*anonymous namespace\)::|^static ", "", name).replace("__nv_bfloat16", "bf16")
        k.name = re.sub(r"(>|_kernel)\((?!(Act|Noise|GemmPass|Grad|Side)\)).*$", r"\1", k.name)
    return found


def family(name):
    """Without types, numbers and switches; tiles stay."""
    return re.sub(r"(?<=[<, ])(\d+|float|bf16|true|false|\((Act|Grad|Side|Noise)\)\d)(?=[,>])", "", re.sub(
        r"Tile<(\d+), (\d+), [^>]*>", r"Tile\1x\2", name))


def matches(pattern, name):
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name)


def size(bytes_):
    return "0" if not bytes_ else f"{bytes_} B" if bytes_ < KIB else f"{bytes_ / KIB:.1f}".removesuffix(".0") + " KiB"


def occupancy(registers, shared, threads):
    warps = (threads + 31) // 32
    held = 4 * (16384 // ((registers + 7) // 8 * 8 * 32)) // warps
    held = min(held, 64 // warps, 32, 227 * KIB // (shared + KIB))
    return f"{held * warps / 64:.2f}"


def alike(values):
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def columns(entry, kernels):
    """registers, shared, occupancy of a row"""
    out = []
    for want in entry:
        name, threads, dynamic = want if isinstance(want, tuple) else (want, None, 0)
        k = next((k for k in kernels if matches(name, k.name)), None)
        if not k:
            sys.exit(f"no kernel {name} in the build")
        threads = threads or k.threads or 256
        out.append((str(k.registers), size(k.shared + dynamic), occupancy(k.registers, k.shared + dynamic, threads)))
    return [alike(v) for v in zip(*out)]


def names_of(entry):
    return [e[0] if isinstance(e, tuple) else e for e in entry]


def check_rows(kernels, titles):
    shown = [n for entry in ROWS.values() for n in names_of(entry)]
    families = {family(k.name) for k in kernels if any(matches(n, k.name) for n in shown)}
    wrong = [f"kernel without a row: {n}" for n in sorted({family(k.name) for k in kernels} - families)]
    wrong += [f"row without a kernel: {n}" for n in shown if not any(matches(n, k.name) for k in kernels)]
    wrong += [f"LOG.md has no row of {t}" for t in ROWS if t not in titles]
    return wrong + [f"resources.py does not know LOG.md's row of {t}" for t in titles if t not in ROWS]


def main():
    build, options = sys.argv[1], sys.argv[2:]
    log = Path(__file__).parent / "LOG.md"
    lines = log.read_text().split("\n")
    first = next(i for i, l in enumerate(lines) if l.startswith("| kernel | shape |")) + 2
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    cells = [[c.strip() for c in l.strip("|").split("|")] for l in lines[first:last]]
    kernels = read(build)
    if "--list" in options:
        for k in kernels:
            print(k.sm, k.registers, k.shared, k.threads, k.name)
        return 0
    wrong = check_rows(kernels, [c[0] for c in cells])
    mine = [k for k in kernels if k.sm == 90]
    if "--write" in options or "--values" in options:
        if not mine:
            sys.exit(f"{build}: not for sm_90a")
        for i, c in enumerate(cells):
            if c[0] not in ROWS:
                continue
            now = columns(ROWS[c[0]], mine)
            if now != c[5:8] and "--values" in options:
                wrong.append(f"{c[0]}: {' | '.join(c[5:8])}, expected {' | '.join(now)}")
            c[5:8] = now
            lines[first + i] = "| " + " | ".join(c) + " |"
        if "--write" in options:
            log.write_text("\n".join(lines))
    print("\n".join(wrong) or f"{len(cells)} rows, {len({family(k.name) for k in kernels})} kinds of kernels")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
